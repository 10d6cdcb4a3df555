//! Tensors by the buffer protocol (PEP 3118), which NumPy, `memoryview` and everything else that reads memory takes.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::{IntoPyObjectExt, ffi};
use tensorbus::TensorLayout;

use crate::dtype;
use crate::error;
use crate::loan::{Shared, let_go};
use crate::readable::Readable;

/// Memory of a tensor as other libraries see it. They keep it, and it keeps the slot.
#[pyclass(frozen, name = "_Memory", module = "tensorbus._core")]
pub(crate) struct Memory {
    /// What keeps the bytes at `data`.
    _owner: Owner,
    data: *mut u8,
    /// Bytes of all elements, not counting gaps.
    len: isize,
    readonly: bool,
    format: &'static CStr,
    itemsize: isize,
    shape: Vec<isize>,
    /// In bytes.
    strides: Vec<isize>,
    is_row_major: bool,
    is_column_major: bool,
}

pub(crate) enum Owner {
    Readable(#[expect(dead_code, reason = "only kept")] Readable),
    Loaned(Option<Arc<Shared>>),
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Self::Loaned(share) = self
            && let Some(share) = share.take()
        {
            let_go(share);
        }
    }
}

// SAFETY: the pointer is to memory that the owner keeps, whatever thread has it. What the readers and writers of the
// memory do among each other is theirs, as with any buffer.
unsafe impl Send for Memory {}
// SAFETY: nothing is written through a shared reference here.
unsafe impl Sync for Memory {}

/// How the elements are to be seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// As what they are.
    Elements,
    /// As bit patterns of the same shape, for elements of whole bytes.
    Bits,
    /// As the bytes that the tensor spans, gaps included.
    Bytes,
}

impl Memory {
    /// `data` points to the bytes that the layout says, which `owner` keeps.
    pub(crate) fn new(owner: Owner, layout: &TensorLayout, data: *mut u8, seen: As) -> PyResult<Self> {
        let format = match seen {
            As::Elements => dtype::format(layout.dtype),
            As::Bits => dtype::format_of_bits(layout.dtype),
            As::Bytes => Some(c"B"),
        };
        let format = format.ok_or_else(|| {
            let name = dtype::name(layout.dtype);
            error::buffer(format!("the buffer protocol has no {name} elements; `numpy()`, DLPack and `raw` do"))
        })?;
        let readonly = matches!(owner, Owner::Readable(_));
        if seen == As::Bytes {
            let len = signed(layout.len)?;
            let (shape, strides, is_row_major, is_column_major) = (vec![len], vec![1], true, true);
            let itemsize = 1;
            return Ok(Self {
                _owner: owner,
                data,
                len,
                readonly,
                format,
                itemsize,
                shape,
                strides,
                is_row_major,
                is_column_major,
            });
        }
        let itemsize = signed(layout.dtype.element_bytes().unwrap_or(1))?;
        let shape = layout.shape.iter().map(|&size| signed(size)).collect::<PyResult<Vec<_>>>()?;
        let strides = layout.strides.iter().map(|&stride| stride.saturating_mul(itemsize)).collect();
        // Repeated elements count each time: there can be more than an address space has.
        let len = shape.iter().try_fold(itemsize, |product, &size| product.checked_mul(size));
        let len = len.ok_or_else(|| error::buffer("the tensor's repeated elements are more than can be counted"))?;
        let (is_row_major, is_column_major) = (layout.is_row_major(), layout.is_column_major());
        Ok(Self { _owner: owner, data, len, readonly, format, itemsize, shape, strides, is_row_major, is_column_major })
    }

    fn check(&self, flags: c_int) -> PyResult<()> {
        let asks = |flag: c_int| flags & flag == flag;
        if asks(ffi::PyBUF_WRITABLE) && self.readonly {
            return Err(error::buffer("the tensor is read-only; copy it (`numpy(copy=True)`)"));
        }
        let refused = (asks(ffi::PyBUF_C_CONTIGUOUS) || !asks(ffi::PyBUF_STRIDES)) && !self.is_row_major
            || asks(ffi::PyBUF_F_CONTIGUOUS) && !self.is_column_major
            || asks(ffi::PyBUF_ANY_CONTIGUOUS) && !self.is_row_major && !self.is_column_major;
        if refused {
            return Err(error::buffer(
                "the tensor does not lie in the order that is asked for; copy it (`numpy(copy=True)`)",
            ));
        }
        Ok(())
    }
}

fn signed(size: usize) -> PyResult<isize> {
    isize::try_from(size).map_err(|_| error::buffer("the tensor's sizes are more than can be counted"))
}

#[pymethods]
impl Memory {
    /// # Safety
    /// `view` is what an interpreter passes to `bf_getbuffer`: null or a structure to be filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let wants = |flag: c_int| flags & flag == flag;
        let filled = this.check(flags).map(|()| ffi::Py_buffer {
            buf: this.data.cast::<c_void>(),
            obj: slf.clone().into_any().into_ptr(),
            len: this.len,
            itemsize: this.itemsize,
            readonly: this.readonly.into(),
            ndim: if wants(ffi::PyBUF_ND) { this.shape.len() as c_int } else { 1 },
            format: if wants(ffi::PyBUF_FORMAT) { this.format.as_ptr().cast_mut() } else { ptr::null_mut() },
            // Consumers do not write to them; they stay as long as `obj`, which the view keeps.
            shape: if wants(ffi::PyBUF_ND) { this.shape.as_ptr().cast_mut() } else { ptr::null_mut() },
            strides: if wants(ffi::PyBUF_STRIDES) { this.strides.as_ptr().cast_mut() } else { ptr::null_mut() },
            suboffsets: ptr::null_mut(),
            internal: ptr::null_mut(),
        });
        // SAFETY: by the contract it is null or valid.
        let Some(view) = (unsafe { view.as_mut() }) else { return Err(error::buffer("there is no view to fill")) };
        *view = filled?;
        Ok(())
    }
}

/// Fills the view of a tensor that offers `memory`, or cannot.
///
/// # Safety
/// As for `__getbuffer__`.
pub(crate) unsafe fn fill(
    py: Python<'_>,
    memory: PyResult<Memory>,
    view: *mut ffi::Py_buffer,
    flags: c_int,
) -> PyResult<()> {
    // SAFETY: by the contract it is null or valid.
    if let Some(view) = unsafe { view.as_mut() } {
        // Whoever gets an error must find no object in the view.
        view.obj = ptr::null_mut();
    }
    let memory = memory?.into_bound_py_any(py)?;
    // SAFETY: the interpreter holds, `memory` is an object, and `view` is as the contract says. The view then refers to
    // `memory`, not to the tensor: it is released there.
    match unsafe { ffi::PyObject_GetBuffer(memory.as_ptr(), view, flags) } {
        0 => Ok(()),
        _ => Err(PyErr::fetch(py)),
    }
}
