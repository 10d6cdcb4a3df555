use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::slice;

use pyo3::ffi;
use pyo3::prelude::*;
use tensorbus::layout::row_major_strides;

use crate::error;

/// A buffer of another object, held until this is dropped.
pub(crate) struct HeldBuffer {
    view: Box<ffi::Py_buffer>,
    pub(crate) shape: Vec<usize>,
    /// In bytes; any sign.
    pub(crate) strides: Vec<isize>,
}

// SAFETY: the structure is only read; it is released with the interpreter held.
unsafe impl Send for HeldBuffer {}
// SAFETY: as above.
unsafe impl Sync for HeldBuffer {}

impl HeldBuffer {
    /// With format, shape and strides; read-only ones too.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut view = Box::new(MaybeUninit::<ffi::Py_buffer>::uninit());
        // No suboffsets: an exporter that has them refuses.
        let flags: c_int = ffi::PyBUF_RECORDS_RO;
        // SAFETY: an object, a structure to fill, and the interpreter holds. The box does not move what exporters may point to.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), view.as_mut_ptr(), flags) } != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        // SAFETY: it was filled.
        let view = unsafe { view.assume_init() };
        // From here on it is released, also on an error.
        let mut held = Self { view, shape: Vec::new(), strides: Vec::new() };
        let nonsense = || error::buffer("the object gives a buffer whose sizes make no sense");
        let rank = usize::try_from(held.view.ndim).map_err(|_| nonsense())?;
        if held.view.itemsize < 1 || held.view.len < 0 {
            return Err(nonsense());
        }
        let item = held.item_size();
        held.shape = match held.numbers(held.view.shape, rank) {
            Some(sizes) => {
                sizes.iter().map(|&size| usize::try_from(size)).collect::<Result<_, _>>().map_err(|_| nonsense())?
            }
            None if rank == 0 => Vec::new(),
            None if rank == 1 => vec![held.view.len.unsigned_abs() / item],
            None => return Err(nonsense()),
        };
        held.strides = match held.numbers(held.view.strides, rank) {
            Some(strides) => strides.to_vec(),
            // In row-major order, as `ctypes` says it.
            None => {
                let steps = row_major_strides(&held.shape).ok_or_else(nonsense)?;
                steps.iter().map(|step| step.saturating_mul(held.view.itemsize)).collect()
            }
        };
        Ok(held)
    }

    pub(crate) fn data(&self) -> *const c_void {
        self.view.buf
    }

    pub(crate) fn item_size(&self) -> usize {
        self.view.itemsize.unsigned_abs()
    }

    /// As the module `struct` writes it.
    pub(crate) fn format(&self) -> &CStr {
        if self.view.format.is_null() {
            return c"B";
        }
        // SAFETY: not null, so a string that stays as long as the buffer is held.
        unsafe { CStr::from_ptr(self.view.format) }
    }

    /// One number for each dimension, if the exporter gives them.
    fn numbers(&self, first: *const isize, rank: usize) -> Option<&[isize]> {
        // SAFETY: not null, so it points to a number for each dimension, for as long as the buffer is held.
        (!first.is_null()).then(|| unsafe { slice::from_raw_parts(first, rank) })
    }
}

impl Drop for HeldBuffer {
    fn drop(&mut self) {
        Python::try_attach(|_| {
            // SAFETY: filled by `PyObject_GetBuffer`, released once, and the interpreter holds.
            unsafe { ffi::PyBuffer_Release(&mut *self.view) };
        });
    }
}
