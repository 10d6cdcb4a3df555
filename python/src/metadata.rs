use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyInt, PyString};
use tensorbus::{Metadata, Value};

use crate::error;

/// What a dict says, for a message.
pub(crate) fn from_dict(entries: &Bound<'_, PyDict>) -> PyResult<Metadata> {
    let mut metadata = Metadata::new();
    for (key, value) in entries {
        let key: String = key
            .extract()
            .map_err(|_| error::unsupported(key.py(), format!("metadata keys are str, not {}", type_name(&key))))?;
        let value = value_of(&key, &value)?;
        metadata.set(key, value);
    }
    Ok(metadata)
}

fn value_of(key: &str, value: &Bound<'_, PyAny>) -> PyResult<Value> {
    if let Ok(truth) = value.extract::<bool>() {
        return Ok(Value::Bool(truth));
    }
    if value.is_instance_of::<PyString>() {
        return Ok(Value::Text(value.extract()?));
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Value::Bytes(bytes.as_bytes().to_vec()));
    }
    if value.is_instance_of::<PyFloat>() {
        return Ok(Value::Float(value.extract()?));
    }
    // NumPy's numbers among them.
    if value.is_instance_of::<PyInt>() || value.hasattr("__index__")? {
        return value.extract().map(Value::Int).map_err(|_| {
            error::invalid(value.py(), format!("metadata {key:?} is an integer beyond 64 bits; send it as str"))
        });
    }
    value.extract().map(Value::Float).map_err(|_| {
        let text = format!("metadata {key:?} is {}; values are bool, int, float, str or bytes", type_name(value));
        error::unsupported(value.py(), text)
    })
}

pub(crate) fn to_dict<'py>(py: Python<'py>, metadata: &Metadata) -> PyResult<Bound<'py, PyDict>> {
    let entries = PyDict::new(py);
    for (key, value) in metadata.iter() {
        match value {
            Value::Bool(value) => entries.set_item(key, value),
            Value::Int(value) => entries.set_item(key, value),
            Value::Float(value) => entries.set_item(key, value),
            Value::Text(value) => entries.set_item(key, value),
            Value::Bytes(value) => entries.set_item(key, PyBytes::new(py, value)),
            _ => Err(error::internal("a metadata value of a kind that Python does not know")),
        }?;
    }
    Ok(entries)
}

pub(crate) fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().fully_qualified_name().map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}
