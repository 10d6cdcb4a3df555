use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::message::Message;
use crate::subscriber::{ReceiveError, Subscriber};

/// A [`Subscriber`] whose messages are awaited on tokio. Made by [`Subscriber::into_async`].
///
/// It waits on the topic's file descriptor: no thread, no polling.
#[derive(Debug)]
pub struct AsyncSubscriber {
    /// A duplicate of the subscriber's descriptor, which the runtime watches.
    fd: AsyncFd<OwnedFd>,
    subscriber: Subscriber,
}

impl AsyncSubscriber {
    pub(crate) fn new(subscriber: Subscriber) -> std::io::Result<Self> {
        let descriptor = subscriber.as_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` is open, always the same, and closed only when it is dropped, which `AsyncFd` does after
        // it has taken it out of the reactor.
        let fd = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
        Ok(Self { fd, subscriber })
    }

    /// Waits for the next message, without a bound of its own: put it under `tokio::time::timeout` or in a `select!`.
    ///
    /// Cancel safe: a message is either returned or still in the queue.
    ///
    /// # Errors
    /// [`ReceiveError`] as for [`Subscriber::try_recv`].
    pub async fn recv(&mut self) -> Result<Message, ReceiveError> {
        loop {
            if let Some(message) = self.subscriber.try_recv()? {
                return Ok(message);
            }
            let _asleep = self.subscriber.lie_down()?;
            if let Some(message) = self.subscriber.try_recv()? {
                return Ok(message);
            }
            let mut ready = self.fd.readable().await.map_err(|error| ReceiveError::Broken {
                topic: self.subscriber.topic().to_owned(),
                reason: error.to_string(),
            })?;
            // Until the socket is empty; a datagram that comes after is a new readiness, which is not cleared here.
            self.subscriber.drain()?;
            ready.clear_ready();
        }
    }

    /// The subscriber, to be used without waiting.
    pub fn get_ref(&self) -> &Subscriber {
        &self.subscriber
    }

    /// The subscriber back, for blocking use.
    pub fn into_inner(self) -> Subscriber {
        self.subscriber
    }
}
