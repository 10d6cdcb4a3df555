use super::EncodeError;
use crate::layout::{MAX_METADATA_ENTRIES, MAX_METADATA_KEY_BYTES};

/// What a sender adds to a message besides tensors: named values, in the order in which they were set.
///
/// ```
/// use tensorbus_transport::Metadata;
///
/// let mut metadata = Metadata::new();
/// metadata.set("camera", "left").set("exposure_ms", 8.25).set("frame", 17);
/// assert_eq!(metadata.get("camera").and_then(|value| value.as_str()), Some("left"));
/// assert_eq!(metadata.get("gain"), None);
/// ```
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
}

/// A metadata value.
#[derive(Clone, PartialEq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[non_exhaustive]
pub enum Value {
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes of the user's own making.
    Bytes(Vec<u8>),
}

impl Value {
    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The integer, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    /// The number, if it is an integer or a floating-point number.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            Self::Int(number) => Some(*number as f64),
            _ => None,
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
            Self::Bytes(value) => write!(f, "{} bytes", value.len()),
        }
    }
}

macro_rules! value_from {
    ($($variant:ident: $($from:ty),*;)*) => {
        $($(impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        })*)*
    };
}

value_from! {
    Bool: bool;
    Int: i64, i32, u32;
    Float: f64, f32;
    Text: String, &str;
    Bytes: Vec<u8>, &[u8];
}

impl Metadata {
    /// No entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value of a key, which replaces the one it had.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) -> &mut Self {
        let (key, value) = (key.into(), value.into());
        match self.entries.iter_mut().find(|(existing, _)| *existing == key) {
            Some((_, existing)) => *existing = value,
            None => self.entries.push((key, value)),
        }
        self
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(existing, _)| existing == key).map(|(_, value)| value)
    }

    /// All keys and values, in the order in which they were set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes entries as they were sent, after checking every rule.
    pub(super) fn check(entries: Vec<(String, Value)>) -> Result<Self, EncodeError> {
        let metadata = Self { entries };
        metadata.check_limits()?;
        for (index, (key, _)) in metadata.entries.iter().enumerate() {
            if metadata.entries[..index].iter().any(|(earlier, _)| earlier == key) {
                return Err(EncodeError::DuplicateKey { key: key.clone() });
            }
        }
        Ok(metadata)
    }

    /// Keys are unique by construction; their number and lengths are checked here.
    pub(super) fn check_limits(&self) -> Result<(), EncodeError> {
        if self.entries.len() > MAX_METADATA_ENTRIES {
            return Err(EncodeError::TooManyEntries { entries: self.entries.len() });
        }
        match self.entries.iter().find(|(key, _)| key.is_empty() || key.len() > MAX_METADATA_KEY_BYTES) {
            Some((key, _)) => Err(EncodeError::KeyLength { key: key.clone() }),
            None => Ok(()),
        }
    }
}
