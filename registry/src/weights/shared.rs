use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use tensorbus_transport::{Bus, MappedTensor, Region, TensorView, ViewError};

use super::digest::Digest;
use super::error::{AttachWeightsError, OpenWeightsError, PublishWeightsError, WeightsChanged, WeightsFormatError};
use super::layout::Packed;
use super::read::tensors_of;

/// How many tensors are named in the error that there is none of a name: a model may have thousands.
const MOST_NAMES_TOLD: usize = 16;

/// Named tensors to read, of which a machine has one copy however many processes use them. Cheap to clone.
///
/// Two ways lead there. A safetensors file is mapped ([`open`](Self::open)): its pages in the page cache are the copy. Weights
/// that are in memory (converted, quantised, downloaded) are [published](Self::publish) into the session once, and
/// [attached](Self::attach) by their name in any other process. There they are as long as one process uses them, the
/// publisher's death notwithstanding; they count against the session's quota, and their memory is given back with the last user.
///
/// A name stands for what was published last under it. Published weights are known by the digest of their content: who
/// publishes what is there already gets that, and changed weights are others, beside those that are in use.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use tensorbus_transport::{Bus, TensorView};
/// use tensorbus_registry::SharedWeights;
///
/// # let bus = Bus::builder().session("doc-weights").open()?;
/// let (weight, bias) = ([1f32, 2.0, 3.0, 4.0], [0.5f32, 0.5]);
/// let published = SharedWeights::publish(
///     &bus,
///     "classifier",
///     [
///         ("fc.weight", TensorView::new(&weight, &[2, 2], &[2, 1])?),
///         ("fc.bias", TensorView::new(&bias, &[2], &[1])?),
///     ],
/// )?;
///
/// // In any process of the session:
/// let weights = SharedWeights::attach(&bus, "classifier")?;
/// drop(published);
/// assert_eq!(weights.tensor("fc.weight")?.view::<f32>()?, [1.0, 2.0, 3.0, 4.0]);
/// assert_eq!(weights.tensors().map(|tensor| tensor.name()).collect::<Vec<_>>(), ["fc.bias", "fc.weight"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SharedWeights {
    inner: Arc<Inner>,
}

struct Inner {
    region: Region,
    tensors: BTreeMap<String, MappedTensor>,
    metadata: HashMap<String, String>,
    digest: OnceLock<Digest>,
}

impl SharedWeights {
    /// Maps a safetensors file. Nothing but its header is read; a page of the data comes into memory when it is first used.
    ///
    /// The header, the tensors' lengths, that they do not overlap, that they end where the file does, and their alignment are
    /// checked. **The file must not be changed in place as long as the weights are used**: the change would be seen, and what
    /// is cut off ends the process with SIGBUS. To replace a file, write another one and rename it. Where others may write it,
    /// use a copy ([`publish_copy`](Self::publish_copy)).
    ///
    /// # Errors
    /// [`OpenWeightsError`] if there is no such file, or it is not a whole safetensors file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenWeightsError> {
        let path = path.as_ref();
        let region = Region::of_file(path)?;
        Self::new(region, None).map_err(|reason| OpenWeightsError::Format { path: path.to_owned(), reason })
    }

    /// Puts tensors into the session under a name, once. Their digest is taken first, so that what is there already is not
    /// written again; processes that publish the same at the same time get one copy.
    ///
    /// The tensors lie in row-major order, each at a multiple of 64 bytes. Weights' names have up to 128 characters out of
    /// `a-z A-Z 0-9 _ - . /`, those of tensors up to [`MAX_TENSOR_NAME_BYTES`](crate::MAX_TENSOR_NAME_BYTES) bytes.
    ///
    /// # Errors
    /// [`PublishWeightsError`]: a name that is not legal, a dtype that safetensors does not have, no room, a quota reached.
    /// Nothing is left then.
    pub fn publish<'a, N: Into<String>>(
        bus: &Bus,
        name: &str,
        tensors: impl IntoIterator<Item = (N, TensorView<'a>)>,
    ) -> Result<Self, PublishWeightsError> {
        let packed = Packed::new(name, tensors)?;
        let mut hasher = blake3::Hasher::new();
        // A hasher takes everything.
        let _ = packed.write(&mut hasher);
        let digest = Digest::from(hasher.finalize());
        let blob = bus.publish_blob(name, *digest.as_bytes(), packed.len() as u64, |file| packed.write(file))?;
        Self::new(blob.region().clone(), Some(digest))
            .map_err(|reason| PublishWeightsError::Format { name: name.to_owned(), reason })
    }

    /// The weights that were published last under this name, from whichever process of the session.
    ///
    /// # Errors
    /// [`AttachWeightsError`] if no process uses weights of this name.
    pub fn attach(bus: &Bus, name: &str) -> Result<Self, AttachWeightsError> {
        let blob = bus.attach_blob(name)?;
        Self::new(blob.region().clone(), Some(Digest::from(*blob.digest())))
            .map_err(|reason| AttachWeightsError::Format { name: name.to_owned(), reason })
    }

    /// Copies the weights into the session, where nobody changes them: for a file that others may write.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_copy(&self, bus: &Bus, name: &str) -> Result<Self, PublishWeightsError> {
        Self::publish(bus, name, self.tensors().map(|tensor| (tensor.name(), tensor.as_view())))
    }

    fn new(region: Region, digest: Option<Digest>) -> Result<Self, WeightsFormatError> {
        let (tensors, metadata) = tensors_of(&region)?;
        let digest = digest.map(OnceLock::from).unwrap_or_default();
        Ok(Self { inner: Arc::new(Inner { region, tensors, metadata, digest }) })
    }

    /// The tensor of this name. It keeps the weights by itself.
    ///
    /// # Errors
    /// [`ViewError::NoSuchTensor`] if there is none.
    pub fn tensor(&self, name: &str) -> Result<&MappedTensor, ViewError> {
        self.inner.tensors.get(name).ok_or_else(|| ViewError::NoSuchTensor {
            name: name.to_owned(),
            present: self.inner.tensors.keys().take(MOST_NAMES_TOLD).cloned().collect(),
        })
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &MappedTensor> {
        self.inner.tensors.values()
    }

    /// What a file says about itself, by key; published weights say nothing.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.inner.metadata
    }

    /// Bytes that are mapped: the tensors, and some kilobytes of names and shapes.
    pub fn mapped_bytes(&self) -> usize {
        self.inner.region.bytes().len()
    }

    /// Digest of all bytes, header included. Of published weights it is known; of a file it is taken at the first call,
    /// which reads all of it.
    pub fn digest(&self) -> Digest {
        *self.inner.digest.get_or_init(|| Digest::of(self.inner.region.bytes()))
    }

    /// Reads all bytes and compares their digest with what it was when the weights were published, or [`digest`](Self::digest)
    /// was first called.
    ///
    /// # Errors
    /// [`WeightsChanged`] if it is another one.
    pub fn verify(&self) -> Result<(), WeightsChanged> {
        let (expected, found) = (self.digest(), Digest::of(self.inner.region.bytes()));
        if expected == found { Ok(()) } else { Err(WeightsChanged { expected, found }) }
    }
}

impl fmt::Debug for SharedWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWeights").field("tensors", &self.inner.tensors).finish_non_exhaustive()
    }
}
