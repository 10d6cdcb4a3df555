use std::sync::Arc;
use std::time::Duration;

use super::client::RingClient;
use super::error::RingError;
use super::worker::RingWorker;
use crate::bus::{BusInner, is_legal_name};
use crate::layout::Dtype;
use crate::port::{Geometry, MAX_RING_NAME, RingClientPort, RingSpec, RingWorkerPort};
use crate::topic::DEFAULT_SPIN;

/// Rows of a ring, if nothing else is said.
const DEFAULT_ROWS: usize = 64;

/// A request ring about to be opened. Made by [`Bus::ring`](crate::Bus::ring).
///
/// A request ring carries requests from any number of clients to the workers of one model, which share them. Its rows lie in shared memory,
/// row behind row, as the tensors that the model reads and writes: a client writes its inputs into a row, a worker runs the model on
/// neighbouring rows as one batch, where they lie, and the client reads the outputs there. Nothing is copied, and the memory is that of
/// the rows, however many clients there are. The workers say what the tensors are; the clients find out.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tensorbus_transport::{Bus, Dtype};
///
/// let bus = Bus::builder().session("doc-ring").open()?;
/// let second = Duration::from_secs(1);
/// let mut worker = bus.ring("double").input("x", Dtype::F32, &[3]).output("y", Dtype::F32, &[3]).worker()?;
/// let client = bus.ring("double").client()?;
///
/// let mut request = client.loan(second)?;
/// request.view_mut::<f32>("x")?.copy_from_slice(&[1.0, 2.0, 3.0]);
/// let pending = request.submit()?;
///
/// let mut batch = worker.take(16, second)?; // in another process
/// let mut tensors = batch.tensors()?; // [1, 3]: one row was ready
/// let (x, y) = (tensors.inputs[0].view::<f32>()?, tensors.outputs[0].view_mut::<f32>()?);
/// y.iter_mut().zip(x).for_each(|(y, x)| *y = 2.0 * x);
/// batch.finish();
///
/// assert_eq!(pending.wait(second)?.view::<f32>("y")?, [2.0, 4.0, 6.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RingBuilder {
    bus: Arc<BusInner>,
    name: String,
    spec: RingSpec,
    credits: Option<usize>,
    spin: Duration,
}

impl RingBuilder {
    pub(crate) fn new(bus: Arc<BusInner>, name: &str) -> Self {
        let spec = RingSpec {
            inputs: vec![],
            outputs: vec![],
            rows: DEFAULT_ROWS,
            credits: 0,
            may_repeat: false,
            isolated: false,
        };
        Self { bus, name: name.to_owned(), spec, credits: None, spin: DEFAULT_SPIN }
    }

    /// An input of the model: name, dtype, and shape of one row, so without the dimension of the batch. Workers only.
    pub fn input(mut self, name: &str, dtype: Dtype, shape: &[usize]) -> Self {
        self.spec.inputs.push((name.to_owned(), dtype, shape.to_vec()));
        self
    }

    /// An output of the model, as [`input`](Self::input).
    pub fn output(mut self, name: &str, dtype: Dtype, shape: &[usize]) -> Self {
        self.spec.outputs.push((name.to_owned(), dtype, shape.to_vec()));
        self
    }

    /// Requests that can be written, wait, run, or be read at the same time. Default: 64; at most
    /// [`MAX_RING_ROWS`](crate::MAX_RING_ROWS). Workers only.
    ///
    /// The largest batch is as many rows as lie side by side. Twice what all clients together have in flight keeps batches whole.
    pub fn rows(mut self, rows: usize) -> Self {
        self.spec.rows = rows;
        self
    }

    /// Rows that one client may have at a time, which bounds what a stopped client can hold. Default: a quarter of the rows. Workers only.
    pub fn credits(mut self, rows: usize) -> Self {
        self.credits = Some(rows);
        self
    }

    /// Says that requests may be run twice: what a worker ran when it died is run again by another one, from the inputs still in place,
    /// and the clients notice nothing. Default: they get [`AnswerError::WorkerDied`](crate::AnswerError::WorkerDied). Workers only.
    pub fn repeatable(mut self) -> Self {
        self.spec.may_repeat = true;
        self
    }

    /// Keeps the data of each client in a file of its own, which the other clients do not map, and lets each request have shapes of its own: what
    /// [`input`](Self::input) and [`output`](Self::output) say are the largest ones. Workers only. Default: no.
    ///
    /// Inputs and outputs are copied then, once each: a worker gathers requests of equal shapes into a batch, and
    /// [`copied_bytes`](RingWorker::copied_bytes) counts. Each client takes memory for as many requests as it may have at a time.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use tensorbus_transport::{Bus, Dtype};
    /// # let bus = Bus::builder().session("doc-isolated").open()?;
    /// # let second = Duration::from_secs(1);
    /// let ring = bus.ring("count").input("words", Dtype::I32, &[512]).output("length", Dtype::I32, &[1]);
    /// let mut worker = ring.isolated().worker()?;
    /// let client = bus.ring("count").client()?;
    ///
    /// let mut request = client.loan(second)?;
    /// request.set_shape(0, &[3])?;
    /// request.view_mut::<i32>("words")?.copy_from_slice(&[7, 8, 9]);
    /// let pending = request.submit()?;
    ///
    /// let mut batch = worker.take(16, second)?;
    /// let mut tensors = batch.tensors()?;
    /// let words = tensors.inputs[0].layout().shape[1] as i32; // [1, 3]
    /// tensors.outputs[0].view_mut::<i32>()?.fill(words);
    /// batch.finish();
    /// assert_eq!(pending.wait(second)?.view::<i32>("length")?, [3]);
    /// assert_eq!(worker.copied_bytes(), 3 * 4 + 4);
    /// # Ok(())
    /// # }
    /// ```
    pub fn isolated(mut self) -> Self {
        self.spec.isolated = true;
        self
    }

    /// How long this side looks for what it waits for before it sleeps. Default: [`DEFAULT_SPIN`](crate::DEFAULT_SPIN). Where looking
    /// has been in vain four times in a row, only every eighth wait does.
    pub fn spin(mut self, bound: Duration) -> Self {
        self.spin = bound;
        self
    }

    /// Becomes a worker of the ring: of the one that other workers have made, or left, if it is the same, else of a new one.
    ///
    /// The memory of a new ring is admitted, reserved and put in place now, and counts against the session's quota.
    ///
    /// # Errors
    /// [`RingError`]; [`RingError::Differs`] if living workers serve something else under the name.
    pub fn worker(mut self) -> Result<RingWorker, RingError> {
        self.check()?;
        self.spec.credits = self.credits.unwrap_or((self.spec.rows / 4).max(1));
        let geometry = Geometry::new(&self.spec)?;
        let port = RingWorkerPort::create(&self.bus.node, &self.name, geometry.clone(), self.spin, self.bus.clone())
            .map_err(|failure| RingError::of(failure, &self.name, Some(&geometry)))?;
        Ok(RingWorker::new(port, geometry, self.name))
    }

    /// Becomes a client of the ring that the name means, whether its workers live or not.
    ///
    /// # Errors
    /// [`RingError`]; [`RingError::NotThere`] if no worker has made one.
    pub fn client(self) -> Result<RingClient, RingError> {
        self.check()?;
        let port = RingClientPort::create(&self.bus.node, &self.name, self.spin, self.bus.clone())
            .map_err(|failure| RingError::of(failure, &self.name, None))?;
        RingClient::new(port, self.name)
    }

    fn check(&self) -> Result<(), RingError> {
        if !is_legal_name(&self.name, MAX_RING_NAME) {
            return Err(RingError::Name { name: self.name.chars().take(2 * MAX_RING_NAME).collect() });
        }
        if self.bus.is_ours() { Ok(()) } else { Err(RingError::Forked) }
    }
}
