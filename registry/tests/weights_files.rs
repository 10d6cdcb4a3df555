//! Weights files that are not what they should be are told why they are refused; the others are read in place.
#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use tensorbus_registry::{MAX_TENSOR_NAME_BYTES, OpenWeightsError, SharedWeights, WeightsFormatError};
use tensorbus_transport::{Dtype, MapFileError, RegionError, ViewError};

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join("w.safetensors");
        fs::write(&path, bytes).unwrap();
        path
    }

    fn open(&self, header: &str, data: usize) -> Result<SharedWeights, OpenWeightsError> {
        SharedWeights::open(self.write(&file(header, data)))
    }

    fn refused(&self, header: &str, data: usize) -> WeightsFormatError {
        match self.open(header, data) {
            Err(OpenWeightsError::Format { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }
}

/// The length of the header, the header, and `data` bytes that count.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend((0..data).map(|index| index as u8));
    bytes
}

/// A header of 64 - 8 bytes or a multiple of 8 more, so that what is behind it is aligned.
fn padded(header: &str) -> String {
    let len = header.len().next_multiple_of(8);
    format!("{header:len$}")
}

#[test]
fn tensors_are_read_where_they_lie() {
    let files = Files::new();
    let header = padded(
        r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"U16","shape":[2,2],"data_offsets":[8,16]},"a":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"none":{"dtype":"F32","shape":[0,7],"data_offsets":[16,16]},"bf":{"dtype":"BF16","shape":[1],"data_offsets":[16,18]}}"#,
    );
    let weights = files.open(&header, 18).unwrap();
    assert_eq!(weights.tensors().map(|tensor| tensor.name()).collect::<Vec<_>>(), ["a", "b", "bf", "none"]);
    assert_eq!(weights.metadata()["format"], "pt");
    assert_eq!(
        weights.tensor("a").unwrap().view::<u64>().unwrap_err(),
        ViewError::Dtype { name: "a".into(), actual: Dtype::I64, asked: Dtype::U64 }
    );
    assert_eq!(weights.tensor("a").unwrap().view::<i64>().unwrap(), [0x0706_0504_0302_0100]);
    let b = weights.tensor("b").unwrap();
    assert_eq!((b.shape(), b.view::<u16>().unwrap()[3]), (&[2, 2][..], 0x0f0e));
    assert_eq!(weights.tensor("bf").unwrap().dtype(), Dtype::BF16);
    assert!(weights.tensor("none").unwrap().view::<f32>().unwrap().is_empty());
    let missing = weights.tensor("c").unwrap_err();
    assert!(matches!(&missing, ViewError::NoSuchTensor { present, .. } if present.len() == 4), "{missing}");
    weights.verify().unwrap();
}

/// Not every change in place can be seen in time, but a reader that asks is told.
#[test]
fn a_file_that_is_changed_in_place_is_another_one() {
    let files = Files::new();
    let header = padded(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#);
    let weights = files.open(&header, 4).unwrap();
    let before = weights.digest();
    let mut bytes = file(&header, 4);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let path = files.0.path().join("w.safetensors");
    std::os::unix::fs::FileExt::write_all_at(&fs::File::options().write(true).open(&path).unwrap(), &bytes, 0).unwrap();
    let changed = weights.verify().unwrap_err();
    assert_eq!(changed.expected, before);
    assert_eq!(SharedWeights::open(path).unwrap().digest(), changed.found);
}

#[test]
fn each_broken_rule_is_named() {
    let files = Files::new();
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        padded(&format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#))
    };
    let two = |first: &str, second: &str| {
        let one = |offsets| format!(r#"{{"dtype":"U8","shape":[8],"data_offsets":{offsets}}}"#);
        padded(&format!(r#"{{"a":{},"b":{}}}"#, one(first), one(second)))
    };
    assert!(files.open(&tensor("F32", "[2]", "[0,8]"), 8).is_ok());
    assert!(files.open(&two("[0,8]", "[8,16]"), 16).is_ok());
    let broken = |header: String, data| match files.refused(&header, data) {
        WeightsFormatError::Safetensors(error) => format!("{error:?}"),
        other => panic!("{other}"),
    };
    for (what, found) in [
        ("MetadataIncompleteBuffer", broken(tensor("F32", "[2]", "[0,8]"), 7)),
        ("MetadataIncompleteBuffer", broken(tensor("F32", "[2]", "[0,8]"), 9)),
        ("TensorInvalidInfo", broken(tensor("F64", "[2]", "[0,8]"), 8)),
        ("TensorInvalidInfo", broken(tensor("F32", "[3]", "[0,8]"), 8)),
        ("InvalidOffset", broken(two("[0,8]", "[4,12]"), 12)),
        ("InvalidOffset", broken(two("[0,8]", "[16,24]"), 24)),
        ("InvalidOffset", broken(tensor("F32", "[2]", "[8,0]"), 8)),
        ("ValidationOverflow", broken(tensor("F32", "[4294967296,4294967296]", "[0,8]"), 8)),
        ("MisalignedSlice", broken(tensor("F4", "[3]", "[0,2]"), 2)),
        ("InvalidHeaderDeserialization", broken(tensor("F33", "[2]", "[0,8]"), 8)),
        ("InvalidHeaderDeserialization", broken(tensor("F32", "[-2]", "[0,8]"), 8)),
        ("InvalidHeaderDeserialization", broken("{".to_owned(), 8)),
        ("InvalidHeaderDeserialization", broken(format!(r#"{{"__metadata__":{}"#, "[".repeat(10_000)), 8)),
    ] {
        assert!(found.contains(what), "{found} instead of {what}");
    }
    let off_by_one = tensor("F32", "[2]", "[0,8]") + " ";
    let misaligned = files.refused(&off_by_one, 8);
    assert!(
        matches!(misaligned, WeightsFormatError::Region(RegionError::Misaligned { alignment: 4, .. })),
        "{misaligned}"
    );
    let deep = files.refused(&tensor("U8", &format!("[{}]", ["1"; 33].join(",")), "[0,1]"), 1);
    assert!(matches!(deep, WeightsFormatError::Region(RegionError::Layout(_))), "{deep}");
    for name in [String::new(), "x".repeat(MAX_TENSOR_NAME_BYTES + 1)] {
        let header = padded(&format!(r#"{{"{name}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#));
        assert!(matches!(files.refused(&header, 1), WeightsFormatError::NameLength { .. }));
    }
}

#[test]
fn bytes_that_are_no_weights_are_refused() {
    let files = Files::new();
    let open = |bytes: &[u8]| SharedWeights::open(files.write(bytes));
    assert!(matches!(open(b""), Err(OpenWeightsError::Map(MapFileError::Empty { .. }))));
    let whole = file(&padded(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#), 4);
    assert!(open(&whole).is_ok());
    for len in 1..whole.len() {
        assert!(matches!(open(&whole[..len]), Err(OpenWeightsError::Format { .. })), "the first {len} bytes");
    }
    // A header that is said to be longer than the file, than is allowed, than any file.
    for len in [1_000, 100_000_001, u64::MAX] {
        let mut bytes = whole.clone();
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        assert!(matches!(open(&bytes), Err(OpenWeightsError::Format { .. })), "{len}");
    }
    assert!(matches!(open(&[0xff; 4096]), Err(OpenWeightsError::Format { .. })));
    assert!(matches!(SharedWeights::open(files.0.path()), Err(OpenWeightsError::Map(MapFileError::NotAFile { .. }))));
    assert!(matches!(SharedWeights::open("/none"), Err(OpenWeightsError::Map(MapFileError::Io { .. }))));
    assert!(matches!(SharedWeights::open(""), Err(OpenWeightsError::Map(_))));
    assert!(matches!(SharedWeights::open("a\0b"), Err(OpenWeightsError::Map(_))));
    assert!(matches!(SharedWeights::open("x".repeat(4096)), Err(OpenWeightsError::Map(_))));
}
