//! Requests to the workers of a model, written where the model reads them.

mod batch;
mod builder;
mod client;
mod error;
mod row_counts;
mod worker;

pub use batch::{Batch, BatchParts};
pub use builder::RingBuilder;
pub use client::{Answer, Pending, RequestMut, RingClient};
pub use error::{AnswerError, RequestLoanError, RingError, TakeError};
pub use row_counts::RowCounts;
pub use worker::RingWorker;
