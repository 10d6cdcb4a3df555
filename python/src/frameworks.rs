//! NumPy, PyTorch and JAX, each imported when it is asked for.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyByteArray, PyDict, PyTuple};
use pyo3::{IntoPyObjectExt, intern};
use tensorbus::{DtypeCode, TensorLayout, TensorView};

use crate::buffer::Memory;
use crate::dtype;
use crate::error;

/// An attribute of a module, looked up once.
macro_rules! function {
    ($py:expr, $module:literal, $name:literal) => {{
        static FUNCTION: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        FUNCTION.import($py, $module, $name)
    }};
}

pub(crate) fn memoryview(py: Python<'_>, memory: Memory) -> PyResult<Bound<'_, PyAny>> {
    function!(py, "builtins", "memoryview")?.call1((memory,))
}

/// An array on the memory. `view` is the dtype to see bit patterns as.
pub(crate) fn numpy<'py>(
    py: Python<'py>,
    memory: Memory,
    view: Option<Bound<'py, PyAny>>,
    copy: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let mut array = function!(py, "numpy", "asarray")?.call1((memory,))?;
    if let Some(dtype) = view {
        array = array.call_method1(intern!(py, "view"), (dtype,))?;
    }
    if copy {
        // Keeps the order of the elements in memory.
        array = array.call_method1(intern!(py, "copy"), ("K",))?;
    }
    Ok(array)
}

pub(crate) fn as_array<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    function!(object.py(), "numpy", "asarray")?.call1((object,))
}

pub(crate) fn as_contiguous_array<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // `ascontiguousarray` would make vectors of scalars.
    let options = [("order", "C")].into_py_dict(object.py())?;
    function!(object.py(), "numpy", "asarray")?.call((object,), Some(&options))
}

/// Packed elements as `ml_dtypes` has them: one in each byte.
pub(crate) fn unpacked<'py>(py: Python<'py>, tensor: &TensorView<'_>) -> PyResult<Bound<'py, PyAny>> {
    let TensorLayout { dtype, shape, .. } = tensor.layout();
    let numpy_dtype = dtype::numpy(py, *dtype)?;
    let elements = tensor.unpack().map_err(|failure| error::view(py, &failure))?;
    let unused = if dtype.code() == DtypeCode::Int { 8 - dtype.bits() } else { 0 };
    let bytes = PyByteArray::new_with(py, elements.len(), |bytes| {
        // Signed ones with their sign.
        bytes
            .iter_mut()
            .zip(elements)
            .for_each(|(byte, pattern)| *byte = (((pattern << unused) as i8) >> unused) as u8);
        Ok(())
    })?;
    let shape = PyTuple::new(py, shape)?;
    function!(py, "numpy", "frombuffer")?.call1((bytes, numpy_dtype))?.call_method1(intern!(py, "reshape"), (shape,))
}

/// What `__array__` is asked for beyond the array itself.
pub(crate) fn converted<'py>(
    array: Bound<'py, PyAny>,
    dtype: Option<Bound<'py, PyAny>>,
    copy: Option<bool>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = array.py();
    let Some(dtype) = dtype else { return Ok(array) };
    let dtype = function!(py, "numpy", "dtype")?.call1((dtype,))?;
    if array.getattr(intern!(py, "dtype"))?.eq(&dtype)? {
        return Ok(array);
    }
    if copy == Some(false) {
        return Err(error::invalid(py, format!("an array of {} needs a copy", dtype.str()?)));
    }
    array.call_method1(intern!(py, "astype"), (dtype,))
}

/// NumPy's `__array_interface__`, version 3.
pub(crate) fn array_interface<'py>(
    py: Python<'py>,
    layout: &TensorLayout,
    data: *const u8,
) -> PyResult<Bound<'py, PyDict>> {
    if dtype::format(layout.dtype).is_none() {
        let text = format!("NumPy itself has no {}; use `numpy()`", dtype::name(layout.dtype));
        return Err(pyo3::exceptions::PyAttributeError::new_err(text));
    }
    let itemsize = layout.dtype.element_bytes().unwrap_or(1) as isize;
    let strides = PyTuple::new(py, layout.strides.iter().map(|stride| stride * itemsize))?;
    let interface = PyDict::new(py);
    interface.set_item("version", 3)?;
    interface.set_item("typestr", dtype::numpy(py, layout.dtype)?.getattr("str")?)?;
    interface.set_item("shape", PyTuple::new(py, &layout.shape)?)?;
    interface.set_item("strides", strides)?;
    interface.set_item("data", (data as usize, true).into_bound_py_any(py)?)?;
    Ok(interface)
}

/// A tensor of PyTorch, of a capsule or of what has `__dlpack__`.
pub(crate) fn torch(exported: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    function!(exported.py(), "torch.utils.dlpack", "from_dlpack")?.call1((exported,))
}

pub(crate) fn jax(exported: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    function!(exported.py(), "jax.dlpack", "from_dlpack")?.call1((exported,))
}
