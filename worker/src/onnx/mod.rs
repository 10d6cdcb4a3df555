//! ONNX models before a backend gets them: what they take and give, and whether they are computed right. Pure.

mod dtype;
mod interface;
pub(crate) mod proto;

pub(crate) use dtype::name as dtype_name;
pub(crate) use interface::{Interface, interface};

/// Version of the operators of a domain that a model is written for; `None` if it does not say.
pub(crate) fn opset(model: &proto::Model, domain: &str) -> Option<i64> {
    let is_it = |opset: &&proto::Opset| standard(opset.domain.as_deref()) == standard(Some(domain));
    model.opset_import.iter().find(is_it).and_then(|opset| opset.version)
}

/// The domain, with one name for that of ONNX itself, which has two.
pub(crate) fn standard(domain: Option<&str>) -> &str {
    match domain {
        None | Some("") => "ai.onnx",
        Some(domain) => domain,
    }
}
