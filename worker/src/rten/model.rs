use std::fmt;
use std::fs;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use rten::{Model as Graph, ModelOptions, NodeId, RunOptions, ThreadPool};
use tensorbus_registry::{BoxError, ImportError, ImportedModel, ModelCache};
use tensorbus_transport::Region;

use super::builder::RtenBuilder;
use super::check::check;
use super::error::RtenLoadError;
use super::{convert, mapped};
use crate::call::Call;
use crate::model::Model;
use crate::onnx::{self, Interface, proto};
use crate::run::message;
use crate::signature::{Signature, TensorInfo};

/// An ONNX model that rten runs.
///
/// Its weights are mapped from the model cache, so that the processes that load it have them once. Inputs of f32, i8, u8 and
/// i32 are read in place. rten has neither i64 nor truth values: those are converted to i32, which is counted as a copy, and a
/// number that does not fit is an error. Outputs are copied once, to where they are wanted.
///
/// ```no_run
/// use tensorbus_worker::{Model, RtenModel};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let model = RtenModel::builder().threads(1).batched().load("examples/digits/digits.onnx")?;
/// println!("{}", model.signature());
/// # Ok(())
/// # }
/// ```
pub struct RtenModel {
    graph: Graph,
    signature: Signature,
    inputs: Vec<NodeId>,
    outputs: Vec<NodeId>,
    threads: Option<Arc<ThreadPool>>,
    weight_bytes: u64,
}

impl RtenModel {
    /// To say how the model is to be loaded.
    pub fn builder() -> RtenBuilder {
        RtenBuilder::default()
    }

    /// Bytes of the weights that are mapped.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    pub(super) fn load(how: &RtenBuilder, path: &Path) -> Result<Self, RtenLoadError> {
        let cache = how.cache.clone().map_or_else(ModelCache::open, Ok)?;
        let imported = cache.import(path)?;
        let read = fs::read(&imported.graph).map(Bytes::from);
        let bytes = read.map_err(|reason| RtenLoadError::Io { path: imported.graph.clone(), reason })?;
        let no_graph = |reason: String| RtenLoadError::Graph { path: path.to_owned(), reason };
        let mut proto = proto::Model::decode(bytes).map_err(|error| no_graph(error.to_string()))?;
        let declared = proto.graph.as_ref().ok_or_else(|| no_graph("it is missing".to_owned()))?;
        let Interface { inputs, outputs } = onnx::interface(declared).map_err(|(name, number)| {
            let found = number.map_or("no tensor".to_owned(), onnx::dtype_name);
            RtenLoadError::Dtype { what: "input or output", name, found }
        })?;
        for (what, tensors) in [("input", &inputs), ("output", &outputs)] {
            if let Some(other) = tensors.iter().find(|tensor| !convert::is_supported(tensor.dtype)) {
                let (name, found) = (other.name.clone(), other.dtype.to_string());
                return Err(RtenLoadError::Dtype { what, name, found });
            }
        }
        let mut signature = Signature::new(inputs, outputs)?;
        if how.batched {
            signature = signature.batched()?;
        }
        let data = imported.data.as_deref().map(Region::of_file).transpose().map_err(ImportError::from)?;
        let data = data.as_ref().map_or(&[][..], Region::bytes);
        let rewritten = check(&mut proto, data)?.then(|| proto.encode_to_vec());
        let backend = |reason: String| RtenLoadError::Backend { path: path.to_owned(), reason };
        // It computes what is constant when it loads a graph, and may fail as when it runs.
        let graph = catch_unwind(AssertUnwindSafe(|| load(&imported, rewritten)))
            .map_err(|panic| backend(format!("it panicked: {}", message(&*panic))))?
            .map_err(|error| backend(error.to_string()))?;
        let ids = |tensors: &[TensorInfo]| {
            let ids = tensors.iter().map(|tensor| graph.node_id(&tensor.name));
            ids.collect::<Result<Vec<_>, _>>().map_err(|error| backend(error.to_string()))
        };
        let (inputs, outputs) = (ids(signature.inputs())?, ids(signature.outputs())?);
        let threads = how.threads.map(|threads| Arc::new(ThreadPool::with_num_threads(threads)));
        Ok(Self { graph, signature, inputs, outputs, threads, weight_bytes: imported.data_bytes })
    }
}

/// Loads the graph, with its weights mapped if it has some beside it. A graph that was written anew lies beside a link to them for
/// as long as that takes.
fn load(imported: &ImportedModel, rewritten: Option<Vec<u8>>) -> Result<Graph, BoxError> {
    let options = ModelOptions::with_all_ops();
    let Some(data) = &imported.data else {
        let graph = rewritten.map_or_else(|| fs::read(&imported.graph), Ok)?;
        return Ok(options.load(graph)?);
    };
    let Some(rewritten) = rewritten else { return Ok(mapped::load(&options, &imported.graph)?) };
    let directory = tempfile::tempdir()?;
    let at = |of: &Path| of.file_name().map(|name| directory.path().join(name)).ok_or("a file has a name");
    let (graph, link) = (at(&imported.graph)?, at(data)?);
    fs::write(&graph, rewritten)?;
    symlink(fs::canonicalize(data)?, link)?;
    Ok(mapped::load(&options, &graph)?)
}

impl Model for RtenModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn infer(&self, call: &mut Call<'_>) -> Result<(), BoxError> {
        let mut copied = 0;
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for (index, (&id, info)) in self.inputs.iter().zip(self.signature.inputs()).enumerate() {
            let (value, converted) = convert::input(info, call.input(index))?;
            copied += converted;
            inputs.push((id, value));
        }
        let options = RunOptions::default().with_thread_pool(self.threads.clone());
        let outputs = self.graph.run(inputs, &self.outputs, Some(options))?;
        call.count_copied(copied);
        for (index, value) in outputs.into_iter().enumerate() {
            convert::output(call, index, &value)?;
        }
        Ok(())
    }

    fn is_idempotent(&self) -> bool {
        true
    }
}

impl fmt::Debug for RtenModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtenModel").field("signature", &self.signature).finish_non_exhaustive()
    }
}
