use crate::port::{Node, NodeError, PublisherFacts, TopicError, TopicFacts, TopicSettings};

/// What can be seen of a topic without taking part in it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TopicInfo {
    /// The topic's name.
    pub name: String,
    /// Settings that all its ports share.
    pub settings: TopicSettings,
    /// One for each publisher that has slots.
    pub pools: Vec<PoolInfo>,
    /// Number of subscribers.
    pub subscribers: usize,
}

/// The slots of one publisher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PoolInfo {
    /// Number of slots.
    pub slots: usize,
    /// Bytes of each.
    pub slot_bytes: usize,
    /// Identifies the publisher, as [`Message::publisher`](crate::Message::publisher).
    pub publisher: u128,
    /// Messages that it has sent, whoever got them.
    pub messages: u64,
    /// Bytes of their tensors.
    pub bytes: u64,
}

impl TopicInfo {
    /// Number of publishers that have slots. One that has not loaned anything yet may have none.
    pub fn publishers(&self) -> usize {
        self.pools.len()
    }

    /// Bytes of all slots.
    pub fn pool_bytes(&self) -> u64 {
        self.pools.iter().map(|pool| pool.slots as u64 * pool.slot_bytes as u64).sum()
    }
}

impl PoolInfo {
    fn of(PublisherFacts { id, slots, slot_bytes, sent }: PublisherFacts) -> Self {
        Self { slots, slot_bytes, publisher: id, messages: sent.messages, bytes: sent.bytes }
    }
}

pub(super) fn list(node: &Node) -> Result<Vec<TopicInfo>, TopicError> {
    let names = TopicFacts::names(node).map_err(|error| match error {
        NodeError::Forked => TopicError::Forked,
        other => TopicError::Failed { topic: "*".to_owned(), reason: format!("{other:?}") },
    })?;
    let mut topics = Vec::with_capacity(names.len());
    for name in names {
        // A topic that goes away while we look is no error.
        if let Some(facts) = TopicFacts::look(node, &name)? {
            let pools = facts.publishers.into_iter().map(PoolInfo::of).collect();
            topics.push(TopicInfo { name, settings: facts.settings, pools, subscribers: facts.subscribers });
        }
    }
    Ok(topics)
}
