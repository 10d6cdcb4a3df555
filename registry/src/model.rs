use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

/// Something that is loaded once and used by many: what a [`ModelRegistry`](crate::ModelRegistry) keeps.
///
/// A type of another crate is wrapped in [`Measured`].
///
/// ```
/// use tensorbus_registry::Model;
///
/// struct Embedding {
///     table: Vec<f32>,
/// }
///
/// impl Model for Embedding {
///     fn memory_bytes(&self) -> u64 {
///         size_of_val(self.table.as_slice()) as u64
///     }
/// }
/// ```
pub trait Model: Send + Sync + 'static {
    /// Bytes of memory that the model takes on its device. Asked once, when it has been loaded.
    fn memory_bytes(&self) -> u64;

    /// Where the model's memory is. Asked once, when it has been loaded. Default: [`Device::CPU`].
    fn device(&self) -> Device {
        Device::CPU
    }
}

/// The device that holds a model's memory, named as PyTorch does: `cpu`, `cuda:0`, `mps`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Device(Cow<'static, str>);

impl Device {
    /// Main memory.
    pub const CPU: Self = Self(Cow::Borrowed("cpu"));

    /// A device by its name. What is longer than 32 bytes is cut where the directory of models is told of it.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self(name.into())
    }

    /// NVIDIA's GPU of this number: `cuda:0`.
    pub fn cuda(index: u32) -> Self {
        Self(Cow::Owned(format!("cuda:{index}")))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A model of any type, with its size: makes a [`Model`] of a type that another crate defines.
///
/// ```
/// use tensorbus_registry::{Device, Measured, Model};
///
/// let weights = Measured::new(vec![0_u8; 4096], 4096);
/// assert_eq!((weights.memory_bytes(), weights.device(), weights.len()), (4096, Device::CPU, 4096));
/// ```
#[derive(Clone, Debug)]
pub struct Measured<T> {
    model: T,
    bytes: u64,
    device: Device,
}

impl<T: Send + Sync + 'static> Measured<T> {
    /// A model that takes so many bytes of main memory.
    pub fn new(model: T, bytes: u64) -> Self {
        Self { model, bytes, device: Device::CPU }
    }

    /// The same on another device.
    pub fn on(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// The model alone.
    pub fn into_inner(self) -> T {
        self.model
    }
}

impl<T: Send + Sync + 'static> Model for Measured<T> {
    fn memory_bytes(&self) -> u64 {
        self.bytes
    }

    fn device(&self) -> Device {
        self.device.clone()
    }
}

impl<T> Deref for Measured<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.model
    }
}
