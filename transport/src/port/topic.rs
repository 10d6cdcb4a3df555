use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use iceoryx2::prelude::CallbackProgression;
use iceoryx2::service::attribute::AttributeSpecifier;
use iceoryx2::service::builder::publish_subscribe::PublishSubscribeOpenError;
use iceoryx2::service::port_factory::{PortFactory as _, publish_subscribe};
use iceoryx2::service::static_config::messaging_pattern::MessagingPattern;

use super::attributes;
use super::ghosts::remove_ghosts;
use super::meter::{Meter, Sent, sent};
use super::node::{Node, clean, services};
use super::service::{Block64, Header, SessionService};
use super::shield::shield;
use super::turn::{Part, Turn};
use super::wake::Board;
use crate::os::Forked;
use crate::pool::{MemoryFacts, PoolError, admit};
use crate::wire::WIRE_VERSION;

/// Processes that may use a topic, besides one for each of its ports: those that only look at it.
pub(super) const ONLOOKERS: usize = 16;
/// What a topic's small files may take. iceoryx2 maps them without asking for the room first: where there is less, its
/// first write would end the process with SIGBUS.
pub(super) const ROOM_FOR_FILES: u64 = 256 * 1024;
const WIRE_KEY: &str = "tensorbus.wire";
const OVERFLOW_KEY: &str = "tensorbus.overflow";
/// Services of topics are called this, followed by the topic's name; other uses of the bus have other beginnings.
const SERVICE_PREFIX: &str = "topic/";

/// What a publisher does when a subscriber's queue is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The subscriber loses its oldest queued message; the publisher never waits. The default.
    #[default]
    DropOldest,
    /// The subscriber does not get the new message; the publisher never waits.
    DropNewest,
    /// The publisher waits up to this long for room, then fails with `Undelivered`. Subscribers that have room get the message
    /// at once; other threads use the publisher meanwhile.
    Block(Duration),
    /// The publisher fails with `Undelivered` at once.
    Error,
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DropOldest => f.write_str("drop-oldest"),
            Self::DropNewest => f.write_str("drop-newest"),
            Self::Block(bound) => write!(f, "block-{}ns", bound.as_nanos()),
            Self::Error => f.write_str("error"),
        }
    }
}

impl FromStr for Overflow {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "drop-oldest" => Ok(Self::DropOldest),
            "drop-newest" => Ok(Self::DropNewest),
            "error" => Ok(Self::Error),
            _ => {
                let nanos = text.strip_prefix("block-").and_then(|rest| rest.strip_suffix("ns")).ok_or(())?;
                Ok(Self::Block(Duration::from_nanos(nanos.parse().map_err(|_| ())?)))
            }
        }
    }
}

/// What the first one to open a topic fixes for all.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TopicSettings {
    /// Messages that wait for a subscriber at most.
    pub depth: usize,
    /// Messages that a late joiner gets.
    pub history: usize,
    /// Messages of one publisher that a subscriber may hold at a time.
    pub max_borrowed: usize,
    /// Publishers at most.
    pub max_publishers: usize,
    /// Subscribers at most.
    pub max_subscribers: usize,
    /// What happens when a queue is full.
    pub overflow: Overflow,
}

/// What one side asks for; what it leaves open it takes as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) depth: Option<usize>,
    pub(crate) history: Option<usize>,
    pub(crate) max_borrowed: Option<usize>,
    pub(crate) max_publishers: Option<usize>,
    pub(crate) max_subscribers: Option<usize>,
    pub(crate) overflow: Option<Overflow>,
}

/// Why a topic cannot be opened, or one of its ports not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The name is not one a topic can have.
    #[error(
        "topic name {name:?} must have 1 to {max} characters out of a-z A-Z 0-9 _ - . /, and not begin or end with /"
    )]
    Name {
        /// The name.
        name: String,
        /// Most characters a name has.
        max: usize,
    },
    /// A setting outside what is possible.
    #[error("{setting} of {value} is outside {min} to {max}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What was asked for.
        value: usize,
        /// The least it can be.
        min: usize,
        /// The most it can be.
        max: usize,
    },
    /// Somebody opened the topic with another setting before.
    #[error(
        "topic {topic:?} exists with {setting} {existing}, this program asks for {requested}; use the same setting in all programs, or leave it open in this one"
    )]
    Mismatch {
        /// The topic.
        topic: String,
        /// The setting that differs.
        setting: &'static str,
        /// What the topic has.
        existing: String,
        /// What was asked for.
        requested: String,
    },
    /// Somebody uses the topic with another wire version.
    #[error("topic {topic:?} speaks wire version {theirs}, this program {ours}; run the same tensorbus on both sides")]
    WireVersion {
        /// The topic.
        topic: String,
        /// Version of the one who made the topic.
        theirs: String,
        /// Version of this program.
        ours: u16,
    },
    /// All places for publishers are taken.
    #[error("topic {topic:?} has all {limit} publishers it allows; raise max_publishers where it is opened first")]
    TooManyPublishers {
        /// The topic.
        topic: String,
        /// Publishers at most.
        limit: usize,
    },
    /// All places for subscribers are taken.
    #[error("topic {topic:?} has all {limit} subscribers it allows; raise max_subscribers where it is opened first")]
    TooManySubscribers {
        /// The topic.
        topic: String,
        /// Subscribers at most.
        limit: usize,
    },
    /// There is no memory for the publisher's slots, or for the topic's small files.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The bus belongs to the process that this one was forked from.
    #[error("this process was forked from the one that opened the bus; open a bus of its own in the child")]
    Forked,
    /// The operating system or iceoryx2 refused.
    #[error("topic {topic:?} could not be opened: {reason}; `tensorbus doctor` tells what the machine lacks")]
    Failed {
        /// The topic.
        topic: String,
        /// What was refused.
        reason: String,
    },
}

impl From<Forked> for TopicError {
    fn from(_: Forked) -> Self {
        Self::Forked
    }
}

pub(super) type PubSub = publish_subscribe::PortFactory<SessionService, [Block64], Header>;

/// A topic's service, which carries the messages, and the board by which those who wait for them are woken.
#[derive(Debug)]
pub(crate) struct OpenTopic {
    pub(super) services: Part<Services>,
    name: String,
    settings: TopicSettings,
}

#[derive(Debug)]
pub(super) struct Services {
    pub(super) pub_sub: PubSub,
    pub(super) board: Arc<Board>,
}

/// What can be seen of a topic from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TopicFacts {
    pub(crate) settings: TopicSettings,
    pub(crate) publishers: Vec<PublisherFacts>,
    pub(crate) subscribers: usize,
}

/// A publisher that has slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PublisherFacts {
    pub(crate) id: u128,
    pub(crate) slots: usize,
    pub(crate) slot_bytes: usize,
    pub(crate) sent: Sent,
}

impl Wishes {
    fn or_default(&self) -> Result<TopicSettings, TopicError> {
        let defaults = TopicSettings {
            depth: 4,
            history: 0,
            max_borrowed: 4,
            max_publishers: 8,
            max_subscribers: 16,
            overflow: Overflow::DropOldest,
        };
        let history = self.history.unwrap_or(defaults.history);
        let settings = TopicSettings {
            depth: self.depth.unwrap_or(defaults.depth.max(history)),
            history,
            max_borrowed: self.max_borrowed.unwrap_or(defaults.max_borrowed),
            max_publishers: self.max_publishers.unwrap_or(defaults.max_publishers),
            max_subscribers: self.max_subscribers.unwrap_or(defaults.max_subscribers),
            overflow: self.overflow.unwrap_or(defaults.overflow),
        };
        for (setting, value, min, max) in [
            ("depth", settings.depth, 1, 4096),
            ("history", settings.history, 0, settings.depth),
            ("max_borrowed", settings.max_borrowed, 1, 4096),
            ("max_publishers", settings.max_publishers, 1, 1024),
            ("max_subscribers", settings.max_subscribers, 1, 1024),
        ] {
            if !(min..=max).contains(&value) {
                return Err(TopicError::Setting { setting, value, min, max });
            }
        }
        Ok(settings)
    }

    /// Whether a topic as it is satisfies what is asked for.
    fn verify(&self, topic: &str, existing: &TopicSettings) -> Result<(), TopicError> {
        let numbers = [
            ("depth", self.depth, existing.depth),
            ("history", self.history, existing.history),
            ("max_borrowed", self.max_borrowed, existing.max_borrowed),
            ("max_publishers", self.max_publishers, existing.max_publishers),
            ("max_subscribers", self.max_subscribers, existing.max_subscribers),
        ];
        let differing = numbers
            .into_iter()
            .filter_map(|(setting, wish, existing)| Some((setting, wish?.to_string(), existing.to_string())))
            .chain(self.overflow.map(|wish| ("overflow", wish.to_string(), existing.overflow.to_string())))
            .find(|(_, wish, existing)| wish != existing);
        match differing {
            Some((setting, requested, existing)) => {
                Err(TopicError::Mismatch { topic: topic.to_owned(), setting, existing, requested })
            }
            None => Ok(()),
        }
    }
}

impl OpenTopic {
    /// Opens the topic, or makes it if nobody has.
    ///
    /// All ports of a bus on a topic share what this gives: it takes descriptors.
    pub(crate) fn open_or_create(node: &Node, name: &str, wishes: &Wishes) -> Result<Arc<Self>, TopicError> {
        check_name(name)?;
        let settings = wishes.or_default()?;
        node.get()?;
        // Places and names that the dead still have are free again.
        clean(node.directory());
        // Before the table: whoever waits for their turn keeps no other thread from waiting for theirs.
        let _turn = Turn::take(node.directory()).map_err(|error| failed(name, error))?;
        let mut open = node.topics().lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = open.get(name).and_then(Weak::upgrade) {
            wishes.verify(name, &topic.settings)?;
            remove_ghosts(node.directory(), node.get()?.config(), &topic.services.get()?.pub_sub);
            return Ok(topic);
        }
        let facts = MemoryFacts::gather(node.directory()).map_err(|error| failed(name, error))?;
        admit(ROOM_FOR_FILES, &facts)?;
        let (pub_sub, is_new) = open_or_create_pub_sub(node, name, &settings)?;
        if !is_new {
            remove_ghosts(node.directory(), node.get()?.config(), &pub_sub);
        }
        let settings = read_settings(name, &pub_sub)?;
        wishes.verify(name, &settings)?;
        let service = service_name(name)?;
        let board = open_board(node, service.as_str(), &settings, is_new)
            .map_err(|error| failed(name, format!("the board of its bells: {error}")))?;
        let services = Part::new(Services { pub_sub, board: Arc::new(board) }, node.directory());
        let topic = Arc::new(Self { services, name: name.to_owned(), settings });
        open.retain(|_, topic| topic.strong_count() > 0);
        open.insert(name.to_owned(), Arc::downgrade(&topic));
        Ok(topic)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn settings(&self) -> &TopicSettings {
        &self.settings
    }

    pub(super) fn failed(&self, reason: impl fmt::Display) -> TopicError {
        failed(&self.name, reason)
    }

    /// In a turn. The meter of a publisher of this topic.
    pub(super) fn meter(&self, publisher: u128) -> Result<Option<Meter>, Forked> {
        let services = self.services.get()?;
        let mut living = Vec::new();
        services.pub_sub.dynamic_config().list_publishers(|publisher| {
            living.push(publisher.publisher_id.value());
            CallbackProgression::Continue
        });
        Ok(Meter::new(&services.board, publisher, &living))
    }
}

impl TopicFacts {
    /// Looks at a topic without taking part in it; `None` if it is gone, or is not one of ours.
    pub(crate) fn look(node: &Node, name: &str) -> Result<Option<Self>, TopicError> {
        let service = service_name(name)?;
        let _turn = Turn::take(node.directory()).map_err(|error| failed(name, error))?;
        let opened = shield(|| -> Result<_, Forked> {
            Ok(node.get()?.service_builder(&service).publish_subscribe::<[Block64]>().user_header::<Header>().open())
        })
        .map_err(|panicked| failed(name, panicked.0))??;
        let Ok(pub_sub) = opened else { return Ok(None) };
        remove_ghosts(node.directory(), node.get()?.config(), &pub_sub);
        let Ok(settings) = read_settings(name, &pub_sub) else { return Ok(None) };
        let board = open_board(node, service.as_str(), &settings, false);
        let mut publishers = Vec::new();
        pub_sub.dynamic_config().list_publishers(|publisher| {
            let id = publisher.publisher_id.value();
            publishers.push(PublisherFacts {
                id,
                slots: publisher.number_of_samples,
                slot_bytes: publisher.max_slice_len.saturating_mul(size_of::<Block64>()),
                sent: board.as_ref().map_or_else(|_| Sent::default(), |board| sent(board, id)),
            });
            CallbackProgression::Continue
        });
        let subscribers = pub_sub.dynamic_config().number_of_subscribers();
        Ok(Some(Self { settings, publishers, subscribers }))
    }

    /// Names of the topics that exist in the session.
    pub(crate) fn names(node: &Node) -> Result<Vec<String>, super::NodeError> {
        let is_topic = |pattern: &MessagingPattern| matches!(pattern, MessagingPattern::PublishSubscribe(_));
        let mut names: Vec<_> = services(node.get()?.config(), is_topic)?
            .iter()
            .filter_map(|service| service.as_str().strip_prefix(SERVICE_PREFIX).map(str::to_owned))
            .collect();
        names.sort();
        Ok(names)
    }
}

fn open_board(node: &Node, service: &str, settings: &TopicSettings, is_new: bool) -> std::io::Result<Board> {
    Board::open(node.directory(), service, settings.max_subscribers, settings.max_publishers, is_new)
}

/// In a turn: nobody else makes or removes the service meanwhile. Says also whether it is new.
fn open_or_create_pub_sub(node: &Node, name: &str, settings: &TopicSettings) -> Result<(PubSub, bool), TopicError> {
    let service = service_name(name)?;
    let builder = || {
        Ok::<_, Forked>(node.get()?.service_builder(&service).publish_subscribe::<[Block64]>().user_header::<Header>())
    };
    let opened = shield(|| Ok::<_, Forked>(builder()?.open())).map_err(|panicked| failed(name, panicked.0))??;
    match opened {
        Ok(service) => return Ok((service, false)),
        Err(PublishSubscribeOpenError::DoesNotExist) => {}
        Err(PublishSubscribeOpenError::IncompatibleTypes) => {
            return Err(failed(name, "something that is not tensorbus, or another version of it, uses this name"));
        }
        Err(error) => return Err(failed(name, format!("{error:?}"))),
    }
    let created = shield(|| {
        Ok::<_, Forked>(
            builder()?
                .enable_safe_overflow(settings.overflow == Overflow::DropOldest)
                .subscriber_max_buffer_size(settings.depth)
                .history_size(settings.history)
                .subscriber_max_borrowed_samples(settings.max_borrowed)
                .max_publishers(settings.max_publishers)
                .max_subscribers(settings.max_subscribers)
                .max_nodes(settings.max_publishers + settings.max_subscribers + ONLOOKERS)
                .create_with_attributes(&attributes(settings)),
        )
    })
    .map_err(|panicked| failed(name, panicked.0))??;
    created.map(|service| (service, true)).map_err(|error| failed(name, format!("{error:?}")))
}

fn read_settings(name: &str, pub_sub: &PubSub) -> Result<TopicSettings, TopicError> {
    let attribute = |key| attributes::read(pub_sub.attributes(), key).unwrap_or_default();
    let theirs = attribute(WIRE_KEY);
    if theirs != WIRE_VERSION.to_string() {
        return Err(TopicError::WireVersion { topic: name.to_owned(), theirs, ours: WIRE_VERSION });
    }
    let overflow = attribute(OVERFLOW_KEY);
    let fixed = pub_sub.static_config();
    Ok(TopicSettings {
        depth: fixed.subscriber_max_buffer_size(),
        history: fixed.history_size(),
        max_borrowed: fixed.subscriber_max_borrowed_samples(),
        max_publishers: fixed.max_publishers(),
        max_subscribers: fixed.max_subscribers(),
        overflow: overflow
            .parse()
            .map_err(|()| failed(name, format!("its overflow policy {overflow:?} is unknown")))?,
    })
}

fn attributes(settings: &TopicSettings) -> AttributeSpecifier {
    attributes::specify([(WIRE_KEY, WIRE_VERSION.to_string()), (OVERFLOW_KEY, settings.overflow.to_string())])
}

/// Most characters of a topic's name, and of a control service's.
pub(super) const MAX_NAME: usize = 128;

pub(super) fn is_legal_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    (1..=MAX_NAME).contains(&name.len()) && name.chars().all(legal) && !name.starts_with('/') && !name.ends_with('/')
}

fn check_name(name: &str) -> Result<(), TopicError> {
    if is_legal_name(name) {
        return Ok(());
    }
    Err(TopicError::Name { name: name.chars().take(2 * MAX_NAME).collect(), max: MAX_NAME })
}

fn service_name(name: &str) -> Result<iceoryx2::service::service_name::ServiceName, TopicError> {
    check_name(name)?;
    iceoryx2::service::service_name::ServiceName::new(&format!("{SERVICE_PREFIX}{name}"))
        .map_err(|error| failed(name, format!("{error:?}")))
}

fn failed(topic: &str, reason: impl fmt::Display) -> TopicError {
    TopicError::Failed { topic: topic.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_survives_its_attribute() {
        let all = [
            Overflow::DropOldest,
            Overflow::DropNewest,
            Overflow::Error,
            Overflow::Block(Duration::from_nanos(1_500_000_001)),
        ];
        for overflow in all {
            assert_eq!(overflow.to_string().parse(), Ok(overflow));
        }
        assert_eq!("block-xns".parse::<Overflow>(), Err(()));
    }

    #[test]
    fn names_are_checked() {
        for good in ["camera", "a/b.c_d-1", &"x".repeat(128)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a b", "ä", "a\0", &"x".repeat(129)] {
            assert!(matches!(check_name(bad), Err(TopicError::Name { .. })), "{bad}");
        }
    }

    #[test]
    fn settings_are_bounded() {
        let wishes = Wishes { depth: Some(2), history: Some(3), ..Wishes::default() };
        assert!(matches!(wishes.or_default(), Err(TopicError::Setting { setting: "history", max: 2, .. })));
        let wishes = Wishes { history: Some(9), ..Wishes::default() };
        assert_eq!(wishes.or_default().unwrap().depth, 9);
        let wishes = Wishes { depth: Some(0), ..Wishes::default() };
        assert!(matches!(wishes.or_default(), Err(TopicError::Setting { setting: "depth", .. })));
    }
}
