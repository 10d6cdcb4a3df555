//! The bytes of announcements and commands: a header that says what follows, then an rkyv archive. `WIRE.md` has the offsets.
//!
//! What comes in was written by another process: it is copied first, then validated, then checked rule by rule.

use rkyv::rancor;
use rkyv::util::AlignedVec;

use crate::error::{MAX_KEY_BYTES, check_key};

/// Version of all that this file encodes. A reader refuses every other one.
pub const DIRECTORY_VERSION: u16 = 1;
/// Most bytes of an announcement.
pub const MAX_ANNOUNCEMENT_BYTES: usize = 512 << 10;
/// Most models in an announcement; of more, those with the smallest keys are told, and how many are left out.
pub const MAX_ANNOUNCED_MODELS: usize = 512;
/// Longest name of a program, in bytes. Longer ones are cut.
pub const MAX_PROGRAM_BYTES: usize = 64;
/// Longest name of a device, in bytes. Longer ones are cut.
pub const MAX_DEVICE_BYTES: usize = 32;
/// Longest reason of a failure, in bytes. Longer ones are cut.
pub const MAX_REASON_BYTES: usize = 256;

const HEADER: usize = 16;
/// Most bytes of a command: header, key, root, and what aligns them.
pub const MAX_COMMAND_BYTES: usize = HEADER + MAX_KEY_BYTES + 32;
/// Most bytes of an answer: header, refusal, root, and what aligns them.
pub const MAX_ANSWER_BYTES: usize = HEADER + MAX_KEY_BYTES + MAX_REASON_BYTES + 32;
/// Most bytes of a query: header, key, root, and what aligns them.
pub const MAX_QUERY_BYTES: usize = HEADER + MAX_KEY_BYTES + 64;

/// What the bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Kind {
    Announcement = 1,
    Command = 2,
    Answer = 3,
    Query = 4,
    Page = 5,
}

/// The rule that the bytes break.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryDecodeError {
    #[error("{len} bytes are no announcement or command of a model registry")]
    NotOurs { len: usize },
    #[error("it has version {version}, this program reads {DIRECTORY_VERSION}; run the same tensorbus on both sides")]
    OtherVersion { version: u16 },
    #[error("it is of kind {kind}, not {expected}")]
    Kind { kind: u16, expected: u16 },
    #[error("it states {stated} bytes, and has {len}")]
    Length { stated: u32, len: usize },
    #[error("its archive is not valid: {reason}")]
    Archive { reason: String },
    #[error("its {field} has {value}, at most {limit} are allowed")]
    Limit { field: &'static str, value: u64, limit: u64 },
    #[error("its {field} is {value}, which means nothing")]
    Meaning { field: &'static str, value: u64 },
    #[error("a model has a key that is not legal: {0}")]
    Key(#[from] crate::error::KeyError),
}

/// The whole state of a registry, at one moment. Any announcement can be lost: the next one says everything.
#[derive(Clone, PartialEq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Announcement {
    /// Process id, as the process sees it.
    pub pid: u32,
    /// Made at random when the process announced its first registry: tells processes apart that have the same id.
    pub process: u64,
    /// Made at random when the registry began to announce itself.
    pub incarnation: u64,
    /// Counts the announcements of this incarnation, from 1.
    pub revision: u64,
    /// The registry is about to go.
    pub farewell: bool,
    pub program: String,
    /// Bytes that all models may take; 0 if there is no limit.
    pub budget: u64,
    /// Models that are not in the list because it is full.
    pub omitted: u32,
    /// Sorted by key; no key twice.
    pub models: Vec<AnnouncedModel>,
}

#[derive(Clone, PartialEq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct AnnouncedModel {
    pub key: String,
    /// 0 loading, 1 loaded, 2 in use, 3 idle, 4 failed.
    pub state: u8,
    pub pinned: bool,
    pub device: String,
    pub bytes: u64,
    pub handles: u64,
    pub uses: u64,
    /// `u64::MAX`: for ever.
    pub keep_alive_ms: u64,
    /// Since the Unix epoch; 0 if it was not loaded yet.
    pub loaded_at_ms: u64,
    /// Since the Unix epoch; 0 if it was not used yet.
    pub last_used_ms: u64,
    /// Why its load failed; empty if it did not.
    pub failure: String,
}

/// What a registry is asked for.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Command {
    /// 1: unload.
    pub what: u8,
    pub key: String,
}

/// What it says to that.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Answer {
    /// Empty: it was done.
    pub refusal: String,
}

/// [`Command::what`]
pub const UNLOAD: u8 = 1;

/// What somebody wants to know of the directory of a daemon.
#[derive(Clone, PartialEq, Eq, Debug, Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Query {
    /// 1: all models, 2: those of one key, 3: say when anything is not as it was.
    pub what: u8,
    /// 2: the key. 1: the last key of the page before, of which the next is wanted.
    pub key: String,
    /// 1: the registry of that key. 2: the first registry that is wanted. 0 for the first page.
    pub registry: u64,
    /// 3: the generation that is known.
    pub seen: u64,
    /// 3: how long to wait, in milliseconds.
    pub patience_ms: u32,
}

/// As much of the directory as an answer holds.
#[derive(Clone, PartialEq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Page {
    /// Another number whenever anything has changed.
    pub generation: u64,
    /// Registries that exist and were not heard.
    pub silent: u32,
    /// There is more after the last model of the last registry.
    pub more: bool,
    pub registries: Vec<Heard>,
}

/// A registry, or a part of its models.
#[derive(Clone, PartialEq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Heard {
    pub announcement: Announcement,
    /// Since when it was not heard.
    pub silent_ms: u64,
}

/// [`Query::what`]
pub const LIST: u8 = 1;
/// [`Query::what`]
pub const GET: u8 = 2;
/// [`Query::what`]
pub const WATCH: u8 = 3;

macro_rules! codec {
    ($encode:ident, $decode:ident, $type:ident, $archived:ident, $kind:expr) => {
        pub fn $encode(value: &$type) -> Vec<u8> {
            // Numbers, texts and lists can always be archived.
            let archive = rkyv::to_bytes::<rancor::Error>(value).unwrap_or_default();
            framed($kind, &archive)
        }

        pub fn $decode(bytes: &[u8]) -> Result<$type, DirectoryDecodeError> {
            let archive = unframed($kind, bytes)?;
            let invalid = |error: rancor::Error| DirectoryDecodeError::Archive { reason: error.to_string() };
            let archived = rkyv::access::<$archived, rancor::Error>(&archive).map_err(invalid)?;
            let value: $type = rkyv::deserialize::<$type, rancor::Error>(archived).map_err(invalid)?;
            value.check()?;
            Ok(value)
        }
    };
}

codec!(encode_announcement, decode_announcement, Announcement, ArchivedAnnouncement, Kind::Announcement);
codec!(encode_command, decode_command, Command, ArchivedCommand, Kind::Command);
codec!(encode_answer, decode_answer, Answer, ArchivedAnswer, Kind::Answer);
codec!(encode_query, decode_query, Query, ArchivedQuery, Kind::Query);
codec!(encode_page, decode_page, Page, ArchivedPage, Kind::Page);

fn framed(kind: Kind, archive: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + archive.len());
    bytes.extend_from_slice(b"TBMD");
    bytes.extend_from_slice(&DIRECTORY_VERSION.to_le_bytes());
    bytes.extend_from_slice(&(kind as u16).to_le_bytes());
    bytes.extend_from_slice(&(archive.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(archive);
    bytes
}

/// A copy of the archive, out of the writer's reach.
fn unframed(expected: Kind, bytes: &[u8]) -> Result<AlignedVec, DirectoryDecodeError> {
    let not_ours = DirectoryDecodeError::NotOurs { len: bytes.len() };
    let Some((header, archive)) = bytes.split_first_chunk::<HEADER>() else { return Err(not_ours) };
    let header = *header;
    if header[..4] != *b"TBMD" {
        return Err(not_ours);
    }
    let version = u16::from_le_bytes([header[4], header[5]]);
    if version != DIRECTORY_VERSION {
        return Err(DirectoryDecodeError::OtherVersion { version });
    }
    let kind = u16::from_le_bytes([header[6], header[7]]);
    if kind != expected as u16 {
        return Err(DirectoryDecodeError::Kind { kind, expected: expected as u16 });
    }
    let stated = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    if stated as usize != archive.len() || archive.len() > MAX_ANNOUNCEMENT_BYTES {
        return Err(DirectoryDecodeError::Length { stated, len: archive.len() });
    }
    let reserved = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
    if reserved != 0 {
        return Err(DirectoryDecodeError::Meaning { field: "reserved field", value: reserved.into() });
    }
    let mut private = AlignedVec::with_capacity(archive.len());
    private.extend_from_slice(archive);
    Ok(private)
}

impl Announcement {
    fn check(&self) -> Result<(), DirectoryDecodeError> {
        at_most("number of models", self.models.len(), MAX_ANNOUNCED_MODELS)?;
        at_most("program", self.program.len(), MAX_PROGRAM_BYTES)?;
        for model in &self.models {
            check_key(&model.key)?;
            at_most("device", model.device.len(), MAX_DEVICE_BYTES)?;
            at_most("failure", model.failure.len(), MAX_REASON_BYTES)?;
            if model.state > 4 {
                return Err(DirectoryDecodeError::Meaning { field: "state", value: model.state.into() });
            }
        }
        // So that what is shown, and searched, needs no further look.
        if !self.models.is_sorted_by(|one, next| one.key < next.key) {
            return Err(DirectoryDecodeError::Meaning { field: "order of keys", value: 0 });
        }
        Ok(())
    }
}

impl Command {
    fn check(&self) -> Result<(), DirectoryDecodeError> {
        if self.what != UNLOAD {
            return Err(DirectoryDecodeError::Meaning { field: "command", value: self.what.into() });
        }
        Ok(check_key(&self.key)?)
    }
}

impl Answer {
    fn check(&self) -> Result<(), DirectoryDecodeError> {
        at_most("refusal", self.refusal.len(), MAX_KEY_BYTES + MAX_REASON_BYTES)
    }
}

impl Query {
    fn check(&self) -> Result<(), DirectoryDecodeError> {
        if ![LIST, GET, WATCH].contains(&self.what) {
            return Err(DirectoryDecodeError::Meaning { field: "query", value: self.what.into() });
        }
        at_most("key", self.key.len(), MAX_KEY_BYTES)
    }
}

impl Page {
    fn check(&self) -> Result<(), DirectoryDecodeError> {
        self.registries.iter().try_for_each(|heard| heard.announcement.check())
    }
}

fn at_most(field: &'static str, value: usize, limit: usize) -> Result<(), DirectoryDecodeError> {
    if value > limit {
        return Err(DirectoryDecodeError::Limit { field, value: value as u64, limit: limit as u64 });
    }
    Ok(())
}

/// As much of a text as fits, without control characters.
pub fn cut(text: &str, bytes: usize) -> String {
    let mut cut = String::new();
    for character in text.chars() {
        let character = if character.is_control() { ' ' } else { character };
        if cut.len() + character.len_utf8() > bytes {
            break;
        }
        cut.push(character);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_command_and_answer_have_room_in_their_service() {
        let command = encode_command(&Command { what: UNLOAD, key: "k".repeat(MAX_KEY_BYTES) });
        assert!((MAX_COMMAND_BYTES - 32..=MAX_COMMAND_BYTES).contains(&command.len()), "{}", command.len());
        let query = encode_query(&Query { what: GET, key: "k".repeat(MAX_KEY_BYTES), ..Query::default() });
        assert!((MAX_QUERY_BYTES - 32..=MAX_QUERY_BYTES).contains(&query.len()), "{}", query.len());
        let answer = encode_answer(&Answer { refusal: "r".repeat(MAX_KEY_BYTES + MAX_REASON_BYTES) });
        assert!((MAX_ANSWER_BYTES - 32..=MAX_ANSWER_BYTES).contains(&answer.len()), "{}", answer.len());
    }
}
