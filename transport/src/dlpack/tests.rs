use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::contiguous::ContiguousTensor;
use crate::layout::{Dtype, DtypeError, LayoutError, MAX_RANK, TensorLayout};
use crate::map::{MappedTensor, Region};
use crate::tensor_view::TensorView;
use crate::view::ViewError;
use proptest::prelude::*;

/// A producer of tensors as another library is one: its deleter counts.
struct Producer {
    managed: DLManagedTensorVersioned,
    shape: Vec<i64>,
    strides: Vec<i64>,
    data: Vec<u64>,
    deleted: AtomicUsize,
}

unsafe extern "C" fn count_deletion(managed: *mut DLManagedTensorVersioned) {
    // SAFETY: the importer passes back the structure that it was given.
    let context = unsafe { managed.as_ref() }.expect("a structure").manager_ctx;
    // SAFETY: `manager_ctx` of every tensor here points to a counter that outlives it.
    let deleted = unsafe { context.cast::<AtomicUsize>().as_ref() }.expect("a counter");
    deleted.fetch_add(1, Ordering::Relaxed);
}

impl Producer {
    /// Six numbers from 0, as a matrix of two rows in C order.
    fn new() -> Box<Self> {
        let tensor = DLTensor {
            data: ptr::null_mut(),
            device: DLDevice { device_type: KDLCPU, device_id: 0 },
            ndim: 2,
            dtype: DLDataType { code: 1, bits: 64, lanes: 1 },
            shape: ptr::null_mut(),
            strides: ptr::null_mut(),
            byte_offset: 0,
        };
        let managed = DLManagedTensorVersioned {
            version: DLPACK_VERSION,
            manager_ctx: ptr::null_mut(),
            deleter: Some(count_deletion),
            flags: 0,
            dl_tensor: tensor,
        };
        let (shape, strides, data) = (vec![2, 3], vec![3, 1], (0..6).collect());
        Box::new(Self { managed, shape, strides, data, deleted: AtomicUsize::new(0) })
    }

    /// Changes the structure, gives it away, looks at what comes out, and checks that the deleter was called once.
    fn import<R>(
        &mut self,
        change: impl FnOnce(&mut DLManagedTensorVersioned),
        look: impl FnOnce(Result<&ForeignTensor, &DlpackError>) -> R,
    ) -> R {
        self.managed.manager_ctx = (&raw mut self.deleted).cast::<c_void>();
        self.managed.dl_tensor.data = self.data.as_mut_ptr().cast::<c_void>();
        self.managed.dl_tensor.shape = self.shape.as_mut_ptr();
        self.managed.dl_tensor.strides = self.strides.as_mut_ptr();
        change(&mut self.managed);
        // SAFETY: the structure is whole, and what it points to outlives the call. Where a test makes it lie about sizes,
        // the import fails before the data is looked at.
        let foreign = unsafe { ForeignTensor::from_dlpack(&raw mut self.managed) };
        if foreign.is_ok() {
            assert_eq!(self.deleted.load(Ordering::Relaxed), 0, "not deleted while in use");
        }
        let result = look(foreign.as_ref());
        drop(foreign);
        assert_eq!(self.deleted.load(Ordering::Relaxed), 1, "the deleter is called once");
        result
    }

    fn refused(change: impl FnOnce(&mut DLManagedTensorVersioned)) -> DlpackError {
        Self::new().import(change, |result| result.unwrap_err().clone())
    }

    fn refused_shape(shape: &[i64], strides: &[i64]) -> DlpackError {
        let mut producer = Self::new();
        (producer.shape, producer.strides) = (shape.to_vec(), strides.to_vec());
        producer.import(|managed| managed.dl_tensor.ndim = shape.len() as i32, |result| result.unwrap_err().clone())
    }
}

#[test]
fn a_foreign_tensor_is_read_where_it_lies() {
    let mut producer = Producer::new();
    let address = producer.data.as_ptr();
    producer.import(
        |_| {},
        |foreign| {
            let foreign = foreign.unwrap();
            let values = foreign.as_view().view::<u64>().unwrap();
            assert_eq!((values, values.as_ptr()), (&[0, 1, 2, 3, 4, 5][..], address));
            assert_eq!((foreign.layout().dtype, &foreign.layout().shape[..]), (Dtype::U64, &[2, 3][..]));
        },
    );
    // No strides: C order.
    Producer::new().import(
        |managed| managed.dl_tensor.strides = ptr::null_mut(),
        |foreign| assert_eq!(foreign.unwrap().layout().strides, [3, 1]),
    );
    // An offset, and a transposed view.
    let mut producer = Producer::new();
    (producer.shape, producer.strides) = (vec![2, 2], vec![1, 3]);
    producer.import(
        |managed| managed.dl_tensor.byte_offset = 8,
        |foreign| {
            let view = foreign.unwrap().as_view();
            assert!(matches!(view.view::<u64>(), Err(ViewError::NotRowMajor { .. })));
            assert_eq!(view.to_contiguous().unwrap().view::<u64>().unwrap(), [1, 4, 2, 5]);
        },
    );
    // A scalar needs neither shape nor strides; what is empty needs no data.
    Producer::new().import(
        |managed| {
            let tensor = &mut managed.dl_tensor;
            (tensor.ndim, tensor.shape, tensor.strides) = (0, ptr::null_mut(), ptr::null_mut());
        },
        |foreign| assert_eq!(foreign.unwrap().as_view().view::<u64>().unwrap(), [0]),
    );
    let mut producer = Producer::new();
    producer.shape = vec![0, 3];
    producer.import(
        |managed| managed.dl_tensor.data = ptr::null_mut(),
        |foreign| assert!(foreign.unwrap().as_view().view::<u64>().unwrap().is_empty()),
    );
    // Strides of dimensions of size 1 mean nothing.
    let mut producer = Producer::new();
    (producer.shape, producer.strides) = (vec![1, 3], vec![i64::MIN, 2]);
    producer.import(|_| {}, |foreign| assert_eq!(foreign.unwrap().layout().strides, [0, 2]));
}

#[test]
fn weights_go_out_where_they_lie_and_stay_until_they_are_given_back() {
    let numbers: Arc<[u32]> = (0..6).collect();
    let (start, kept) = (NonNull::from(&numbers[..]).cast(), Arc::downgrade(&numbers));
    // SAFETY: 24 initialised bytes that nobody writes, kept by the `Arc`.
    let region = unsafe { Region::new(start, 24, Arc::new(numbers)) };
    let (name, shape, strides) = ("w".to_owned(), vec![5], vec![1]);
    let layout = TensorLayout { name, dtype: Dtype::U32, shape, strides, offset: 4, len: 20 };
    let tensor = MappedTensor::new(&region, layout).unwrap();
    let exported = tensor.to_dlpack();
    drop((region, tensor));
    // SAFETY: just exported, and not given back.
    let flags = unsafe { exported.as_ref() }.flags;
    assert_eq!(flags, DLPACK_FLAG_READ_ONLY);
    // SAFETY: the structure came from an export just now.
    let foreign = unsafe { ForeignTensor::from_dlpack(exported.as_ptr()) }.unwrap();
    assert_eq!(foreign.as_view().view::<u32>().unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(foreign.as_view().bytes().as_ptr().addr(), start.addr().get() + 4);
    assert_eq!(kept.strong_count(), 1);
    drop(foreign);
    assert_eq!(kept.strong_count(), 0);
}

#[test]
fn what_is_not_aligned_is_copied_or_refused() {
    Producer::new().import(
        |managed| {
            let tensor = &mut managed.dl_tensor;
            (tensor.byte_offset, tensor.ndim, tensor.strides) = (4, 1, ptr::null_mut());
        },
        |foreign| {
            let view = foreign.unwrap().as_view();
            assert!(matches!(view.view::<u64>(), Err(ViewError::Misaligned { .. })));
            assert_eq!(view.to_contiguous().unwrap().view::<u64>().unwrap(), [1 << 32, 2 << 32]);
        },
    );
}

#[test]
fn hostile_structures_are_refused_by_name_and_deleted_once() {
    // SAFETY: null is allowed.
    assert_eq!(unsafe { ForeignTensor::from_dlpack(ptr::null_mut()) }.unwrap_err(), DlpackError::Null);
    // SAFETY: null is allowed.
    assert_eq!(unsafe { ForeignTensor::from_dlpack_legacy(ptr::null_mut()) }.unwrap_err(), DlpackError::Null);

    let version = DLPackVersion { major: 2, minor: 0 };
    assert_eq!(Producer::refused(|managed| managed.version = version), DlpackError::Version { version });
    let device = DLDevice { device_type: 2, device_id: 1 };
    let error = Producer::refused(|managed| managed.dl_tensor.device = device);
    assert_eq!(error, DlpackError::Device { device });
    assert!(error.to_string().contains("copy it to the CPU"), "{error}");
    let dtype =
        |code, bits, lanes| Producer::refused(|managed| managed.dl_tensor.dtype = DLDataType { code, bits, lanes });
    assert_eq!(dtype(3, 64, 1), DlpackError::Dtype(DtypeError::UnknownCode { code: 3 }));
    assert!(matches!(dtype(2, 63, 1), DlpackError::Dtype(DtypeError::NoSuchWidth { .. })));
    assert_eq!(dtype(2, 32, 0), DlpackError::Dtype(DtypeError::NoLanes));
    let padded = Producer::refused(|managed| {
        managed.dl_tensor.dtype = DLDataType { code: 0, bits: 4, lanes: 1 };
        managed.flags = DLPACK_FLAG_SUBBYTE_PADDED;
    });
    assert_eq!(padded, DlpackError::Padded { dtype: Dtype::I4 });
    for ndim in [-1, i32::MIN, MAX_RANK as i32 + 1, i32::MAX] {
        assert_eq!(Producer::refused(|managed| managed.dl_tensor.ndim = ndim), DlpackError::Rank { ndim });
    }
    let no_shape = Producer::refused(|managed| managed.dl_tensor.shape = ptr::null_mut());
    assert_eq!(no_shape, DlpackError::NoShape { ndim: 2 });
    let no_data = Producer::refused(|managed| managed.dl_tensor.data = ptr::null_mut());
    assert_eq!(no_data, DlpackError::NoData { bytes: 48 });
    for byte_offset in [u64::MAX, i64::MAX as u64 * 2 - 100] {
        let error = Producer::refused(|managed| managed.dl_tensor.byte_offset = byte_offset);
        assert!(matches!(error, DlpackError::OutOfAddressSpace { .. }), "{error}");
    }

    let layout = |shape: &[i64], strides: &[i64]| match Producer::refused_shape(shape, strides) {
        DlpackError::Layout(error) => error,
        other => panic!("{other}"),
    };
    assert_eq!(Producer::refused_shape(&[2, -3], &[3, 1]), DlpackError::NegativeSize { shape: vec![2, -3] });
    assert_eq!(layout(&[2, 3], &[-3, 1]), LayoutError::NegativeStride { strides: vec![-3, 1] });
    assert!(matches!(layout(&[i64::MAX, 3], &[3, 1]), LayoutError::SizeOverflows { .. }));
    assert!(matches!(layout(&[i64::MAX, i64::MAX], &[0, 0]), LayoutError::SizeOverflows { .. }));
    assert!(matches!(layout(&[2, 2], &[i64::MAX, i64::MAX]), LayoutError::SizeOverflows { .. }));
    assert!(matches!(layout(&[i64::MAX / 8, 2], &[1, 1]), LayoutError::SizeOverflows { .. }));
}

#[test]
fn a_structure_without_a_deleter_is_taken_as_it_is() {
    let mut producer = Producer::new();
    producer.managed.dl_tensor.data = producer.data.as_mut_ptr().cast::<c_void>();
    producer.managed.dl_tensor.shape = producer.shape.as_mut_ptr();
    producer.managed.deleter = None;
    // SAFETY: the structure is whole and outlives the tensor.
    let foreign = unsafe { ForeignTensor::from_dlpack(&raw mut producer.managed) }.unwrap();
    assert_eq!(foreign.as_view().view::<u64>().unwrap(), [0, 1, 2, 3, 4, 5]);
}

fn copy(values: &[u8], dtype: Dtype, shape: &[usize]) -> ContiguousTensor {
    let strides = crate::layout::row_major_strides(shape).unwrap();
    TensorView::from_bytes(dtype, values, shape, &strides).unwrap().to_contiguous().unwrap()
}

#[test]
fn every_dtype_goes_out_and_comes_back() {
    let bytes: Vec<u8> = (0..240).collect();
    for &dtype in Dtype::ALL {
        for shape in [&[3, 5][..], &[], &[0], &[2, 0, 3], &[1, 1, 7]] {
            let tensor = copy(&bytes, dtype, shape);
            let expected = tensor.bytes().to_vec();
            let pointer = tensor.clone().into_dlpack().as_ptr();
            // SAFETY: given away just now.
            let versioned = unsafe { ForeignTensor::from_dlpack(pointer) }.unwrap();
            let pointer = tensor.into_dlpack_legacy().as_ptr();
            // SAFETY: given away just now.
            let legacy = unsafe { ForeignTensor::from_dlpack_legacy(pointer) }.unwrap();
            for foreign in [versioned, legacy] {
                assert_eq!((foreign.layout().dtype, &foreign.layout().shape[..]), (dtype, shape));
                assert_eq!(foreign.as_view().bytes(), expected);
            }
        }
    }
}

#[test]
fn an_exported_structure_says_what_it_is() {
    let managed = copy(&[1, 2, 3, 4, 5, 6], Dtype::U8, &[2, 3]).into_dlpack();
    // SAFETY: exported just now; deleted below.
    let structure = unsafe { managed.as_ref() };
    assert_eq!((structure.version, structure.flags), (DLPACK_VERSION, DLPACK_FLAG_IS_COPIED));
    assert_eq!(structure.dl_tensor.device, DLDevice { device_type: KDLCPU, device_id: 0 });
    assert_eq!((structure.dl_tensor.ndim, structure.dl_tensor.byte_offset), (2, 0));
    assert_eq!(structure.dl_tensor.data.addr() % 64, 0);
    // SAFETY: a copy may be written; `data` has six bytes.
    unsafe { structure.dl_tensor.data.cast::<u8>().write(9) };
    // SAFETY: `shape` has `ndim` numbers.
    assert_eq!(unsafe { std::slice::from_raw_parts(structure.dl_tensor.shape, 2) }, [2, 3]);
    // SAFETY: `strides` has `ndim` numbers.
    assert_eq!(unsafe { std::slice::from_raw_parts(structure.dl_tensor.strides, 2) }, [3, 1]);
    let deleter = structure.deleter.unwrap();
    // SAFETY: null is passed by some consumers and means nothing.
    unsafe { deleter(ptr::null_mut()) };
    // SAFETY: the only call, and nothing is used after it.
    unsafe { deleter(managed.as_ptr()) };
}

proptest! {
    /// Any numbers give an answer, and the data is not touched for it.
    #[test]
    fn any_structure_gives_an_answer(
        dims in prop::collection::vec((-2i64..1 << 40, any::<i64>()), 0..10),
        device_type in 0i32..3,
        code in 0u8..20,
        bits in any::<u8>(),
        lanes in 0u16..4,
        byte_offset in any::<u64>(),
        flags in 0u64..8,
    ) {
        let mut producer = Producer::new();
        (producer.shape, producer.strides) = dims.iter().copied().unzip();
        producer.import(
            |managed| {
                managed.flags = flags;
                managed.dl_tensor.ndim = dims.len() as i32;
                managed.dl_tensor.device.device_type = device_type;
                managed.dl_tensor.dtype = DLDataType { code, bits, lanes };
                managed.dl_tensor.byte_offset = byte_offset;
            },
            |_| {},
        );
    }
}
