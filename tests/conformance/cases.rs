//! The cases, on the backend that the module around this one names.

#[path = "../across/lifetimes.rs"]
mod lifetimes;
#[path = "../across/messages.rs"]
mod messages;
#[path = "../across/overflow.rs"]
mod overflow;
#[path = "../across/support.rs"]
#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod support;
#[path = "../across/waiting.rs"]
mod waiting;
#[path = "../across/weights.rs"]
#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod weights;

use super::backend;
