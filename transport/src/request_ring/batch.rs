use std::ops::Range;
use std::sync::Arc;

use super::worker::Shared;
use crate::layout::{TensorLayout, row_major_strides};
use crate::loan::TensorViewMut;
use crate::port::Side;
use crate::ring::Outcome;
use crate::tensor_view::TensorView;
use crate::view::ViewError;

/// Reason: the worker says why, in a text.
const SAID: u8 = 2;

/// Requests that a worker runs, as one batch: rows that lie side by side.
///
/// Dropped before it is finished, its requests fail.
#[derive(Debug)]
#[must_use]
pub struct Batch {
    worker: Arc<Shared>,
    rows: Range<usize>,
    /// Those not finished yet.
    open: Range<usize>,
    /// Of the tensors with all rows; made when they are asked for.
    layouts: Option<(Vec<TensorLayout>, Vec<TensorLayout>)>,
}

/// The tensors of a batch, in shared memory. The first dimension is that of the batch.
#[derive(Debug)]
#[non_exhaustive]
pub struct BatchParts<'a> {
    /// To read, in the order in which the worker named them.
    pub inputs: Vec<TensorView<'a>>,
    /// To write. They hold what earlier requests left.
    pub outputs: Vec<TensorViewMut<'a>>,
}

impl Batch {
    pub(super) fn new(worker: Arc<Shared>, rows: Range<usize>) -> Self {
        Self { worker, open: rows.clone(), rows, layouts: None }
    }

    /// Requests in the batch.
    #[expect(clippy::len_without_is_empty, reason = "it has one at least")]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Its rows in the ring.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The inputs, where the clients wrote them, and the outputs, where they read them.
    ///
    /// # Errors
    /// [`ViewError::Forked`] in a forked child.
    pub fn tensors(&mut self) -> Result<BatchParts<'_>, ViewError> {
        let geometry = &self.worker.geometry;
        let (inputs, outputs) = &*self.layouts.get_or_insert_with(|| {
            let all = |side: &Side| side.tensors().iter().map(|tensor| of_rows(tensor, self.rows.len())).collect();
            (all(geometry.inputs()), all(geometry.outputs()))
        });
        let segment = self.worker.port.segment()?;
        let input = |(tensor, layout)| {
            let bytes = segment.data(geometry.inputs(), tensor, self.rows.clone());
            // SAFETY: mapped as long as the worker's port lives, which the batch keeps; by the rows' words nobody writes them while
            // this worker runs them.
            TensorView::of(layout, unsafe { bytes.as_ref() })
        };
        let output = |(tensor, layout)| {
            let mut bytes = segment.data(geometry.outputs(), tensor, self.rows.clone());
            // SAFETY: mapped as above; by the rows' words nobody else uses them while this worker runs them. `self` is borrowed mutably,
            // so there is no other reference of this process, and each tensor has bytes of its own.
            TensorViewMut::of(layout, unsafe { bytes.as_mut() })
        };
        Ok(BatchParts {
            inputs: inputs.iter().enumerate().map(input).collect(),
            outputs: outputs.iter().enumerate().map(output).collect(),
        })
    }

    /// Bytes of an input, by its place among the inputs.
    ///
    /// # Errors
    /// [`ViewError::Forked`] in a forked child.
    ///
    /// # Panics
    /// If there are not so many inputs.
    #[inline]
    pub fn input_bytes(&self, input: usize) -> Result<&[u8], ViewError> {
        let bytes = self.worker.port.segment()?.data(self.worker.geometry.inputs(), input, self.rows.clone());
        // SAFETY: as in `tensors`.
        Ok(unsafe { bytes.as_ref() })
    }

    /// Bytes of an output, by its place among the outputs, to write.
    ///
    /// # Errors
    /// [`ViewError::Forked`] in a forked child.
    ///
    /// # Panics
    /// If there are not so many outputs.
    #[inline]
    pub fn output_bytes_mut(&mut self, output: usize) -> Result<&mut [u8], ViewError> {
        let mut bytes = self.worker.port.segment()?.data(self.worker.geometry.outputs(), output, self.rows.clone());
        // SAFETY: as in `tensors`.
        Ok(unsafe { bytes.as_mut() })
    }

    /// The outputs are written: the clients get their answers.
    #[inline]
    pub fn finish(mut self) {
        for row in std::mem::take(&mut self.open) {
            self.worker.port.finish(row, Outcome::Done);
        }
    }

    /// All requests failed; the clients get the reason, as far as 190 bytes go.
    pub fn fail(mut self, reason: &str) {
        self.fail_all(reason);
    }

    /// Gives the requests back: a worker takes them again, from the inputs still in place.
    pub fn give_back(mut self) {
        for row in std::mem::take(&mut self.open) {
            self.worker.port.finish(row, Outcome::Again);
        }
    }

    fn fail_all(&mut self, reason: &str) {
        for row in std::mem::take(&mut self.open) {
            self.worker.port.fail(row, SAID, reason);
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.fail_all("the worker gave the request up");
    }
}

/// A tensor of one row, for several.
fn of_rows(row: &TensorLayout, rows: usize) -> TensorLayout {
    let shape = [&[rows], &row.shape[..]].concat();
    // All rows of the ring have strides; fewer do too.
    let strides = row_major_strides(&shape).unwrap_or_default();
    TensorLayout { name: row.name.clone(), dtype: row.dtype, shape, strides, offset: 0, len: rows * row.len }
}
