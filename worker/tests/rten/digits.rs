//! The model of the examples, which is a real one.

use std::path::{Path, PathBuf};

use tensorbus_registry::ModelCache;
use tensorbus_transport::{Dtype, TensorView};
use tensorbus_worker::{Dim, Model, Output, RtenModel, probe, run};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits").join(name)
}

/// The numbers in an `.npy` file of bytes, of which the last ones are the array.
fn bytes(name: &str, count: usize) -> Vec<u8> {
    let file = std::fs::read(example(name)).unwrap();
    assert!(file.starts_with(b"\x93NUMPY") && String::from_utf8_lossy(&file[..128]).contains("'|u1'"));
    file[file.len() - count..].to_vec()
}

/// FR-004: a batch is read where it lies, in one call, and the digits are what they are.
#[test]
fn digits_are_read_in_batches() {
    const COUNT: usize = 599;
    let directory = tempfile::tempdir().unwrap();
    let cache = ModelCache::at(directory.path());
    let model = RtenModel::builder().threads(2).batched().cache(cache).load(example("digits.onnx")).unwrap();
    let [images] = model.signature().inputs() else { panic!("{}", model.signature()) };
    assert_eq!((images.dtype, images.name.as_str()), (Dtype::F32, "images"));
    assert!(matches!(images.dims.as_deref(), Some([Dim::Named(_), Dim::Fixed(1), Dim::Fixed(8), Dim::Fixed(8)])));
    assert!(model.is_idempotent() && model.weight_bytes() > 0);
    assert_eq!(probe(&model, &[vec![5, 1, 8, 8]]).unwrap(), [[5, 10]]);

    let images: Vec<f32> =
        bytes("heldout_images.npy", COUNT * 64).iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
    let labels = bytes("heldout_labels.npy", COUNT);
    let mut logits = vec![0_f32; COUNT * 10];
    let view = |images, rows| TensorView::new(images, &[rows, 1, 8, 8], &[64, 64, 8, 1]).unwrap();
    let room = bytemuck::cast_slice_mut(&mut logits);
    let outcome = run(&model, vec![view(&images, COUNT)], vec![Output::in_place(room)]).unwrap();
    assert_eq!(outcome.copied_bytes, COUNT as u64 * 40, "one copy of the output, none of the input");
    let best = |row: &[f32]| (0..10_u8).max_by(|&a, &b| row[usize::from(a)].total_cmp(&row[usize::from(b)])).unwrap();
    let right = logits.chunks_exact(10).zip(&labels).filter(|(row, label)| best(row) == **label).count();
    println!("{right} of {COUNT} are right");
    assert!(right * 100 >= COUNT * 95);

    // Each row is what it is alone.
    for row in [0, 77, COUNT - 1] {
        let image = view(&images[row * 64..], 1);
        let alone = run(&model, vec![image], vec![Output::in_memory()]).unwrap();
        let alone = alone.outputs[0].tensor().unwrap().view::<f32>().unwrap().to_vec();
        let together = &logits[row * 10..][..10];
        assert!(alone.iter().zip(together).all(|(a, b)| (a - b).abs() < 1e-4), "{alone:?}, {together:?}");
    }
}
