use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use iceoryx2::port::ReceiveError;
use iceoryx2::port::listener::{Listener, ListenerCreateError};
use iceoryx2::port::subscriber::{Subscriber, SubscriberCreateError};
use iceoryx2::prelude::{CallbackProgression, FileDescriptorBased, PayloadHeader};
use iceoryx2::sample::Sample;
use iceoryx2::service::port_factory::PortFactory as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::service::{Block64, Header, SessionService};
use super::shield::shield;
use super::node::Node;
use super::topic::{OpenTopic, TopicError};
use super::turn::{Part, Turn};
use crate::os::{Forked, Owned};
use crate::wire::Preamble;

/// The receiving side of a topic: a queue of messages, and the listener that wakes this side.
#[derive(Debug)]
pub(crate) struct Receiver {
    ports: Part<Ports>,
    topic: OpenTopic,
    broken: AtomicBool,
}

#[derive(Debug)]
struct Ports {
    subscriber: Subscriber<SessionService, [Block64], Header>,
    listener: Listener<SessionService>,
}

/// A message as it came, nothing in it checked but that its slot holds what it says it holds.
///
/// The slot stays ours until this is dropped, provided that the receiver it came from lives longer.
pub(crate) struct Received {
    /// Only dropped, never read again.
    _sample: Owned<Sample<SessionService, [Block64], Header>>,
    /// Copied out of shared memory.
    pub(crate) preamble: Preamble,
    pub(crate) publisher: u128,
    payload: *const u8,
    payload_len: usize,
}

// SAFETY: the sample is `Send`; the pointer is to memory that stays mapped and borrowed until the sample is dropped,
// whatever thread does it.
unsafe impl Send for Received {}
// SAFETY: shared access only reads plain fields and the payload; the sample itself, which is not `Sync`, is not
// reachable through a shared reference.
unsafe impl Sync for Received {}

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

impl Receiver {
    pub(crate) fn create(node: &Node, topic: OpenTopic) -> Result<Self, TopicError> {
        let _turn = Turn::take(node.directory()).map_err(|error| topic.failed(error))?;
        let too_many = || TopicError::TooManySubscribers {
            topic: topic.name().to_owned(),
            limit: topic.settings().max_subscribers,
        };
        // The listener comes first: whoever sends to the subscriber can already wake it.
        let listener = shield(|| topic.services.get().map(|services| services.event.listener_builder().create()))
            .map_err(|panicked| topic.failed(panicked.0))??
            .map_err(|error| match error {
                ListenerCreateError::ExceedsMaxSupportedListeners => too_many(),
                error => topic.failed(format!("listener: {error:?}")),
            })?;
        let subscriber = shield(|| topic.services.get().map(|services| services.pub_sub.subscriber_builder().create()))
            .map_err(|panicked| topic.failed(panicked.0))??
            .map_err(|error| match error {
                SubscriberCreateError::ExceedsMaxSupportedSubscribers => too_many(),
                error => topic.failed(format!("subscriber: {error:?}")),
            })?;
        let ports = Part::new(Ports { subscriber, listener }, node.directory());
        Ok(Self { ports, topic, broken: AtomicBool::new(false) })
    }

    pub(crate) fn topic(&self) -> &OpenTopic {
        &self.topic
    }

    /// Takes the oldest message out of the queue.
    #[inline]
    pub(crate) fn receive(&self) -> Result<Option<Received>, ReceiveFailure> {
        let subscriber = &self.ports.get()?.subscriber;
        if self.broken.load(Ordering::Relaxed) {
            return Err(ReceiveFailure::Broken("the port broke at an earlier call".to_owned()));
        }
        let sample = match shield(|| subscriber.receive()) {
            Ok(Ok(Some(sample))) => sample,
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(ReceiveError::ExceedsMaxBorrows)) => return Err(ReceiveFailure::TooManyHeld),
            Ok(Err(error)) => return Err(ReceiveFailure::Broken(format!("{error:?}"))),
            Err(panicked) => {
                self.broken.store(true, Ordering::Relaxed);
                return Err(ReceiveFailure::Broken(panicked.0));
            }
        };
        let header = std::ptr::from_ref(&sample.user_header().0);
        // SAFETY: the pointer comes from a live reference. Volatile, because the writer still maps the bytes: they are
        // read once, into private memory, and every bit pattern is a `Preamble`.
        let preamble = unsafe { header.read_volatile() };
        let publisher = sample.header().publisher_id().value();
        // The peer writes this number: it counts for nothing until `payload` is told how long a slot really is.
        let stated = usize::try_from(sample.header().number_of_elements()).unwrap_or(usize::MAX);
        let payload_len = stated.saturating_mul(size_of::<Block64>());
        // A length that no memory has must not become a slice, however short its life.
        let payload =
            if payload_len > isize::MAX as usize { std::ptr::null() } else { sample.payload().as_ptr().cast::<u8>() };
        let received = Received { _sample: Owned::new(sample), preamble, publisher, payload, payload_len };
        Ok(Some(received))
    }

    /// Bytes that each slot of this publisher's pool has; `None` if the publisher is gone.
    pub(crate) fn slot_bytes_of(&self, publisher: u128) -> Option<usize> {
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
        let listener = &self.ports.get()?.listener;
        let fd = borrow_fd(listener);
        let timeout = Timespec { tv_sec: bound.as_secs() as i64, tv_nsec: bound.subsec_nanos().into() };
        match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(ReceiveFailure::Broken(format!("poll: {error}"))),
        }
    }

    /// Takes all pending wake-ups away, so that the next message makes a new one.
    pub(crate) fn drain(&self) -> Result<(), ReceiveFailure> {
        let listener = &self.ports.get()?.listener;
        // One call takes a datagram or two out of a socket that may hold more: ask until it is empty.
        loop {
            match shield(|| listener.try_wait(|_| {})) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(ReceiveFailure::Broken(format!("listener: {error:?}"))),
                Err(panicked) => {
                    self.broken.store(true, Ordering::Relaxed);
                    return Err(ReceiveFailure::Broken(panicked.0));
                }
            }
            if !self.wait(Duration::ZERO)? {
                return Ok(());
            }
        }
    }
}

impl AsFd for Receiver {
    /// Readable while a wake-up is pending.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // In a forked child the descriptor is still open; what it must not do, the other calls refuse.
        borrow_fd(&self.ports.get_unchecked().listener)
    }
}

fn borrow_fd(listener: &Listener<SessionService>) -> BorrowedFd<'_> {
    // SAFETY: only read to wait for it; it is not closed, as the listener keeps owning it.
    let raw = unsafe { listener.file_descriptor().native_handle() };
    // SAFETY: the listener owns the descriptor, and is borrowed for as long as the result lives.
    unsafe { BorrowedFd::borrow_raw(raw) }
}

impl Received {
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
