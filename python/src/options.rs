use pyo3::prelude::*;
use tensorbus::{Overflow, TopicBuilder};

use crate::error;
use crate::wait::duration;

/// Settings of a topic that all its ports share; what is left open is taken as it is.
#[derive(Default)]
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
        let settings: [(Option<usize>, fn(TopicBuilder, usize) -> TopicBuilder); 5] = [
            (self.depth, TopicBuilder::depth),
            (self.history, TopicBuilder::history),
            (self.max_borrowed, TopicBuilder::max_borrowed),
            (self.max_publishers, TopicBuilder::max_publishers),
            (self.max_subscribers, TopicBuilder::max_subscribers),
        ];
        Ok(settings.into_iter().fold(topic, |topic, (value, set)| match value {
            Some(value) => set(topic, value),
            None => topic,
        }))
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
