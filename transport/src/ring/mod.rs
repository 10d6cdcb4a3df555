//! Lock-free structures of our own: pure algorithms over `sync`, which know no operating system. `models/` checks them.

mod bell;
mod bits;
#[cfg(all(test, not(tensorbus_loom)))]
mod model;
mod rows;
#[cfg(all(test, not(tensorbus_loom)))]
mod simulation;
mod sleeper;
mod state;

pub(crate) use bell::Bell;
pub(crate) use bits::Bits;
pub(crate) use rows::{Finished, Head, Outcome, Rows, WORKER_DIED};
pub(crate) use sleeper::Sleeper;
pub(crate) use state::State;
