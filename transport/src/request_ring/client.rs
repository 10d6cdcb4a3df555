use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::error::{AnswerError, RequestLoanError, RingError};
use super::row_counts::RowCounts;
use crate::element::Element;
use crate::layout::{Dtype, TensorLayout};
use crate::os::Forked;
use crate::port::{Geometry, Held, RingClientPort, RowFailure, ShapeError, Side, Waited, with_shape};
use crate::ring::{Outcome, WORKER_DIED};
use crate::tensor_view::TensorView;
use crate::view::{self, ViewError};

/// A client of a request ring. Cheap to clone, threads may share it; all clones have their rows together.
#[derive(Clone, Debug)]
pub struct RingClient {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    port: RingClientPort,
    geometry: Geometry,
    name: String,
    copied_bytes: AtomicU64,
}

/// A row that this client has, until this is dropped.
#[derive(Debug)]
struct Row {
    client: Arc<Shared>,
    held: Held,
    /// Of the inputs or outputs, where they differ from what the ring says: in an isolated ring.
    shapes: Option<Vec<TensorLayout>>,
}

/// A request that is being written, in shared memory. Dropped, it is given back.
#[derive(Debug)]
#[must_use]
pub struct RequestMut {
    row: Row,
}

/// A request that is on its way. Dropped, it is withdrawn: if a worker runs it already, what it answers is dropped.
#[derive(Debug)]
#[must_use]
pub struct Pending {
    row: Row,
}

/// The outputs of a request, in shared memory, until this is dropped.
#[derive(Debug)]
pub struct Answer {
    row: Row,
}

impl Drop for Row {
    fn drop(&mut self) {
        self.client.port.let_go(self.held);
    }
}

impl RingClient {
    pub(super) fn new(port: RingClientPort, name: String) -> Result<Self, RingError> {
        let geometry = port.segment().map_err(|Forked| RingError::Forked)?.geometry().clone();
        Ok(Self { shared: Arc::new(Shared { port, geometry, name, copied_bytes: AtomicU64::new(0) }) })
    }

    /// Takes a row to write a request into. Waits for a free one, at most as long as `timeout`; zero asks once.
    ///
    /// # Errors
    /// [`RequestLoanError`].
    #[inline]
    pub fn loan(&self, timeout: Duration) -> Result<RequestMut, RequestLoanError> {
        let client = &self.shared;
        let ring = || client.name.clone();
        match client.port.loan(timeout) {
            Ok(held) => {
                let shapes = client.geometry.is_isolated().then(|| client.geometry.inputs().tensors().to_vec());
                Ok(RequestMut { row: Row { client: client.clone(), held, shapes } })
            }
            Err(RowFailure::NoCredits { credits }) => Err(RequestLoanError::NoCredits { ring: ring(), credits }),
            Err(RowFailure::Full { rows }) => Err(RequestLoanError::Overloaded { ring: ring(), rows, waited: timeout }),
            Err(RowFailure::Io(reason)) => Err(RequestLoanError::Io { ring: ring(), reason }),
            Err(RowFailure::Forked) => Err(RequestLoanError::Forked),
        }
    }

    /// Name of the ring.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The inputs, as one request has them.
    pub fn inputs(&self) -> &[TensorLayout] {
        self.shared.geometry.inputs().tensors()
    }

    /// The outputs, as one request has them.
    pub fn outputs(&self) -> &[TensorLayout] {
        self.shared.geometry.outputs().tensors()
    }

    /// Rows of the ring.
    pub fn rows(&self) -> usize {
        self.shared.geometry.rows()
    }

    /// Rows that this client may have at a time.
    pub fn credits(&self) -> usize {
        self.shared.geometry.credits()
    }

    /// Requests that were run again because a worker died, by whichever client, since the ring was made. Some may be missing if who counted
    /// was killed too.
    pub fn repeated(&self) -> u64 {
        self.shared.port.repeated().unwrap_or_default()
    }

    /// Bytes that this client and its clones have copied into requests, by [`RequestMut::copy_from`]. Nothing else copies.
    pub fn copied_bytes(&self) -> u64 {
        self.shared.copied_bytes.load(Ordering::Relaxed)
    }

    /// Process ids of the workers. One that was killed is among them until somebody has noticed.
    pub fn workers(&self) -> Vec<u32> {
        self.shared.port.workers().unwrap_or_default()
    }

    /// How many rows are in which state, whoever has them.
    pub fn row_counts(&self) -> RowCounts {
        self.shared.port.segment().map(RowCounts::of).unwrap_or_default()
    }
}

impl Row {
    /// What a tensor is this time.
    fn tensor<'a>(&'a self, side: &'a Side, tensor: usize) -> &'a TensorLayout {
        self.shapes.as_ref().map_or(&side.tensors()[tensor], |shapes| &shapes[tensor])
    }

    /// Of an output.
    #[inline]
    fn bytes(&self, output: usize) -> Result<&[u8], ViewError> {
        let side = self.client.geometry.outputs();
        let bytes = self.client.port.data(self.held, side, output)?;
        // SAFETY: mapped as long as the client's port lives, which the row keeps; by the row's word nobody writes them while this
        // client reads an answer.
        Ok(&unsafe { bytes.as_ref() }[..self.tensor(side, output).len])
    }

    /// Of an input.
    #[inline]
    fn bytes_mut(&mut self, input: usize) -> Result<&mut [u8], ViewError> {
        let side = self.client.geometry.inputs();
        let mut bytes = self.client.port.data(self.held, side, input)?;
        let len = self.tensor(side, input).len;
        // SAFETY: mapped as long as the client's port lives, which the row keeps; by the row's word nobody else uses them while
        // this client writes the request, and `self` is borrowed mutably, so neither does another reference of this process.
        Ok(&mut unsafe { bytes.as_mut() }[..len])
    }
}

fn position(side: &Side, name: &str) -> Result<usize, ViewError> {
    side.tensors().iter().position(|tensor| tensor.name == name).ok_or_else(|| ViewError::NoSuchTensor {
        name: name.to_owned(),
        present: side.tensors().iter().map(|tensor| tensor.name.clone()).collect(),
    })
}

impl RequestMut {
    /// Elements of an input, to write. They hold what an earlier request left.
    ///
    /// # Errors
    /// [`ViewError`] if there is no such input, or its elements are of another type.
    pub fn view_mut<T: Element>(&mut self, input: &str) -> Result<&mut [T], ViewError> {
        let client = self.row.client.clone();
        let inputs = client.geometry.inputs();
        let tensor = position(inputs, input)?;
        let layout = self.row.tensor(inputs, tensor).clone();
        view::slice_mut(&layout, self.row.bytes_mut(tensor)?)
    }

    /// Bytes of an input, by its place among the inputs, to write.
    ///
    /// # Errors
    /// [`ViewError::Forked`] in a forked child.
    ///
    /// # Panics
    /// If there are not so many inputs.
    pub fn bytes_mut(&mut self, input: usize) -> Result<&mut [u8], ViewError> {
        self.row.bytes_mut(input)
    }

    /// Copies a tensor into an input, whatever its strides.
    ///
    /// # Errors
    /// [`ViewError`] if there is no such input, or dtype or shape differ.
    pub fn copy_from(&mut self, input: &str, source: &TensorView<'_>) -> Result<(), ViewError> {
        let client = self.row.client.clone();
        let inputs = client.geometry.inputs();
        let tensor = position(inputs, input)?;
        let layout = &self.row.tensor(inputs, tensor).clone();
        view::copy(source.layout(), source.bytes(), layout, self.row.bytes_mut(tensor)?)?;
        client.copied_bytes.fetch_add(layout.len as u64, Ordering::Relaxed);
        Ok(())
    }

    /// In an isolated ring: gives an input another shape for this request, of which no dimension is larger than the ring says.
    ///
    /// # Errors
    /// [`ShapeError`] if it does not fit; in a ring that is not isolated, if it is another one than that of the ring.
    ///
    /// # Panics
    /// If there are not so many inputs.
    pub fn set_shape(&mut self, input: usize, shape: &[usize]) -> Result<(), ShapeError> {
        let most = &self.row.client.geometry.inputs().tensors()[input];
        match &mut self.row.shapes {
            Some(shapes) => shapes[input] = with_shape(most, shape)?,
            None if most.shape == shape => {}
            None => {
                return Err(ShapeError { name: most.name.clone(), asked: shape.to_vec(), most: most.shape.clone() });
            }
        }
        Ok(())
    }

    /// Gives the request to the workers.
    ///
    /// # Errors
    /// [`AnswerError::Forked`] in a forked child.
    #[inline]
    pub fn submit(self) -> Result<Pending, AnswerError> {
        for (input, layout) in self.row.shapes.iter().flatten().enumerate() {
            self.row.client.port.set_shape(self.row.held, input, &layout.shape);
        }
        self.row.client.port.submit(self.row.held).map_err(|Forked| AnswerError::Forked)?;
        Ok(Pending { row: self.row })
    }

    /// Which row it is.
    pub fn row(&self) -> usize {
        self.row.held.row
    }
}

impl Pending {
    /// Waits for the answer, at most as long as `timeout`. A worker that died is noticed within about a tenth of a second.
    ///
    /// # Errors
    /// [`AnswerError`]. The request is over then: withdrawn, if it was not answered.
    #[inline]
    pub fn wait(self, timeout: Duration) -> Result<Answer, AnswerError> {
        let client = &self.row.client;
        let ring = || client.name.clone();
        match client.port.wait(self.row.held.row, timeout) {
            Ok(Waited::Ended(outcome)) => self.ended(outcome),
            Ok(Waited::NoWorker) => Err(AnswerError::NoWorker { ring: ring() }),
            Ok(Waited::Timeout) => Err(AnswerError::Timeout { ring: ring(), waited: timeout }),
            Err(RowFailure::Io(reason)) => Err(AnswerError::Io { ring: ring(), reason }),
            Err(_) => Err(AnswerError::Forked),
        }
    }

    /// Whether the request has ended, so that [`wait`](Self::wait) returns at once.
    pub fn has_ended(&self) -> bool {
        !matches!(self.row.client.port.answer(self.row.held.row), Ok(None))
    }

    #[inline]
    fn ended(self, outcome: Outcome) -> Result<Answer, AnswerError> {
        let ring = self.row.client.name.clone();
        match outcome {
            Outcome::Done => self.answer().ok_or(AnswerError::Damaged { ring }),
            Outcome::Failed(WORKER_DIED) => Err(AnswerError::WorkerDied { ring }),
            Outcome::Failed(u8::MAX) | Outcome::Again => Err(AnswerError::Damaged { ring }),
            Outcome::Failed(_) => {
                let reason = self.row.client.port.text(self.row.held.row).map_err(|Forked| AnswerError::Forked)?;
                Err(AnswerError::Failed { ring, reason })
            }
        }
    }

    /// `None` if its worker says that an output has a shape that it cannot have.
    #[inline]
    fn answer(mut self) -> Option<Answer> {
        if self.row.shapes.is_some() {
            let outputs = self.row.client.geometry.outputs().tensors().iter().enumerate();
            let shapes = outputs.map(|(output, most)| {
                with_shape(most, &self.row.client.port.output_shape(self.row.held, output)?).ok()
            });
            self.row.shapes = Some(shapes.collect::<Option<_>>()?);
        }
        Some(Answer { row: self.row })
    }

    /// Which row it is.
    pub fn row(&self) -> usize {
        self.row.held.row
    }
}

impl Answer {
    /// Elements of an output.
    ///
    /// # Errors
    /// [`ViewError`] if there is no such output, or its elements are of another type.
    pub fn view<T: Element>(&self, output: &str) -> Result<&[T], ViewError> {
        let tensor = position(self.row.client.geometry.outputs(), output)?;
        self.tensor_at(tensor)?.view()
    }

    /// An output.
    ///
    /// # Errors
    /// [`ViewError`] if there is no such output.
    pub fn tensor(&self, output: &str) -> Result<TensorView<'_>, ViewError> {
        self.tensor_at(position(self.row.client.geometry.outputs(), output)?)
    }

    /// Bytes of an output, by its place among the outputs.
    ///
    /// # Errors
    /// [`ViewError::Forked`] in a forked child.
    ///
    /// # Panics
    /// If there are not so many outputs.
    pub fn bytes(&self, output: usize) -> Result<&[u8], ViewError> {
        self.row.bytes(output)
    }

    fn tensor_at(&self, tensor: usize) -> Result<TensorView<'_>, ViewError> {
        let outputs = self.row.client.geometry.outputs();
        Ok(TensorView::of(self.row.tensor(outputs, tensor), self.row.bytes(tensor)?))
    }

    /// Type of an output's elements, by its place among the outputs.
    ///
    /// # Panics
    /// If there are not so many outputs.
    pub fn dtype(&self, output: usize) -> Dtype {
        self.row.client.geometry.outputs().tensors()[output].dtype
    }
}
