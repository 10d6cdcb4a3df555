//! A request for a model on its way: what waits is a future that is polled here, by a thread that lets others run or by an event
//! loop that watches a descriptor. Nothing of Python is called by who wakes it.

use std::future::Future;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use pyo3::prelude::*;
use pyo3::types::PyType;
use tensorbus::{BoxError, EntryBuilder, KeepAlive, LoadError};

use crate::error;
use crate::model::{PythonModel, Raised};
use crate::outside::drop_outside;
use crate::wait::{timeout, wait};

type Handle = tensorbus::ModelHandle<PythonModel>;
type Answer = Pin<Box<dyn Future<Output = Result<Handle, LoadError>> + Send>>;
type Loaded = Result<PythonModel, Raised>;

/// A request for a model. It is polled; then either the model is there, or somebody else loads it and the caller waits, or the
/// caller has to load it and say what came of that. Dropped before that, it leaves the load to somebody else.
#[pyclass(frozen, name = "_Request", module = "tensorbus._core")]
pub(crate) struct Request {
    key: String,
    answer: Mutex<Option<Answer>>,
    duty: Arc<Duty>,
    /// Made when an event loop waits.
    pipe: Mutex<Option<Pipe>>,
}

struct Pipe {
    reader: PipeReader,
    alarm: Arc<OfLoop>,
}

/// What holds of a model if it has to be loaded.
pub(crate) struct Wish {
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) keep_alive: Option<KeepAlive>,
    pub(crate) pinned: bool,
}

impl Wish {
    fn applied<'a>(&self, mut entry: EntryBuilder<'a>) -> EntryBuilder<'a> {
        if let Some(bytes) = self.memory_bytes {
            entry = entry.bytes(bytes);
        }
        if let Some(keep_alive) = self.keep_alive {
            entry = entry.keep_alive(keep_alive);
        }
        if self.pinned { entry.pinned() } else { entry }
    }
}

/// What the future of a request and its caller say to each other.
#[derive(Default)]
struct Duty {
    /// The caller has to load.
    is_there: AtomicBool,
    loaded: Mutex<Option<Loaded>>,
}

impl Duty {
    fn take(&self) -> Option<Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Request {
    /// Asks `registry` for a model.
    pub(crate) fn new(registry: tensorbus::ModelRegistry, key: String, wish: Wish) -> Self {
        let duty = Arc::new(Duty::default());
        let (theirs, asked) = (duty.clone(), key.clone());
        let answer = async move {
            let loader = || {
                theirs.is_there.store(true, Ordering::Relaxed);
                std::future::poll_fn(|_| match theirs.take() {
                    Some(loaded) => Poll::Ready(loaded.map_err(BoxError::from)),
                    None => Poll::Pending,
                })
            };
            wish.applied(registry.entry(&asked)).get_or_load(loader).await
        };
        Self { key, answer: Mutex::new(Some(Box::pin(answer))), duty, pipe: Mutex::new(None) }
    }

    fn poll_with(&self, py: Python<'_>, waker: &Waker) -> PyResult<Option<ModelHandle>> {
        let polled = py.detach(|| {
            let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
            let polled = answer.as_mut()?.as_mut().poll(&mut Context::from_waker(waker));
            if polled.is_ready() {
                *answer = None;
            }
            Some(polled)
        });
        match polled {
            Some(Poll::Ready(Ok(handle))) => Ok(Some(ModelHandle::new(self.key.clone(), handle))),
            Some(Poll::Ready(Err(failure))) => Err(load_error(py, &failure)),
            Some(Poll::Pending) => Ok(None),
            None => Err(error::closed(py, "the request was answered, or given up")),
        }
    }

    fn end(&self, py: Python<'_>, loaded: Loaded) -> PyResult<ModelHandle> {
        *self.duty.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some(loaded);
        let handle = self.poll_with(py, Waker::noop())?;
        handle.ok_or_else(|| error::internal("a request that nobody was to load"))
    }
}

#[pymethods]
impl Request {
    /// The handle, if the model is there. Else the caller loads or waits, as ``must_load`` says.
    fn poll(&self, py: Python<'_>) -> PyResult<Option<ModelHandle>> {
        let waker = match &*self.pipe.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(pipe) => {
                py.detach(|| pipe.alarm.reset(&pipe.reader))?;
                Waker::from(pipe.alarm.clone())
            }
            None => Waker::noop().clone(),
        };
        self.poll_with(py, &waker)
    }

    /// Whether the caller has to load the model, and to call ``loaded`` or ``failed``.
    #[getter]
    fn must_load(&self) -> bool {
        self.duty.is_there.load(Ordering::Relaxed)
    }

    /// Wait for another one's load on this thread, at most ``timeout`` seconds: the handle, or ``None`` if ``must_load``.
    #[pyo3(signature = (timeout))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<ModelHandle>> {
        let bound = self::timeout(py, timeout)?;
        let alarm = Arc::new(OfThread(std::thread::current()));
        let waker = Waker::from(alarm);
        let waited = wait(py, bound, |py, slice| {
            // What wakes from here on, before the thread sleeps, ends the sleep.
            match self.poll_with(py, &waker) {
                Ok(None) if !self.must_load() => {}
                polled => return Some(polled),
            }
            py.detach(|| std::thread::park_timeout(slice));
            None
        })?;
        waited.unwrap_or_else(|| Err(self.late(py, timeout)))
    }

    /// What an event loop watches: readable once ``poll`` is to be called again.
    fn fileno(&self) -> PyResult<i32> {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = &*pipe {
            return Ok(pipe.reader.as_raw_fd());
        }
        let (reader, writer) = std::io::pipe()?;
        let number = reader.as_raw_fd();
        *pipe = Some(Pipe { reader, alarm: Arc::new(OfLoop { writer, is_woken: AtomicBool::new(false) }) });
        Ok(number)
    }

    /// The error of a wait that took too long.
    #[pyo3(signature = (timeout))]
    fn timed_out(&self, py: Python<'_>, timeout: Option<f64>) -> Py<PyAny> {
        self.late(py, timeout).into_value(py).into_any()
    }

    /// The caller has loaded the model.
    fn loaded(&self, py: Python<'_>, model: Py<PyAny>, memory_bytes: u64, device: String) -> PyResult<ModelHandle> {
        self.end(py, Ok(PythonModel::new(model, memory_bytes, tensorbus::Device::new(device))))
    }

    /// The caller's loader has raised: everybody who waits gets the exception.
    fn failed(&self, py: Python<'_>, exception: &Bound<'_, PyAny>) -> PyResult<ModelHandle> {
        self.end(py, Err(Raised::new(py, &PyErr::from_value(exception.clone()))))
    }

    /// Give it up: somebody else loads the model, if this caller was to.
    fn cancel(&self) {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Tracebacks may keep this for long.
        let pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop_outside((answer, pipe));
    }
}

impl Request {
    fn late(&self, py: Python<'_>, timeout: Option<f64>) -> PyErr {
        let waited = timeout.map_or_else(String::new, |seconds| format!(" after {seconds} s"));
        let text = format!(
            "model {:?} is still being loaded{waited}; wait longer (`timeout`), or look what its loader does",
            self.key
        );
        error::named(py, "Timeout", text)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Wakes a thread that is parked.
struct OfThread(Thread);

impl Wake for OfThread {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Wakes an event loop.
struct OfLoop {
    writer: PipeWriter,
    /// A byte is in the pipe, or about to be.
    is_woken: AtomicBool,
}

impl OfLoop {
    /// Takes the byte out of the pipe, if it was woken.
    fn reset(&self, mut reader: &PipeReader) -> std::io::Result<()> {
        if self.is_woken.load(Ordering::Acquire) {
            // It is there, or written by a thread that is at it.
            reader.read_exact(&mut [0])?;
            self.is_woken.store(false, Ordering::Release);
        }
        Ok(())
    }
}

impl Wake for OfLoop {
    fn wake(self: Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            // It fails if the request is gone, and nobody waits.
            let _ = (&self.writer).write(&[1]);
        }
    }
}

/// A share of a model: it stays in memory for as long as somebody has one.
///
/// ``with handle as model:`` gives the model and lets go at the end of the block; so does ``release()``, or dropping it. The
/// model must not be kept beyond that: a variable that still has it keeps its memory.
#[pyclass(frozen, module = "tensorbus", weakref)]
pub(crate) struct ModelHandle {
    key: String,
    inner: Mutex<Option<Handle>>,
}

impl ModelHandle {
    pub(crate) fn new(key: String, inner: Handle) -> Self {
        Self { key, inner: Mutex::new(Some(inner)) }
    }

    fn take(&self) -> Option<Handle> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[pymethods]
impl ModelHandle {
    /// Key of the model.
    #[getter]
    fn key(&self) -> &str {
        &self.key
    }

    /// The model: what the loader returned. Raises ``Closed`` after ``release``.
    #[getter]
    fn model<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let object = inner.as_ref().and_then(|handle| handle.object(py));
        object.ok_or_else(|| error::closed(py, format!("the handle of model {:?} was released", self.key)))
    }

    /// Let go of the model. With its last handle it is idle, and is unloaded after its time.
    fn release(&self) {
        drop_outside(self.take());
    }

    fn __enter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.model(py)
    }

    /// For types: ``ModelHandle[Embedding]``.
    #[classmethod]
    fn __class_getitem__<'py>(class: &Bound<'py, PyType>, model: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        class.py().import("types")?.getattr("GenericAlias")?.call1((class, model))
    }

    #[pyo3(signature = (_kind, _error, _trace, /))]
    fn __exit__(
        &self,
        _kind: Option<Bound<'_, PyType>>,
        _error: Option<Bound<'_, PyAny>>,
        _trace: Option<Bound<'_, PyAny>>,
    ) {
        self.release();
    }

    fn __repr__(&self) -> String {
        format!("<ModelHandle of {:?}>", self.key)
    }
}

fn load_error(py: Python<'_>, error: &LoadError) -> PyErr {
    let class = match error {
        LoadError::Failed { reason, .. } => match reason.downcast_ref::<Raised>() {
            Some(raised) => return raised.again(py),
            None => "Error",
        },
        LoadError::Key(_) => "InvalidArgument",
        LoadError::OverBudget { .. } => "OutOfMemory",
        LoadError::Timeout { .. } => "Timeout",
        _ => "Error",
    };
    error::named(py, class, error.to_string())
}
