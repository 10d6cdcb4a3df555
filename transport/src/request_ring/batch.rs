use std::ops::Range;
use std::sync::Arc;

use super::worker::Shared;
use crate::layout::TensorLayout;
use crate::loan::TensorViewMut;
use crate::port::{Gathered, SAID, ShapeError, Source, Tensors, of_rows, with_shape};
use crate::ring::Outcome;
use crate::tensor_view::TensorView;
use crate::view::ViewError;

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
    /// In an isolated ring: what was copied, and where it came from.
    gathered: Option<(Gathered, Vec<Source>)>,
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
    /// `None` if nothing of these rows can be run.
    pub(super) fn new(worker: &Arc<Shared>, mut rows: Range<usize>) -> Option<Self> {
        let mut gathered = None;
        if worker.geometry.is_isolated() {
            let (taken, copied, sources) = worker.port.gather(rows)?;
            rows = taken;
            gathered = Some((copied, sources));
        }
        Some(Self { worker: worker.clone(), open: rows.clone(), rows, layouts: None, gathered })
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

    /// The inputs, where the clients wrote them, and the outputs, where they read them; in an isolated ring, copies.
    ///
    /// # Errors
    /// [`ViewError::Forked`] in a forked child.
    pub fn tensors(&mut self) -> Result<BatchParts<'_>, ViewError> {
        let (geometry, rows) = (&self.worker.geometry, self.rows.len());
        let (inputs, outputs) = &*self.layouts.get_or_insert_with(|| match &self.gathered {
            None => (geometry.inputs().of_rows(rows), geometry.outputs().of_rows(rows)),
            Some((gathered, _)) => {
                let all = |tensors: &[Tensors]| tensors.iter().map(|tensor| of_rows(&tensor.row, rows)).collect();
                (all(&gathered.inputs), all(&gathered.outputs))
            }
        });
        if let Some((Gathered { inputs: from, outputs: to }, _)) = &mut self.gathered {
            let from = inputs.iter().zip(from.iter());
            let to = outputs.iter().zip(to.iter_mut());
            return Ok(BatchParts {
                inputs: from.map(|(layout, from)| TensorView::of(layout, from.bytes(0..rows))).collect(),
                outputs: to.map(|(layout, to)| TensorViewMut::of(layout, to.bytes_mut(0..rows))).collect(),
            });
        }
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
        if let Some((gathered, _)) = &self.gathered {
            return Ok(gathered.inputs[input].bytes(0..self.rows.len()));
        }
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
        if let Some((gathered, _)) = &mut self.gathered {
            return Ok(gathered.outputs[output].bytes_mut(0..self.rows.len()));
        }
        let mut bytes = self.worker.port.segment()?.data(self.worker.geometry.outputs(), output, self.rows.clone());
        // SAFETY: as in `tensors`.
        Ok(unsafe { bytes.as_mut() })
    }

    /// In an isolated ring: gives an output another shape, for all requests of the batch, of which no dimension is larger than the ring
    /// says. Its elements are those that its bytes begin with: it may be written before.
    ///
    /// # Errors
    /// [`ShapeError`] if it does not fit; in a ring that is not isolated, if it is another one than that of the ring.
    ///
    /// # Panics
    /// If there are not so many outputs.
    pub fn set_output_shape(&mut self, output: usize, shape: &[usize]) -> Result<(), ShapeError> {
        let most = &self.worker.geometry.outputs().tensors()[output];
        match &mut self.gathered {
            Some((gathered, _)) => gathered.outputs[output].row = with_shape(most, shape)?,
            None if most.shape == shape => {}
            None => {
                return Err(ShapeError { name: most.name.clone(), asked: shape.to_vec(), most: most.shape.clone() });
            }
        }
        self.layouts = None;
        Ok(())
    }

    /// The outputs are written: the clients get their answers.
    #[inline]
    pub fn finish(mut self) {
        for row in std::mem::take(&mut self.open) {
            if let Some((gathered, sources)) = &self.gathered {
                let at = row - self.rows.start;
                self.worker.port.scatter(at, &sources[at], gathered);
            }
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
