use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::error::RingFormatError;
use super::geometry::Geometry;
use super::party::{Party, Role};
use super::segment::{OpenFailure, Segment};
use crate::pool::{MemoryFacts, PoolError, RingFile, admit, begin_ring, rings};
use crate::port::node::Node;
use crate::port::turn::TurnError;

/// Most characters of a ring's name.
pub(crate) const MAX_RING_NAME: usize = 128;

/// Why a ring cannot be opened.
#[derive(Debug)]
pub(crate) enum RingFailure {
    /// There is none of this name.
    NotThere {
        present: Vec<String>,
    },
    /// Living workers serve another model under this name.
    Differs {
        theirs: Box<Geometry>,
        pids: Vec<u32>,
    },
    /// No place is free.
    Full,
    Format {
        path: PathBuf,
        reason: RingFormatError,
    },
    Pool(PoolError),
    Io(io::Error),
    Session(String),
}

impl From<io::Error> for RingFailure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<TurnError> for RingFailure {
    fn from(error: TurnError) -> Self {
        Self::Session(error.to_string())
    }
}

/// Names of the session's rings. In a turn.
fn ring_names(node: &Node) -> io::Result<Vec<String>> {
    let mut names: Vec<_> = rings(node.directory())?.into_iter().map(|ring| ring.name).collect();
    names.dedup();
    Ok(names)
}

/// In a turn. Enters the ring that a name means.
pub(super) fn enter(node: &Node, name: &str, role: Role) -> Result<Party, RingFailure> {
    let Some(ring) = newest(node, name)? else {
        return Err(RingFailure::NotThere { present: ring_names(node)? });
    };
    let (file, geometry) = look(&ring)?;
    party(Segment::map(&file, &ring.path, geometry)?, node, role)
}

/// In a turn. As a worker of a ring that is like this: of the one that the name means, or else of a new one.
pub(super) fn enter_or_make(node: &Node, name: &str, geometry: Geometry) -> Result<Party, RingFailure> {
    if let Some(ring) = newest(node, name)? {
        match look(&ring) {
            Ok((file, theirs)) if theirs == geometry => {
                return party(Segment::map(&file, &ring.path, theirs)?, node, Role::Worker);
            }
            Ok((file, theirs)) => {
                // To enter buries the dead; who is left lives.
                let visitor = party(Segment::map(&file, &ring.path, theirs.clone())?, node, Role::Client)?;
                let pids = visitor.pids(Role::Worker);
                if !pids.is_empty() {
                    return Err(RingFailure::Differs { theirs: Box::new(theirs), pids });
                }
            }
            // Of another version, or damaged: the name gets a new one.
            Err(RingFailure::Format { path, reason }) => {
                tracing::warn!(path = %path.display(), %reason, "a ring cannot be read; another one takes its name");
            }
            Err(failure) => return Err(failure),
        }
    }
    let needed = geometry.file_len() as u64;
    admit_ring(node, needed)?;
    let new = begin_ring(node.directory(), name)?;
    let made = Segment::create(&new.file, &new.unfinished, geometry.clone());
    if let Err(reason) = made {
        let _ = std::fs::remove_file(&new.unfinished);
        return Err(RingFailure::Pool(PoolError::Prepare { needed, reason }));
    }
    let file = new.file.try_clone()?;
    let path = new.finish()?;
    party(Segment::map(&file, &path, geometry)?, node, Role::Worker)
}

/// In a turn: whether machine and session have room for so many bytes.
pub(super) fn admit_ring(node: &Node, needed: u64) -> Result<(), RingFailure> {
    let facts = MemoryFacts::gather(node.directory());
    let facts = facts.map_err(|reason| RingFailure::Pool(PoolError::Prepare { needed, reason }))?;
    admit(needed, &facts).map_err(RingFailure::Pool)?;
    node.admit_to_quota(needed).map_err(RingFailure::Pool)
}

fn party(segment: Segment, node: &Node, role: Role) -> Result<Party, RingFailure> {
    Party::enter(segment, role, node.directory(), node.ringer())?.ok_or(RingFailure::Full)
}

fn newest(node: &Node, name: &str) -> io::Result<Option<RingFile>> {
    Ok(rings(node.directory())?.into_iter().rfind(|ring| ring.name == name))
}

fn look(ring: &RingFile) -> Result<(File, Geometry), RingFailure> {
    let file = File::options().read(true).write(true).open(&ring.path)?;
    match Segment::look(&file) {
        Ok(geometry) => Ok((file, geometry)),
        Err(OpenFailure::Io(error)) => Err(error.into()),
        Err(OpenFailure::Format(reason)) => Err(RingFailure::Format { path: ring.path.clone(), reason }),
    }
}
