use std::sync::Arc;
use std::time::Duration;

use super::batch::Batch;
use super::error::TakeError;
use super::row_counts::RowCounts;
use crate::layout::TensorLayout;
use crate::os::Deadline;
use crate::port::{Geometry, RingWorkerPort, RowFailure};

/// A worker of a request ring. It belongs to one thread at a time; further threads make workers of their own, of the same ring.
#[derive(Debug)]
pub struct RingWorker {
    shared: Arc<Shared>,
    /// Where the last batch ended: the next one is looked for from there on, so that no request is passed over for ever.
    next: usize,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) port: RingWorkerPort,
    pub(super) geometry: Geometry,
    name: String,
}

impl RingWorker {
    pub(super) fn new(port: RingWorkerPort, geometry: Geometry, name: String) -> Self {
        Self { shared: Arc::new(Shared { port, geometry, name }), next: 0 }
    }

    /// Takes requests whose rows lie side by side, at most `max`. Waits for the first, at most as long as `timeout`.
    ///
    /// A worker may have several batches at a time.
    ///
    /// # Errors
    /// [`TakeError::Timeout`] if there was none.
    #[inline]
    pub fn take(&mut self, max: usize, timeout: Duration) -> Result<Batch, TakeError> {
        let worker = &self.shared;
        let ring = || worker.name.clone();
        let (mut left, mut deadline) = (Some(timeout), None);
        loop {
            let found = match left {
                Some(left) => worker.port.take(self.next, max.max(1), left),
                None => Ok(None),
            };
            match found {
                Ok(Some(rows)) => {
                    if let Some(batch) = Batch::new(worker, rows) {
                        self.next = batch.rows().end % worker.geometry.rows();
                        return Ok(batch);
                    }
                    // Nobody waited for those any more.
                    left = deadline.get_or_insert_with(|| Deadline::after(timeout)).left();
                }
                Ok(None) => return Err(TakeError::Timeout { ring: ring(), waited: timeout }),
                Err(RowFailure::Io(reason)) => return Err(TakeError::Io { ring: ring(), reason }),
                Err(_) => return Err(TakeError::Forked),
            }
        }
    }

    /// Bytes that this worker has copied between clients and the model: in an isolated ring; else none.
    pub fn copied_bytes(&self) -> u64 {
        self.shared.port.copied_bytes()
    }

    /// Requests that wait for a worker.
    pub fn waiting(&self) -> usize {
        self.shared.port.waiting().unwrap_or_default()
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

    /// Process ids of the clients. One that was killed is among them until somebody has noticed.
    pub fn clients(&self) -> Vec<u32> {
        self.shared.port.clients().unwrap_or_default()
    }

    /// How many rows are in which state, whoever has them.
    pub fn row_counts(&self) -> RowCounts {
        self.shared.port.segment().map(RowCounts::of).unwrap_or_default()
    }
}
