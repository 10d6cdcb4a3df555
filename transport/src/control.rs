use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::bus::BusInner;
use crate::os::Deadline;
use crate::port::{Asked, CallError, ClientPort, ReplyError, RequestError, ServerPort, ServiceError, ServiceWishes};

/// A control service about to be opened. Made by [`Bus::service`](crate::Bus::service).
///
/// A control service carries small messages, such as questions about health or commands to unload a model: a client sends
/// a request to the one server of that name and waits for the reply. Both are bytes that only the two sides know the meaning of,
/// at most [`MAX_CONTROL_BYTES`](crate::MAX_CONTROL_BYTES). Tensors go on topics.
///
/// The settings are fixed by the first one to open the service, server or client, and checked against those of all who open it later; who leaves
/// one open takes it as it is. They decide how much memory the ports take.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tensorbus_transport::Bus;
///
/// let bus = Bus::builder().session("doc-control").open()?;
/// let server = bus.service("health").server()?;
/// let mut client = bus.service("health").client()?;
///
/// let asking = std::thread::spawn(move || client.call(b"how are you?", Duration::from_secs(5)));
/// let request = server.recv(Duration::from_secs(5))?;
/// assert_eq!(request.bytes(), b"how are you?");
/// request.reply(b"fine")?;
/// assert_eq!(asking.join().unwrap()?, b"fine");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ServiceBuilder {
    bus: Arc<BusInner>,
    name: String,
    wishes: ServiceWishes,
}

/// The one server of a control service. Threads may share it: each request goes to one of them.
///
/// Leaves the service when it and the last [`ControlRequest`] are dropped. If its process is killed, the next server of that
/// name takes its place at once.
#[derive(Debug)]
pub struct ControlServer {
    port: Arc<ServerPort>,
}

/// A client of a control service. It makes one call at a time; threads make a client each, or share one behind a mutex.
///
/// A client stays usable when the server goes and another one comes.
#[derive(Debug)]
pub struct ControlClient {
    port: ClientPort,
}

/// A request that a client waits for the reply to. Dropped without a reply, it ends the client's call with
/// [`CallError::NoReply`].
pub struct ControlRequest {
    asked: Asked,
}

impl ServiceBuilder {
    pub(crate) fn new(bus: Arc<BusInner>, name: &str) -> Self {
        Self { bus, name: name.to_owned(), wishes: ServiceWishes::default() }
    }

    /// Bytes of a request at most, 1 to [`MAX_CONTROL_BYTES`](crate::MAX_CONTROL_BYTES), which is the default.
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.wishes.max_request_bytes = Some(bytes);
        self
    }

    /// Bytes of a reply at most, 1 to [`MAX_CONTROL_BYTES`](crate::MAX_CONTROL_BYTES), which is the default.
    pub fn max_reply_bytes(mut self, bytes: usize) -> Self {
        self.wishes.max_reply_bytes = Some(bytes);
        self
    }

    /// Clients that the service can have at a time, 1 to [`MAX_CONTROL_CLIENTS`](crate::MAX_CONTROL_CLIENTS), which is the
    /// default. Each has one request under way.
    pub fn max_clients(mut self, clients: usize) -> Self {
        self.wishes.max_clients = Some(clients);
        self
    }

    /// Becomes the server of this name. Takes memory of the session for `2 * max_clients + 1` replies: 4.2 MiB by default.
    ///
    /// # Errors
    /// [`ServiceError::HasServer`] if a living process serves the name, [`ServiceError::Mismatch`] if the service exists with
    /// other settings, others if it cannot be opened.
    pub fn server(self) -> Result<ControlServer, ServiceError> {
        Ok(ControlServer { port: ServerPort::create(&self.bus.node, &self.name, &self.wishes, self.bus.clone())? })
    }

    /// Adds a client, whether there is a server yet or not. Takes memory of the session for 3 requests: 200 KiB by
    /// default.
    ///
    /// # Errors
    /// [`ServiceError::TooManyClients`] beyond [`max_clients`](Self::max_clients), [`ServiceError::Mismatch`] if the service
    /// exists with other settings, others if it cannot be opened.
    pub fn client(self) -> Result<ControlClient, ServiceError> {
        Ok(ControlClient { port: ClientPort::create(&self.bus.node, &self.name, &self.wishes, self.bus.clone())? })
    }
}

impl ControlServer {
    /// Waits for the next request, at most as long as `timeout`. Requests that are not valid, or whose client waits no more, are
    /// skipped.
    ///
    /// Of each client one request is given out at a time; its next waits until the one before is dropped.
    ///
    /// # Errors
    /// [`RequestError::Timeout`] if none came, others if the port does not work any more.
    pub fn recv(&self, timeout: Duration) -> Result<ControlRequest, RequestError> {
        let deadline = Deadline::after(timeout);
        if let Some(asked) = self.port.receive()? {
            return Ok(ControlRequest { asked });
        }
        loop {
            // What is asked from here on wakes; what came before is in the queue.
            let waiting = self.port.lie_down()?;
            if let Some(asked) = self.port.receive()? {
                return Ok(ControlRequest { asked });
            }
            let Some(left) = deadline.left() else {
                return Err(RequestError::Timeout { service: self.name().to_owned(), waited: timeout });
            };
            waiting.wait(left)?;
        }
    }

    /// The next request, if there is one.
    ///
    /// # Errors
    /// [`RequestError`] if the port does not work any more.
    pub fn try_recv(&self) -> Result<Option<ControlRequest>, RequestError> {
        Ok(self.port.receive()?.map(|asked| ControlRequest { asked }))
    }

    /// Makes the descriptor unreadable, and readable again with the next request: for an event loop of one's own.
    ///
    /// In this order no request is missed: `arm`, then [`ControlServer::try_recv`] until it gives `None`, then wait until the
    /// [descriptor](ControlServer::as_fd) is readable, and again from the start. A request of a client whose earlier one is
    /// still held does not make it readable: look again when that one is dropped.
    ///
    /// # Errors
    /// [`RequestError`] if the port does not work any more.
    pub fn arm(&self) -> Result<(), RequestError> {
        self.port.arm()
    }

    /// The descriptor to wait for, after [`ControlServer::arm`].
    ///
    /// # Errors
    /// [`RequestError::Forked`] in a forked child.
    pub fn as_fd(&self) -> Result<BorrowedFd<'_>, RequestError> {
        self.port.as_fd()
    }

    /// Name of the service.
    pub fn name(&self) -> &str {
        self.port.name()
    }

    /// Requests that were skipped because they were not valid.
    pub fn rejected(&self) -> u64 {
        self.port.rejected()
    }
}

impl ControlRequest {
    /// What the client asks: a copy, out of the client's reach.
    pub fn bytes(&self) -> &[u8] {
        self.asked.bytes()
    }

    /// Sends the reply. `Ok` means that the client was alive and waiting, and has it in its queue; whether it reads it before
    /// its time is over is not known.
    ///
    /// # Errors
    /// [`ReplyError::ClientGone`] if the client is dead or waits no more, [`ReplyError::TooLarge`] beyond
    /// [`max_reply_bytes`](ServiceBuilder::max_reply_bytes), others if the reply cannot be sent.
    pub fn reply(self, bytes: &[u8]) -> Result<(), ReplyError> {
        self.asked.reply(bytes)
    }
}

impl std::fmt::Debug for ControlRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlRequest").field("bytes", &self.bytes().len()).finish_non_exhaustive()
    }
}

impl ControlClient {
    /// Sends a request and waits for the reply, at most as long as `timeout`.
    ///
    /// A server that is killed is noticed within about 50 ms, whether anybody else looks after the session or not.
    ///
    /// # Errors
    /// [`CallError`] says why there is no reply. After [`CallError::Timeout`] and [`CallError::ServerGone`] the server may have
    /// done what it was asked for: repeat only what may be done twice.
    pub fn call(&mut self, bytes: &[u8], timeout: Duration) -> Result<Vec<u8>, CallError> {
        self.call_while(bytes, timeout, || true)
    }

    /// As [`ControlClient::call`], and asks `go_on` before each sleep, of which none is longer than 50 ms: when it says `false` the
    /// call ends. For callers that may be interrupted, by a signal or by another thread.
    ///
    /// # Errors
    /// [`CallError::Abandoned`] once `go_on` says `false`, others as for [`ControlClient::call`].
    pub fn call_while(
        &mut self,
        bytes: &[u8],
        timeout: Duration,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Vec<u8>, CallError> {
        self.port.call(bytes, timeout, &mut go_on)
    }

    /// Name of the service.
    pub fn name(&self) -> &str {
        self.port.name()
    }
}
