//! Requests and replies: small control messages from clients to the one server of a service, and back.
//!
//! iceoryx2's request-response carries the bytes. What is added: messages that are copied and checked before they are used,
//! one server a name (iceoryx2 hands each request to all), wake-ups, bounded memory, and deaths that are noticed.

mod client;
mod error;
mod server;
mod service;
mod settings;

pub(crate) use client::ClientPort;
pub use error::{CallError, ReplyError, RequestError, ServiceError};
pub(crate) use server::{Asked, ServerPort};
pub(super) use service::ports_of;
pub use settings::MAX_CONTROL_CLIENTS;
pub(crate) use settings::ServiceWishes;
