//! What must hold for any bytes that a model directory or a registry is given. The fuzz targets run these checks on bytes of the
//! fuzzer's making, `registry/tests/directory` on the seeds.
//!
//! Each check panics if a promise is broken, and says whether the bytes were accepted.

use tensorbus_registry::directory::Known;
use tensorbus_registry::directory::wire::{
    decode_announcement, decode_answer, decode_command, decode_page, decode_query, encode_announcement, encode_answer,
    encode_command, encode_page, encode_query,
};

/// What a registry announces.
pub fn announcement(bytes: &[u8]) -> bool {
    let Ok(announcement) = decode_announcement(bytes) else { return false };
    assert_eq!(decode_announcement(&encode_announcement(&announcement)).as_ref(), Ok(&announcement));
    let mut known = Known::default();
    let farewell = announcement.farewell;
    known.heard(announcement.clone(), std::time::Duration::ZERO);
    assert_eq!(known.processes(std::time::Duration::MAX).len(), usize::from(!farewell));
    assert!(!known.heard(announcement, std::time::Duration::ZERO), "the same says nothing new");
    true
}

/// What a registry or a daemon is asked for, and what it answers.
pub fn command(bytes: &[u8]) -> bool {
    if let Ok(query) = decode_query(bytes) {
        assert_eq!(decode_query(&encode_query(&query)).as_ref(), Ok(&query));
        return true;
    }
    if let Ok(page) = decode_page(bytes) {
        assert_eq!(decode_page(&encode_page(&page)).as_ref(), Ok(&page));
        return true;
    }
    if let Ok(answer) = decode_answer(bytes) {
        assert_eq!(decode_answer(&encode_answer(&answer)).as_ref(), Ok(&answer));
        return true;
    }
    let Ok(command) = decode_command(bytes) else { return false };
    assert_eq!(decode_command(&encode_command(&command)).as_ref(), Ok(&command));
    true
}
