//! FR-020: a peer that lies is counted and skipped, whatever it says; the next good message arrives.

use std::os::unix::fs::PermissionsExt;

use tensorbus::{DecodeError, LayoutError};

use crate::support::{PATIENCE, Session};

#[test]
fn every_lie_of_a_peer_is_rejected_by_its_name() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("numbers").subscriber().unwrap();
    let mut node = session.node("hostile", &[]);
    let lies: Vec<String> = node.line().split(' ').map(str::to_owned).collect();
    assert!(lies.len() >= 20);
    for (index, lie) in lies.iter().enumerate() {
        node.tell(lie);
        node.expect("published");
        assert!(subscriber.try_recv().unwrap().is_none(), "{lie} was accepted");
        let stats = subscriber.stats();
        assert_eq!(stats.rejected, index as u64 + 1, "{lie} was not counted");
        let error = stats.last_rejection.unwrap();
        assert!(is_right(lie, &error), "{lie}: {error:?}");
        node.tell("good");
        node.expect("published");
        let good = subscriber.recv(PATIENCE).unwrap();
        assert_eq!(good.tensor("first").unwrap().view::<u8>().unwrap(), [9; 15]);
    }
}

fn is_right(lie: &str, error: &DecodeError) -> bool {
    match lie {
        "magic" => matches!(error, DecodeError::NotAMessage { .. }),
        "version" => matches!(error, DecodeError::OtherVersion { version: 2 }),
        "flags" => matches!(error, DecodeError::UnknownFlags { .. }),
        "no-layout" | "layout-length" => matches!(error, DecodeError::LayoutLength { .. }),
        // Cut by 8 bytes or filled with noise it may still be an archive by chance, but never a layout.
        "layout-cut" | "layout-noise" => {
            matches!(error, DecodeError::LayoutArchive { .. } | DecodeError::Layout(_) | DecodeError::Dtype(_))
        }
        "layout-changed" => matches!(error, DecodeError::Fingerprint { .. }),
        "data-offset" | "data-length" | "data-length-slot" => matches!(error, DecodeError::OutsidePayload { .. }),
        "data-offset-odd" => matches!(error, DecodeError::DataOffset { .. }),
        "data-short" => matches!(error, DecodeError::TensorsOutsideData { .. }),
        "metadata-length" => matches!(error, DecodeError::MetadataLength { .. }),
        "metadata-cut" => matches!(error, DecodeError::MetadataArchive { .. }),
        "elements" | "elements-max" | "elements-double" => matches!(error, DecodeError::PayloadBeyondSlot { .. }),
        "shape" => matches!(error, DecodeError::Layout(LayoutError::SizeOverflows { .. })),
        "shape-larger" => matches!(error, DecodeError::Layout(LayoutError::WrongLength { .. })),
        "offset" => matches!(error, DecodeError::Layout(LayoutError::Overlaps { .. })),
        "offset-far" => matches!(error, DecodeError::TensorsOutsideData { .. }),
        _ => false,
    }
}

/// Files of a session that somebody scribbled over are errors, whatever iceoryx2 makes of them; new names still work.
#[test]
fn damaged_files_are_errors_and_not_panics() {
    let session = Session::new();
    let bus = session.bus();
    let publisher = bus.topic("numbers").publisher().unwrap();
    publisher.publish_copy(&[1u32], &[1]).unwrap();
    for entry in std::fs::read_dir(bus.directory().join("services")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "scribble = [").unwrap();
    }
    let refused = session.bus().topic("numbers").subscriber();
    assert!(matches!(refused, Err(tensorbus::TopicError::Failed { .. })), "{refused:?}");
    let other = bus.topic("other").subscriber().unwrap();
    let other_publisher = bus.topic("other").publisher().unwrap();
    other_publisher.publish_copy(&[2u32], &[1]).unwrap();
    assert_eq!(other.recv(PATIENCE).unwrap().first().view::<u32>().unwrap(), [2]);
    publisher.publish_copy(&[3u32], &[1]).unwrap();
}
