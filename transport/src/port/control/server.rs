use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use iceoryx2::active_request::ActiveRequest;
use iceoryx2::port::server::Server;
use iceoryx2::port::{LoanError, ReceiveError};
use iceoryx2::prelude::{AllocationStrategy, PayloadHeader};
use iceoryx2::service::port_factory::server::ServerCreateError;

use super::super::alone::Alone;
use super::super::node::Node;
use super::super::service::SessionService;
use super::super::turn::{Part, Turn};
use super::super::wake::{self, Ear};
use super::error::{ReplyError, RequestError, ServiceError};
use super::service::{
    Body, Envelope, LONGEST_SLEEP, OpenService, admit_messages, ask, blocks_of, copy_out, failed, reserve_messages,
    write,
};
use super::settings::{ServiceSettings, ServiceWishes};
use crate::os::Forked;
use crate::wire::{ControlHeader, ControlKind};

type Active = ActiveRequest<SessionService, Body, Envelope, Body, Envelope>;

/// The one server of a control service: takes requests, and sends replies out of memory of its own.
#[derive(Debug)]
pub(crate) struct ServerPort {
    ports: Part<Ports>,
    service: OpenService,
    rejected: AtomicU64,
    broken: AtomicBool,
    /// What the ports live in, and must not outlive.
    _home: Arc<dyn Any + Send + Sync>,
}

#[derive(Debug)]
struct Ports {
    locked: Mutex<Locked>,
    /// Waited at without the lock, used with it otherwise.
    ear: Ear,
}

#[derive(Debug)]
struct Locked {
    server: Alone<Server<SessionService, Body, Envelope, Body, Envelope>>,
    /// Threads that sleep, or are about to.
    sleepers: usize,
}

/// A server of which a thread asked to be woken. Dropping it gets up.
pub(crate) struct Waiting<'a> {
    port: &'a ServerPort,
}

/// A request that a client waits for the reply to.
pub(crate) struct Asked {
    /// `None` once the client waits no more.
    active: Option<Alone<Active>>,
    number: u64,
    bytes: Vec<u8>,
    port: Arc<ServerPort>,
}

impl ServerPort {
    /// `home` is what `node` lives in: it is dropped after this.
    pub(crate) fn create(
        node: &Node,
        name: &str,
        wishes: &ServiceWishes,
        home: Arc<dyn Any + Send + Sync>,
    ) -> Result<Arc<Self>, ServiceError> {
        let asked = wishes.or_default()?;
        admit_messages(node, name, asked.replies(), asked.max_reply_bytes)?;
        let _turn = Turn::take(node.directory()).map_err(|error| failed(name, error))?;
        let service = OpenService::open_or_create(node, name, wishes)?;
        let settings = *service.settings();
        // The ear comes first: whoever sends to the server can already wake it.
        let has_server = || ServiceError::HasServer { service: name.to_owned() };
        let ear = service.listen(ServiceSettings::SERVER)?.ok_or_else(has_server)?;
        let server = service
            .with("server", |calls| {
                calls
                    .server_builder()
                    .initial_max_slice_len(blocks_of(settings.max_reply_bytes))
                    .allocation_strategy(AllocationStrategy::Static)
                    .override_response_preallocation(move |_| settings.replies())
                    .create()
            })?
            .map_err(|error| match error {
                ServerCreateError::ExceedsMaxSupportedServers => has_server(),
                error => failed(name, format!("server: {error:?}")),
            })?;
        let id = server.id().value();
        // SAFETY: used under the mutex that it goes into here.
        let server = unsafe { Alone::new(server) };
        let ports = Ports { locked: Mutex::new(Locked { server, sleepers: 0 }), ear };
        let port = Arc::new(Self {
            ports: Part::new(ports, node.directory()),
            service,
            rejected: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            _home: home,
        });
        reserve_messages(node, id, settings.replies(), settings.max_reply_bytes)?;
        Ok(port)
    }

    pub(crate) fn name(&self) -> &str {
        self.service.name()
    }

    /// Requests that were dropped because they broke a rule.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Takes the next request whose client still waits.
    pub(crate) fn receive(self: &Arc<Self>) -> Result<Option<Asked>, RequestError> {
        let locked = self.lock()?;
        loop {
            if self.broken.load(Ordering::Relaxed) {
                return Err(self.damaged("the port broke at an earlier call"));
            }
            let active = match ask(|| locked.server.receive()) {
                Ok(Ok(Some(active))) => active,
                // A client whose earlier request is still held here has to wait for its next.
                Ok(Ok(None) | Err(ReceiveError::ExceedsMaxBorrows)) => return Ok(None),
                Ok(Err(error)) => {
                    // One client cannot be heard: it died while it came, or lies. The others can.
                    tracing::warn!(service = self.name(), ?error, "a client could not be connected");
                    return Ok(None);
                }
                Err(panicked) => {
                    self.broken.store(true, Ordering::Relaxed);
                    return Err(self.damaged(panicked.0));
                }
            };
            let (blocks, max) = (active.header().number_of_elements(), self.service.settings().max_request_bytes);
            let check = |header: &ControlHeader| header.check(ControlKind::Request);
            match copy_out(active.user_header(), blocks, || active.payload(), max, check) {
                Ok((bytes, number)) => {
                    // SAFETY: it is used and dropped in `Asked` only, under the lock of this port.
                    let active = Some(unsafe { Alone::new(active) });
                    return Ok(Some(Asked { active, number, bytes, port: Arc::clone(self) }));
                }
                Err(rule) => {
                    self.rejected.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(service = self.name(), %rule, "a request is not valid and is dropped");
                    self.let_go(&locked, active);
                }
            }
        }
    }

    /// Lies down: from here on, a request wakes. Whoever does look for requests once more before waiting.
    pub(crate) fn lie_down(&self) -> Result<Waiting<'_>, RequestError> {
        let mut locked = self.lock()?;
        self.ports.get()?.ear.lie_down();
        locked.sleepers += 1;
        Ok(Waiting { port: self })
    }

    /// Takes pending wake-ups away and asks for a new one: the descriptor is readable again with the next request.
    pub(crate) fn arm(&self) -> Result<(), RequestError> {
        let _alone = self.lock()?;
        let ear = &self.ports.get()?.ear;
        ear.drain().map_err(|errno| self.damaged(format!("socket: {errno}")))?;
        ear.lie_down();
        Ok(())
    }

    pub(crate) fn as_fd(&self) -> Result<BorrowedFd<'_>, RequestError> {
        Ok(self.ports.get()?.ear.as_fd())
    }

    fn lock(&self) -> Result<MutexGuard<'_, Locked>, Forked> {
        Ok(self.ports.get()?.locked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The client waits no more, and is woken to see it.
    fn let_go(&self, _alone: &Locked, active: Active) {
        if ask(|| drop(active)).is_err() {
            self.broken.store(true, Ordering::Relaxed);
        }
        self.service.ring(self.service.settings().clients());
    }

    fn damaged(&self, reason: impl Into<String>) -> RequestError {
        RequestError::Broken { service: self.name().to_owned(), reason: reason.into() }
    }
}

impl Waiting<'_> {
    /// Sleeps until a request may be there or the time is over.
    pub(crate) fn wait(&self, bound: Duration) -> Result<(), RequestError> {
        let ear = &self.port.ports.get()?.ear;
        let pending = wake::wait(ear.as_fd(), bound.min(LONGEST_SLEEP));
        if pending.map_err(|errno| self.port.damaged(format!("poll: {errno}")))? {
            let _alone = self.port.lock()?;
            ear.drain().map_err(|errno| self.port.damaged(format!("socket: {errno}")))?;
        }
        Ok(())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let (Ok(ports), Ok(mut locked)) = (self.port.ports.get(), self.port.lock()) else { return };
        locked.sleepers -= 1;
        if locked.sleepers == 0 {
            ports.ear.get_up();
        } else {
            // The wake-up that came was for one of several: the others want one of their own.
            ports.ear.lie_down();
        }
    }
}

impl Asked {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Sends the reply, if the client still waits. It reads it once `self` is dropped.
    pub(crate) fn reply(self, bytes: &[u8]) -> Result<(), ReplyError> {
        let port = &self.port;
        let service = || port.name().to_owned();
        let max = port.service.settings().max_reply_bytes;
        let header = ControlHeader::new(ControlKind::Reply, bytes.len(), self.number)
            .filter(|_| bytes.len() <= max)
            .ok_or_else(|| ReplyError::TooLarge { service: service(), len: bytes.len(), max })?;
        let _alone = port.lock()?;
        let broken = |reason: String| ReplyError::Broken { service: service(), reason };
        if port.broken.load(Ordering::Relaxed) {
            return Err(broken("the port broke at an earlier call".to_owned()));
        }
        let gone = || ReplyError::ClientGone { service: service() };
        let active = self.active.as_ref().ok_or_else(gone)?;
        // iceoryx2 is silent about a reply that nobody will read, so the client is looked at first: whether it waits, and lives.
        let waits = ask(|| active.is_connected().then(|| active.origin().value())).map_err(|panicked| {
            port.broken.store(true, Ordering::Relaxed);
            broken(panicked.0)
        })?;
        let client = port.service.client(waits.ok_or_else(gone)?)?.ok_or_else(gone)?;
        if port.service.is_dead(client)? {
            return Err(gone());
        }
        let sent = ask(|| {
            let mut response = active.loan_slice_uninit(blocks_of(max))?;
            response.user_header_mut().0 = header;
            write(response.payload_mut(), bytes);
            // SAFETY: a body is mapped file memory, which the kernel hands out zeroed: its bytes are initialised, and every
            // bit pattern is a `Block64`.
            unsafe { response.assume_init() }.send().map_err(Refusal::Send)
        });
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Refusal::Loan(LoanError::OutOfMemory | LoanError::ExceedsMaxLoans))) => {
                Err(ReplyError::NoRoom { service: service() })
            }
            Ok(Err(refusal)) => Err(broken(format!("{refusal:?}"))),
            Err(panicked) => {
                port.broken.store(true, Ordering::Relaxed);
                Err(broken(panicked.0))
            }
        }
    }
}

#[derive(Debug)]
enum Refusal {
    Loan(LoanError),
    Send(#[expect(dead_code, reason = "shown by Debug")] iceoryx2::port::SendError),
}

impl From<LoanError> for Refusal {
    fn from(error: LoanError) -> Self {
        Self::Loan(error)
    }
}

impl Drop for Asked {
    /// Lets the client go, with or without a reply.
    fn drop(&mut self) {
        let Some(active) = self.active.take() else { return };
        match self.port.lock() {
            Ok(locked) => self.port.let_go(&locked, active.into_inner()),
            // It is the parent's.
            Err(Forked) => std::mem::forget(active),
        }
    }
}
