use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use iceoryx2::identifiers::UniqueNodeId;
use iceoryx2::node::{Node as IoxNode, NodeState};
use iceoryx2::prelude::CallbackProgression;
use iceoryx2::service::attribute::AttributeSpecifier;
use iceoryx2::service::builder::request_response::RequestResponseOpenError;
use iceoryx2::service::port_factory::{PortFactory as _, request_response};
use iceoryx2::service::service_hash::ServiceHash;
use iceoryx2::service::service_name::ServiceName;
use iceoryx2_bb_elementary_traits::zero_copy_send::ZeroCopySend;

use super::super::attributes;
use super::super::connection::left_to_iceoryx;
use super::super::node::{Node, NodeError};
use super::super::service::{Block64, SessionService, pool_file};
use super::super::shield::{Panicked, shield};
use super::super::topic::{MAX_NAME, ONLOOKERS, ROOM_FOR_FILES, is_legal_name};
use super::super::turn::Part;
use super::super::wake::{Board, Ear, Ringer};
use super::error::ServiceError;
use super::settings::{MAX_CONTROL_CLIENTS, ServiceSettings, ServiceWishes};
use crate::os::{Forked, reserve};
use crate::pool::{MemoryFacts, PoolError, admit};
use crate::wire::{CONTROL_VERSION, ControlDecodeError, ControlHeader, MAX_CONTROL_BYTES};

/// Requests of a client that are under way at a time. The type of the client holds it to that: a call borrows it.
const CALLS_OF_A_CLIENT: usize = 1;
/// No sleep is longer than this before the queue is looked at again, whatever wake-ups say; and so long a dead peer may go
/// unnoticed.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// Control services are called this, followed by the service's name; topics have another beginning.
const SERVICE_PREFIX: &str = "control/";
const VERSION_KEY: &str = "tensorbus.control";
const REQUEST_KEY: &str = "tensorbus.control.request_bytes";
const REPLY_KEY: &str = "tensorbus.control.reply_bytes";

/// The header as iceoryx2's user header: it lies between iceoryx2's header and the body, zeroed at each loan.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub(super) struct Envelope(pub(super) ControlHeader);

// SAFETY: a transparent wrapper of plain fixed-width integers: no pointers, no drop, every bit pattern is a value.
unsafe impl ZeroCopySend for Envelope {
    unsafe fn type_name() -> &'static str {
        "tensorbus::ControlHeader"
    }
}

/// Puts a message into a new body, as far as there is room. What an earlier message left behind its end stays there.
pub(super) fn write(body: &mut [MaybeUninit<Block64>], bytes: &[u8]) {
    let len = bytes.len().min(size_of_val(body));
    // SAFETY: the body has room for `len` bytes, borrowed exclusively; they do not overlap `bytes`, which are borrowed too.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), body.as_mut_ptr().cast::<u8>(), len) };
}

/// Copies a message to memory of our own, if it keeps the rules: those of the service, whose messages have so many bytes at most, and
/// its own. `blocks` is how many its sender says it has, `body` is where they are.
pub(super) fn copy_out<'a>(
    envelope: &Envelope,
    blocks: u64,
    body: impl FnOnce() -> &'a [Block64],
    max: usize,
    check: impl FnOnce(&ControlHeader) -> Result<usize, ControlDecodeError>,
) -> Result<(Vec<u8>, u64), ControlDecodeError> {
    // SAFETY: the pointer comes from a live reference. Volatile, because the writer still maps the bytes: they are read once,
    // into private memory, and every bit pattern is a header.
    let header = unsafe { std::ptr::from_ref(&envelope.0).read_volatile() };
    let len = check(&header)?;
    // Before the body is looked at: it is as long as its sender says.
    if len > max || blocks != blocks_of(max) as u64 {
        return Err(ControlDecodeError::Room { len: header.len, blocks, max });
    }
    let body: &[u8] = bytemuck::cast_slice(body());
    let bytes = body.get(..len).ok_or(ControlDecodeError::Room { len: header.len, blocks, max })?;
    Ok((bytes.to_vec(), header.number))
}

/// Blocks of a message of so many bytes.
pub(super) fn blocks_of(bytes: usize) -> usize {
    bytes.div_ceil(size_of::<Block64>())
}

pub(super) type Body = [Block64];
type Calls = request_response::PortFactory<SessionService, Body, Envelope, Body, Envelope>;

/// A control service: what carries the messages, and the board by which those who wait for them are woken.
#[derive(Debug)]
pub(super) struct OpenService {
    services: Part<Services>,
    ringer: Arc<Ringer>,
    name: String,
    settings: ServiceSettings,
}

#[derive(Debug)]
struct Services {
    calls: Calls,
    board: Arc<Board>,
}

/// A member of a service: its port's number, and its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Member {
    pub(super) port: u128,
    node: UniqueNodeId,
}

impl OpenService {
    /// Opens the service, or makes it if nobody has. In a turn.
    pub(super) fn open_or_create(node: &Node, name: &str, wishes: &ServiceWishes) -> Result<Self, ServiceError> {
        if !is_legal_name(name) {
            return Err(ServiceError::Name { name: name.chars().take(2 * MAX_NAME).collect(), max: MAX_NAME });
        }
        // Those who were killed keep their places until they are removed, and the service, to which they may have made no board.
        node.remove_dead().map_err(|error| match error {
            NodeError::Forked => ServiceError::Forked,
            error => failed(name, format!("{error:?}")),
        })?;
        let messages = service_name(SERVICE_PREFIX, name)?;
        let (calls, is_new) = open_or_create_calls(node, name, &messages, &wishes.or_default()?)?;
        let settings = read_settings(name, &calls)?;
        wishes.verify(name, &settings)?;
        let board = Board::open(node.directory(), messages.as_str(), settings.clients().end, 0, is_new)
            .map_err(|error| failed(name, format!("the board of its bells: {error}")))?;
        let services = Part::new(Services { calls, board: Arc::new(board) }, node.directory());
        Ok(Self { services, ringer: node.ringer().clone(), name: name.to_owned(), settings })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn settings(&self) -> &ServiceSettings {
        &self.settings
    }

    /// In a turn. Takes one of these places; `None` if living ports have them all.
    pub(super) fn listen(&self, places: Range<usize>) -> Result<Option<Ear>, ServiceError> {
        Ear::new(&self.services.get()?.board, places)
            .map_err(|error| failed(&self.name, format!("a socket to be woken by: {error}")))
    }

    /// After something was put into the queues of those in these places, or they need wait no more.
    pub(super) fn ring(&self, places: Range<usize>) {
        if let Ok(services) = self.services.get() {
            services.board.ring_those(places, &self.ringer);
        }
    }

    /// Calls iceoryx2 with the service.
    pub(super) fn with<T, E: fmt::Debug>(
        &self,
        what: &str,
        call: impl FnOnce(&Calls) -> Result<T, E>,
    ) -> Result<Result<T, E>, ServiceError> {
        let services = self.services.get()?;
        ask(|| call(&services.calls)).map_err(|panicked| failed(&self.name, format!("{what}: {}", panicked.0)))
    }

    /// The server that is registered, alive or not.
    pub(super) fn server(&self) -> Result<Option<Member>, Forked> {
        let mut found = None;
        let services = self.services.get()?;
        let _ = shield(|| {
            services.calls.dynamic_config().list_servers(|server| {
                found = Some(Member { port: server.server_id.value(), node: server.node_id });
                CallbackProgression::Stop
            });
        });
        Ok(found)
    }

    /// The client whose port has this number, if it is registered, alive or not.
    pub(super) fn client(&self, port: u128) -> Result<Option<Member>, Forked> {
        let mut found = None;
        let services = self.services.get()?;
        let _ = shield(|| {
            services.calls.dynamic_config().list_clients(|client| {
                if client.client_id.value() != port {
                    return CallbackProgression::Continue;
                }
                found = Some(Member { port, node: client.node_id });
                CallbackProgression::Stop
            });
        });
        Ok(found)
    }

    /// Whether the member's process is dead. Asks the locks that the kernel releases at death; what cannot be found out is alive.
    pub(super) fn is_dead(&self, member: Member) -> Result<bool, Forked> {
        let mut dead = false;
        let services = self.services.get()?;
        let _ = shield(|| {
            services.calls.nodes(|state| {
                if *state.node_id() != member.node {
                    return CallbackProgression::Continue;
                }
                dead = matches!(state, NodeState::Dead(_));
                CallbackProgression::Stop
            })
        });
        Ok(dead)
    }
}

fn open_calls(node: &IoxNode<SessionService>, service: &ServiceName) -> Result<Calls, RequestResponseOpenError> {
    let builder = node.service_builder(service).request_response::<Body, Body>();
    builder.request_user_header::<Envelope>().response_user_header::<Envelope>().open()
}

/// The ports that are registered in a service, alive or not, with their nodes.
pub(in crate::port) fn ports_of(
    node: &IoxNode<SessionService>,
    service: &ServiceName,
) -> Result<(ServiceHash, Vec<(u128, UniqueNodeId)>), RequestResponseOpenError> {
    let calls = open_calls(node, service)?;
    let mut ports = Vec::new();
    calls.dynamic_config().list_servers(|server| {
        ports.push((server.server_id.value(), server.node_id));
        CallbackProgression::Continue
    });
    calls.dynamic_config().list_clients(|client| {
        ports.push((client.client_id.value(), client.node_id));
        CallbackProgression::Continue
    });
    Ok((*calls.service_hash(), ports))
}

/// A call into iceoryx2 by a port of a control service, which may panic or open connections.
pub(super) fn ask<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    left_to_iceoryx(|| shield(call))
}

/// Whether there is memory for so many messages of so many bytes.
pub(super) fn admit_messages(node: &Node, name: &str, messages: usize, bytes: usize) -> Result<(), ServiceError> {
    let facts = MemoryFacts::gather(node.directory()).map_err(|error| failed(name, error))?;
    Ok(admit((messages * bytes) as u64 + ROOM_FOR_FILES, &facts)?)
}

/// Makes the file system promise the memory of a port's messages, or gives an error: no write to them ends in SIGBUS.
pub(super) fn reserve_messages(node: &Node, port: u128, messages: usize, bytes: usize) -> Result<(), ServiceError> {
    let needed = (messages * bytes) as u64;
    let reserved = pool_file(node.directory(), port).and_then(|file| reserve(&file));
    Ok(reserved.map_err(|reason| PoolError::Prepare { needed, reason })?)
}

/// In a turn: nobody else makes or removes the service meanwhile. Says also whether it is new.
fn open_or_create_calls(
    node: &Node,
    name: &str,
    service: &ServiceName,
    settings: &ServiceSettings,
) -> Result<(Calls, bool), ServiceError> {
    let builder = || {
        let builder = node.get()?.service_builder(service).request_response::<Body, Body>();
        Ok::<_, Forked>(builder.request_user_header::<Envelope>().response_user_header::<Envelope>())
    };
    let opened =
        shield(|| Ok::<_, Forked>(open_calls(node.get()?, service))).map_err(|panicked| failed(name, panicked.0))??;
    match opened {
        Ok(service) => return Ok((service, false)),
        Err(RequestResponseOpenError::DoesNotExist) => {}
        Err(RequestResponseOpenError::IncompatibleRequestOrResponseType) => {
            return Err(failed(name, "something that is not tensorbus, or another version of it, uses this name"));
        }
        Err(error) => return Err(failed(name, format!("{error:?}"))),
    }
    let created = shield(|| {
        Ok::<_, Forked>(
            builder()?
                .max_servers(1)
                .max_clients(settings.max_clients)
                .max_nodes(settings.max_clients + 1 + ONLOOKERS)
                .max_active_requests_per_client(CALLS_OF_A_CLIENT)
                .max_loaned_requests(1)
                .max_response_buffer_size(1)
                .max_borrowed_responses_per_pending_response(1)
                .enable_fire_and_forget_requests(false)
                // A request that finds the queue full is refused; a reply pushes out one that came too late.
                .enable_safe_overflow_for_requests(false)
                .enable_safe_overflow_for_responses(true)
                .create_with_attributes(&attributes(&CONTROL_VERSION.to_string(), settings)),
        )
    })
    .map_err(|panicked| failed(name, panicked.0))??;
    created.map(|service| (service, true)).map_err(|error| failed(name, format!("{error:?}")))
}

fn attributes(version: &str, settings: &ServiceSettings) -> AttributeSpecifier {
    attributes::specify([
        (VERSION_KEY, version.to_owned()),
        (REQUEST_KEY, settings.max_request_bytes.to_string()),
        (REPLY_KEY, settings.max_reply_bytes.to_string()),
    ])
}

fn read_settings(name: &str, calls: &Calls) -> Result<ServiceSettings, ServiceError> {
    let attribute = |key| attributes::read(calls.attributes(), key).unwrap_or_default();
    let theirs = attribute(VERSION_KEY);
    if theirs != CONTROL_VERSION.to_string() {
        return Err(ServiceError::Version { service: name.to_owned(), theirs });
    }
    let bytes = |key| {
        let stated = attribute(key);
        let bytes = stated.parse().ok().filter(|bytes| (1..=MAX_CONTROL_BYTES).contains(bytes));
        bytes.ok_or_else(|| failed(name, format!("its attribute {key} is {stated:?}")))
    };
    let max_clients = calls.static_config().max_clients();
    if max_clients > MAX_CONTROL_CLIENTS {
        return Err(failed(name, format!("it has places for {max_clients} clients")));
    }
    Ok(ServiceSettings { max_request_bytes: bytes(REQUEST_KEY)?, max_reply_bytes: bytes(REPLY_KEY)?, max_clients })
}

fn service_name(prefix: &str, name: &str) -> Result<ServiceName, ServiceError> {
    ServiceName::new(&format!("{prefix}{name}")).map_err(|error| failed(name, format!("{error:?}")))
}

pub(super) fn failed(service: &str, reason: impl fmt::Display) -> ServiceError {
    ServiceError::Failed { service: service.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> (tempfile::TempDir, Node) {
        let directory = tempfile::Builder::new().prefix("c").rand_bytes(4).tempdir_in("/tmp").unwrap();
        let node = Node::join(directory.path()).unwrap();
        (directory, node)
    }

    #[test]
    fn a_service_of_another_version_is_refused_by_its_version() {
        let (_directory, node) = node();
        let name = service_name(SERVICE_PREFIX, "health").unwrap();
        let builder = node.get().unwrap().service_builder(&name).request_response::<Body, Body>();
        let builder = builder.request_user_header::<Envelope>().response_user_header::<Envelope>();
        let _theirs =
            builder.create_with_attributes(&attributes("2", &ServiceWishes::default().or_default().unwrap())).unwrap();
        let refused = OpenService::open_or_create(&node, "health", &ServiceWishes::default()).unwrap_err();
        assert!(matches!(&refused, ServiceError::Version { theirs, .. } if theirs == "2"), "{refused:?}");
        assert!(refused.to_string().contains("run the same tensorbus"), "{refused}");
    }

    #[test]
    fn a_service_of_other_types_is_refused() {
        let (_directory, node) = node();
        let name = service_name(SERVICE_PREFIX, "health").unwrap();
        let _theirs = node.get().unwrap().service_builder(&name).request_response::<u64, u64>().create().unwrap();
        let refused = OpenService::open_or_create(&node, "health", &ServiceWishes::default()).unwrap_err();
        assert!(matches!(refused, ServiceError::Failed { .. }), "{refused:?}");
    }

    #[test]
    fn a_message_is_copied_as_far_as_it_goes() {
        const MAX: usize = 100;
        let mut body = [const { MaybeUninit::zeroed() }; 2];
        write(&mut body, &[7; 5]);
        // SAFETY: zeroed before: every bit pattern is a `Block64`.
        let body = body.map(|block| unsafe { block.assume_init() });
        let envelope = |len| Envelope(ControlHeader { len, number: 3, ..ControlHeader::default() });
        let copied = |len, blocks| copy_out(&envelope(len), blocks, || &body, MAX, |header| Ok(header.len as usize));
        assert_eq!(copied(5, 2), Ok((vec![7; 5], 3)));
        assert_eq!(copied(7, 2), Ok((vec![7, 7, 7, 7, 7, 0, 0], 3)));
        assert_eq!(copied(0, 2), Ok((vec![], 3)));
        let refused = |len, blocks| Err(ControlDecodeError::Room { len, blocks, max: MAX });
        assert_eq!(copied(101, 2), refused(101, 2), "more than the service has room for");
        for blocks in [0, 1, 3, u64::MAX] {
            assert_eq!(copied(5, blocks), refused(5, blocks), "what no message of the service has");
        }
        let rule = ControlDecodeError::Length { len: 1 };
        assert_eq!(copy_out(&envelope(1), 2, || &body, MAX, |_| Err(rule.clone())), Err(rule));
    }

    #[test]
    fn a_message_that_is_too_large_is_cut_off() {
        let mut body = [const { MaybeUninit::zeroed() }; 1];
        write(&mut body, &[7; 100]);
        // SAFETY: zeroed before: every bit pattern is a `Block64`.
        let body = body.map(|block| unsafe { block.assume_init() });
        assert_eq!(bytemuck::cast_slice::<Block64, u8>(&body), [7; 64]);
    }
}
