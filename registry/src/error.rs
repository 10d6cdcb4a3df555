use std::error::Error;

use crate::cache::OverBudget;

/// Longest key of a model, in bytes.
pub const MAX_KEY_BYTES: usize = 256;

/// What a loader may fail with.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why there is no handle for a model. Everybody who waited for one load gets the same.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The key is not one that a model can have.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The model is there, or being loaded, as another type.
    #[error(transparent)]
    WrongType(#[from] WrongType),
    /// The loader failed. The key can be tried again at once.
    #[error("model {key:?} was not loaded: {reason}")]
    Failed {
        /// Key of the model.
        key: String,
        /// What the loader failed with.
        #[source]
        reason: std::sync::Arc<dyn Error + Send + Sync>,
    },
    /// The loader panicked. The key can be tried again at once.
    #[error("the loader of model {key:?} panicked: {message}")]
    Panicked {
        /// Key of the model.
        key: String,
        /// What it panicked with.
        message: String,
    },
    /// The model has no room in the budget.
    #[error("model {key:?} was not loaded: {source}")]
    OverBudget {
        /// Key of the model.
        key: String,
        /// How much it needs, and what there is.
        source: OverBudget,
    },
    /// Another one loads the model, and was not done in time.
    #[error("model {key:?} is still being loaded after {waited:?}; wait longer, or look what its loader does")]
    Timeout {
        /// Key of the model.
        key: String,
        /// How long was waited.
        waited: std::time::Duration,
    },
    /// The loader of a model asked for the model that it loads, on the same thread: it would wait for itself.
    #[error("the loader of model {key:?} asks for the same model; load what it needs under another key")]
    Recursive {
        /// Key of the model.
        key: String,
    },
}

/// Why a text is not the key of a model.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It is empty.
    #[error("the key of a model is empty; name the model, for example \"resnet50/1\"")]
    Empty,
    /// It is longer than [`MAX_KEY_BYTES`].
    #[error("the key of a model has {bytes} bytes, at most {MAX_KEY_BYTES} are allowed")]
    TooLong {
        /// Its bytes.
        bytes: usize,
    },
    /// It has control characters, which would spoil lists and logs.
    #[error("the key of a model has the control character {character:?}; use printable ones")]
    Control {
        /// The first of them.
        character: char,
    },
}

/// A model that was asked for as another type than the one it was loaded as.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("model {key:?} is a {loaded}, and was asked for as a {requested}; use one type for a key, or another key")]
pub struct WrongType {
    /// Key of the model.
    pub key: String,
    /// The type that was asked for.
    pub requested: &'static str,
    /// The type that is there.
    pub loaded: &'static str,
}

/// Why a model was not unloaded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnloadError {
    /// It is not in memory.
    #[error("no model {key:?} is loaded")]
    NotLoaded {
        /// Key of the model.
        key: String,
    },
    /// It is being loaded.
    #[error("model {key:?} is being loaded; unload it when it is idle")]
    Loading {
        /// Key of the model.
        key: String,
    },
    /// Somebody uses it. `keep_alive` of zero unloads it when they are done.
    #[error("model {key:?} is in use by {handles} handles; drop them, or set its keep-alive to zero")]
    InUse {
        /// Key of the model.
        key: String,
        /// Handles there are.
        handles: usize,
    },
    /// It is pinned.
    #[error("model {key:?} is pinned; unpin it first")]
    Pinned {
        /// Key of the model.
        key: String,
    },
}

pub(crate) fn check_key(key: &str) -> Result<(), KeyError> {
    if key.is_empty() {
        return Err(KeyError::Empty);
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(KeyError::TooLong { bytes: key.len() });
    }
    match key.chars().find(|character| character.is_control()) {
        Some(character) => Err(KeyError::Control { character }),
        None => Ok(()),
    }
}
