use std::ops::Range;

use super::error::ServiceError;
use crate::wire::MAX_CONTROL_BYTES;

/// Clients that a control service can have at a time.
pub const MAX_CONTROL_CLIENTS: usize = 32;

/// What the first one to open a service fixes for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ServiceSettings {
    pub(super) max_request_bytes: usize,
    pub(super) max_reply_bytes: usize,
    pub(super) max_clients: usize,
}

/// What one side asks for; what it leaves open it takes as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ServiceWishes {
    pub(crate) max_request_bytes: Option<usize>,
    pub(crate) max_reply_bytes: Option<usize>,
    pub(crate) max_clients: Option<usize>,
}

impl ServiceSettings {
    /// Requests of one client that exist at a time: one that is written, one in the queue, one that the server holds. iceoryx2
    /// makes as many by its own formula, `servers * 2 * active + loaned`.
    pub(super) const REQUESTS: usize = 3;

    /// Replies that exist at a time: for each client one that it reads and one that came too late for an earlier call, and the
    /// one that is just written. iceoryx2 would make three times as many.
    pub(super) fn replies(&self) -> usize {
        2 * self.max_clients + 1
    }

    /// The server's place on the service's board.
    pub(super) const SERVER: Range<usize> = 0..1;

    /// Those of the clients.
    pub(super) fn clients(&self) -> Range<usize> {
        Self::SERVER.end..Self::SERVER.end + self.max_clients
    }
}

impl ServiceWishes {
    pub(super) fn or_default(&self) -> Result<ServiceSettings, ServiceError> {
        let settings = ServiceSettings {
            max_request_bytes: self.max_request_bytes.unwrap_or(MAX_CONTROL_BYTES),
            max_reply_bytes: self.max_reply_bytes.unwrap_or(MAX_CONTROL_BYTES),
            max_clients: self.max_clients.unwrap_or(MAX_CONTROL_CLIENTS),
        };
        for (setting, value, max) in [
            ("max_request_bytes", settings.max_request_bytes, MAX_CONTROL_BYTES),
            ("max_reply_bytes", settings.max_reply_bytes, MAX_CONTROL_BYTES),
            ("max_clients", settings.max_clients, MAX_CONTROL_CLIENTS),
        ] {
            if !(1..=max).contains(&value) {
                return Err(ServiceError::Setting { setting, value, min: 1, max });
            }
        }
        Ok(settings)
    }

    /// Whether a service as it is satisfies what is asked for.
    pub(super) fn verify(&self, service: &str, existing: &ServiceSettings) -> Result<(), ServiceError> {
        for (setting, wish, existing) in [
            ("max_request_bytes", self.max_request_bytes, existing.max_request_bytes),
            ("max_reply_bytes", self.max_reply_bytes, existing.max_reply_bytes),
            ("max_clients", self.max_clients, existing.max_clients),
        ] {
            if let Some(requested) = wish.filter(|&wish| wish != existing) {
                return Err(ServiceError::Mismatch { service: service.to_owned(), setting, existing, requested });
            }
        }
        Ok(())
    }
}
