use std::any::Any;
use std::cell::Cell;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use iceoryx2::pending_response::PendingResponse;
use iceoryx2::port::client::{Client, RequestSendError};
use iceoryx2::port::{BackpressureAction, SendError};
use iceoryx2::prelude::{AllocationStrategy, PayloadHeader};
use iceoryx2::service::port_factory::client::ClientCreateError;

use super::super::alone::Alone;
use super::super::node::Node;
use super::super::service::SessionService;
use super::super::shield::Panicked;
use super::super::turn::{Part, Turn};
use super::super::wake::{self, Ear};
use super::error::{CallError, ServiceError};
use super::service::{
    Body, Envelope, LONGEST_SLEEP, Member, OpenService, admit_messages, ask, blocks_of, copy_out, failed,
    reserve_messages, write,
};
use super::settings::{ServiceSettings, ServiceWishes};
use crate::os::Deadline;
use crate::wire::{ControlHeader, ControlKind};

/// Numbers that the first request of a client may have in iceoryx2. A prime, so that the steps below meet all of them.
const BEGINNINGS: u64 = 1021;
/// How far apart the clients of two processes begin that were started one after the other.
const BETWEEN_PROCESSES: u64 = 37;

type Pending = PendingResponse<SessionService, Body, Envelope, Body, Envelope>;

/// One client of a control service: one request at a time, and the reply to it.
#[derive(Debug)]
pub(crate) struct ClientPort {
    ports: Part<Alone<Ports>>,
    service: OpenService,
    next_number: u64,
    broken: Cell<bool>,
    /// What the ports live in, and must not outlive.
    _home: Arc<dyn Any + Send + Sync>,
}

#[derive(Debug)]
struct Ports {
    client: Client<SessionService, Body, Envelope, Body, Envelope>,
    ear: Ear,
}

impl ClientPort {
    /// `home` is what `node` lives in: it is dropped after this.
    pub(crate) fn create(
        node: &Node,
        name: &str,
        wishes: &ServiceWishes,
        home: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self, ServiceError> {
        admit_messages(node, name, ServiceSettings::REQUESTS, wishes.or_default()?.max_request_bytes)?;
        let _turn = Turn::take(node.directory()).map_err(|error| failed(name, error))?;
        let service = OpenService::open_or_create(node, name, wishes)?;
        let settings = *service.settings();
        let too_many = || ServiceError::TooManyClients { service: name.to_owned(), limit: settings.max_clients };
        // The ear comes first: whoever replies to the client can already wake it.
        let ear = service.listen(settings.clients())?.ok_or_else(too_many)?;
        let client = service
            .with("client", |calls| {
                calls
                    .client_builder()
                    .initial_max_slice_len(blocks_of(settings.max_request_bytes))
                    .allocation_strategy(AllocationStrategy::Static)
                    .set_backpressure_handler(|_| BackpressureAction::DiscardDataAndFail)
                    .create()
            })?
            .map_err(|error| match error {
                ClientCreateError::ExceedsMaxSupportedClients => too_many(),
                error => failed(name, format!("client: {error:?}")),
            })?;
        let id = client.id().value();
        // SAFETY: it belongs to this port, which is used through `&mut self` only; what a call makes of them ends with
        // the call.
        let ports = unsafe { Alone::new(Ports { client, ear }) };
        let ports = Part::new(ports, node.directory());
        let port = Self { ports, service, next_number: 0, broken: Cell::new(false), _home: home };
        reserve_messages(node, id, ServiceSettings::REQUESTS, settings.max_request_bytes)?;
        port.begin_at(id)?;
        Ok(port)
    }

    /// Lets iceoryx2 count this client's requests from a number that differs from other clients'.
    ///
    /// A server knows a request by its client's place and the request's number. When it lets go of a request of a client that
    /// is gone, it would close that of the next client in the same place if that had the same number.
    fn begin_at(&self, id: u128) -> Result<(), ServiceError> {
        let ports = self.ports.get()?;
        // iceoryx2 counts the ports of a process in the topmost 32 bits of their ids.
        let first = u64::from(std::process::id()) * BETWEEN_PROCESSES + (id >> 96) as u64;
        let burnt = ask(|| (0..first % BEGINNINGS).try_for_each(|_| ports.client.loan_slice_uninit(1).map(drop)));
        match burnt {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(self.name(), format!("{error:?}"))),
            Err(panicked) => Err(failed(self.name(), panicked.0)),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.service.name()
    }

    /// Sends a request and waits for the reply to it, while `go_on` says so.
    pub(crate) fn call(
        &mut self,
        bytes: &[u8],
        timeout: Duration,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<u8>, CallError> {
        let service = self.name().to_owned();
        let deadline = Deadline::after(timeout);
        let number = self.next_number;
        let max = self.service.settings().max_request_bytes;
        let header = ControlHeader::new(ControlKind::Request, bytes.len(), number)
            .filter(|_| bytes.len() <= max)
            .ok_or_else(|| CallError::TooLarge { service: service.clone(), len: bytes.len(), max })?;
        if self.broken.get() {
            return Err(self.damaged("the port broke at an earlier call"));
        }
        let ports = self.ports.get()?;
        let server = self.service.server()?.ok_or_else(|| CallError::NoServer { service: service.clone() })?;
        if self.service.is_dead(server)? {
            return Err(CallError::NoServer { service });
        }
        self.next_number += 1;
        let sent = ask(|| {
            let mut request = ports.client.loan_slice_uninit(blocks_of(max))?;
            request.user_header_mut().0 = header;
            write(request.payload_mut(), bytes);
            // SAFETY: a body is mapped file memory, which the kernel hands out zeroed: its bytes are initialised, and every
            // bit pattern is a `Block64`.
            unsafe { request.assume_init() }.send()
        });
        let pending = match sent {
            Ok(Ok(pending)) => pending,
            Ok(Err(RequestSendError::SendError(SendError::UnableToDeliver))) => {
                return Err(CallError::QueueFull { service });
            }
            Ok(Err(error)) => return Err(self.damaged(format!("{error:?}"))),
            Err(panicked) => return Err(self.give_up(panicked)),
        };
        if pending.number_of_server_connections() > 0 {
            self.service.ring(ServiceSettings::SERVER);
        }
        let reply = self.wait_for_reply(&ports.ear, &pending, number, server, (deadline, timeout), go_on);
        ports.ear.get_up();
        if ask(|| drop(pending)).is_err() {
            self.broken.set(true);
        }
        reply
    }

    fn wait_for_reply(
        &self,
        ear: &Ear,
        pending: &Pending,
        number: u64,
        server: Member,
        (deadline, timeout): (Deadline, Duration),
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<u8>, CallError> {
        let service = || self.name().to_owned();
        if pending.number_of_server_connections() == 0 {
            return Err(CallError::NoServer { service: service() });
        }
        let mut next_look = Deadline::after(LONGEST_SLEEP);
        loop {
            // What the server does from here on wakes; what it did before is looked for now.
            ear.lie_down();
            // Asked before the queue is looked at: a server lets go after it has replied.
            let waits = ask(|| pending.is_connected()).map_err(|panicked| self.give_up(panicked))?;
            if let Some(reply) = self.take_reply(pending, number)? {
                return Ok(reply);
            }
            if !waits {
                let is_there = self.service.server()? == Some(server) && !self.service.is_dead(server)?;
                return Err(match is_there {
                    true => CallError::NoReply { service: service() },
                    false => CallError::ServerGone { service: service() },
                });
            }
            let Some(left) = deadline.left() else {
                return Err(CallError::Timeout { service: service(), waited: timeout });
            };
            if !go_on() {
                return Err(CallError::Abandoned { service: service() });
            }
            if next_look.left().is_none() {
                // Nobody tells that a process was killed. What it had sent before was looked for above.
                if self.service.is_dead(server)? {
                    return Err(CallError::ServerGone { service: service() });
                }
                next_look = Deadline::after(LONGEST_SLEEP);
            }
            let bound = left.min(LONGEST_SLEEP);
            if wake::wait(ear.as_fd(), bound).map_err(|errno| self.damaged(format!("poll: {errno}")))? {
                ear.drain().map_err(|errno| self.damaged(format!("socket: {errno}")))?;
            }
        }
    }

    fn take_reply(&self, pending: &Pending, number: u64) -> Result<Option<Vec<u8>>, CallError> {
        let max = self.service.settings().max_reply_bytes;
        let received = ask(|| {
            let response = pending.receive()?;
            Ok::<_, iceoryx2::port::ReceiveError>(response.map(|reply| {
                let blocks = reply.header().number_of_elements();
                copy_out(reply.user_header(), blocks, || reply.payload(), max, |header| header.check_reply(number))
            }))
        });
        match received {
            Ok(Ok(Some(Ok((bytes, _))))) => Ok(Some(bytes)),
            Ok(Ok(Some(Err(reason)))) => Err(CallError::BadReply { service: self.name().to_owned(), reason }),
            Ok(Ok(None)) => Ok(None),
            Ok(Err(error)) => Err(self.damaged(format!("{error:?}"))),
            Err(panicked) => Err(self.give_up(panicked)),
        }
    }

    fn give_up(&self, panicked: Panicked) -> CallError {
        self.broken.set(true);
        self.damaged(panicked.0)
    }

    fn damaged(&self, reason: impl Into<String>) -> CallError {
        CallError::Broken { service: self.name().to_owned(), reason: reason.into() }
    }
}
