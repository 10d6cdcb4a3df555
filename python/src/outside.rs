use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;

use crate::error;

/// Drops a value while other Python threads run.
///
/// To drop a port takes locks that another thread may hold for a while, one that waits in `publish` among them; and a
/// publisher waits for its subscribers.
pub(crate) fn drop_outside<T: Send>(value: T) {
    // Where there is no interpreter any more, nobody else runs either, and the value is dropped with the closure.
    Python::try_attach(move |py| py.detach(move || drop(value)));
}

/// A bus or port that can be closed.
pub(crate) struct Closable<T: Send + Sync> {
    inner: Mutex<Option<Arc<T>>>,
    what: &'static str,
}

impl<T: Send + Sync> Closable<T> {
    pub(crate) fn new(inner: T, what: &'static str) -> Self {
        Self { inner: Mutex::new(Some(Arc::new(inner))), what }
    }

    /// The value, unless it is closed. It stays as long as what this returns.
    pub(crate) fn open(&self) -> Option<Arc<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<Arc<T>> {
        self.open().ok_or_else(|| error::closed(py, format!("the {} is closed", self.what)))
    }

    pub(crate) fn close(&self) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(inner) = inner {
            drop_outside(inner);
        }
    }
}

impl<T: Send + Sync> Drop for Closable<T> {
    fn drop(&mut self) {
        self.close();
    }
}
