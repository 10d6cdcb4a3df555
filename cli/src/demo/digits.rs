//! The handwritten digits that the camera shows, and the model that reads them. `examples/digits` says where they are from.

use anyhow::{Context, ensure};
use ndarray::{Array1, Array3};
use ndarray_npy::ReadNpyExt;
use tensorbus::{Measured, ModelCache};

/// Rows and columns of a digit's image.
pub(super) const SIDE: usize = 8;
/// Digits there are: 0 to 9.
pub(super) const CLASSES: usize = 10;
/// ONNX: `images` f32 `[N, 1, 8, 8]`, ink 1, to `logits` f32 `[N, 10]`.
const MODEL: &[u8] = include_bytes!("../../../examples/digits/digits.onnx");

const IMAGES: &[u8] = include_bytes!("../../../examples/digits/heldout_images.npy");
const LABELS: &[u8] = include_bytes!("../../../examples/digits/heldout_labels.npy");

pub(super) type Model = Measured<rten::Model>;

/// The model with its weights mapped: imported into the cache of models by the first process that asks. A program whose model
/// is a file calls `tensorbus::rten::load(path)`.
pub(super) fn load_shared() -> anyhow::Result<Model> {
    let imported = ModelCache::open()?.import_bytes(MODEL)?;
    Ok(tensorbus::rten::load_imported(&imported)?)
}

/// The model with weights of its own, as without sharing: read from a file into memory.
pub(super) fn load_private() -> anyhow::Result<Model> {
    Ok(Measured::new(rten::Model::load(MODEL.to_vec())?, MODEL.len() as u64))
}

/// The image of a digit, row by row: ink 255, background 0.
pub(super) type Image = [u8; SIDE * SIDE];

/// Images that the model was not trained on, each with the digit that it shows.
pub(super) struct Digits {
    images: Vec<Image>,
    labels: Vec<u8>,
}

impl Digits {
    pub(super) fn load() -> anyhow::Result<Self> {
        let images = Array3::<u8>::read_npy(IMAGES).context("the images in this program")?;
        let labels = Array1::<u8>::read_npy(LABELS).context("the labels in this program")?.to_vec();
        let (count, rows, columns) = images.dim();
        ensure!((rows, columns) == (SIDE, SIDE), "the images in this program are {rows} x {columns}");
        ensure!(count == labels.len() && count > 0, "{count} images in this program, {} labels", labels.len());
        let pixels: Vec<u8> = images.iter().copied().collect();
        Ok(Self { images: pixels.as_chunks().0.to_vec(), labels })
    }

    pub(super) fn len(&self) -> usize {
        self.images.len()
    }

    /// The image at `index`, counted round and round.
    pub(super) fn image(&self, index: u64) -> &Image {
        &self.images[self.wrap(index)]
    }

    /// The digit that the image at `index` shows.
    pub(super) fn label(&self, index: u64) -> u8 {
        self.labels[self.wrap(index)]
    }

    fn wrap(&self, index: u64) -> usize {
        // Less than the number of images, which is a usize.
        (index % self.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_digits_are_there() {
        let digits = Digits::load().unwrap();
        assert_eq!(digits.len(), 599);
        for class in 0..CLASSES as u8 {
            assert!((0..599).any(|index| digits.label(index) == class), "{class}");
        }
        assert_eq!(digits.image(600), digits.image(1));
        assert!((0..599).all(|index| digits.image(index).iter().any(|&pixel| pixel > 200)));
    }
}
