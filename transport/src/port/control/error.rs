use std::time::Duration;

use crate::os::Forked;
use crate::pool::PoolError;
use crate::wire::{CONTROL_VERSION, ControlDecodeError};

/// Why a control service cannot be opened, or a server or client not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The name is not one a service can have.
    #[error(
        "service name {name:?} must have 1 to {max} characters out of a-z A-Z 0-9 _ - . /, and not begin or end with /"
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
    /// Somebody opened the service with another setting before.
    #[error(
        "service {service:?} exists with {setting} {existing}, this program asks for {requested}; use the same setting in all programs, or leave it open in this one"
    )]
    Mismatch {
        /// The service.
        service: String,
        /// The setting that differs.
        setting: &'static str,
        /// What the service has.
        existing: usize,
        /// What was asked for.
        requested: usize,
    },
    /// Somebody uses the service with another version of the control messages.
    #[error(
        "service {service:?} speaks control version {theirs}, this program {CONTROL_VERSION}; run the same tensorbus on both sides"
    )]
    Version {
        /// The service.
        service: String,
        /// Version of the one who made the service.
        theirs: String,
    },
    /// A living process serves this name already.
    #[error("service {service:?} has a server already; a service has one: use another name, or end the other server")]
    HasServer {
        /// The service.
        service: String,
    },
    /// All places for clients are taken.
    #[error("service {service:?} has all {limit} clients it can have; share a client in a process, or drop some")]
    TooManyClients {
        /// The service.
        service: String,
        /// Clients at most.
        limit: usize,
    },
    /// There is no memory for the messages, or for the service's small files.
    #[error(transparent)]
    Memory(#[from] PoolError),
    /// The bus belongs to the process that this one was forked from.
    #[error("this process was forked from the one that opened the bus; open a bus of its own in the child")]
    Forked,
    /// The operating system or iceoryx2 refused.
    #[error("service {service:?} could not be opened: {reason}; `tensorbus doctor` tells what the machine lacks")]
    Failed {
        /// The service.
        service: String,
        /// What was refused.
        reason: String,
    },
}

/// Why there is no reply.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Nobody serves this name, or who did was killed.
    #[error("service {service:?} has no server; start it, or call again once it is there")]
    NoServer {
        /// The service.
        service: String,
    },
    /// The server was killed, or ended, before it replied. Whether it did what it was asked for is not known.
    #[error(
        "the server of {service:?} ended before it replied; ask again if the request may be done twice, once there is a new server"
    )]
    ServerGone {
        /// The service.
        service: String,
    },
    /// The server is there and let go of the request without a reply.
    #[error("the server of {service:?} dropped the request without a reply; its log may say why")]
    NoReply {
        /// The service.
        service: String,
    },
    /// The request is too large.
    #[error(
        "a request of {len} bytes is too large for service {service:?}, at most {max} fit; publish large data on a topic"
    )]
    TooLarge {
        /// The service.
        service: String,
        /// Bytes of the request.
        len: usize,
        /// Bytes that the service has room for.
        max: usize,
    },
    /// The server has not taken an earlier request of this client yet, which the client gave up.
    #[error("service {service:?} has not taken this client's earlier request yet; call again later")]
    QueueFull {
        /// The service.
        service: String,
    },
    /// No reply came in time. The server may still do what it was asked for.
    #[error("no reply of service {service:?} within {waited:?}; the server is busy or stopped")]
    Timeout {
        /// The service.
        service: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The caller gave the call up ([`ControlClient::call_while`](crate::ControlClient::call_while)). The server may still do
    /// what it was asked for.
    #[error("the call to service {service:?} was given up before the reply came")]
    Abandoned {
        /// The service.
        service: String,
    },
    /// The reply breaks a rule; nothing of it was used.
    #[error("the reply of service {service:?} is not valid: {reason}")]
    BadReply {
        /// The service.
        service: String,
        /// The rule that it breaks.
        reason: ControlDecodeError,
    },
    /// The bus belongs to the process that this one was forked from.
    #[error("this process was forked from the one that opened the bus; open a bus of its own in the child")]
    Forked,
    /// The port is damaged.
    #[error("service {service:?} is damaged: {reason}; make a new client, and if that fails open a new bus")]
    Broken {
        /// The service.
        service: String,
        /// What went wrong.
        reason: String,
    },
}

/// Why a server has no request.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// None came in time.
    #[error("no request to service {service:?} within {waited:?}")]
    Timeout {
        /// The service.
        service: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The bus belongs to the process that this one was forked from.
    #[error("this process was forked from the one that opened the bus; open a bus of its own in the child")]
    Forked,
    /// The port is damaged.
    #[error("service {service:?} is damaged: {reason}; make a new server, and if that fails open a new bus")]
    Broken {
        /// The service.
        service: String,
        /// What went wrong.
        reason: String,
    },
}

/// Why a reply was not delivered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The client was killed, ended, or gave the request up. Nobody waits for the reply.
    #[error("the client that asked {service:?} is gone or waits no more; the reply is dropped")]
    ClientGone {
        /// The service.
        service: String,
    },
    /// The reply is too large. The client is told that there is none.
    #[error(
        "a reply of {len} bytes is too large for service {service:?}, at most {max} fit; publish large data on a topic"
    )]
    TooLarge {
        /// The service.
        service: String,
        /// Bytes of the reply.
        len: usize,
        /// Bytes that the service has room for.
        max: usize,
    },
    /// Clients have not taken their replies, and no memory is left for this one. The client is told that there is none.
    #[error("service {service:?} has no room for the reply: clients have not taken earlier ones")]
    NoRoom {
        /// The service.
        service: String,
    },
    /// The bus belongs to the process that this one was forked from.
    #[error("this process was forked from the one that opened the bus; open a bus of its own in the child")]
    Forked,
    /// The port is damaged.
    #[error("service {service:?} is damaged: {reason}; make a new server, and if that fails open a new bus")]
    Broken {
        /// The service.
        service: String,
        /// What went wrong.
        reason: String,
    },
}

impl From<Forked> for ServiceError {
    fn from(_: Forked) -> Self {
        Self::Forked
    }
}

impl From<Forked> for CallError {
    fn from(_: Forked) -> Self {
        Self::Forked
    }
}

impl From<Forked> for RequestError {
    fn from(_: Forked) -> Self {
        Self::Forked
    }
}

impl From<Forked> for ReplyError {
    fn from(_: Forked) -> Self {
        Self::Forked
    }
}
