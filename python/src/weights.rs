use std::collections::HashMap;
use std::path::{Path, PathBuf};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PyMapping};
use tensorbus::{AttachWeightsError, BlobError, MapFileError, OpenWeightsError, PublishWeightsError};

use crate::bus::Bus;
use crate::error;
use crate::mapped_tensor::MappedTensor;
use crate::readable::{Readable, warn_of_writes};
use crate::source::Source;

/// Named tensors to read, of which a machine has one copy however many processes use them. A mapping of names to tensors.
///
/// Two ways lead there. A safetensors file is mapped (``open``). Weights that are in memory are published into the session
/// once (``publish``), and attached by their name in any other process (``attach``). There they are as long as one process uses
/// them, the publisher's death notwithstanding. ``torch()`` gives them to ``load_state_dict(..., assign=True)``, ``numpy()`` as
/// arrays; neither copies. Tensors and arrays keep the weights by themselves.
#[pyclass(frozen, mapping, module = "tensorbus", weakref)]
pub(crate) struct SharedWeights {
    inner: tensorbus::SharedWeights,
}

#[pymethods]
impl SharedWeights {
    /// Map a safetensors file. Nothing but its header is read; the data comes into memory when it is used.
    ///
    /// The file must not be changed in place as long as the weights are used; to replace it, write another one and rename it.
    /// Raises ``FileNotFoundError`` and other ``OSError`` if it cannot be mapped, ``InvalidArgument`` if it is not a whole
    /// safetensors file.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let opened = py.detach(|| tensorbus::SharedWeights::open(&path));
        Ok(Self { inner: opened.map_err(|failure| open_error(py, &failure))? })
    }

    /// Put tensors into the session under a name, once: what is there already with the same content is used.
    ///
    /// ``tensors`` maps names to arrays of NumPy, PyTorch or JAX, to buffers or to tensors of the bus, which are copied; a
    /// ``state_dict()`` is one. Nobody may write them meanwhile. ``bus`` is the session's; without it, a bus is opened in
    /// the default session, and stays as long as the weights. The weights are there as long as one process uses them.
    #[staticmethod]
    #[pyo3(signature = (name, tensors, *, bus=None))]
    fn publish(
        py: Python<'_>,
        name: &str,
        tensors: &Bound<'_, PyMapping>,
        bus: Option<&Bound<'_, Bus>>,
    ) -> PyResult<Self> {
        let bus = bus_or_default(py, bus)?;
        let mut sources = Vec::with_capacity(tensors.len()?);
        for item in tensors.items()?.iter() {
            let (tensor, value): (String, Bound<'_, PyAny>) = item.extract()?;
            let source = Source::of(&value).inspect_err(|failure| say_which(py, failure, &tensor))?;
            sources.push((tensor, source));
        }
        let views = sources.iter().map(|(name, source)| Ok((name.as_str(), source.view(py)?)));
        let views = views.collect::<PyResult<Vec<_>>>()?;
        let published = py.detach(|| tensorbus::SharedWeights::publish(&bus, name, views));
        Ok(Self { inner: published.map_err(|failure| publish_error(py, &failure))? })
    }

    /// The weights that were published last under this name, from whichever process of the session.
    ///
    /// ``bus`` as for ``publish``. Raises ``NoSuchWeights`` if no process uses weights of this name.
    #[staticmethod]
    #[pyo3(signature = (name, *, bus=None))]
    fn attach(py: Python<'_>, name: &str, bus: Option<&Bound<'_, Bus>>) -> PyResult<Self> {
        let bus = bus_or_default(py, bus)?;
        let attached = py.detach(|| tensorbus::SharedWeights::attach(&bus, name));
        Ok(Self { inner: attached.map_err(|failure| attach_error(py, &failure))? })
    }

    /// Copy the weights into the session, where nobody changes them: for a file that others may write.
    #[pyo3(signature = (name, *, bus=None))]
    fn publish_copy(&self, py: Python<'_>, name: &str, bus: Option<&Bound<'_, Bus>>) -> PyResult<Self> {
        let bus = bus_or_default(py, bus)?;
        let published = py.detach(|| self.inner.publish_copy(&bus, name));
        Ok(Self { inner: published.map_err(|failure| publish_error(py, &failure))? })
    }

    /// All tensors as NumPy arrays by name, without a copy and read-only: as ``MappedTensor.numpy``.
    fn numpy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.all(py, |tensor| tensor.numpy(py, None))
    }

    /// All tensors as ones of PyTorch by name, without a copy: what ``load_state_dict(..., assign=True)`` takes.
    ///
    /// PyTorch knows no read-only tensors: a write to one of them ends the process, which one ``ReadOnlyWarning`` says.
    fn torch<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        warn_of_writes(py)?;
        self.all(py, |tensor| tensor.torch_unwarned(py))
    }

    /// What a file says about itself, by key; published weights say nothing.
    #[getter]
    fn metadata(&self) -> HashMap<String, String> {
        self.inner.metadata().clone()
    }

    /// Bytes of all tensors.
    #[getter]
    fn nbytes(&self) -> usize {
        self.inner.tensors().map(|tensor| tensor.layout().len).sum()
    }

    /// BLAKE3 digest of all bytes, header included, as hexadecimal digits. That of a file is taken at the first call, which
    /// reads all of it.
    #[getter]
    fn digest(&self, py: Python<'_>) -> String {
        py.detach(|| self.inner.digest()).to_string()
    }

    /// Read all bytes and compare their digest with what it was. Raises ``WeightsChanged`` if it is another one.
    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        let verified = py.detach(|| self.inner.verify());
        verified.map_err(|failure| error::named(py, "WeightsChanged", failure.to_string()))
    }

    fn __getitem__(&self, py: Python<'_>, name: &str) -> PyResult<MappedTensor> {
        let tensor = self.inner.tensor(name).map_err(|failure| error::view(py, &failure))?;
        Ok(MappedTensor::new(tensor.clone()))
    }

    fn __len__(&self) -> usize {
        self.inner.tensors().len()
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> bool {
        name.extract().is_ok_and(|name: &str| self.inner.tensor(name).is_ok())
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.keys(py)?.try_iter()
    }

    /// The names, in order.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.inner.tensors().map(tensorbus::MappedTensor::name))
    }

    /// The tensors, in the order of their names.
    fn values(&self) -> Vec<MappedTensor> {
        self.inner.tensors().cloned().map(MappedTensor::new).collect()
    }

    /// Names and tensors, by name.
    fn items(&self) -> Vec<(String, MappedTensor)> {
        self.inner.tensors().map(|tensor| (tensor.name().to_owned(), MappedTensor::new(tensor.clone()))).collect()
    }

    /// The tensor of this name, or ``default``.
    #[pyo3(signature = (name, default=None, /))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.inner.tensor(name) {
            Ok(tensor) => Ok(Some(Bound::new(py, MappedTensor::new(tensor.clone()))?.into_any())),
            Err(_) => Ok(default),
        }
    }

    fn __repr__(&self) -> String {
        format!("<SharedWeights of {} tensors, {} bytes>", self.__len__(), self.nbytes())
    }
}

impl SharedWeights {
    fn all<'py>(
        &self,
        py: Python<'py>,
        convert: impl Fn(&Readable) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(py);
        for tensor in self.inner.tensors() {
            all.set_item(tensor.name(), convert(&Readable::Mapped(tensor.clone()))?)?;
        }
        Ok(all)
    }
}

fn bus_or_default(py: Python<'_>, bus: Option<&Bound<'_, Bus>>) -> PyResult<tensorbus::Bus> {
    match bus {
        Some(bus) => bus.get().open(py),
        None => py.detach(tensorbus::Bus::open).map_err(|failure| error::session(py, &failure)),
    }
}

/// Adds to an error which tensor it is about.
fn say_which(py: Python<'_>, failure: &PyErr, tensor: &str) {
    // Without the note it is the error that it was.
    let _ = failure.value(py).call_method1("add_note", (format!("the tensor is {tensor:?}"),));
}

fn open_error(py: Python<'_>, error: &OpenWeightsError) -> PyErr {
    match error {
        OpenWeightsError::Map(MapFileError::Io { path, reason }) => io_error(path, reason),
        _ => error::invalid(py, error.to_string()),
    }
}

/// As Python's own calls have it: `FileNotFoundError` and so on.
fn io_error(path: &Path, reason: &std::io::Error) -> PyErr {
    match reason.raw_os_error() {
        Some(number) => PyOSError::new_err((number, reason.to_string(), path.to_owned())),
        None => PyOSError::new_err(format!("{}: {reason}", path.display())),
    }
}

fn publish_error(py: Python<'_>, error: &PublishWeightsError) -> PyErr {
    let class = match error {
        PublishWeightsError::NoTensors { .. }
        | PublishWeightsError::TensorName { .. }
        | PublishWeightsError::DuplicateName { .. }
        | PublishWeightsError::HeaderTooLong { .. }
        | PublishWeightsError::SizeOverflows => "InvalidArgument",
        PublishWeightsError::Dtype { .. } | PublishWeightsError::PartOfByte { .. } => "UnsupportedTensor",
        PublishWeightsError::Contiguous(_) => "OutOfMemory",
        PublishWeightsError::Blob(error) => class_of_blob(error),
        _ => "Error",
    };
    error::named(py, class, error.to_string())
}

fn attach_error(py: Python<'_>, error: &AttachWeightsError) -> PyErr {
    let class = match error {
        AttachWeightsError::Blob(error) => class_of_blob(error),
        _ => "Error",
    };
    error::named(py, class, error.to_string())
}

fn class_of_blob(error: &BlobError) -> &'static str {
    match error {
        BlobError::Name { .. } | BlobError::Empty { .. } => "InvalidArgument",
        BlobError::NotThere { .. } => "NoSuchWeights",
        BlobError::Busy { .. } => "Timeout",
        BlobError::Pool(_) => "OutOfMemory",
        BlobError::Forked => "Forked",
        _ => "Error",
    }
}
