use pyo3::prelude::*;
use tensorbus::{Overflow, TopicBuilder};

use crate::error;
use crate::wait::duration;

/// Settings of a topic that all its ports share; what is left open is taken as it is.
pub(crate) struct Shared<'a> {
    pub(crate) depth: Option<usize>,
    pub(crate) history: Option<usize>,
    pub(crate) max_borrowed: Option<usize>,
    pub(crate) overflow: Option<&'a str>,
    pub(crate) block_timeout: Option<f64>,
    pub(crate) max_publishers: Option<usize>,
    pub(crate) max_subscribers: Option<usize>,
}

impl Shared<'_> {
    pub(crate) fn apply(&self, py: Python<'_>, mut topic: TopicBuilder) -> PyResult<TopicBuilder> {
        if let Some(overflow) = self.overflow(py)? {
            topic = topic.overflow(overflow);
        }
        if let Some(depth) = self.depth {
            topic = topic.depth(depth);
        }
        if let Some(history) = self.history {
            topic = topic.history(history);
        }
        if let Some(max_borrowed) = self.max_borrowed {
            topic = topic.max_borrowed(max_borrowed);
        }
        if let Some(max_publishers) = self.max_publishers {
            topic = topic.max_publishers(max_publishers);
        }
        if let Some(max_subscribers) = self.max_subscribers {
            topic = topic.max_subscribers(max_subscribers);
        }
        Ok(topic)
    }

    fn overflow(&self, py: Python<'_>) -> PyResult<Option<Overflow>> {
        match (self.overflow, self.block_timeout) {
            (None, None) => Ok(None),
            (Some("drop-oldest"), None) => Ok(Some(Overflow::DropOldest)),
            (Some("drop-newest"), None) => Ok(Some(Overflow::DropNewest)),
            (Some("error"), None) => Ok(Some(Overflow::Error)),
            (Some("block"), Some(bound)) => Ok(Some(Overflow::Block(duration(py, "block_timeout", bound)?))),
            (Some("block"), None) => Err(error::invalid(py, "overflow 'block' needs a block_timeout in seconds")),
            (Some("drop-oldest" | "drop-newest" | "error") | None, Some(_)) => {
                Err(error::invalid(py, "block_timeout goes with overflow 'block' only"))
            }
            (Some(other), _) => Err(error::invalid(
                py,
                format!("no overflow {other:?}; it is 'drop-oldest', 'drop-newest', 'block' or 'error'"),
            )),
        }
    }
}
