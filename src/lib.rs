//! Tensors from process to process in shared memory, without a copy.
//!
//! A *session* is one isolated bus on one machine. A program opens a [`Bus`], publishes tensors on *topics* out of a
//! preallocated pool of slots in shared memory, and subscribers read them where they lie.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use tensorbus::prelude::*;
//!
//! let bus = Bus::builder().session("doc-facade").open()?;
//! let subscriber = bus.topic("camera").subscriber()?;
//! let publisher = bus.topic("camera").slot_bytes(640 * 480 * 3).publisher()?;
//!
//! let mut frame = publisher.loan(Dtype::U8, &[480, 640, 3])?;
//! frame.view_mut::<u8>()?.fill(127);
//! frame.publish()?;
//!
//! let message = subscriber.recv(Duration::from_secs(1))?;
//! let frame = message.first();
//! assert_eq!(frame.shape(), [480, 640, 3]);
//! assert!(frame.view::<u8>()?.iter().all(|&pixel| pixel == 127));
//! # Ok(())
//! # }
//! ```
//!
//! A process keeps its models in a [`ModelRegistry`]: loaded once, shared by all of its nodes, unloaded when nobody needs them.
#![forbid(unsafe_code)]

pub use tensorbus_registry::*;
pub use tensorbus_transport::*;

/// What most programs need: `use tensorbus::prelude::*`.
pub mod prelude {
    pub use tensorbus_registry::{KeepAlive, Measured, Model, ModelHandle, ModelRegistry};
    pub use tensorbus_transport::{
        Bus, Dtype, Element, Message, MessageMut, Metadata, Overflow, Publisher, RingClient, RingWorker, Subscriber,
        Tensor, TensorMut, TensorSpec, TensorView,
    };
}

/// The README's programs are compiled with the documentation's examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// So are those of `docs/weights.md`.
#[cfg(doctest)]
#[doc = include_str!("../docs/weights.md")]
struct Weights;

/// So is that of `docs/control.md`.
#[cfg(doctest)]
#[doc = include_str!("../docs/control.md")]
struct Control;

/// And that of `docs/models.md`.
#[cfg(doctest)]
#[doc = include_str!("../docs/models.md")]
struct Models;

/// And that of `docs/requests.md`.
#[cfg(doctest)]
#[doc = include_str!("../docs/requests.md")]
struct Requests;
