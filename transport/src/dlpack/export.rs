use std::ffi::c_void;
use std::ptr::{self, NonNull};

use super::abi::{
    DLDataType, DLDevice, DLManagedTensor, DLManagedTensorVersioned, DLPACK_FLAG_IS_COPIED, DLPACK_FLAG_READ_ONLY,
    DLPACK_VERSION, DLTensor, KDLCPU,
};
use crate::contiguous::ContiguousTensor;
use crate::layout::TensorLayout;
use crate::map::MappedTensor;
use crate::message::Tensor;

/// What a consumer holds: the managed tensor first, so that a pointer to it is one to all of this.
#[repr(C)]
struct Export<M, O> {
    managed: M,
    shape: Vec<i64>,
    strides: Vec<i64>,
    owner: O,
}

impl Tensor {
    /// Gives the tensor to a consumer of DLPack 1 of this process, which reads it where it lies. No copy.
    ///
    /// The tensor, and with it the message's slot, stays until the consumer calls the deleter, which any thread may do. It
    /// is flagged read-only: the memory is mapped so, and a write ends the process. Whoever never calls the deleter leaks
    /// the slot. Only pass it on in the process that received the message, not in a forked child.
    pub fn to_dlpack(&self) -> NonNull<DLManagedTensorVersioned> {
        versioned(self.clone(), DLPACK_FLAG_READ_ONLY, self.layout(), self.bytes().as_ptr())
    }

    /// As [`Tensor::to_dlpack`], for consumers that only know the structure from before DLPack 1.0.
    ///
    /// That has no flags, so it cannot say that the memory is read-only: only for consumers known not to write.
    pub fn to_dlpack_legacy(&self) -> NonNull<DLManagedTensor> {
        legacy(self.clone(), self.layout(), self.bytes().as_ptr())
    }
}

impl MappedTensor {
    /// As [`Tensor::to_dlpack`]: no copy, flagged read-only, and the region stays until the consumer calls the deleter.
    pub fn to_dlpack(&self) -> NonNull<DLManagedTensorVersioned> {
        versioned(self.clone(), DLPACK_FLAG_READ_ONLY, self.layout(), self.bytes().as_ptr())
    }

    /// As [`Tensor::to_dlpack_legacy`].
    pub fn to_dlpack_legacy(&self) -> NonNull<DLManagedTensor> {
        legacy(self.clone(), self.layout(), self.bytes().as_ptr())
    }
}

impl ContiguousTensor {
    /// Gives the copy to a consumer of DLPack 1, which may write it. Flagged as a copy.
    ///
    /// Whoever never calls the deleter leaks the memory.
    pub fn into_dlpack(mut self) -> NonNull<DLManagedTensorVersioned> {
        // The buffer does not move when its owner does.
        let (data, layout) = (self.bytes_mut().as_mut_ptr(), self.layout().clone());
        versioned(self, DLPACK_FLAG_IS_COPIED, &layout, data)
    }

    /// As [`ContiguousTensor::into_dlpack`], for consumers that only know the structure from before DLPack 1.0.
    pub fn into_dlpack_legacy(mut self) -> NonNull<DLManagedTensor> {
        let (data, layout) = (self.bytes_mut().as_mut_ptr(), self.layout().clone());
        legacy(self, &layout, data)
    }
}

/// Gives memory that somebody is to write to a consumer of DLPack 1. No copy, no flags.
///
/// Whoever never calls the deleter leaks `owner`.
///
/// # Safety
/// `owner` keeps the layout's bytes at `data`, readable and writable, wherever it is moved. Any thread may drop it.
pub unsafe fn export_writable<O: Send + 'static>(
    owner: O,
    layout: &TensorLayout,
    data: NonNull<u8>,
) -> NonNull<DLManagedTensorVersioned> {
    versioned(owner, 0, layout, data.as_ptr())
}

/// As [`export_writable`], for consumers that only know the structure from before DLPack 1.0.
///
/// # Safety
/// As for [`export_writable`].
pub unsafe fn export_writable_legacy<O: Send + 'static>(
    owner: O,
    layout: &TensorLayout,
    data: NonNull<u8>,
) -> NonNull<DLManagedTensor> {
    legacy(owner, layout, data.as_ptr())
}

/// `owner` keeps the layout's bytes at `data`, wherever it is moved.
fn versioned<O: Send + 'static>(
    owner: O,
    flags: u64,
    layout: &TensorLayout,
    data: *const u8,
) -> NonNull<DLManagedTensorVersioned> {
    export(owner, layout, data, |dl_tensor| DLManagedTensorVersioned {
        version: DLPACK_VERSION,
        manager_ctx: ptr::null_mut(),
        deleter: Some(delete::<DLManagedTensorVersioned, O>),
        flags,
        dl_tensor,
    })
}

/// As [`versioned`].
fn legacy<O: Send + 'static>(owner: O, layout: &TensorLayout, data: *const u8) -> NonNull<DLManagedTensor> {
    export(owner, layout, data, |dl_tensor| DLManagedTensor {
        dl_tensor,
        manager_ctx: ptr::null_mut(),
        deleter: Some(delete::<DLManagedTensor, O>),
    })
}

fn export<M, O>(owner: O, layout: &TensorLayout, data: *const u8, managed: impl FnOnce(DLTensor) -> M) -> NonNull<M> {
    // Sizes beyond `i64` exist in empty tensors only; there they say as much as the largest one.
    let mut shape: Vec<i64> = layout.shape.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect();
    let mut strides: Vec<i64> = layout.strides.iter().map(|&step| step as i64).collect();
    let dl_tensor = DLTensor {
        data: if layout.len == 0 { ptr::null_mut() } else { data.cast_mut().cast::<c_void>() },
        device: DLDevice { device_type: KDLCPU, device_id: 0 },
        ndim: layout.shape.len() as i32,
        dtype: DLDataType { code: layout.dtype.code() as u8, bits: layout.dtype.bits(), lanes: layout.dtype.lanes() },
        shape: shape.as_mut_ptr(),
        strides: strides.as_mut_ptr(),
        byte_offset: 0,
    };
    let export = Box::new(Export { managed: managed(dl_tensor), shape, strides, owner });
    NonNull::from(Box::leak(export)).cast()
}

/// The deleter of every export. `managed` may be null, which some consumers pass.
///
/// # Safety
/// `managed` is null, or came from [`export`] with the same `M` and `O` and was not deleted before.
unsafe extern "C" fn delete<M, O>(managed: *mut M) {
    if managed.is_null() {
        return;
    }
    // SAFETY: by the contract it is the pointer to an `Export<M, O>` that `export` leaked: `managed` is its first field,
    // and both are `repr(C)`. It is not used after this call, so the box is the only owner.
    drop(unsafe { Box::from_raw(managed.cast::<Export<M, O>>()) });
}
