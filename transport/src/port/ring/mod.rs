//! Request rings: the file that clients and workers of a model share, who takes part, and how they wait for each other. What is done to the
//! rows is `ring/rows.rs`; `RING.md` has the bytes.

mod client;
mod error;
mod geometry;
mod open;
mod party;
mod segment;
mod slot_layout;
mod slots;
mod wait;
mod worker;

pub(crate) use client::{Held, RingClientPort, RowFailure, Waited};
pub use error::{RingFormatError, RingSpecError};
pub(crate) use geometry::{Geometry, RingSpec, Side, of_rows};
pub use geometry::{MAX_RING_CLIENTS, MAX_RING_ROWS, MAX_RING_WORKERS, RING_VERSION};
pub(crate) use open::{MAX_RING_NAME, RingFailure};
pub(crate) use segment::Segment;
pub use slots::ShapeError;
pub(crate) use slots::{Gathered, Tensors, with_shape};
pub(crate) use worker::{RingWorkerPort, SAID, Source};
