use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tensorbus_registry::BoxError;
use tensorbus_transport::layout::row_major_strides;
use tensorbus_transport::{Batch, BatchParts, Bus, RingError, RingWorker, TakeError, TensorView};

use crate::call::Output;
use crate::error::InferError;
use crate::model::Model;
use crate::places::{PlaceError, Places};
use crate::run::run;

/// How long an instance that has nothing to do sleeps before it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// A model that answers requests of other processes, on threads of its own, until this is dropped or stopped.
///
/// Clients reach it by its name ([`ModelClient`](crate::ModelClient)); their requests come over a request ring, and are run as batches where
/// they lie. Several workers, in this process or others, share the requests of a name.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use tensorbus_transport::{Bus, Dtype, TensorView};
/// use tensorbus_worker::{FunctionModel, ModelClient, Serving, Signature, TensorInfo};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let x = TensorInfo::new("x", Dtype::F32, &[-1, 2]);
/// let sum = TensorInfo::new("sum", Dtype::F32, &[-1, 1]);
/// let model = FunctionModel::new(Signature::new(vec![x], vec![sum])?.batched()?, |call| {
///     let x = call.input(0).view::<f32>()?;
///     let sums = call.output::<f32>(0, &[x.len() / 2, 1])?;
///     sums.iter_mut().zip(x.chunks_exact(2)).for_each(|(sum, row)| *sum = row.iter().sum());
///     Ok(())
/// });
///
/// let bus = Bus::builder().session("doc-serving").open()?;
/// let serving = Serving::builder(&bus, "sum/1", Arc::new(model)).start()?;
///
/// let client = ModelClient::connect(&bus, "sum/1")?; // in any process
/// let x = TensorView::new(&[1_f32, 2.0], &[2], &[1])?; // one request: a row
/// let answer = client.infer(&[("x", x)], Duration::from_secs(5))?;
/// assert_eq!(answer.view::<f32>("sum")?, [3.0]);
/// serving.stop();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Serving {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<(), TakeError>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stops: AtomicBool,
    batches: AtomicU64,
    requests: AtomicU64,
    failed: AtomicU64,
    copied_bytes: AtomicU64,
}

/// What a worker has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ServingStats {
    /// Batches that were run.
    pub batches: u64,
    /// Requests in them.
    pub requests: u64,
    /// Requests that failed, of these.
    pub failed: u64,
    /// Bytes that were copied between clients and the model, and inside of the model.
    pub copied_bytes: u64,
}

/// Settings of a [`Serving`].
#[must_use]
pub struct ServingBuilder {
    bus: Bus,
    name: String,
    model: Arc<dyn Model>,
    rows: usize,
    max_batch: usize,
    instances: usize,
    max_shapes: Vec<(String, Vec<usize>)>,
}

/// Why a model cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// How large its tensors can be is not known.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Its request ring cannot be opened.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The model failed when it was run for the first time, on zeros.
    #[error("the model fails on zeros: {0}")]
    WarmUp(#[source] InferError),
    /// The operating system gives no thread.
    #[error("no thread for an instance of the model: {0}")]
    Thread(#[source] std::io::Error),
}

impl Serving {
    /// A model to be served under a name.
    pub fn builder(bus: &Bus, name: &str, model: Arc<dyn Model>) -> ServingBuilder {
        ServingBuilder {
            bus: bus.clone(),
            name: name.to_owned(),
            model,
            rows: 64,
            max_batch: 8,
            instances: 1,
            max_shapes: Vec::new(),
        }
    }

    /// What it has done so far.
    pub fn stats(&self) -> ServingStats {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let Shared { batches, requests, failed, copied_bytes, .. } = &*self.shared;
        ServingStats {
            batches: get(batches),
            requests: get(requests),
            failed: get(failed),
            copied_bytes: get(copied_bytes),
        }
    }

    /// Whether all instances still take requests. One that cannot says why when it is [stopped](Self::stop).
    pub fn is_serving(&self) -> bool {
        !self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Takes no more requests, and returns when those that were taken are answered: those that wait go to other workers, if there are any.
    /// Why instances ended before, if they did.
    pub fn stop(mut self) -> Vec<TakeError> {
        self.end()
    }

    fn end(&mut self) -> Vec<TakeError> {
        self.shared.stops.store(true, Ordering::Relaxed);
        let ended = self.threads.drain(..).filter_map(|thread| thread.join().ok());
        ended.filter_map(Result::err).collect()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        for error in self.end() {
            tracing::warn!(%error, "an instance of a model ended");
        }
    }
}

impl ServingBuilder {
    /// Requests that can wait, run or be read at the same time. Default: 64.
    pub fn rows(mut self, rows: usize) -> Self {
        self.rows = rows;
        self
    }

    /// Most requests in a batch, if the model is batched. Default: 8.
    pub fn max_batch(mut self, requests: usize) -> Self {
        self.max_batch = requests.max(1);
        self
    }

    /// Threads that run the model, each a batch at a time. Default: 1.
    pub fn instances(mut self, threads: usize) -> Self {
        self.instances = threads.max(1);
        self
    }

    /// How large an input can be that has free dimensions besides that of the batch: the shape of one request. Then requests may
    /// differ in shape, and are copied (an [isolated](tensorbus_transport::RingBuilder::isolated) ring). An output needs none: the model is run
    /// on zeros to find out; give one where outputs may be larger than for zeros.
    pub fn max_shape(mut self, tensor: &str, shape: &[usize]) -> Self {
        self.max_shapes.push((tensor.to_owned(), shape.to_vec()));
        self
    }

    /// Runs the model once on zeros, opens its ring and starts its threads.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn start(self) -> Result<Serving, ServeError> {
        let places = Places::new(&*self.model, &self.max_shapes)?;
        let shared = Arc::new(Shared::default());
        // All of them before the first one takes a request: a worker that cannot start serves nobody.
        let rings = (0..self.instances).map(|_| self.ring(&places)).collect::<Result<Vec<_>, _>>()?;
        let mut serving = Serving { shared: shared.clone(), threads: Vec::new() };
        for ring in rings {
            let (model, shared) = (self.model.clone(), shared.clone());
            let max = if model.signature().is_batched() { self.max_batch } else { 1 };
            let instance = move || serve(ring, &*model, max, &shared);
            let thread = std::thread::Builder::new().name("tensorbus-model".to_owned()).spawn(instance);
            serving.threads.push(thread.map_err(ServeError::Thread)?);
        }
        Ok(serving)
    }

    fn ring(&self, places: &Places) -> Result<RingWorker, RingError> {
        let mut ring = self.bus.ring(&self.name).rows(self.rows);
        for (name, dtype, shape) in &places.inputs {
            ring = ring.input(name, *dtype, shape);
        }
        for (name, dtype, shape) in &places.outputs {
            ring = ring.output(name, *dtype, shape);
        }
        if self.model.is_idempotent() {
            ring = ring.repeatable();
        }
        if places.may_differ {
            ring = ring.isolated();
        }
        ring.worker()
    }
}

impl std::fmt::Debug for ServingBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServingBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An instance: runs batches until it is told to stop.
fn serve(mut ring: RingWorker, model: &dyn Model, max: usize, shared: &Shared) -> Result<(), TakeError> {
    let mut copied = 0;
    while !shared.stops.load(Ordering::Relaxed) {
        let mut batch = match ring.take(max, LOOK) {
            Ok(batch) => batch,
            Err(TakeError::Timeout { .. }) => continue,
            Err(error) => return Err(error),
        };
        let requests = batch.len() as u64;
        // Before the clients have their answers.
        shared.batches.fetch_add(1, Ordering::Relaxed);
        shared.requests.fetch_add(requests, Ordering::Relaxed);
        match answer(&mut batch, model) {
            Ok(bytes) => {
                shared.copied_bytes.fetch_add(bytes, Ordering::Relaxed);
                batch.finish();
            }
            Err(error) => {
                shared.failed.fetch_add(requests, Ordering::Relaxed);
                batch.fail(&error.to_string());
            }
        }
        let all = ring.copied_bytes();
        shared.copied_bytes.fetch_add(all - copied, Ordering::Relaxed);
        copied = all;
    }
    Ok(())
}

/// Runs the model on a batch. How many bytes were copied inside of it.
fn answer(batch: &mut Batch, model: &dyn Model) -> Result<u64, InferError> {
    let is_batched = model.signature().is_batched();
    let (shapes, copied) = {
        let BatchParts { inputs, outputs, .. } = &mut batch.tensors().map_err(failed)?;
        let inputs = inputs.iter().map(|view| as_the_model_takes(view, is_batched)).collect::<Result<Vec<_>, _>>()?;
        let places = outputs.iter_mut().map(|room| Output::in_place(room.bytes_mut())).collect();
        let outcome = run(model, inputs, places)?;
        let shape = |output: &Output<'_>| output.tensor().map(|tensor| tensor.layout().shape.clone());
        (outcome.outputs.iter().map(shape).collect::<Vec<_>>(), outcome.copied_bytes)
    };
    for (index, shape) in shapes.iter().enumerate() {
        let shape = shape.as_deref().unwrap_or_default();
        batch.set_output_shape(index, &shape[usize::from(is_batched).min(shape.len())..]).map_err(failed)?;
    }
    Ok(copied)
}

/// A model that is not batched knows no rows: there is one, and its dimension goes.
fn as_the_model_takes<'a>(view: &TensorView<'a>, is_batched: bool) -> Result<TensorView<'a>, InferError> {
    let shape = &view.layout().shape[usize::from(!is_batched)..];
    let strides = row_major_strides(shape).unwrap_or_default();
    Ok(TensorView::from_bytes(view.layout().dtype, view.bytes(), shape, &strides)?)
}

fn failed(error: impl Into<BoxError>) -> InferError {
    InferError::Failed(error.into())
}
