use std::ffi::CStr;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyType};
use tensorbus::{Dtype as Inner, DtypeCode};

use crate::error;
use crate::metadata::type_name;

/// Type of a tensor's elements.
///
/// Names are NumPy's and PyTorch's: ``uint8``, ``float32``, ``bfloat16``, ``float8_e4m3fn``, ``int4``. Made of a name, a
/// dtype or scalar type of NumPy or ``ml_dtypes``, a ``torch.dtype``, or ``bool``, ``int``, ``float``, ``complex``.
#[pyclass(frozen, module = "tensorbus", eq, hash)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Dtype(pub(crate) Inner);

#[pymethods]
impl Dtype {
    #[new]
    fn new(dtype: &Bound<'_, PyAny>) -> PyResult<Self> {
        parse(dtype).map(Self)
    }

    /// The name, like ``float32``.
    #[getter]
    fn name(&self) -> String {
        name(self.0)
    }

    /// Width of a lane in bits.
    #[getter]
    fn bits(&self) -> u8 {
        self.0.bits()
    }

    /// Lanes that an element has; 1 for all but vector types.
    #[getter]
    fn lanes(&self) -> u16 {
        self.0.lanes()
    }

    /// Bytes of an element; ``None`` if several are packed into a byte.
    #[getter]
    fn itemsize(&self) -> Option<usize> {
        self.0.element_bytes()
    }

    /// The dtype that NumPy has for it, from ``ml_dtypes`` where it has none of its own.
    #[getter]
    fn numpy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        numpy(py, self.0)
    }

    fn __str__(&self) -> String {
        name(self.0)
    }

    fn __repr__(&self) -> String {
        format!("Dtype('{}')", name(self.0))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyType>, (String,)) {
        (slf.get_type(), (slf.get().name(),))
    }
}

/// The name that NumPy, `ml_dtypes`, PyTorch and JAX use.
pub(crate) fn name(dtype: Inner) -> String {
    let lanes = if dtype.lanes() == 1 { String::new() } else { format!("x{}", dtype.lanes()) };
    let one = dtype.with_lanes(1).unwrap_or(dtype).to_string();
    let long = match dtype.code() {
        DtypeCode::Bool => one,
        DtypeCode::Int => format!("int{}", dtype.bits()),
        DtypeCode::UInt => format!("uint{}", dtype.bits()),
        DtypeCode::Bfloat => format!("bfloat{}", dtype.bits()),
        DtypeCode::Complex => format!("complex{}", dtype.bits()),
        // f32, f8_e4m3fn
        _ => one.replacen('f', "float", 1),
    };
    long + &lanes
}

fn from_name(text: &str) -> Option<Inner> {
    // What NumPy calls so is not IEEE's.
    if text.starts_with("float128") {
        return None;
    }
    let one_lane = |text: &str| Inner::ALL.iter().copied().find(|dtype| name(*dtype) == text);
    one_lane(text).or_else(|| {
        let (one, lanes) = text.rsplit_once('x')?;
        one_lane(one)?.with_lanes(lanes.parse().ok()?).ok()
    })
}

/// The dtype that an object means.
pub(crate) fn parse(object: &Bound<'_, PyAny>) -> PyResult<Inner> {
    if let Ok(dtype) = object.cast::<Dtype>() {
        return Ok(dtype.get().0);
    }
    // Programs name the same few dtypes again and again.
    static KNOWN: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let py = object.py();
    let known = KNOWN.get_or_init(py, || PyDict::new(py).unbind()).bind(py);
    if let Some(dtype) = known.get_item(object).ok().flatten() {
        return Ok(dtype.cast::<Dtype>()?.get().0);
    }
    let (dtype, is_name) = parse_new(object)?;
    // Only what names a dtype is kept for ever, not any object that has one.
    if is_name {
        known.set_item(object, Dtype(dtype))?;
    }
    Ok(dtype)
}

/// The dtype, and whether the object is nothing but a name of it.
fn parse_new(object: &Bound<'_, PyAny>) -> PyResult<(Inner, bool)> {
    let py = object.py();
    if let Ok(text) = object.cast::<PyString>() {
        let text = text.to_cow()?;
        return from_name(&text).map(|dtype| (dtype, true)).ok_or_else(|| {
            let short = if text.parse::<Inner>().is_ok() || text.len() <= 3 {
                "; short names count bits in some languages and bytes in others"
            } else {
                ""
            };
            error::invalid(py, format!("no dtype {text:?}{short}; names are like uint8, float32, bfloat16, int4"))
        });
    }
    let no_dtype = || error::unsupported(py, format!("{} is no dtype that can travel", type_name(object)));
    // NumPy takes it for `float64`.
    if object.is_none() {
        return Err(no_dtype());
    }
    // `torch.float32`
    let text = object.str()?.to_string();
    if let Some(dtype) = text.strip_prefix("torch.").and_then(from_name) {
        return Ok((dtype, true));
    }
    let dtype = py.import("numpy")?.getattr("dtype")?.call1((object,)).map_err(|_| no_dtype())?;
    Ok((of_numpy(&dtype)?, dtype.is(object) || object.is_instance_of::<PyType>()))
}

/// What a `numpy.dtype` is.
pub(crate) fn of_numpy(dtype: &Bound<'_, PyAny>) -> PyResult<Inner> {
    let py = dtype.py();
    if !dtype.getattr("isnative")?.extract::<bool>()? {
        let text = format!("{} has another byte order than this machine; convert it", dtype.str()?);
        return Err(error::unsupported(py, text + " (`array.astype(array.dtype.newbyteorder('='))`)"));
    }
    let name: String = dtype.getattr("name")?.extract()?;
    from_name(&name).ok_or_else(|| error::unsupported(py, format!("NumPy's {name} is no dtype that can travel")))
}

/// The `numpy.dtype` for a dtype.
pub(crate) fn numpy<'py>(py: Python<'py>, dtype: Inner) -> PyResult<Bound<'py, PyAny>> {
    let make = py.import("numpy")?.getattr("dtype")?;
    let name = name(dtype);
    if format(dtype).is_some() {
        return make.call1((name,));
    }
    let none = || format!("NumPy has no {name}; the tensor's bytes are in `raw`");
    if dtype.lanes() != 1 || dtype.bits() > 16 {
        return Err(error::unsupported(py, none()));
    }
    let ml_dtypes = py.import("ml_dtypes").map_err(|_| {
        error::unsupported(py, format!("NumPy itself has no {name}; install `ml_dtypes`, or read the bytes in `raw`"))
    })?;
    make.call1((ml_dtypes.getattr(&*name).map_err(|_| error::unsupported(py, none()))?,))
}

/// How the buffer protocol and NumPy write a dtype, if they have it.
pub(crate) fn format(dtype: Inner) -> Option<&'static CStr> {
    Some(match dtype {
        Inner::BOOL => c"?",
        Inner::I8 => c"b",
        Inner::I16 => c"h",
        Inner::I32 => c"i",
        Inner::I64 => c"q",
        Inner::U8 => c"B",
        Inner::U16 => c"H",
        Inner::U32 => c"I",
        Inner::U64 => c"Q",
        Inner::F16 => c"e",
        Inner::F32 => c"f",
        Inner::F64 => c"d",
        Inner::C64 => c"Zf",
        Inner::C128 => c"Zd",
        _ => return None,
    })
}

/// The format of whole-byte elements that NumPy has no type of its own for, as bit patterns.
pub(crate) fn format_of_bits(dtype: Inner) -> Option<&'static CStr> {
    match (dtype.element_bytes(), dtype.lanes()) {
        (Some(1), 1) => Some(c"B"),
        (Some(2), 1) => Some(c"H"),
        _ => None,
    }
}

/// The dtype of a buffer's elements.
pub(crate) fn of_format(py: Python<'_>, format: &CStr, itemsize: usize) -> PyResult<Inner> {
    let text = format.to_bytes();
    let (order, kind) = match text {
        [order @ (b'@' | b'=' | b'<' | b'>' | b'!'), rest @ ..] => (*order, rest),
        rest => (b'@', rest),
    };
    let found = match (kind, itemsize) {
        (b"?", 1) => Some(Inner::BOOL),
        (b"b" | b"h" | b"i" | b"l" | b"q" | b"n", bytes) => [Inner::I8, Inner::I16, Inner::I32, Inner::I64]
            .into_iter()
            .find(|dtype| dtype.element_bytes() == Some(bytes)),
        (b"B" | b"H" | b"I" | b"L" | b"Q" | b"N", bytes) => [Inner::U8, Inner::U16, Inner::U32, Inner::U64]
            .into_iter()
            .find(|dtype| dtype.element_bytes() == Some(bytes)),
        (b"e", 2) => Some(Inner::F16),
        (b"f", 4) => Some(Inner::F32),
        (b"d", 8) => Some(Inner::F64),
        (b"Zf", 8) => Some(Inner::C64),
        (b"Zd", 16) => Some(Inner::C128),
        _ => None,
    };
    let text = format.to_string_lossy();
    match found {
        Some(_) if itemsize > 1 && matches!(order, b'>' | b'!') => Err(error::unsupported(
            py,
            format!("elements {text:?} have another byte order than this machine; convert them"),
        )),
        Some(dtype) => Ok(dtype),
        None => {
            Err(error::unsupported(py, format!("elements {text:?} of {itemsize} bytes are no dtype that can travel")))
        }
    }
}
