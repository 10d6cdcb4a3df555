//! Ports that are registered in a topic although their node is gone.
//!
//! iceoryx2 skips a port whose connections it cannot open when it removes a dead node, and then forgets the node. That happens
//! when the other side, alive, is just making its connection to the dead one: messages need no turn. A ghost would keep a
//! place of the topic, and the slots in its queue, for as long as the topic is there.

use std::collections::BTreeSet;
use std::path::Path;

use iceoryx2::config::Config;
use iceoryx2::identifiers::UniqueNodeId;
use iceoryx2::node::{Node as IoxNode, NodeState, NodeView};
use iceoryx2::prelude::CallbackProgression;
use iceoryx2::service::internal::ServiceInternal;
use iceoryx2::service::port_factory::PortFactory as _;

use super::service::SessionService;
use super::shield::shield;
use super::stale::remove_connections_of;
use super::topic::PubSub;

/// In a turn: nobody joins or leaves meanwhile. Removes the topic's ports whose node is neither alive nor waits to be cleaned up.
pub(super) fn remove_ghosts(directory: &Path, config: &Config, topic: &PubSub) {
    let mut ports: Vec<(u128, UniqueNodeId)> = Vec::new();
    topic.dynamic_config().list_publishers(|port| {
        ports.push((port.publisher_id.value(), port.node_id));
        CallbackProgression::Continue
    });
    topic.dynamic_config().list_subscribers(|port| {
        ports.push((port.subscriber_id.value(), port.node_id));
        CallbackProgression::Continue
    });
    if ports.is_empty() {
        return;
    }
    let Some(nodes) = nodes(config) else { return };
    ports.retain(|(_, node)| !nodes.contains(&node.value()));
    if ports.is_empty() {
        return;
    }
    remove_connections_of(directory, &ports.iter().map(|(port, _)| *port).collect());
    for (port, node) in ports {
        let removed =
            shield(|| SessionService::__internal_remove_node_from_service(&node, topic.service_hash(), config));
        tracing::debug!(port, ?removed, "removed a port that its dead node left");
    }
}

/// All nodes that are alive, or dead and wait to be cleaned up; `None` if they cannot be listed.
fn nodes(config: &Config) -> Option<BTreeSet<u128>> {
    let mut nodes = BTreeSet::new();
    let listed = shield(|| {
        IoxNode::<SessionService>::list(config, |state| {
            match &state {
                NodeState::Alive(_) => drop(nodes.insert(state.node_id().value())),
                NodeState::Dead(node) if node.details().is_some() => drop(nodes.insert(state.node_id().value())),
                // In a turn, what is half there is what is left of a dead one: nobody cleans up after it.
                _ => {}
            }
            CallbackProgression::Continue
        })
    });
    matches!(listed, Ok(Ok(()))).then_some(nodes)
}
