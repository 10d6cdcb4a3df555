use std::time::Duration;

use tensorbus_transport::{Bus, CallError, ControlRequest, ServiceBuilder, ServiceError};

use super::known::ProcessModels;
use super::wire::{
    self, Answer, Command, DirectoryDecodeError, MAX_ANSWER_BYTES, MAX_COMMAND_BYTES, MAX_REASON_BYTES, UNLOAD,
};
use crate::error::{KeyError, MAX_KEY_BYTES, check_key};
use crate::registry::ModelRegistry;

/// Who can give commands to one registry at a time.
const COMMANDERS: usize = 8;

/// Why a model of another process was not unloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteUnloadError {
    /// The key is not one that a model can have.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The process refuses, and says why.
    #[error("process {pid}: {reason}")]
    Refused {
        /// The process.
        pid: u32,
        /// What it said.
        reason: String,
    },
    /// The process cannot be asked.
    #[error("process {pid} cannot be asked: {reason}")]
    Service {
        /// The process.
        pid: u32,
        /// What went wrong.
        reason: ServiceError,
    },
    /// It did not answer.
    #[error("process {pid} did not answer: {reason}")]
    Call {
        /// The process.
        pid: u32,
        /// What went wrong.
        reason: CallError,
    },
    /// Its answer makes no sense.
    #[error("process {pid} answered what this program does not understand: {reason}")]
    Answer {
        /// The process.
        pid: u32,
        /// What is wrong with it.
        reason: DirectoryDecodeError,
    },
}

/// Asks a process to unload a model of one of its registries, and waits for its answer.
///
/// # Errors
/// [`RemoteUnloadError`]: the model is in use, pinned or not there, or the process does not answer.
pub fn unload_remotely(bus: &Bus, of: &ProcessModels, key: &str, timeout: Duration) -> Result<(), RemoteUnloadError> {
    check_key(key)?;
    let pid = of.pid;
    let mut client =
        service(bus, pid, of.incarnation).client().map_err(|reason| RemoteUnloadError::Service { pid, reason })?;
    let command = wire::encode_command(&Command { what: UNLOAD, key: key.to_owned() });
    let answer = client.call(&command, timeout).map_err(|reason| RemoteUnloadError::Call { pid, reason })?;
    match wire::decode_answer(&answer) {
        Ok(Answer { refusal }) if refusal.is_empty() => Ok(()),
        Ok(Answer { refusal }) => Err(RemoteUnloadError::Refused { pid, reason: refusal }),
        Err(reason) => Err(RemoteUnloadError::Answer { pid, reason }),
    }
}

/// The control service of one registry. Small: each process that announces models has one.
pub(super) fn service(bus: &Bus, pid: u32, incarnation: u64) -> ServiceBuilder {
    bus.service(&format!("tensorbus/models/{pid}-{incarnation:016x}"))
        .max_request_bytes(MAX_COMMAND_BYTES)
        .max_reply_bytes(MAX_ANSWER_BYTES)
        .max_clients(COMMANDERS)
}

/// Does what a request asks for.
pub(super) fn answer(registry: &ModelRegistry, request: ControlRequest) {
    let refusal = match wire::decode_command(request.bytes()) {
        Ok(Command { key, .. }) => registry.unload(&key).err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    let refusal = wire::cut(&refusal.unwrap_or_default(), MAX_KEY_BYTES + MAX_REASON_BYTES);
    if let Err(error) = request.reply(&wire::encode_answer(&Answer { refusal })) {
        tracing::debug!(%error, "who gave a command to the model registry does not wait for the answer");
    }
}
