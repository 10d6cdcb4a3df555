//! Raw iceoryx2 request-response, to measure request rings against: a number goes there, and another one comes back.

use std::path::Path;

use anyhow::{Result, anyhow};
use iceoryx2::port::client::Client;
use iceoryx2::port::server::Server;
use iceoryx2::prelude::ServiceName;
use iceoryx2::service::port_factory::request_response::PortFactory;

use crate::peer::spin;
use crate::raw::{FileService, RawNode};

/// The side that asks.
#[derive(Debug)]
pub struct RawCaller {
    client: Client<FileService, u64, (), u64, ()>,
}

/// The side that answers.
#[derive(Debug)]
pub struct RawAnswerer {
    server: Server<FileService, u64, (), u64, ()>,
}

fn service(node: &RawNode, clients: usize) -> Result<PortFactory<FileService, u64, (), u64, ()>> {
    let name = ServiceName::new("calls").map_err(|error| anyhow!("{error:?}"))?;
    let builder = node.node().service_builder(&name).request_response::<u64, u64>();
    let builder = builder.max_clients(clients).max_servers(1).max_nodes(clients + 2);
    builder.open_or_create().map_err(|error| anyhow!("calls: {error:?}"))
}

impl RawCaller {
    /// A client of the service in a node's directory, which can have so many of them.
    ///
    /// # Errors
    /// Those of iceoryx2.
    pub fn new(directory: &Path, clients: usize) -> Result<Self> {
        let service = service(&RawNode::join(directory)?, clients)?;
        let client = service.client_builder().create().map_err(|error| anyhow!("client: {error:?}"))?;
        Ok(Self { client })
    }

    /// Sends a number and spins until the answer is there.
    ///
    /// # Errors
    /// Those of iceoryx2.
    #[inline]
    pub fn call(&self, number: u64) -> Result<u64> {
        let pending = self.client.send_copy(number).map_err(|error| anyhow!("send: {error:?}"))?;
        let answer = spin(|| pending.receive().map_err(|error| anyhow!("receive: {error:?}")))?;
        Ok(*answer.payload())
    }
}

impl RawAnswerer {
    /// The server of the service in a node's directory, which can have so many clients.
    ///
    /// # Errors
    /// Those of iceoryx2.
    pub fn new(directory: &Path, clients: usize) -> Result<Self> {
        let service = service(&RawNode::join(directory)?, clients)?;
        let server = service.server_builder().create().map_err(|error| anyhow!("server: {error:?}"))?;
        Ok(Self { server })
    }

    /// Spins until a number comes, and sends it back.
    ///
    /// # Errors
    /// Those of iceoryx2.
    #[inline]
    pub fn answer(&self) -> Result<()> {
        let request = spin(|| self.server.receive().map_err(|error| anyhow!("receive: {error:?}")))?;
        request.send_copy(*request.payload()).map_err(|error| anyhow!("answer: {error:?}"))
    }
}
