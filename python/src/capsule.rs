//! Tensors by DLPack in Python: capsules out and in (<https://data-apis.org/array-api/latest/API_specification/generated/array_api.array.__dlpack__.html>).

use std::ffi::CStr;
use std::ptr::NonNull;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};
use pyo3::{ffi, intern};
use tensorbus::dlpack::{DLManagedTensor, DLManagedTensorVersioned, DLPACK_VERSION, ForeignTensor, KDLCPU};

use crate::error;
use crate::metadata::type_name;
use crate::readable::Readable;

const VERSIONED: &CStr = c"dltensor_versioned";
const VERSIONED_USED: &CStr = c"used_dltensor_versioned";
const LEGACY: &CStr = c"dltensor";
const LEGACY_USED: &CStr = c"used_dltensor";

/// Where all tensors lie: main memory.
pub(crate) const CPU: (i32, i32) = (KDLCPU, 0);

/// What a consumer asks `__dlpack__` for.
pub(crate) struct Request {
    /// Whether it knows the structure of DLPack 1, which can say that memory is read-only.
    pub(crate) is_versioned: bool,
    /// Whether it wants a copy.
    pub(crate) copy: bool,
}

impl Request {
    pub(crate) fn new(
        stream: Option<&Bound<'_, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Self> {
        if stream.is_some() {
            return Err(error::buffer("tensors lie in main memory, where `stream` must be None"));
        }
        match dl_device {
            None | Some(CPU) => {}
            Some(device) => {
                return Err(error::buffer(format!(
                    "the tensor lies in main memory, not on device {device:?}; import it there and copy it"
                )));
            }
        }
        let is_versioned = max_version.is_some_and(|(major, _)| major >= DLPACK_VERSION.major);
        Ok(Self { is_versioned, copy: copy == Some(true) })
    }
}

/// A capsule that owns the structure until a consumer takes it.
pub(crate) fn versioned(py: Python<'_>, managed: NonNull<DLManagedTensorVersioned>) -> PyResult<Bound<'_, PyCapsule>> {
    // SAFETY: the structure is valid, and deleted by the capsule's destructor or by whoever renames the capsule.
    let made =
        unsafe { PyCapsule::new_with_pointer_and_destructor(py, managed.cast(), VERSIONED, Some(delete_versioned)) };
    // SAFETY: without a capsule nobody else has it.
    made.inspect_err(|_| unsafe { delete::<DLManagedTensorVersioned>(managed) })
}

/// As [`versioned`], of the structure from before DLPack 1.0.
pub(crate) fn legacy(py: Python<'_>, managed: NonNull<DLManagedTensor>) -> PyResult<Bound<'_, PyCapsule>> {
    // SAFETY: as for `versioned`.
    let made = unsafe { PyCapsule::new_with_pointer_and_destructor(py, managed.cast(), LEGACY, Some(delete_legacy)) };
    // SAFETY: without a capsule nobody else has it.
    made.inspect_err(|_| unsafe { delete::<DLManagedTensor>(managed) })
}

/// A structure that says how it is deleted.
trait Managed {
    fn deleter(&self) -> Option<unsafe extern "C" fn(*mut Self)>;
}

impl Managed for DLManagedTensorVersioned {
    fn deleter(&self) -> Option<unsafe extern "C" fn(*mut Self)> {
        self.deleter
    }
}

impl Managed for DLManagedTensor {
    fn deleter(&self) -> Option<unsafe extern "C" fn(*mut Self)> {
        self.deleter
    }
}

/// # Safety
/// `managed` is valid and not used any more.
unsafe fn delete<M: Managed>(managed: NonNull<M>) {
    // SAFETY: valid by the contract.
    if let Some(deleter) = unsafe { managed.as_ref() }.deleter() {
        // SAFETY: it was not called before, by the contract, and nothing is used after it.
        unsafe { deleter(managed.as_ptr()) };
    }
}

/// Destructor of a capsule that nobody took the tensor out of; one that was used has another name.
///
/// # Safety
/// Called by the interpreter with a capsule made by `versioned`.
unsafe extern "C" fn delete_versioned(capsule: *mut ffi::PyObject) {
    // SAFETY: by the contract.
    if let Some(managed) = unsafe { pointer(capsule, VERSIONED) } {
        // SAFETY: the capsule owns the structure, and is going.
        unsafe { delete::<DLManagedTensorVersioned>(managed.cast()) };
    }
}

/// As [`delete_versioned`].
///
/// # Safety
/// Called by the interpreter with a capsule made by `legacy`.
unsafe extern "C" fn delete_legacy(capsule: *mut ffi::PyObject) {
    // SAFETY: by the contract.
    if let Some(managed) = unsafe { pointer(capsule, LEGACY) } {
        // SAFETY: the capsule owns the structure, and is going.
        unsafe { delete::<DLManagedTensor>(managed.cast()) };
    }
}

/// What a capsule of this name holds; `None` if it has another name.
///
/// # Safety
/// The interpreter holds, and `capsule` is an object.
unsafe fn pointer(capsule: *mut ffi::PyObject, name: &CStr) -> Option<NonNull<std::ffi::c_void>> {
    // SAFETY: by the contract; it is true for capsules with a pointer and this name only.
    if unsafe { ffi::PyCapsule_IsValid(capsule, name.as_ptr()) } == 0 {
        return None;
    }
    // SAFETY: it is valid, so this cannot fail.
    NonNull::new(unsafe { ffi::PyCapsule_GetPointer(capsule, name.as_ptr()) })
}

/// Takes a tensor over from another library.
pub(crate) fn import(object: &Bound<'_, PyAny>) -> PyResult<ForeignTensor> {
    let py = object.py();
    let device: (i32, i32) = object.call_method0(intern!(py, "__dlpack_device__"))?.extract()?;
    if device.0 != KDLCPU {
        let text = format!(
            "the {} lies on device type {}, number {}; copy it to the CPU first",
            type_name(object),
            device.0,
            device.1
        );
        return Err(error::unsupported(py, text));
    }
    let options = PyDict::new(py);
    options.set_item(intern!(py, "max_version"), (DLPACK_VERSION.major, DLPACK_VERSION.minor))?;
    let method = object.getattr(intern!(py, "__dlpack__"))?;
    let capsule = match method.call((), Some(&options)) {
        // From before DLPack 1.0.
        Err(error) if error.is_instance_of::<PyTypeError>(py) => method.call0()?,
        other => other?,
    };
    // SAFETY: an object, and the interpreter holds.
    if let Some(managed) = unsafe { pointer(capsule.as_ptr(), VERSIONED) } {
        rename(&capsule, VERSIONED_USED)?;
        // SAFETY: a capsule of this name holds such a structure, and by its new name gives it away. That nobody writes or
        // frees the data, and any thread may call the deleter, is what DLPack asks of producers.
        let taken = unsafe { ForeignTensor::from_dlpack(managed.cast().as_ptr()) };
        return taken.map_err(|failure| error::dlpack(py, &failure));
    }
    // SAFETY: as above.
    if let Some(managed) = unsafe { pointer(capsule.as_ptr(), LEGACY) } {
        rename(&capsule, LEGACY_USED)?;
        // SAFETY: as above.
        let taken = unsafe { ForeignTensor::from_dlpack_legacy(managed.cast().as_ptr()) };
        return taken.map_err(|failure| error::dlpack(py, &failure));
    }
    Err(error::unsupported(py, format!("`__dlpack__` of {} gave no DLPack capsule", type_name(object))))
}

fn rename(capsule: &Bound<'_, PyAny>, name: &'static CStr) -> PyResult<()> {
    // SAFETY: a valid capsule, and a name that stays.
    match unsafe { ffi::PyCapsule_SetName(capsule.as_ptr(), name.as_ptr()) } {
        0 => Ok(()),
        _ => Err(PyErr::fetch(capsule.py())),
    }
}

/// A read-only tensor for a library that asks for the structure from before DLPack 1.0 and is known not to write.
#[pyclass(frozen, name = "_Export", module = "tensorbus._core")]
pub(crate) struct Export(pub(crate) Readable);

#[pymethods]
impl Export {
    #[pyo3(signature = (**_options))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        _options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        self.0.legacy(py)
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        CPU
    }
}
