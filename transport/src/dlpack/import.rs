use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;

use super::abi::{
    DLDevice, DLManagedTensor, DLManagedTensorVersioned, DLPACK_FLAG_SUBBYTE_PADDED, DLPACK_VERSION, DLPackVersion,
    DLTensor, KDLCPU,
};
use crate::layout::{
    DEFAULT_TENSOR_NAME, Dtype, DtypeError, LayoutError, MAX_RANK, TensorLayout, is_row_major, row_major_strides,
    span_bytes,
};
use crate::tensor_view::TensorView;

/// A tensor of another library of this process, taken over by DLPack: read where it lies, published with one copy.
///
/// Dropping it calls the deleter, once. [`ForeignTensor::as_view`] has what can be done with it.
pub struct ForeignTensor {
    managed: Managed,
    layout: TensorLayout,
    data: NonNull<u8>,
}

/// Why a foreign tensor cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DlpackError {
    /// No tensor at all.
    #[error("the pointer to the managed tensor is null")]
    Null,
    /// The structure is of another major version.
    #[error(
        "the tensor is of DLPack {}.{}, version {} is understood; ask the producer for it (`max_version`)",
        version.major, version.minor, DLPACK_VERSION.major
    )]
    Version {
        /// Version of the structure.
        version: DLPackVersion,
    },
    /// The data does not lie in main memory.
    #[error("the tensor lies on device type {}, number {}; copy it to the CPU first", device.device_type, device.device_id)]
    Device {
        /// The device.
        device: DLDevice,
    },
    /// A dtype that does not exist, or cannot travel.
    #[error(transparent)]
    Dtype(#[from] DtypeError),
    /// Elements narrower than a byte, each of which takes a whole one.
    #[error("the {dtype} elements take a whole byte each; only packed ones can be used")]
    Padded {
        /// The dtype.
        dtype: Dtype,
    },
    /// The number of dimensions is negative or above [`MAX_RANK`].
    #[error("{ndim} dimensions are not 0 to {MAX_RANK}")]
    Rank {
        /// Dimensions that are stated.
        ndim: i32,
    },
    /// There are dimensions, but the sizes are missing.
    #[error("the tensor has {ndim} dimensions and no shape")]
    NoShape {
        /// Dimensions that are stated.
        ndim: i32,
    },
    /// A size below zero.
    #[error("a size in the shape {shape:?} is negative")]
    NegativeSize {
        /// All sizes.
        shape: Vec<i64>,
    },
    /// Shape and strides are ones that no message can carry.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The tensor has elements, but its data pointer is null.
    #[error("the tensor needs {bytes} bytes and its data pointer is null")]
    NoData {
        /// Bytes that shape and strides need.
        bytes: usize,
    },
    /// Address, offset and size together leave the address space.
    #[error("data at {address:#x} with offset {byte_offset} and {bytes} bytes leaves the address space")]
    OutOfAddressSpace {
        /// The data pointer.
        address: usize,
        /// Bytes to the first element.
        byte_offset: u64,
        /// Bytes that shape and strides need.
        bytes: usize,
    },
}

impl ForeignTensor {
    /// Takes over a tensor of DLPack 1. Whatever comes out, its deleter is called: at once on an error, else on drop.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tensorbus_transport::{Bus, TensorView};
    /// use tensorbus_transport::dlpack::ForeignTensor;
    ///
    /// # let values = [1f32, 2.0, 3.0, 4.0];
    /// # let elsewhere = TensorView::new(&values, &[2, 2], &[1, 2])?.to_contiguous()?;
    /// # let bus = Bus::builder().session("doc-foreign").open()?;
    /// // `elsewhere` stands for any library that exports tensors.
    /// let pointer = elsewhere.into_dlpack().as_ptr();
    /// // SAFETY: the library gave the pointer away just now.
    /// let foreign = unsafe { ForeignTensor::from_dlpack(pointer) }?;
    /// assert_eq!(foreign.as_view().view::<f32>()?, [1.0, 3.0, 2.0, 4.0]);
    /// bus.topic("images").publisher()?.publish_copy_of(&foreign.as_view())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`DlpackError`] says what it is about the tensor that cannot be used.
    ///
    /// # Safety
    /// `managed` is null or points to a structure as `dlpack.h` describes it, which the caller owns and gives away: shape
    /// and strides point to `ndim` numbers or are null; where the device is the CPU, data is initialised and readable over
    /// the extent of shape and strides. Until the deleter is called, nobody writes there or takes it away. Any thread may
    /// call the deleter.
    pub unsafe fn from_dlpack(managed: *mut DLManagedTensorVersioned) -> Result<Self, DlpackError> {
        let managed = Managed::Versioned(NonNull::new(managed).ok_or(DlpackError::Null)?);
        // SAFETY: by the contract, the pointer is valid and the structure ours. A structure of another major version has
        // its version, context, deleter and flags in the same places; the rest is not looked at then.
        unsafe { Self::take(managed) }
    }

    /// As [`ForeignTensor::from_dlpack`], of the structure from before DLPack 1.0.
    ///
    /// # Errors
    /// As [`ForeignTensor::from_dlpack`].
    ///
    /// # Safety
    /// As [`ForeignTensor::from_dlpack`].
    pub unsafe fn from_dlpack_legacy(managed: *mut DLManagedTensor) -> Result<Self, DlpackError> {
        let managed = Managed::Legacy(NonNull::new(managed).ok_or(DlpackError::Null)?);
        // SAFETY: by the contract, the pointer is valid and the structure ours.
        unsafe { Self::take(managed) }
    }

    /// # Safety
    /// As [`ForeignTensor::from_dlpack`].
    unsafe fn take(managed: Managed) -> Result<Self, DlpackError> {
        // From here on, `managed` calls the deleter when it is dropped, also on an error.
        let (tensor, flags) = match &managed {
            Managed::Versioned(managed) => {
                // SAFETY: valid by the contract, and the head is the same in every version.
                let version = unsafe { managed.cast::<Head>().as_ref() }.version;
                if version.major != DLPACK_VERSION.major {
                    return Err(DlpackError::Version { version });
                }
                // SAFETY: valid by the contract, and of the version that the type describes.
                let managed = unsafe { managed.as_ref() };
                (managed.dl_tensor, managed.flags)
            }
            // SAFETY: valid by the contract.
            Managed::Legacy(managed) => (unsafe { managed.as_ref() }.dl_tensor, 0),
        };
        if tensor.device.device_type != KDLCPU {
            return Err(DlpackError::Device { device: tensor.device });
        }
        let dtype = Dtype::from_dlpack(tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes)?;
        if dtype.bits() < 8 && flags & DLPACK_FLAG_SUBBYTE_PADDED != 0 {
            return Err(DlpackError::Padded { dtype });
        }
        // SAFETY: shape and strides are as the contract says.
        let (shape, strides) = unsafe { shape_and_strides(&tensor, dtype) }?;
        let len = span_bytes(dtype, &shape, &strides)?;
        let data = first_byte(&tensor, len)?;
        let layout = TensorLayout { name: DEFAULT_TENSOR_NAME.to_owned(), dtype, shape, strides, offset: 0, len };
        Ok(Self { managed, layout, data })
    }

    /// What the tensor is.
    pub fn layout(&self) -> &TensorLayout {
        &self.layout
    }

    /// The tensor, to read where it lies, and for the calls that copy it.
    pub fn as_view(&self) -> TensorView<'_> {
        // SAFETY: the contract of the constructors: `len` bytes are readable here, nobody writes them, and they stay until
        // the deleter is called, which happens when `self` is dropped. `first_byte` checked that they do not wrap around.
        let bytes = unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.layout.len) };
        TensorView::of(&self.layout, bytes)
    }
}

// SAFETY: the constructors demand that any thread may call the deleter, and the memory is only read.
unsafe impl Send for ForeignTensor {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for ForeignTensor {}

impl fmt::Debug for ForeignTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignTensor").field("managed", &self.managed).field("layout", &self.layout).finish()
    }
}

/// How a [`DLManagedTensorVersioned`] begins, whatever its version: enough to refuse and delete it.
#[repr(C)]
struct Head {
    version: DLPackVersion,
    manager_ctx: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut DLManagedTensorVersioned)>,
    flags: u64,
}

/// A structure that is ours to delete.
#[derive(Debug)]
enum Managed {
    Versioned(NonNull<DLManagedTensorVersioned>),
    Legacy(NonNull<DLManagedTensor>),
}

impl Drop for Managed {
    fn drop(&mut self) {
        match self {
            Self::Versioned(managed) => {
                // SAFETY: valid by the contract of `from_dlpack`, and the head is the same in every version.
                let deleter = unsafe { managed.cast::<Head>().as_ref() }.deleter;
                if let Some(deleter) = deleter {
                    // SAFETY: the structure is ours and this is the only call; nothing is read from it afterwards.
                    unsafe { deleter(managed.as_ptr()) };
                }
            }
            Self::Legacy(managed) => {
                // SAFETY: valid by the contract of `from_dlpack_legacy`.
                let deleter = unsafe { managed.as_ref() }.deleter;
                if let Some(deleter) = deleter {
                    // SAFETY: as above.
                    unsafe { deleter(managed.as_ptr()) };
                }
            }
        }
    }
}

/// # Safety
/// `tensor.shape` and `tensor.strides` are null or point to `tensor.ndim` numbers.
unsafe fn shape_and_strides(tensor: &DLTensor, dtype: Dtype) -> Result<(Vec<usize>, Vec<isize>), DlpackError> {
    let ndim = tensor.ndim;
    let rank = usize::try_from(ndim).ok().filter(|&rank| rank <= MAX_RANK).ok_or(DlpackError::Rank { ndim })?;
    if rank == 0 {
        return Ok((Vec::new(), Vec::new()));
    }
    if tensor.shape.is_null() {
        return Err(DlpackError::NoShape { ndim });
    }
    // SAFETY: not null, so it points to `ndim` numbers by the contract.
    let sizes = unsafe { std::slice::from_raw_parts(tensor.shape, rank) };
    let shape: Vec<usize> = sizes
        .iter()
        .map(|&size| usize::try_from(size))
        .collect::<Result<_, _>>()
        .map_err(|_| DlpackError::NegativeSize { shape: sizes.to_vec() })?;
    let too_big = || LayoutError::SizeOverflows { dtype, shape: shape.clone() };
    if tensor.strides.is_null() {
        let strides = row_major_strides(&shape).ok_or_else(too_big)?;
        return Ok((shape, strides));
    }
    // SAFETY: as for the shape.
    let steps = unsafe { std::slice::from_raw_parts(tensor.strides, rank) };
    let mut strides: Vec<isize> =
        steps.iter().map(|&step| isize::try_from(step)).collect::<Result<_, _>>().map_err(|_| too_big())?;
    // Strides of dimensions of size 1, and of empty tensors, mean nothing, and producers put anything there.
    if is_row_major(&shape, &strides) {
        strides = row_major_strides(&shape).ok_or_else(too_big)?;
    } else {
        strides.iter_mut().zip(&shape).filter(|(_, size)| **size == 1).for_each(|(step, _)| *step = 0);
    }
    Ok((shape, strides))
}

/// Address of the first element of a tensor that takes `bytes`.
fn first_byte(tensor: &DLTensor, bytes: usize) -> Result<NonNull<u8>, DlpackError> {
    if bytes == 0 {
        return Ok(NonNull::<u128>::dangling().cast());
    }
    let data = NonNull::new(tensor.data.cast::<u8>()).ok_or(DlpackError::NoData { bytes })?;
    let (address, byte_offset) = (data.addr().get(), tensor.byte_offset);
    let out = || DlpackError::OutOfAddressSpace { address, byte_offset, bytes };
    let offset = usize::try_from(byte_offset).map_err(|_| out())?;
    let first = address.checked_add(offset).ok_or_else(out)?;
    first.checked_add(bytes).ok_or_else(out)?;
    NonNull::new(data.as_ptr().wrapping_add(offset)).ok_or_else(out)
}
