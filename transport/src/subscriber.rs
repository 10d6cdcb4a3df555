use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::bus::BusInner;
use crate::message::Message;
use crate::os::Deadline;
use crate::peers::Peers;
#[cfg(feature = "tokio")]
use crate::port::Asleep;
use crate::port::{OpenTopic, ReceiveFailure, Received, Receiver, TopicError, TopicSettings};
use crate::wire::{DecodeError, Decoded};

/// No sleep is longer than this before the queue is looked at again, whatever wake-ups say.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// The receiving side of a topic: a queue of at most the topic's depth.
///
/// Meant for one thread that receives; several may, each message then goes to one of them. Received messages keep the
/// subscriber registered: it leaves the topic when it and the last message are dropped.
#[derive(Debug)]
pub struct Subscriber {
    receiver: Arc<Receiver<Heard>>,
    spin: Duration,
}

/// What changes with each message, under the receiver's lock.
#[derive(Debug)]
pub(crate) struct Heard {
    peers: Peers,
    stats: SubscriberStats,
}

/// What has come to a subscriber so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SubscriberStats {
    /// Messages received.
    pub received: u64,
    /// Messages missed, as gaps in the publishers' numbers show. What was published before the first message that
    /// came from a publisher does not count.
    pub lost: u64,
    /// Messages skipped because they were not valid.
    pub rejected: u64,
    /// Why the last of them was not.
    pub last_rejection: Option<DecodeError>,
}

/// Why there is no message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// None came in time.
    #[error("no message on topic {topic:?} within {waited:?}")]
    Timeout {
        /// The topic.
        topic: String,
        /// How long was waited.
        waited: Duration,
    },
    /// As many messages of one publisher are held as the topic allows; the next one stays in the queue.
    #[error(
        "{limit} messages of one publisher of topic {topic:?} are held, the most it allows; drop some, or open the topic with more `max_borrowed`"
    )]
    TooManyHeld {
        /// The topic.
        topic: String,
        /// Messages that may be held.
        limit: usize,
    },
    /// The bus belongs to the process that this one was forked from.
    #[error("this process was forked from the one that opened the bus; open a bus of its own in the child")]
    Forked,
    /// The port is damaged.
    #[error("topic {topic:?} is damaged: {reason}; open a new bus")]
    Broken {
        /// The topic.
        topic: String,
        /// What went wrong.
        reason: String,
    },
}

impl Subscriber {
    pub(crate) fn create(bus: &Arc<BusInner>, topic: Arc<OpenTopic>, spin: Duration) -> Result<Self, TopicError> {
        let peers = Peers::new(topic.settings().max_publishers);
        let heard = Heard { peers, stats: SubscriberStats::default() };
        Ok(Self { receiver: Receiver::create(&bus.node, topic, bus.clone(), heard)?, spin })
    }

    /// The oldest message in the queue, if there is one.
    ///
    /// Messages that are not valid are counted and skipped.
    ///
    /// # Errors
    /// [`ReceiveError`] if too many messages are held, or the port does not work any more.
    pub fn try_recv(&self) -> Result<Option<Message>, ReceiveError> {
        loop {
            let mut receiving = self.receiver.lock().map_err(|_| ReceiveError::Forked)?;
            let Some(received) = receiving.receive().map_err(|failure| self.error(failure))? else { return Ok(None) };
            let accepted = self.accept(receiving.state(), &received);
            // The slot of a message that is skipped is given back under the lock.
            drop(receiving);
            if let Some((decoded, slot_bytes, lost)) = accepted {
                return Ok(Some(Message::new(received, slot_bytes, decoded, lost)));
            }
        }
    }

    /// Waits for the next message, at most as long as `timeout`: spins for a short while, then sleeps.
    ///
    /// # Errors
    /// [`ReceiveError::Timeout`] if none came, others as for [`Subscriber::try_recv`].
    pub fn recv(&self, timeout: Duration) -> Result<Message, ReceiveError> {
        if let Some(message) = self.try_recv()? {
            return Ok(message);
        }
        let deadline = Deadline::after(timeout);
        let spin = Deadline::after(self.spin.min(timeout));
        while spin.left().is_some() {
            if let Some(message) = self.try_recv()? {
                return Ok(message);
            }
            std::hint::spin_loop();
        }
        loop {
            // What is published from here on wakes; what came before is in the queue.
            let _asleep = self.receiver.lie_down().map_err(|failure| self.error(failure))?;
            if let Some(message) = self.try_recv()? {
                return Ok(message);
            }
            let Some(left) = deadline.left() else {
                return Err(ReceiveError::Timeout { topic: self.topic().to_owned(), waited: timeout });
            };
            if self.receiver.wait(left.min(LONGEST_SLEEP)).map_err(|failure| self.error(failure))? {
                self.receiver.drain().map_err(|failure| self.error(failure))?;
            }
            if let Some(message) = self.try_recv()? {
                return Ok(message);
            }
        }
    }

    /// Readies the subscriber for `recv().await` on tokio.
    ///
    /// # Errors
    /// If the runtime cannot watch the subscriber's file descriptor.
    ///
    /// # Panics
    /// Outside a tokio runtime whose I/O driver is enabled.
    #[cfg(feature = "tokio")]
    pub fn into_async(self) -> std::io::Result<crate::AsyncSubscriber> {
        crate::AsyncSubscriber::new(self)
    }

    /// Name of the topic.
    pub fn topic(&self) -> &str {
        self.receiver.topic().name()
    }

    /// Settings of the topic.
    pub fn settings(&self) -> &TopicSettings {
        self.receiver.topic().settings()
    }

    /// What has come so far.
    pub fn stats(&self) -> SubscriberStats {
        self.receiver.lock().map(|mut receiving| receiving.state().stats.clone()).unwrap_or_default()
    }

    /// Makes the descriptor unreadable, and readable again with the next message: for an event loop of one's own.
    ///
    /// In this order no message is missed: `arm`, then [`Subscriber::try_recv`] until it gives `None`, then wait until the
    /// descriptor ([`AsFd`]) is readable, and again from the start. A subscriber that was not armed is not woken: that spares
    /// publishers a system call for each message.
    ///
    /// # Errors
    /// [`ReceiveError`] if the port does not work any more.
    pub fn arm(&self) -> Result<(), ReceiveError> {
        self.receiver.arm().map_err(|failure| self.error(failure))
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn lie_down(&self) -> Result<Asleep<'_, Heard>, ReceiveError> {
        self.receiver.lie_down().map_err(|failure| self.error(failure))
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn drain(&self) -> Result<(), ReceiveError> {
        self.receiver.drain().map_err(|failure| self.error(failure))
    }

    /// Checks a message and notes it; one that is not valid is counted, to be skipped.
    fn accept(&self, heard: &mut Heard, received: &Received<Heard>) -> Option<(Decoded, usize, u64)> {
        match self.decode(&mut heard.peers, received) {
            Ok(accepted) => {
                heard.stats.received += 1;
                heard.stats.lost += accepted.2;
                Some(accepted)
            }
            Err(error) => {
                heard.stats.rejected += 1;
                tracing::warn!(topic = self.topic(), %error, "skipped a message that is not valid");
                heard.stats.last_rejection = Some(error);
                None
            }
        }
    }

    fn decode(&self, peers: &mut Peers, received: &Received<Heard>) -> Result<(Decoded, usize, u64), DecodeError> {
        let peer = peers.get(received.publisher, || {
            // A publisher that is gone has left no trace of its size; what the message says has to do.
            self.receiver.slot_bytes_of(received.publisher).unwrap_or(received.stated_len())
        });
        let payload = received.payload(peer.slot_bytes).ok_or(DecodeError::PayloadBeyondSlot {
            stated: received.stated_len() as u64,
            slot_bytes: peer.slot_bytes,
        })?;
        let decoded = peer.decoder.decode(&received.preamble, payload)?;
        let lost = peer.arrived(received.preamble.sequence);
        Ok((decoded, peer.slot_bytes, lost))
    }

    fn error(&self, failure: ReceiveFailure) -> ReceiveError {
        let topic = self.topic().to_owned();
        match failure {
            ReceiveFailure::TooManyHeld => ReceiveError::TooManyHeld { topic, limit: self.settings().max_borrowed },
            ReceiveFailure::Forked => ReceiveError::Forked,
            ReceiveFailure::Broken(reason) => ReceiveError::Broken { topic, reason },
        }
    }
}

impl AsFd for Subscriber {
    /// Readable when a message has come since [`Subscriber::arm`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}
