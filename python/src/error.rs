//! From the bus's errors to Python's. The classes are in `tensorbus/_errors.py`.

use pyo3::exceptions::{PyBufferError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tensorbus::{
    CallError, ContiguousError, DrainError, LayoutError, LoanError, PoolError, PublishError, ReceiveError, ReplyError,
    RequestError, ServiceError, SessionError, TopicError, ViewError, WaitError, dlpack::DlpackError,
};

/// An error of the class of this name.
pub(crate) fn named(py: Python<'_>, class: &str, text: String) -> PyErr {
    match class_of(py, class).and_then(|class| class.call1((text,))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

pub(crate) fn class_of<'py>(py: Python<'py>, class: &str) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || py.import("tensorbus._errors").map(Bound::unbind))?;
    module.bind(py).getattr(class)
}

pub(crate) fn invalid(py: Python<'_>, text: impl Into<String>) -> PyErr {
    named(py, "InvalidArgument", text.into())
}

pub(crate) fn unsupported(py: Python<'_>, text: impl Into<String>) -> PyErr {
    named(py, "UnsupportedTensor", text.into())
}

pub(crate) fn closed(py: Python<'_>, text: impl Into<String>) -> PyErr {
    named(py, "Closed", text.into())
}

/// What the buffer protocol and DLPack raise for what they cannot give.
pub(crate) fn buffer(text: impl Into<String>) -> PyErr {
    PyBufferError::new_err(text.into())
}

pub(crate) fn session(py: Python<'_>, error: &SessionError) -> PyErr {
    let class = match error {
        SessionError::Name { .. } | SessionError::PathTooLong { .. } => "InvalidArgument",
        SessionError::Quota { .. } => "Mismatch",
        SessionError::Forked => "Forked",
        _ => "Error",
    };
    named(py, class, error.to_string())
}

pub(crate) fn topic(py: Python<'_>, error: &TopicError) -> PyErr {
    let class = match error {
        TopicError::Name { .. } | TopicError::Setting { .. } => "InvalidArgument",
        TopicError::Mismatch { .. } => "Mismatch",
        TopicError::Pool(error) => return pool(py, error),
        TopicError::Forked => "Forked",
        _ => "Error",
    };
    named(py, class, error.to_string())
}

fn pool(py: Python<'_>, error: &PoolError) -> PyErr {
    let class = if matches!(error, PoolError::Size { .. }) { "InvalidArgument" } else { "OutOfMemory" };
    named(py, class, error.to_string())
}

pub(crate) fn layout(py: Python<'_>, error: &LayoutError) -> PyErr {
    invalid(py, error.to_string())
}

pub(crate) fn loan(py: Python<'_>, error: &LoanError) -> PyErr {
    let class = match error {
        LoanError::Layout(_) | LoanError::Encode(_) => "InvalidArgument",
        LoanError::TooLarge { .. } => "TooLarge",
        LoanError::NoFreeSlot { .. } => "NoFreeSlot",
        LoanError::Pool(error) => return pool(py, error),
        LoanError::Topic(error) => return topic(py, error),
        LoanError::Forked => "Forked",
        _ => "Error",
    };
    named(py, class, error.to_string())
}

pub(crate) fn publish(py: Python<'_>, error: &PublishError) -> PyErr {
    let class = match error {
        PublishError::Undelivered { delivered, missed, .. } => {
            return undelivered(py, error.to_string(), *delivered, *missed);
        }
        PublishError::Encode(_) => "InvalidArgument",
        PublishError::MetadataTooLarge { .. } => "TooLarge",
        PublishError::Loan(error) => return loan(py, error),
        PublishError::View(error) => return view(py, error),
        PublishError::Forked => "Forked",
        _ => "Error",
    };
    named(py, class, error.to_string())
}

fn undelivered(py: Python<'_>, text: String, delivered: usize, missed: usize) -> PyErr {
    let error = named(py, "Undelivered", text);
    let value = error.value(py);
    match value.setattr("delivered", delivered).and_then(|()| value.setattr("missed", missed)) {
        Ok(()) => error,
        Err(other) => other,
    }
}

pub(crate) fn receive(py: Python<'_>, error: &ReceiveError) -> PyErr {
    let class = match error {
        ReceiveError::Timeout { .. } => "Timeout",
        ReceiveError::TooManyHeld { .. } => "TooManyHeld",
        ReceiveError::Forked => "Forked",
        _ => "Error",
    };
    named(py, class, error.to_string())
}

pub(crate) fn wait(py: Python<'_>, error: &WaitError) -> PyErr {
    let class = match error {
        WaitError::TooFew { .. } => "Timeout",
        WaitError::Forked => "Forked",
        _ => "Error",
    };
    named(py, class, error.to_string())
}

pub(crate) fn drain(py: Python<'_>, error: &DrainError) -> PyErr {
    let class = match error {
        DrainError::Unopened { .. } => "Timeout",
        DrainError::Forked => "Forked",
        _ => "Error",
    };
    named(py, class, error.to_string())
}

pub(crate) fn service(py: Python<'_>, error: &ServiceError) -> PyErr {
    let class = match error {
        ServiceError::Name { .. } => "InvalidArgument",
        ServiceError::HasServer { .. } => "HasServer",
        ServiceError::Memory(error) => return pool(py, error),
        ServiceError::Version { .. } => "Mismatch",
        ServiceError::Forked => "Forked",
        _ => "Error",
    };
    named(py, class, error.to_string())
}

pub(crate) fn request(py: Python<'_>, error: &RequestError) -> PyErr {
    let class = match error {
        RequestError::Timeout { .. } => "Timeout",
        RequestError::Forked => "Forked",
        _ => "Error",
    };
    named(py, class, error.to_string())
}

pub(crate) fn call(py: Python<'_>, error: &CallError) -> PyErr {
    let class = match error {
        CallError::NoServer { .. } => "NoServer",
        CallError::ServerGone { .. } => "ServerGone",
        CallError::NoReply { .. } => "NoReply",
        CallError::TooLarge { .. } => "TooLarge",
        CallError::QueueFull { .. } => "QueueFull",
        CallError::Timeout { .. } => "Timeout",
        CallError::Abandoned { .. } => "Abandoned",
        CallError::Forked => "Forked",
        _ => "Error",
    };
    named(py, class, error.to_string())
}

pub(crate) fn reply(py: Python<'_>, error: &ReplyError) -> PyErr {
    let class = match error {
        ReplyError::ClientGone { .. } => "ClientGone",
        ReplyError::TooLarge { .. } => "TooLarge",
        ReplyError::Forked => "Forked",
        _ => "Error",
    };
    named(py, class, error.to_string())
}

pub(crate) fn view(py: Python<'_>, error: &ViewError) -> PyErr {
    let class = match error {
        ViewError::NoSuchTensor { .. } => "NoSuchTensor",
        ViewError::Forked => "Forked",
        ViewError::CopyMismatch { .. } | ViewError::SharedElements { .. } => "InvalidArgument",
        _ => "UnsupportedTensor",
    };
    named(py, class, error.to_string())
}

pub(crate) fn contiguous(py: Python<'_>, error: &ContiguousError) -> PyErr {
    named(py, "OutOfMemory", error.to_string())
}

pub(crate) fn dlpack(py: Python<'_>, error: &DlpackError) -> PyErr {
    unsupported(py, error.to_string())
}

/// What cannot happen, said all the same.
pub(crate) fn internal(text: &str) -> PyErr {
    PyRuntimeError::new_err(format!("{text}; this is an error of tensorbus"))
}
