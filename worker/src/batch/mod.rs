//! Which requests are run together, and when. Pure: rows and times go in, batches come out; whoever uses it has the clock, the
//! memory and the threads.
//!
//! A row is a request for one row of a batched model. Rows of one *bucket* may run together: those of the same trailing shapes.
//! The [`Batcher`] keeps rows until a batch is sealed, by these rules:
//!
//! - **When**: a bucket is ripe when it has [`Settings::max_batch_size`] rows, or as many as one of [`Settings::preferred`], or when
//!   a row has waited long enough: [`Settings::max_delay`], or half of the time to its deadline, whichever is less.
//! - **Which bucket**: of those that are ripe the one with the row that comes first.
//! - **Which row comes first**: one of lower priority number; of these, one of the client that was served least since it began to
//!   wait; of these, the one that arrived first.
//! - **Nobody starves**: every fourth batch begins with the row that arrived first of all in ripe buckets, whatever its priority.
//! - **Nobody fills the queue**: a client may have as many rows waiting as there are places left, so that others find one.
//! - **Nobody waits for ever**: a row whose deadline is over is given back, and never run.

mod queue;
mod settings;
mod state;

pub use settings::Settings;
pub use state::{AdmitError, Batch, Batcher, FIRST_COME, Next, Row};
