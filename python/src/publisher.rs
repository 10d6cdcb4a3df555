use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping, PyTuple, PyType};
use tensorbus::{DEFAULT_TENSOR_NAME, LoanError, Overflow, TensorSpec};

use crate::dtype;
use crate::error;
use crate::loan::Loan;
use crate::message_mut::MessageMut;
use crate::metadata;
use crate::outside::Closable;
use crate::source::Source;
use crate::tensor_mut::TensorMut;
use crate::wait::{timeout, wait};

/// The sending side of a topic. Made by ``Bus.publisher``; threads may share one.
#[pyclass(frozen, module = "tensorbus", weakref)]
pub(crate) struct Publisher {
    port: Closable<Port>,
}

/// The publisher, and what its loans need of it.
pub(crate) struct Port {
    publisher: tensorbus::Publisher,
    /// Whether a loan can take a while whenever it is made.
    slow_loans: bool,
    has_pool: AtomicBool,
    copied_bytes: AtomicU64,
}

/// What has become of a publisher's messages so far.
#[pyclass(frozen, module = "tensorbus", get_all)]
pub(crate) struct PublisherStats {
    /// Messages that were published, whoever got them.
    published: u64,
    /// Messages that nobody was there to get.
    unheard: u64,
    /// Subscribers that did not get a message because their queue was full: one for each of them and each message.
    refused: u64,
    /// Calls that failed to publish.
    failed: u64,
    /// Loans that were refused.
    loans_refused: u64,
    /// Bytes that ``publish`` copied, and those of loans that had to be copied. What is written in place adds nothing.
    copied_bytes: u64,
}

impl Port {
    /// Lets other Python threads run where the call can take a while: they may be what it waits for.
    ///
    /// Elsewhere it takes about a microsecond, and who gives the interpreter away may wait five milliseconds to get it back.
    pub(crate) fn run<T: Send>(&self, py: Python<'_>, call: impl FnOnce(&tensorbus::Publisher) -> T + Send) -> T {
        let blocks = matches!(self.publisher.settings().overflow, Overflow::Block(_));
        if blocks || self.slow_loans || !self.has_pool.load(Ordering::Relaxed) {
            py.detach(|| call(&self.publisher))
        } else {
            call(&self.publisher)
        }
    }

    pub(crate) fn loan(&self, py: Python<'_>, tensors: &[TensorSpec]) -> PyResult<tensorbus::MessageMut> {
        let loaned = self.run(py, |publisher| publisher.loan_message(tensors));
        self.has_pool.store(!matches!(loaned, Err(LoanError::Topic(_))), Ordering::Relaxed);
        loaned.map_err(|failure| error::loan(py, &failure))
    }

    pub(crate) fn count_copied(&self, bytes: usize) {
        self.copied_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Publisher {
    pub(crate) fn new(publisher: tensorbus::Publisher, slow_loans: bool) -> Self {
        let port = Port { publisher, slow_loans, has_pool: AtomicBool::new(false), copied_bytes: AtomicU64::new(0) };
        Self { port: Closable::new(port, "publisher") }
    }

    fn loan_of(&self, py: Python<'_>, tensors: &[TensorSpec]) -> PyResult<Arc<Loan>> {
        let port = self.port.get(py)?;
        let message = port.loan(py, tensors)?;
        Ok(Arc::new(Loan::new(py, port, message)?))
    }
}

/// A tensor's shape: sizes, or the only one.
fn sizes(shape: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    let size = |object: &Bound<'_, PyAny>| -> PyResult<usize> {
        let size: i64 = object.extract()?;
        usize::try_from(size).map_err(|_| error::invalid(object.py(), format!("a size of {size} is negative")))
    };
    if !shape.is_instance_of::<PyTuple>() && shape.extract::<i64>().is_ok() {
        return Ok(vec![size(shape)?]);
    }
    shape.try_iter()?.map(|item| size(&item?)).collect()
}

fn spec(
    py: Python<'_>,
    name: &str,
    shape: &Bound<'_, PyAny>,
    dtype: &Bound<'_, PyAny>,
    order: &str,
) -> PyResult<TensorSpec> {
    let spec = TensorSpec::new(name, dtype::parse(dtype)?, &sizes(shape)?);
    match order {
        "C" => Ok(spec),
        "F" => Ok(spec.column_major()),
        other => Err(error::invalid(py, format!("no order {other:?}; it is 'C' (row-major) or 'F' (column-major)"))),
    }
}

#[pymethods]
impl Publisher {
    /// Take a slot for a message of one tensor, to be written in place.
    ///
    /// As a context manager it is published at the end of the block, and discarded if the block raises. The elements are
    /// those of some earlier message, or zero. ``order`` is ``"C"`` (row-major) or ``"F"`` (column-major).
    #[pyo3(signature = (shape, dtype, *, order="C"))]
    fn loan(
        &self,
        py: Python<'_>,
        shape: &Bound<'_, PyAny>,
        dtype: &Bound<'_, PyAny>,
        order: &str,
    ) -> PyResult<TensorMut> {
        let spec = spec(py, DEFAULT_TENSOR_NAME, shape, dtype, order)?;
        TensorMut::new(py, self.loan_of(py, &[spec])?)
    }

    /// Take a slot for a message of several named tensors: ``{"image": (shape, dtype), "mask": (shape, dtype, "F")}``.
    fn loan_message(&self, py: Python<'_>, tensors: &Bound<'_, PyDict>) -> PyResult<MessageMut> {
        let specs = tensors
            .iter()
            .map(|(name, value)| {
                let name: String = name.extract()?;
                let (shape, dtype, order) = match value.len()? {
                    3 => value.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>, String)>()?,
                    _ => {
                        let (shape, dtype) = value.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
                        (shape, dtype, "C".to_owned())
                    }
                };
                spec(py, &name, &shape, &dtype, &order)
            })
            .collect::<PyResult<Vec<_>>>()?;
        MessageMut::new(py, self.loan_of(py, &specs)?)
    }

    /// Copy an array into a slot and publish it: one copy, which writing into a loan avoids.
    ///
    /// Takes what has DLPack or the buffer protocol: arrays of NumPy, PyTorch, JAX, ``memoryview``, ``bytes``, received
    /// tensors; or a mapping of names to such for a message of several tensors. Dense arrays keep the order of their
    /// elements in memory; others are copied into row-major order. Returns the number of subscribers that have the message
    /// in their queue.
    #[pyo3(signature = (tensors, *, metadata=None, source_time_ns=None))]
    fn publish(
        &self,
        py: Python<'_>,
        tensors: &Bound<'_, PyAny>,
        metadata: Option<&Bound<'_, PyDict>>,
        source_time_ns: Option<u64>,
    ) -> PyResult<usize> {
        let metadata = metadata.map(metadata::from_dict).transpose()?;
        let sources = match tensors.cast::<PyMapping>() {
            Ok(mapping) => mapping
                .items()?
                .iter()
                .map(|item| {
                    let (name, tensor) = item.extract::<(String, Bound<'_, PyAny>)>()?;
                    Ok((name, Source::of(&tensor)?))
                })
                .collect::<PyResult<Vec<_>>>()?,
            Err(_) => vec![(DEFAULT_TENSOR_NAME.to_owned(), Source::of(tensors)?)],
        };
        let port = self.port.get(py)?;
        let specs: Vec<_> = sources.iter().map(|(name, source)| source.spec(name)).collect();
        let mut message = port.loan(py, &specs)?;
        for (name, source) in &sources {
            let mut tensor = message.tensor_mut(name).map_err(|failure| error::view(py, &failure))?;
            let layout = tensor.layout().clone();
            source.copy_into(py, &layout, tensor.bytes_mut())?;
            port.count_copied(layout.len);
        }
        if let Some(metadata) = metadata {
            *message.metadata_mut() = metadata;
        }
        if let Some(time) = source_time_ns {
            message.set_source_time_ns(time);
        }
        port.run(py, |_| message.publish()).map_err(|failure| error::publish(py, &failure))
    }

    /// Wait until at least so many subscribers are ready: they get all that is published from now on. Returns how many are.
    ///
    /// Raises ``Timeout`` if they are not ready in ``timeout`` seconds. The publisher must have its slots: open it with
    /// ``slot_bytes``.
    #[pyo3(signature = (subscribers=1, timeout=None))]
    fn wait_for_subscribers(&self, py: Python<'_>, subscribers: usize, timeout: Option<f64>) -> PyResult<usize> {
        let (port, bound) = (self.port.get(py)?, self::timeout(py, timeout)?);
        let mut last = None;
        let ready =
            wait(py, bound, |py, slice| match py.detach(|| port.publisher.wait_for_subscribers(subscribers, slice)) {
                Err(tensorbus::WaitError::TooFew { ready, .. }) => {
                    last = Some(ready);
                    None
                }
                other => Some(other),
            })?;
        match ready {
            Some(ready) => ready.map_err(|failure| error::wait(py, &failure)),
            None => {
                let (topic, ready) = (port.publisher.topic(), last.unwrap_or_default());
                let text = format!(
                    "{ready} of {subscribers} subscribers of topic {topic:?} were ready in time; are all of them running?"
                );
                Err(error::named(py, "Timeout", text))
            }
        }
    }

    /// Wait until nothing that was published can be lost by this publisher's end. Raises ``Timeout``.
    #[pyo3(signature = (timeout=None))]
    fn drain(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let (port, bound) = (self.port.get(py)?, self::timeout(py, timeout)?);
        let mut last = None;
        let drained = wait(py, bound, |py, slice| match py.detach(|| port.publisher.drain(slice)) {
            Err(failure @ tensorbus::DrainError::Unopened { .. }) => {
                last = Some(failure);
                None
            }
            other => Some(other),
        })?;
        match (drained, last) {
            (Some(drained), _) => drained.map_err(|failure| error::drain(py, &failure)),
            (None, Some(failure)) => Err(error::drain(py, &failure)),
            (None, None) => Ok(()),
        }
    }

    /// Give the memory of free slots back that they got beyond what they had at first. Returns how many bytes it was.
    fn release_unused(&self, py: Python<'_>) -> PyResult<u64> {
        let port = self.port.get(py)?;
        py.detach(|| port.publisher.release_unused()).map_err(|failure| error::loan(py, &failure))
    }

    /// Name of the topic.
    #[getter]
    fn topic(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.port.get(py)?.publisher.topic().to_owned())
    }

    /// What has become of the messages so far.
    fn stats(&self, py: Python<'_>) -> PyResult<PublisherStats> {
        let port = self.port.get(py)?;
        let stats = port.publisher.stats();
        Ok(PublisherStats {
            published: stats.published,
            unheard: stats.unheard,
            refused: stats.refused,
            failed: stats.failed,
            loans_refused: stats.loans_refused,
            copied_bytes: stats.copied_bytes + port.copied_bytes.load(Ordering::Relaxed),
        })
    }

    /// Leave the topic. What was published stays readable.
    fn close(&self) {
        self.port.close();
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (_kind, _error, _trace, /))]
    fn __exit__(
        &self,
        _kind: Option<Bound<'_, PyType>>,
        _error: Option<Bound<'_, PyAny>>,
        _trace: Option<Bound<'_, PyAny>>,
    ) {
        self.close();
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        self.topic(py)
            .map_or_else(|_| "<Publisher, closed>".to_owned(), |topic| format!("<Publisher of topic {topic:?}>"))
    }
}

#[pymethods]
impl PublisherStats {
    fn __repr__(&self) -> String {
        let Self { published, unheard, refused, failed, loans_refused, copied_bytes } = self;
        format!(
            "PublisherStats(published={published}, unheard={unheard}, refused={refused}, failed={failed}, \
             loans_refused={loans_refused}, copied_bytes={copied_bytes})"
        )
    }
}
