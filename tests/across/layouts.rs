//! FR-016: layouts through the bus, strided sources, dense copies, and DLPack both ways.

use tensorbus::dlpack::{DLPACK_FLAG_READ_ONLY, ForeignTensor};
use tensorbus::prelude::*;
use tensorbus::{LayoutError, LoanError, TensorView, ViewError};

use crate::support::{PATIENCE, Session};

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

/// Element by element, the slow way: what a dense copy must hold.
fn gathered(bytes: &[u8], element: usize, shape: &[usize], strides: &[isize]) -> Vec<u8> {
    let mut offsets = vec![0usize];
    for (&len, &stride) in shape.iter().zip(strides) {
        offsets = offsets.iter().flat_map(|&at| (0..len).map(move |i| at + i * stride as usize)).collect();
    }
    offsets.into_iter().flat_map(|at| bytes[at * element..][..element].to_vec()).collect()
}

/// Every dtype in every kind of layout: strides and bytes arrive as they were, and the dense copy has the elements in order.
#[test]
fn every_dtype_and_layout_travels_and_becomes_dense() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("layouts").subscriber().unwrap();
    let publisher = bus.topic("layouts").slot_bytes(64 * 1024).publisher().unwrap();
    let layouts: [(&str, &[usize], &[isize]); 8] = [
        ("row-major", &[3, 4, 5], &[20, 5, 1]),
        ("column-major", &[3, 4, 5], &[1, 3, 12]),
        ("sliced", &[2, 3, 2], &[40, 10, 3]),
        ("permuted", &[4, 3, 5], &[5, 20, 1]),
        ("repeated", &[3, 4, 2], &[0, 1, 0]),
        ("a scalar", &[], &[]),
        ("empty", &[3, 0, 2], &[0, 7, 1]),
        ("of one element", &[1, 1], &[9, 9]),
    ];
    let source = pattern(64 * 1024);
    let mut copied = 0;
    for &dtype in Dtype::ALL {
        for (name, shape, strides) in layouts {
            let tensor = TensorView::from_bytes(dtype, &source, shape, strides);
            let Some(element) = dtype.element_bytes() else {
                let fits = ["row-major", "a scalar", "empty", "of one element"].contains(&name);
                assert_eq!(tensor.is_ok(), fits, "{dtype} {name}");
                let Ok(tensor) = tensor else { continue };
                publisher.publish_copy_of(&tensor).unwrap();
                copied += tensor.bytes().len() as u64;
                let received = subscriber.recv(PATIENCE).unwrap().first().clone();
                assert_eq!(received.bytes(), tensor.bytes());
                assert_eq!(received.to_contiguous().unwrap().bytes(), tensor.bytes());
                assert!(received.as_view().unpack().unwrap().eq(tensor.unpack().unwrap()));
                continue;
            };
            let tensor = tensor.unwrap();
            publisher.publish_copy_of(&tensor).unwrap();
            copied += tensor.bytes().len() as u64;
            let received = subscriber.recv(PATIENCE).unwrap().first().clone();
            assert_eq!((received.dtype(), received.shape(), received.strides()), (dtype, shape, strides), "{name}");
            assert_eq!(received.bytes(), tensor.bytes(), "{dtype} {name}");
            let expected = gathered(&source, element, shape, strides);
            let dense = received.to_contiguous().unwrap();
            assert_eq!((dense.dtype(), dense.shape(), dense.bytes()), (dtype, shape, &expected[..]), "{dtype} {name}");
            assert!(dense.layout().is_row_major());
            assert_eq!(dense.bytes().as_ptr().addr() % 64, 0);

            // Straight into a dense loan: one copy.
            let mut loan = publisher.loan(dtype, shape).unwrap();
            loan.copy_from(&tensor).unwrap();
            loan.publish().unwrap();
            assert_eq!(subscriber.recv(PATIENCE).unwrap().first().bytes(), expected, "{dtype} {name}");
        }
    }
    assert_eq!(publisher.stats().copied_bytes, copied);
}

/// A layout that cannot travel, or that a consumer cannot take, is a clear error.
#[test]
fn layouts_that_cannot_be_taken_are_refused_by_name() {
    let session = Session::new();
    let bus = session.bus();
    let publisher = bus.topic("layouts").publisher().unwrap();
    let values = [1f32, 2.0, 3.0, 4.0];
    let backwards = TensorView::new(&values, &[2, 2], &[-2, 1]).unwrap_err();
    assert_eq!(backwards, LayoutError::NegativeStride { strides: vec![-2, 1] });
    assert!(backwards.to_string().contains("copy the tensor"), "{backwards}");
    let spec = TensorSpec::new("t", Dtype::F32, &[2, 2]).strides(&[-2, 1]);
    let refused = publisher.loan_message(&[spec]).map(drop).unwrap_err();
    assert!(matches!(refused, LoanError::Layout(LayoutError::NegativeStride { .. })), "{refused}");
    let beyond = TensorView::new(&values, &[2, 2], &[3, 1]).unwrap_err();
    assert!(matches!(beyond, LayoutError::WrongLength { stated: 16, needed: 20, .. }), "{beyond}");

    let tensor = TensorView::new(&values, &[2, 2], &[1, 2]).unwrap();
    let mut loan = publisher.loan(Dtype::F32, &[4]).unwrap();
    assert!(matches!(loan.copy_from(&tensor), Err(ViewError::CopyMismatch { .. })));
    let mut loan = publisher.loan(Dtype::I32, &[2, 2]).unwrap();
    assert!(matches!(loan.copy_from(&tensor), Err(ViewError::CopyMismatch { .. })));
    let mut message = publisher.loan_message(&[TensorSpec::new("t", Dtype::F32, &[2, 2]).strides(&[0, 1])]).unwrap();
    let [mut repeated] = message.tensors_mut().unwrap();
    assert!(matches!(repeated.copy_from(&tensor), Err(ViewError::SharedElements { .. })));
}

#[test]
fn truth_values_are_looked_at_before_they_are_bools() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("layouts").subscriber().unwrap();
    let publisher = bus.topic("layouts").publisher().unwrap();
    let receive = |bytes: &[u8]| {
        publisher.publish_copy_of(&TensorView::from_bytes(Dtype::BOOL, bytes, &[3], &[1]).unwrap()).unwrap();
        subscriber.recv(PATIENCE).unwrap().first().clone()
    };
    assert_eq!(receive(&[1, 0, 1]).view_bool().unwrap(), [true, false, true]);
    let wrong = receive(&[1, 0, 2]).view_bool().unwrap_err();
    assert!(matches!(wrong, ViewError::NotBool { index: 2, byte: 2, .. }), "{wrong}");
    let numbers = TensorView::new(&[1u8], &[1], &[1]).unwrap().view_bool().unwrap_err();
    assert!(matches!(numbers, ViewError::Dtype { .. }));
}

/// A received tensor goes to a consumer of DLPack and stays as long as that wants, whatever becomes of everything else.
#[test]
fn an_exported_tensor_outlives_subscriber_publisher_and_bus() {
    let session = Session::new();
    let mut node = session.node("publish", &["3", "1000"]);
    let bus = session.bus();
    let subscriber = bus.topic("numbers").overflow(Overflow::Block(PATIENCE)).subscriber().unwrap();
    node.expect("ready");
    node.tell("go");
    let received = subscriber.recv(PATIENCE).unwrap().first().clone();
    node.expect("published");
    let expected = received.view::<u32>().unwrap().to_vec();
    let (address, exported) = (received.bytes().as_ptr(), received.to_dlpack());
    // SAFETY: exported just now and not deleted yet.
    assert_eq!(unsafe { exported.as_ref() }.flags, DLPACK_FLAG_READ_ONLY);
    let legacy = received.to_dlpack_legacy();
    drop((received, subscriber, bus));
    assert!(node.end().success());
    // SAFETY: exported above, given away here.
    let foreign = unsafe { ForeignTensor::from_dlpack(exported.as_ptr()) }.unwrap();
    // SAFETY: exported above, given away here.
    let legacy = unsafe { ForeignTensor::from_dlpack_legacy(legacy.as_ptr()) }.unwrap();
    for foreign in [&foreign, &legacy] {
        let view = foreign.as_view();
        assert_eq!((view.view::<u32>().unwrap(), view.bytes().as_ptr()), (&expected[..], address));
    }
    // Deleted by another thread than the one that received it.
    std::thread::spawn(move || drop((foreign, legacy))).join().unwrap();
}

/// The deleter gives the slot back: a pool of few slots serves any number of exports, and is empty while they are kept.
#[test]
fn the_deleter_gives_the_slot_back() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("layouts").depth(1).max_borrowed(2).subscriber().unwrap();
    let publisher = bus.topic("layouts").depth(1).max_borrowed(2).slot_bytes(64).publisher().unwrap();
    let exports = |number: u64| {
        publisher.publish_copy(&[number], &[1]).unwrap();
        let exported = subscriber.recv(PATIENCE).unwrap().first().to_dlpack();
        // SAFETY: exported just now, given away here.
        unsafe { ForeignTensor::from_dlpack(exported.as_ptr()) }.unwrap()
    };
    for round in 0..50 {
        let kept = [exports(round), exports(round + 1)];
        assert_eq!(kept[0].as_view().view::<u64>().unwrap(), [round]);
        assert_eq!(kept[1].as_view().view::<u64>().unwrap(), [round + 1]);
    }
    let kept = [exports(1), exports(2)];
    publisher.publish_copy(&[3u64], &[1]).unwrap();
    assert!(subscriber.try_recv().is_err(), "both that may be borrowed are kept by exports");
    drop(kept);
    assert_eq!(subscriber.recv(PATIENCE).unwrap().first().view::<u64>().unwrap(), [3]);
}

/// What another library made goes onto the bus with one copy, in its layout.
#[test]
fn a_foreign_tensor_is_published_in_its_layout() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("layouts").subscriber().unwrap();
    let publisher = bus.topic("layouts").publisher().unwrap();
    let elsewhere = TensorView::new(&[1.5f64, 2.5, 3.5], &[3, 2], &[1, 0]).unwrap().to_contiguous().unwrap();
    // SAFETY: exported and given away here.
    let foreign = unsafe { ForeignTensor::from_dlpack(elsewhere.into_dlpack().as_ptr()) }.unwrap();
    assert_eq!(publisher.publish_copy_of(&foreign.as_view()).unwrap(), 1);
    drop(foreign);
    let message = subscriber.recv(PATIENCE).unwrap();
    assert_eq!(message.first().view::<f64>().unwrap(), [1.5, 1.5, 2.5, 2.5, 3.5, 3.5]);
    assert_eq!(publisher.stats().copied_bytes, 48);
    // And so does what was received on another topic.
    publisher.publish_copy_of(&message.first().as_view()).unwrap();
    assert_eq!(subscriber.recv(PATIENCE).unwrap().first().bytes(), message.first().bytes());
}
