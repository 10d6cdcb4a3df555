//! What a service says of itself beside what iceoryx2 knows: pairs of key and value, fixed by who makes it.

use iceoryx2::service::attribute::{AttributeKey, AttributeSet, AttributeSpecifier, AttributeValue};

/// Keys are at most 64 bytes long, and values 256.
pub(super) fn specify<const N: usize>(pairs: [(&str, String); N]) -> AttributeSpecifier {
    pairs.into_iter().fold(AttributeSpecifier::new(), |specifier, (key, value)| {
        match (AttributeKey::try_from(key), AttributeValue::try_from(value.as_str())) {
            (Ok(key), Ok(value)) => specifier.clone().define(&key, &value).unwrap_or(specifier),
            _ => specifier,
        }
    })
}

pub(super) fn read(attributes: &AttributeSet, key: &str) -> Option<String> {
    let key = AttributeKey::try_from(key).ok()?;
    attributes.key_value(&key, 0).map(ToString::to_string)
}
