use std::any::Any;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use iceoryx2::port::ReceiveError;
use iceoryx2::port::subscriber::{Subscriber, SubscriberCreateError};
use iceoryx2::port::update_connections::UpdateConnections;
use iceoryx2::prelude::CallbackProgression;
use iceoryx2::service::port_factory::PortFactory as _;

use super::alone::Alone;
use super::incoming::{Borrowed, Content, Incoming, Look};
use super::node::Node;
use super::service::{Block64, Header, SessionService};
use super::shield::shield;
use super::tended::Tended;
use super::topic::{OpenTopic, TopicError};
use super::turn::{Part, Turn};
use super::unopened::Unopened;
use super::wake::{self, Ear};
use crate::os::{Forked, keep_from_children};
use crate::wire::Preamble;

/// After so many looks into empty queues iceoryx2 is asked, if a publisher has departed: it lets go of what is left of it. It walks over
/// all places for connections.
const LOOKS_BETWEEN: u32 = 16;

/// The receiving side of a topic: a queue of messages, and the ear by which it is woken; and whatever its user keeps
/// under the same lock.
#[derive(Debug)]
pub(crate) struct Receiver<S> {
    /// The other share is in `tended`.
    ports: Arc<Part<Mutex<Ports<S>>>>,
    tended: Arc<Tended>,
    tended_key: u64,
    /// The ear's descriptor: waiting must not hold the lock.
    wake_up: RawFd,
    topic: Arc<OpenTopic>,
    directory: PathBuf,
    broken: Arc<AtomicBool>,
    /// What the ports live in, and must not outlive.
    _home: Arc<dyn Any + Send + Sync>,
}

#[derive(Debug)]
struct Ports<S> {
    subscriber: Alone<Subscriber<SessionService, [Block64], Header>>,
    ear: Ear,
    /// Threads that sleep, or are about to.
    sleepers: usize,
    incoming: Incoming,
    unopened: Unopened,
    /// Looks into empty queues since iceoryx2 was asked.
    looks: u32,
    state: S,
}

/// A receiver while no other thread uses it.
pub(crate) struct Receiving<'a, S> {
    ports: MutexGuard<'a, Ports<S>>,
    receiver: &'a Arc<Receiver<S>>,
}

/// A message as it came, nothing in it checked but that its slot holds what it says it holds.
///
/// The slot stays ours until this is dropped: it keeps the receiver that it came from registered.
pub(crate) struct Received<S> {
    /// `None` once it is given back.
    borrowed: Option<Borrowed>,
    /// Copied out of shared memory.
    pub(crate) preamble: Preamble,
    pub(crate) publisher: u128,
    payload: *const u8,
    payload_len: usize,
    receiver: Arc<Receiver<S>>,
}

// SAFETY: the pointer is to memory that stays mapped and borrowed until the slot is given back, whatever thread does it.
unsafe impl<S: Send> Send for Received<S> {}
// SAFETY: shared access only reads plain fields and the payload.
unsafe impl<S: Send> Sync for Received<S> {}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReceiveFailure {
    /// As many messages are held as one subscriber may hold. The next one stays queued.
    TooManyHeld,
    Forked,
    Broken(String),
}

impl From<Forked> for ReceiveFailure {
    fn from(_: Forked) -> Self {
        Self::Forked
    }
}

impl<S: Send + 'static> Receiver<S> {
    /// `home` is what `node` and `topic` live in: it is dropped after them.
    pub(crate) fn create(
        node: &Node,
        topic: Arc<OpenTopic>,
        home: Arc<dyn Any + Send + Sync>,
        state: S,
    ) -> Result<Arc<Self>, TopicError> {
        let _turn = Turn::take(node.directory()).map_err(|error| topic.failed(error))?;
        let too_many = || TopicError::TooManySubscribers {
            topic: topic.name().to_owned(),
            limit: topic.settings().max_subscribers,
        };
        let ear = Ear::new(&topic.services.get()?.board, 0..topic.settings().max_subscribers)
            .map_err(|error| topic.failed(format!("a socket to be woken by: {error}")))?
            .ok_or_else(too_many)?;
        let pub_sub = &topic.services.get()?.pub_sub;
        let unopened = Unopened::new(node.directory(), pub_sub);
        let builder = || pub_sub.subscriber_builder().set_degradation_handler(unopened.note());
        let created = shield(|| builder().create());
        // Before another port of this thread takes them for its own, and whatever came of it.
        let mut incoming = Incoming::default();
        incoming.update();
        let subscriber = created.map_err(|panicked| topic.failed(panicked.0))?.map_err(|error| match error {
            SubscriberCreateError::ExceedsMaxSupportedSubscribers => too_many(),
            error => topic.failed(format!("subscriber: {error:?}")),
        })?;
        let wake_up = ear.as_fd().as_raw_fd();
        // SAFETY: used under the mutex that it goes into here.
        let subscriber = unsafe { Alone::new(subscriber) };
        let ports = Ports { subscriber, ear, sleepers: 0, incoming, unopened, looks: 0, state };
        let (ports, broken) = (Arc::new(Part::new(Mutex::new(ports), node.directory())), Arc::default());
        let look = (Arc::clone(&ports), Arc::clone(&broken));
        let tended_key = node.tended().add(move || tend(&look.0, &look.1));
        Ok(Arc::new(Self {
            ports,
            tended: node.tended().clone(),
            tended_key,
            wake_up,
            topic,
            directory: node.directory().to_owned(),
            broken,
            _home: home,
        }))
    }
}

/// Opens connections to new publishers, unless somebody uses the port: that one does it.
fn tend<S>(ports: &Part<Mutex<Ports<S>>>, broken: &AtomicBool) {
    let Ok(ports) = ports.get() else { return };
    let Ok(mut ports) = ports.try_lock() else { return };
    if broken.load(Ordering::Relaxed) {
        return;
    }
    if ports.unopened.are_any() {
        ports.unopened.try_again();
    }
    if shield(|| ports.subscriber.update_connections()).is_err() {
        broken.store(true, Ordering::Relaxed);
    }
    ports.incoming.update();
}

impl<S> Drop for Receiver<S> {
    fn drop(&mut self) {
        if self.ports.get().is_ok() {
            self.tended.remove(self.tended_key);
        }
    }
}

impl<S> Receiver<S> {
    pub(crate) fn topic(&self) -> &OpenTopic {
        &self.topic
    }

    /// Waits until no other thread uses the receiver.
    #[inline]
    pub(crate) fn lock(self: &Arc<Self>) -> Result<Receiving<'_, S>, Forked> {
        Ok(Receiving { ports: self.ports.get()?.lock().unwrap_or_else(PoisonError::into_inner), receiver: self })
    }

    /// Bytes that each slot of this publisher's pool has; `None` if the publisher is gone.
    pub(crate) fn slot_bytes_of(&self, publisher: u128) -> Option<usize> {
        // Asked when a publisher is new: its pool was just opened.
        keep_from_children(&self.directory);
        let mut found = None;
        self.topic.services.get().ok()?.pub_sub.dynamic_config().list_publishers(|details| {
            if details.publisher_id.value() == publisher {
                found = Some(details.max_slice_len.saturating_mul(size_of::<Block64>()));
                return CallbackProgression::Stop;
            }
            CallbackProgression::Continue
        });
        found
    }

    /// Sleeps until a wake-up is pending or the time is over. Returns whether one is pending.
    pub(crate) fn wait(&self, bound: Duration) -> Result<bool, ReceiveFailure> {
        self.ports.get()?;
        wake::wait(self.as_fd(), bound).map_err(|errno| ReceiveFailure::Broken(format!("poll: {errno}")))
    }

    /// Lies down: from here on, a message wakes. Whoever does look for messages once more before waiting.
    pub(crate) fn lie_down(self: &Arc<Self>) -> Result<Asleep<'_, S>, ReceiveFailure> {
        let Receiving { mut ports, .. } = self.lock()?;
        ports.ear.lie_down();
        ports.sleepers += 1;
        Ok(Asleep { receiver: self })
    }

    /// Takes pending wake-ups away and asks for new ones, until the next message is taken after a sleep.
    pub(crate) fn arm(self: &Arc<Self>) -> Result<(), ReceiveFailure> {
        let Receiving { ports, .. } = self.lock()?;
        ports.ear.drain().map_err(|errno| ReceiveFailure::Broken(format!("socket: {errno}")))?;
        ports.ear.lie_down();
        Ok(())
    }

    /// Takes all pending wake-ups away.
    pub(crate) fn drain(self: &Arc<Self>) -> Result<(), ReceiveFailure> {
        let Receiving { ports, .. } = self.lock()?;
        ports.ear.drain().map_err(|errno| ReceiveFailure::Broken(format!("socket: {errno}")))
    }
}

/// A receiver that asked to be woken. Dropping it gets up.
pub(crate) struct Asleep<'a, S> {
    receiver: &'a Arc<Receiver<S>>,
}

impl<S> Drop for Asleep<'_, S> {
    fn drop(&mut self) {
        let Ok(Receiving { mut ports, .. }) = self.receiver.lock() else { return };
        ports.sleepers -= 1;
        if ports.sleepers == 0 {
            ports.ear.get_up();
        } else {
            // The wake-up that came was for one of several: the others want one of their own.
            ports.ear.lie_down();
        }
    }
}

impl<S> Receiving<'_, S> {
    /// What the user of the receiver keeps.
    pub(crate) fn state(&mut self) -> &mut S {
        &mut self.ports.state
    }

    /// Takes the oldest message out of the queue.
    #[inline]
    pub(crate) fn receive(&mut self) -> Result<Option<Received<S>>, ReceiveFailure> {
        let Self { ports, receiver } = self;
        if receiver.broken.load(Ordering::Relaxed) {
            return Err(ReceiveFailure::Broken("the port broke at an earlier call".to_owned()));
        }
        let content = match shield(|| ports.look()) {
            Ok(Look::Message(content)) => content,
            Ok(Look::Nothing) => return Ok(None),
            Ok(Look::TooManyHeld) => return Err(ReceiveFailure::TooManyHeld),
            Ok(Look::Unknown) => match ports.receive_by_iceoryx(receiver)? {
                Some(content) => content,
                None => return Ok(None),
            },
            Err(panicked) => {
                receiver.broken.store(true, Ordering::Relaxed);
                return Err(ReceiveFailure::Broken(panicked.0));
            }
        };
        let Content { borrowed, preamble, publisher, payload, payload_len } = content;
        // A length that no memory has must not become a slice, however short its life.
        let payload = if payload_len > isize::MAX as usize { std::ptr::null() } else { payload };
        let receiver = Arc::clone(receiver);
        Ok(Some(Received { borrowed: Some(borrowed), preamble, publisher, payload, payload_len, receiver }))
    }
}

impl<S> Ports<S> {
    #[inline]
    fn look(&mut self) -> Look {
        if self.unopened.are_any() {
            self.unopened.try_again();
        }
        // Opens connections to new publishers; costs one load while there are none.
        let _ = self.subscriber.update_connections();
        self.incoming.update();
        let look = self.incoming.look();
        if !matches!(look, Look::Nothing) {
            return look;
        }
        self.looks = (self.looks + 1) % LOOKS_BETWEEN;
        if self.looks == 0 && self.incoming.any_departed() { Look::Unknown } else { look }
    }

    /// Lets iceoryx2 look: it knows the pool of a new publisher, and lets go of what departed ones have left.
    #[cold]
    fn receive_by_iceoryx(&mut self, receiver: &Receiver<S>) -> Result<Option<Content>, ReceiveFailure> {
        let received = shield(|| self.subscriber.receive());
        self.incoming.update();
        match received {
            Ok(Ok(Some(sample))) => Ok(self.incoming.adopt(sample)),
            Ok(Ok(None)) => Ok(None),
            Ok(Err(ReceiveError::ExceedsMaxBorrows)) => Err(ReceiveFailure::TooManyHeld),
            Ok(Err(error)) => Err(ReceiveFailure::Broken(format!("{error:?}"))),
            Err(panicked) => {
                receiver.broken.store(true, Ordering::Relaxed);
                Err(ReceiveFailure::Broken(panicked.0))
            }
        }
    }
}

impl<S> AsFd for Receiver<S> {
    /// Readable while a wake-up is pending.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // In a forked child the descriptor is still open; what it must not do, the other calls refuse.
        // SAFETY: the ear owns the descriptor, and is not dropped before `self`, which is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.wake_up) }
    }
}

impl<S> Drop for Received<S> {
    /// Gives the slot back.
    fn drop(&mut self) {
        let Some(borrowed) = self.borrowed.take() else { return };
        // In a forked child it is the parent's.
        if let Ok(Receiving { ports, .. }) = self.receiver.lock() {
            ports.incoming.give_back(borrowed);
        }
    }
}

impl<S> Received<S> {
    /// The slot's bytes, once the caller knows that each slot of this publisher has `slot_bytes`.
    ///
    /// `None` if the peer states more than that: then nothing of it may be read.
    pub(crate) fn payload(&self, slot_bytes: usize) -> Option<&[u8]> {
        if self.payload.is_null() || self.payload_len > slot_bytes {
            return None;
        }
        // SAFETY: iceoryx2 mapped the pool of the publisher, whose slots have `slot_bytes` bytes from this pointer on: the
        // caller took the number from the publisher's registration, or, if that is gone, from a peer of the same user that
        // `docs/safety.md` trusts so far. The slot is borrowed, and so not written by a peer that keeps the rules, until `self` is dropped.
        Some(unsafe { std::slice::from_raw_parts(self.payload, self.payload_len) })
    }

    /// Bytes that the peer says its slot has.
    pub(crate) fn stated_len(&self) -> usize {
        self.payload_len
    }
}
