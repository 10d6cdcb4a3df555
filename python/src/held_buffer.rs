use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::slice;

use pyo3::ffi;
use pyo3::prelude::*;

use crate::error;

/// A buffer of another object, held until this is dropped.
pub(crate) struct HeldBuffer(Box<ffi::Py_buffer>);

// SAFETY: the structure is only read; it is released with the interpreter held.
unsafe impl Send for HeldBuffer {}
// SAFETY: as above.
unsafe impl Sync for HeldBuffer {}

impl HeldBuffer {
    /// With format, shape and strides; read-only ones too.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut view = Box::new(MaybeUninit::<ffi::Py_buffer>::uninit());
        // Without suboffsets: an exporter that has them refuses, or copies.
        let flags: c_int = ffi::PyBUF_RECORDS_RO;
        // SAFETY: an object, a structure to fill, and the interpreter holds. The box does not move what exporters may point to.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), view.as_mut_ptr(), flags) } != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        // SAFETY: it was filled.
        let held = Self(unsafe { view.assume_init() });
        let dimensions = held.0.ndim > 0;
        if held.0.ndim < 0 || dimensions && (held.0.shape.is_null() || held.0.strides.is_null()) || held.0.itemsize < 1
        {
            return Err(error::buffer("the object gives a buffer without shape or strides"));
        }
        Ok(held)
    }

    pub(crate) fn data(&self) -> *const c_void {
        self.0.buf
    }

    pub(crate) fn item_size(&self) -> usize {
        self.0.itemsize.unsigned_abs()
    }

    /// As the module `struct` writes it.
    pub(crate) fn format(&self) -> &CStr {
        if self.0.format.is_null() {
            return c"B";
        }
        // SAFETY: not null, so a string that stays as long as the buffer is held.
        unsafe { CStr::from_ptr(self.0.format) }
    }

    pub(crate) fn shape(&self) -> &[isize] {
        self.numbers(self.0.shape)
    }

    /// In bytes.
    pub(crate) fn strides(&self) -> &[isize] {
        self.numbers(self.0.strides)
    }

    fn numbers(&self, first: *const isize) -> &[isize] {
        if self.0.ndim < 1 {
            return &[];
        }
        // SAFETY: with dimensions it is not null, as `of` checked, and points to a number for each.
        unsafe { slice::from_raw_parts(first, self.0.ndim.unsigned_abs() as usize) }
    }
}

impl Drop for HeldBuffer {
    fn drop(&mut self) {
        Python::try_attach(|_| {
            // SAFETY: filled by `PyObject_GetBuffer`, released once, and the interpreter holds.
            unsafe { ffi::PyBuffer_Release(&mut *self.0) };
        });
    }
}
