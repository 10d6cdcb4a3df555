//! The Python package `tensorbus`: the same bus, no copies.
//!
//! `bus`, `publisher` and `subscriber` are the ports, `service`, `server` and `client` those of control services; `loan`, `message_mut` and `tensor_mut` are what is written, `message` and
//! `tensor` what is read.
//! How tensors leave for other libraries is in `buffer` (buffer protocol), `capsule` (DLPack) and `frameworks`; how they
//! come in is in `source`. `weights` and `mapped_tensor` are weights that processes share; what they and received tensors have in
//! common is `readable`. `registry`, `request` and `model` are the models of the process.

mod buffer;
mod bus;
mod capsule;
mod client;
mod command;
mod deaths;
mod dtype;
mod error;
mod frameworks;
mod held_buffer;
mod loan;
mod mapped_tensor;
mod message;
mod message_mut;
mod metadata;
mod model;
mod options;
mod outside;
mod publisher;
mod readable;
mod registry;
mod request;
mod server;
mod service;
mod source;
mod subscriber;
mod tensor;
mod tensor_mut;
mod wait;
mod weights;

use pyo3::prelude::*;

/// The part of `tensorbus` that is written in Rust.
#[pymodule]
mod _core {
    use super::*;

    #[pymodule_export]
    use crate::bus::{Bus, TopicInfo};
    #[pymodule_export]
    use crate::client::Client;
    #[pymodule_export]
    use crate::command::command;
    #[pymodule_export]
    use crate::deaths::Deaths;
    #[pymodule_export]
    use crate::dtype::Dtype;
    #[pymodule_export]
    use crate::mapped_tensor::MappedTensor;
    #[pymodule_export]
    use crate::message::Message;
    #[pymodule_export]
    use crate::message_mut::MessageMut;
    #[pymodule_export]
    use crate::model::close_models;
    #[pymodule_export]
    use crate::publisher::{Publisher, PublisherStats};
    #[pymodule_export]
    use crate::registry::{Announcing, ModelInfo, ModelRegistry, RegistryMetrics};
    #[pymodule_export]
    use crate::request::ModelHandle;
    #[pymodule_export]
    use crate::server::{Request, Server};
    #[pymodule_export]
    use crate::service::Service;
    #[pymodule_export]
    use crate::subscriber::{Subscriber, SubscriberStats};
    #[pymodule_export]
    use crate::tensor::Tensor;
    #[pymodule_export]
    use crate::tensor_mut::TensorMut;
    #[pymodule_export]
    use crate::weights::SharedWeights;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        // What behaves like a mapping is known as one.
        let mapping = module.py().import("collections.abc")?.getattr("Mapping")?;
        mapping.call_method1("register", (module.py().get_type::<Message>(),))?;
        mapping.call_method1("register", (module.py().get_type::<MessageMut>(),))?;
        mapping.call_method1("register", (module.py().get_type::<SharedWeights>(),))?;
        let end = module.getattr("_close_models")?;
        module.py().import("atexit")?.call_method1("register", (end,))?;
        Ok(())
    }
}
