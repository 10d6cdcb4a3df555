use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `TBCT`, read as a little-endian number.
pub const CONTROL_MAGIC: u32 = u32::from_le_bytes(*b"TBCT");

/// Version of the control messages. Each side refuses every other one.
pub const CONTROL_VERSION: u16 = 1;

/// Most bytes of a request to a control service, and of a reply: 64 KiB.
pub const MAX_CONTROL_BYTES: usize = 64 * 1024;

/// Which way a control message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum ControlKind {
    /// From a client to the server.
    Request = 1,
    /// From the server to the client that asked.
    Reply = 2,
}

/// The fixed start of every control message. `WIRE.md` has the byte offsets.
///
/// Every bit pattern is a value of this type; only [`ControlHeader::check`] makes its numbers trustworthy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ControlHeader {
    /// [`CONTROL_MAGIC`].
    pub magic: u32,
    /// [`CONTROL_VERSION`].
    pub version: u16,
    /// A [`ControlKind`].
    pub kind: u16,
    /// Bytes of the message.
    pub len: u32,
    /// 0.
    pub reserved: u32,
    /// Counts the client's requests, from 0; a reply has the number of its request.
    pub number: u64,
}

const _: () = assert!(size_of::<ControlHeader>() == 24);

/// The rule that a control message breaks.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlDecodeError {
    /// It does not begin with [`CONTROL_MAGIC`].
    #[error("it begins with {magic:#010x}, which no control message does")]
    NotAMessage {
        /// What it begins with.
        magic: u32,
    },
    /// It has another version.
    #[error("it has version {version}, this program reads {CONTROL_VERSION}; run the same tensorbus on both sides")]
    OtherVersion {
        /// Its version.
        version: u16,
    },
    /// It goes the other way, or is of a kind that is not known.
    #[error("it is of kind {kind}, not {expected}")]
    Kind {
        /// Its kind.
        kind: u16,
        /// What comes this way.
        expected: u16,
    },
    /// It states more bytes than [`MAX_CONTROL_BYTES`].
    #[error("it states {len} bytes, more than {MAX_CONTROL_BYTES}")]
    Length {
        /// What it states.
        len: u32,
    },
    /// It is larger than the messages of its service.
    #[error("it states {len} bytes in {blocks} blocks of 64, the messages of its service have room for {max}")]
    Room {
        /// Bytes that it states.
        len: u32,
        /// Blocks that its sender says it has.
        blocks: u64,
        /// Bytes that a message of the service has room for.
        max: usize,
    },
    /// A field that must be 0 is not.
    #[error("its reserved field is {reserved:#x}, not 0")]
    Reserved {
        /// What stands there.
        reserved: u32,
    },
    /// A reply to another request.
    #[error("it answers request {number}, not {expected}")]
    OtherRequest {
        /// The request that it answers.
        number: u64,
        /// The one that waits.
        expected: u64,
    },
}

impl ControlHeader {
    /// The header of a message of `len` bytes; `None` if that is more than [`MAX_CONTROL_BYTES`].
    pub fn new(kind: ControlKind, len: usize, number: u64) -> Option<Self> {
        let len = u32::try_from(len).ok().filter(|&len| len as usize <= MAX_CONTROL_BYTES)?;
        Some(Self { magic: CONTROL_MAGIC, version: CONTROL_VERSION, kind: kind as u16, len, reserved: 0, number })
    }

    /// Bytes of the message, if it keeps every rule.
    ///
    /// # Errors
    /// [`ControlDecodeError`] names the first rule that is broken.
    pub fn check(&self, kind: ControlKind) -> Result<usize, ControlDecodeError> {
        if self.magic != CONTROL_MAGIC {
            return Err(ControlDecodeError::NotAMessage { magic: self.magic });
        }
        if self.version != CONTROL_VERSION {
            return Err(ControlDecodeError::OtherVersion { version: self.version });
        }
        if self.kind != kind as u16 {
            return Err(ControlDecodeError::Kind { kind: self.kind, expected: kind as u16 });
        }
        if self.reserved != 0 {
            return Err(ControlDecodeError::Reserved { reserved: self.reserved });
        }
        match usize::try_from(self.len) {
            Ok(len) if len <= MAX_CONTROL_BYTES => Ok(len),
            _ => Err(ControlDecodeError::Length { len: self.len }),
        }
    }

    /// Bytes of the reply to request `number`, if it keeps every rule.
    ///
    /// # Errors
    /// [`ControlDecodeError`] names the first rule that is broken.
    pub fn check_reply(&self, number: u64) -> Result<usize, ControlDecodeError> {
        let len = self.check(ControlKind::Reply)?;
        if self.number != number {
            return Err(ControlDecodeError::OtherRequest { number: self.number, expected: number });
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Fields that are right, or nearly, more often than noise would be.
    fn headers() -> impl Strategy<Value = ControlHeader> {
        let magic = prop_oneof![4 => Just(CONTROL_MAGIC), 1 => any::<u32>()];
        let version = prop_oneof![4 => Just(CONTROL_VERSION), 1 => any::<u16>()];
        let kind = prop_oneof![4 => 0_u16..4, 1 => any::<u16>()];
        let edge = MAX_CONTROL_BYTES as u32;
        let len = prop_oneof![4 => 0..=edge, 2 => edge - 1..edge + 2, 1 => any::<u32>()];
        let reserved = prop_oneof![4 => Just(0), 1 => any::<u32>()];
        (magic, version, kind, len, reserved, 0_u64..3).prop_map(|(magic, version, kind, len, reserved, number)| {
            ControlHeader { magic, version, kind, len, reserved, number }
        })
    }

    #[test]
    fn the_bytes_are_those_of_the_document() {
        let header = ControlHeader::new(ControlKind::Reply, 0x0102, 0x0a0b).unwrap();
        let expected = [b'T', b'B', b'C', b'T', 1, 0, 2, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0x0b, 0x0a, 0, 0, 0, 0, 0, 0];
        assert_eq!(header.as_bytes(), expected);
        assert!(ControlHeader::new(ControlKind::Request, MAX_CONTROL_BYTES, 0).is_some());
        assert!(ControlHeader::new(ControlKind::Request, MAX_CONTROL_BYTES + 1, 0).is_none());
        assert!(ControlHeader::new(ControlKind::Request, usize::MAX, 0).is_none());
    }

    #[test]
    fn every_rule_has_its_error() {
        let good = ControlHeader::new(ControlKind::Reply, 5, 7).unwrap();
        let check = |change: fn(&mut ControlHeader)| {
            let mut header = good;
            change(&mut header);
            header.check_reply(7).unwrap_err()
        };
        assert_eq!(good.check_reply(7), Ok(5));
        assert!(matches!(check(|h| h.magic = 0), ControlDecodeError::NotAMessage { magic: 0 }));
        assert!(matches!(check(|h| h.version = 2), ControlDecodeError::OtherVersion { version: 2 }));
        assert!(matches!(check(|h| h.kind = 1), ControlDecodeError::Kind { kind: 1, expected: 2 }));
        assert!(matches!(check(|h| h.len = u32::MAX), ControlDecodeError::Length { len: u32::MAX }));
        assert!(matches!(check(|h| h.reserved = 1), ControlDecodeError::Reserved { reserved: 1 }));
        assert!(matches!(check(|h| h.number = 6), ControlDecodeError::OtherRequest { number: 6, expected: 7 }));
    }

    proptest! {
        #[test]
        fn exactly_the_headers_that_new_makes_are_accepted(header in headers()) {
            for kind in [ControlKind::Request, ControlKind::Reply] {
                let made = ControlHeader::new(kind, header.len as usize, header.number);
                prop_assert_eq!(header.check(kind).is_ok(), made == Some(header));
                if let Ok(len) = header.check(kind) {
                    prop_assert_eq!(len, header.len as usize);
                    prop_assert!(len <= MAX_CONTROL_BYTES);
                }
            }
            prop_assert_eq!(header.check_reply(1).is_ok(), header.number == 1 && header.check(ControlKind::Reply).is_ok());
        }

        #[test]
        fn any_bytes_give_a_length_or_an_error(bytes in any::<[u8; 24]>()) {
            let header = ControlHeader::read_from_bytes(&bytes).unwrap();
            prop_assert_eq!(header.as_bytes(), &bytes[..]);
            for kind in [ControlKind::Request, ControlKind::Reply] {
                prop_assert!(header.check(kind).map_or(true, |len| len <= MAX_CONTROL_BYTES));
            }
        }
    }
}
