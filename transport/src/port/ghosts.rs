//! Ports that are registered in a topic or control service although their node is gone.
//!
//! iceoryx2 skips a port whose connections it cannot open when it removes a dead node, and then forgets the node. That happens
//! when the other side, alive, is just making its connection to the dead one: messages need no turn. A ghost would keep a
//! place, and the slots in its queue, for as long as the topic is there; that of a server, the name.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use iceoryx2::config::Config;
use iceoryx2::identifiers::UniqueNodeId;
use iceoryx2::node::{Node as IoxNode, NodeState, NodeView};
use iceoryx2::prelude::CallbackProgression;
use iceoryx2::service::internal::ServiceInternal;
use iceoryx2::service::port_factory::PortFactory as _;
use iceoryx2::service::service_hash::ServiceHash;
use iceoryx2::service::static_config::messaging_pattern::MessagingPattern;

use super::control;
use super::node::services;
use super::service::{Block64, Header, PREFIX, SessionService};
use super::shield::shield;
use super::stale::{TAG_SUFFIX, remove_connections_of};
use super::topic::PubSub;

/// In a turn. Looks at every topic and control service of the session, of which `node` is a member.
pub(super) fn remove_all_ghosts(directory: &Path, node: &IoxNode<SessionService>) {
    let config = node.config();
    let is_topic = |pattern: &MessagingPattern| matches!(pattern, MessagingPattern::PublishSubscribe(_));
    for name in services(config, is_topic).unwrap_or_default() {
        let builder = || node.service_builder(&name).publish_subscribe::<[Block64]>().user_header::<Header>();
        match shield(|| builder().open()) {
            Ok(Ok(topic)) => remove_ghosts(directory, config, &topic),
            failed => tracing::debug!(%name, ?failed, "could not look for ports without a node"),
        }
    }
    let is_control = |pattern: &MessagingPattern| matches!(pattern, MessagingPattern::RequestResponse(_));
    for name in services(config, is_control).unwrap_or_default() {
        match shield(|| control::ports_of(node, &name)) {
            Ok(Ok((service, ports))) => remove_ports_without_node(directory, config, &service, ports),
            failed => tracing::debug!(%name, ?failed, "could not look for ports without a node"),
        }
    }
}

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
    remove_ports_without_node(directory, config, topic.service_hash(), ports);
}

fn remove_ports_without_node(
    directory: &Path,
    config: &Config,
    service: &ServiceHash,
    mut ports: Vec<(u128, UniqueNodeId)>,
) {
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
        // iceoryx2 removes a port only where it can remove its tag too, which has gone with the node.
        let tagged = tag(directory, node.value(), port);
        let removed = shield(|| SessionService::__internal_remove_node_from_service(&node, service, config));
        tracing::debug!(port, ?tagged, ?removed, "removed a port that its dead node left");
        let _ = std::fs::remove_dir(node_directory(directory, node.value()));
    }
}

/// Whoever is killed before it is gone again leaves half a node, which the next turn removes.
fn tag(directory: &Path, node: u128, port: u128) -> io::Result<()> {
    let of_node = node_directory(directory, node);
    std::fs::create_dir_all(&of_node)?;
    File::create(of_node.join(format!("{PREFIX}{port}{TAG_SUFFIX}"))).map(drop)
}

fn node_directory(directory: &Path, node: u128) -> PathBuf {
    directory.join("nodes").join(node.to_string())
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
