use std::ffi::c_void;

/// The version of the structures that tensors are exported in.
pub const DLPACK_VERSION: DLPackVersion = DLPackVersion { major: 1, minor: 1 };

/// Flag of a [`DLManagedTensorVersioned`]: the consumer must not write (`DLPACK_FLAG_BITMASK_READ_ONLY`).
pub const DLPACK_FLAG_READ_ONLY: u64 = 1;

/// Flag of a [`DLManagedTensorVersioned`]: a copy that was made for the consumer (`DLPACK_FLAG_BITMASK_IS_COPIED`).
pub const DLPACK_FLAG_IS_COPIED: u64 = 2;

/// Flag of a [`DLManagedTensorVersioned`]: elements narrower than a byte take a whole one each
/// (`DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED`).
pub const DLPACK_FLAG_SUBBYTE_PADDED: u64 = 4;

/// Device type of main memory (`kDLCPU`).
pub const KDLCPU: i32 = 1;

/// `DLPackVersion`. Another major version means another structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct DLPackVersion {
    /// Changes when the structures change.
    pub major: u32,
    /// Changes when codes are added.
    pub minor: u32,
}

/// `DLDevice`: where the data lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct DLDevice {
    /// Kind of device; [`KDLCPU`] is main memory.
    pub device_type: i32,
    /// Number of the device.
    pub device_id: i32,
}

/// `DLDataType`; [`Dtype`](crate::Dtype) is its checked form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct DLDataType {
    /// Type code.
    pub code: u8,
    /// Width of a lane in bits.
    pub bits: u8,
    /// Lanes.
    pub lanes: u16,
}

/// `DLTensor`: a tensor that something else keeps.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct DLTensor {
    /// The memory; null for an empty tensor.
    pub data: *mut c_void,
    /// Where the memory is.
    pub device: DLDevice,
    /// Dimensions.
    pub ndim: i32,
    /// Type of the elements.
    pub dtype: DLDataType,
    /// `ndim` sizes.
    pub shape: *mut i64,
    /// `ndim` steps in elements; null for row-major order before DLPack 1.2.
    pub strides: *mut i64,
    /// Bytes from `data` to the first element.
    pub byte_offset: u64,
}

/// `DLManagedTensor`: the structure from before DLPack 1.0, without version and flags.
#[derive(Debug)]
#[repr(C)]
pub struct DLManagedTensor {
    /// The tensor.
    pub dl_tensor: DLTensor,
    /// The producer's.
    pub manager_ctx: *mut c_void,
    /// To be called once, when the consumer is done.
    pub deleter: Option<unsafe extern "C" fn(*mut DLManagedTensor)>,
}

/// `DLManagedTensorVersioned`: the structure of DLPack 1.
#[derive(Debug)]
#[repr(C)]
pub struct DLManagedTensorVersioned {
    /// Version of the structure.
    pub version: DLPackVersion,
    /// The producer's.
    pub manager_ctx: *mut c_void,
    /// To be called once, when the consumer is done.
    pub deleter: Option<unsafe extern "C" fn(*mut DLManagedTensorVersioned)>,
    /// `DLPACK_FLAG_...`.
    pub flags: u64,
    /// The tensor.
    pub dl_tensor: DLTensor,
}

/// Sizes and offsets that a C compiler gives `dlpack.h` on machines with 64-bit pointers.
#[cfg(target_pointer_width = "64")]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<DLPackVersion>() == 8 && size_of::<DLDevice>() == 8 && size_of::<DLDataType>() == 4);
    assert!(size_of::<DLTensor>() == 48);
    assert!(offset_of!(DLTensor, device) == 8 && offset_of!(DLTensor, ndim) == 16);
    assert!(offset_of!(DLTensor, dtype) == 20 && offset_of!(DLTensor, shape) == 24);
    assert!(offset_of!(DLTensor, strides) == 32 && offset_of!(DLTensor, byte_offset) == 40);
    assert!(size_of::<DLManagedTensor>() == 64);
    assert!(offset_of!(DLManagedTensor, manager_ctx) == 48 && offset_of!(DLManagedTensor, deleter) == 56);
    assert!(size_of::<DLManagedTensorVersioned>() == 80);
    assert!(offset_of!(DLManagedTensorVersioned, manager_ctx) == 8);
    assert!(offset_of!(DLManagedTensorVersioned, deleter) == 16);
    assert!(offset_of!(DLManagedTensorVersioned, flags) == 24);
    assert!(offset_of!(DLManagedTensorVersioned, dl_tensor) == 32);
};
