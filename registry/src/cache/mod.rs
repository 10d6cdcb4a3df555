//! What a registry knows of its models, and decides about them: state, event and time in, what to do out. Pure.
//!
//! The shell tells it how each model is [used](Cache::observe) before it asks, and does what it is told. Who is to be
//! evicted may be taken into use in the same moment: the shell finds out when it tries, observes it, and asks again.

mod entry;
mod settings;
mod state;
mod verdict;

pub use entry::{Entry, Failure, ModelId, Phase, Usage};
pub use settings::{KeepAlive, Policy, Settings};
pub use state::Cache;
pub use verdict::{Answer, Counts, Landing, OverBudget, Refusal, Why, Wish};
