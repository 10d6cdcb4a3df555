use std::sync::Mutex;

use pyo3::prelude::*;

use crate::client::Client;
use crate::error;
use crate::server::Server;

/// A control service of the bus: small requests to the one server of a name, and replies. Made by ``Bus.service``.
///
/// Both are bytes whose meaning is the program's, at most 65,536. Tensors go on topics.
#[pyclass(frozen, module = "tensorbus")]
pub(crate) struct Service {
    builder: tensorbus::ServiceBuilder,
    #[pyo3(get)]
    /// Name of the service.
    name: String,
}

impl Service {
    pub(crate) fn new(builder: tensorbus::ServiceBuilder, name: &str) -> Self {
        Self { builder, name: name.to_owned() }
    }
}

#[pymethods]
impl Service {
    /// Become the server of this name. Raises ``HasServer`` if a living process serves it already.
    ///
    /// Takes about 4 MiB of the session's memory for replies.
    fn server(&self, py: Python<'_>) -> PyResult<Server> {
        let builder = self.builder.clone();
        py.detach(|| builder.server()).map(Server::new).map_err(|failure| error::service(py, &failure))
    }

    /// Add a client, whether there is a server yet or not. A service has at most 32.
    fn client(&self, py: Python<'_>) -> PyResult<Client> {
        let builder = self.builder.clone();
        let client = py.detach(|| builder.client()).map_err(|failure| error::service(py, &failure))?;
        Ok(Client::new(Mutex::new(client)))
    }

    /// As ``server``, for asyncio.
    fn async_server<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("tensorbus._asyncio")?.getattr("AsyncServer")?.call1((self.server(py)?,))
    }

    /// As ``client``, for asyncio.
    fn async_client<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("tensorbus._asyncio")?.getattr("AsyncClient")?.call1((self.client(py)?,))
    }

    fn __repr__(&self) -> String {
        format!("<Service {:?}>", self.name)
    }
}
