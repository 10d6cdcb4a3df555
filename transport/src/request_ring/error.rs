use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::layout::{Dtype, TensorLayout};
use crate::pool::PoolError;
use crate::port::{
    Geometry, MAX_RING_CLIENTS, MAX_RING_NAME, MAX_RING_WORKERS, RingFailure, RingFormatError, RingSpecError, Side,
};

/// Why a request ring cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The name is not one a ring can have.
    #[error(
        "name {name:?} must have 1 to {MAX_RING_NAME} characters out of a-z A-Z 0-9 _ - . /, and not begin or end with /"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Rows, inputs or outputs that no ring can have.
    #[error(transparent)]
    Spec(#[from] RingSpecError),
    /// No worker has made a ring of this name.
    #[error("no worker serves {name:?}, there are {present:?}; start one")]
    NotThere {
        /// The name.
        name: String,
        /// Names that there are.
        present: Vec<String>,
    },
    /// Living workers serve something else under this name.
    #[error(
        "processes {pids:?} serve another model under the name {name:?}: {theirs}, not {ours}; use another name, or stop them"
    )]
    Differs {
        /// The name.
        name: String,
        /// What they serve.
        theirs: String,
        /// What this worker would serve.
        ours: String,
        /// Their process ids.
        pids: Vec<u32>,
    },
    /// As many clients or workers as a ring can have.
    #[error(
        "{name:?} has as many clients ({MAX_RING_CLIENTS}) or workers ({MAX_RING_WORKERS}) as a ring can have; share one between threads"
    )]
    TooManyParties {
        /// The name.
        name: String,
    },
    /// The file is not a ring of this version.
    #[error("{} is no ring of this version: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Which rule it breaks.
        reason: RingFormatError,
    },
    /// There is no room.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The operating system refused.
    #[error("the ring {name:?} cannot be opened: {reason}")]
    Io {
        /// The name.
        name: String,
        /// What it said.
        reason: io::Error,
    },
    /// The session cannot be changed.
    #[error("the session cannot be changed: {reason}")]
    Session {
        /// Why.
        reason: String,
    },
    /// The bus belongs to the process that this one was forked from.
    #[error("this process was forked from the one that opened the bus; open a bus of its own in the child")]
    Forked,
}

impl RingError {
    pub(super) fn of(failure: RingFailure, name: &str, ours: Option<&Geometry>) -> Self {
        let name = name.to_owned();
        match failure {
            RingFailure::NotThere { present } => Self::NotThere { name, present },
            RingFailure::Differs { theirs, pids } => {
                Self::Differs { name, theirs: describe(&theirs), ours: ours.map(describe).unwrap_or_default(), pids }
            }
            RingFailure::Full => Self::TooManyParties { name },
            RingFailure::Format { path, reason } => Self::Format { path, reason },
            RingFailure::Pool(error) => Self::Pool(error),
            RingFailure::Io(reason) => Self::Io { name, reason },
            RingFailure::Session(reason) => Self::Session { reason },
        }
    }
}

fn describe(geometry: &Geometry) -> String {
    let side = |side: &Side| {
        let tensor = |tensor: &TensorLayout| {
            let (name, dtype, shape): (_, Dtype, _) = (&tensor.name, tensor.dtype, &tensor.shape);
            format!("{name} {dtype} {shape:?}")
        };
        side.tensors().iter().map(tensor).collect::<Vec<_>>().join(", ")
    };
    format!(
        "[{}] -> [{}] in {} rows of which a client may have {}, {}",
        side(geometry.inputs()),
        side(geometry.outputs()),
        geometry.rows(),
        geometry.credits(),
        if geometry.may_repeat() { "repeatable" } else { "not repeatable" },
    )
}

/// Why there is no row for a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestLoanError {
    /// This client has as many rows as it may have.
    #[error("this client has {credits} requests and answers, as many as {ring:?} allows at a time; drop some first")]
    NoCredits {
        /// Name of the ring.
        ring: String,
        /// Rows that a client may have.
        credits: usize,
    },
    /// All rows are taken, by this client and others.
    #[error(
        "all {rows} rows of {ring:?} are in use; waited {waited:?}. Ask later, start more workers, or give the ring more rows"
    )]
    Overloaded {
        /// Name of the ring.
        ring: String,
        /// Rows of the ring.
        rows: usize,
        /// How long this client waited.
        waited: Duration,
    },
    /// The operating system refused.
    #[error("waiting for a row of {ring:?}: {reason}")]
    Io {
        /// Name of the ring.
        ring: String,
        /// What it said.
        reason: io::Error,
    },
    /// The client belongs to the process that this one was forked from.
    #[error("this process was forked from the one that made the client; make a client of its own in the child")]
    Forked,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// No answer in time. The request is withdrawn: if a worker runs it already, what it answers is dropped.
    #[error("{ring:?} did not answer within {waited:?}; its workers are busy or stopped")]
    Timeout {
        /// Name of the ring.
        ring: String,
        /// How long this client waited.
        waited: Duration,
    },
    /// The worker died while it ran the request, which may not be repeated.
    #[error("the worker of {ring:?} died while it ran the request, which may or may not have had an effect")]
    WorkerDied {
        /// Name of the ring.
        ring: String,
    },
    /// No worker is there. The request was not run, or may be repeated.
    #[error("no worker serves {ring:?} any more; start one, then make a new client")]
    NoWorker {
        /// Name of the ring.
        ring: String,
    },
    /// The worker says that the request failed.
    #[error("{ring:?} failed: {reason}")]
    Failed {
        /// Name of the ring.
        ring: String,
        /// What the worker says.
        reason: String,
    },
    /// The ring's file was written by somebody who may not.
    #[error("the ring {ring:?} is damaged; stop whoever writes to its file, then start its workers again")]
    Damaged {
        /// Name of the ring.
        ring: String,
    },
    /// The operating system refused.
    #[error("waiting for an answer of {ring:?}: {reason}")]
    Io {
        /// Name of the ring.
        ring: String,
        /// What it said.
        reason: io::Error,
    },
    /// The client belongs to the process that this one was forked from.
    #[error("this process was forked from the one that made the client; make a client of its own in the child")]
    Forked,
}

/// Why there is no batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeError {
    /// No request in time.
    #[error("no request for {ring:?} within {waited:?}")]
    Timeout {
        /// Name of the ring.
        ring: String,
        /// How long this worker waited.
        waited: Duration,
    },
    /// The operating system refused.
    #[error("waiting for requests to {ring:?}: {reason}")]
    Io {
        /// Name of the ring.
        ring: String,
        /// What it said.
        reason: io::Error,
    },
    /// The worker belongs to the process that this one was forked from.
    #[error("this process was forked from the one that made the worker; make a worker of its own in the child")]
    Forked,
}
