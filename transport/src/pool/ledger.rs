//! A session's quota and the second names of its pools, as files of its directory. Only used in a turn.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::PoolError;
use super::blobs::{bytes_of_blobs, settle_blobs};
use super::quota::{Step, fits, settle};
use super::rings::{bytes_of_rings, settle_rings};
use crate::os::is_used_elsewhere;

/// Ending of the file that holds a publisher's pool.
pub(crate) const POOL_SUFFIX: &str = ".pool";
/// The file that holds the quota, as a decimal number of bytes. A session without a quota has none.
const QUOTA_FILE: &str = ".quota";
/// The directory of the pools' second names, under which they outlive their publishers.
const KEPT: &str = ".kept";

/// Makes `bytes` the quota of the session, if it has none yet. Returns the one it has.
pub(crate) fn set_quota(directory: &Path, bytes: u64) -> io::Result<u64> {
    if let Some(fixed) = quota(directory)? {
        return Ok(fixed);
    }
    // Whoever is killed here leaves a whole quota or none.
    let new = directory.join(format!("{QUOTA_FILE}.new"));
    fs::write(&new, bytes.to_string())?;
    fs::rename(&new, directory.join(QUOTA_FILE))?;
    Ok(bytes)
}

/// The session's quota.
pub(crate) fn quota(directory: &Path) -> io::Result<Option<u64>> {
    match fs::read_to_string(directory.join(QUOTA_FILE)) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{QUOTA_FILE} holds {text:?}, which is no number of bytes"),
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the session's quota leaves `needed` bytes. `clean_up` removes what dead processes left; it is asked if it does not.
pub(crate) fn admit_to_quota(directory: &Path, needed: u64, clean_up: impl FnOnce()) -> Result<(), PoolError> {
    let prepare = |reason| PoolError::Prepare { needed, reason };
    let Some(quota) = quota(directory).map_err(prepare)? else { return Ok(()) };
    let used = used(directory).map_err(prepare)?;
    fits(needed, used, quota).or_else(|_| {
        clean_up();
        fits(needed, self::used(directory).map_err(prepare)?, quota)
    })
}

/// What is to be done whenever the session has changed: blobs that nobody uses go, and with a quota second names of pools
/// come and go.
pub(crate) fn settle_session(directory: &Path) {
    let settled = match quota(directory) {
        Ok(Some(_)) => used(directory),
        Ok(None) => settle_blobs(directory).and_then(|_| settle_rings(directory)),
        Err(error) => Err(error),
    };
    match settled {
        Ok(_) => {}
        // The session is gone.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "could not look at what the session uses"),
    }
}

/// Bytes that the session's blobs and pools take, the pools of departed publishers included as long as somebody maps them.
pub(crate) fn used(directory: &Path) -> io::Result<u64> {
    let kept = directory.join(KEPT);
    if !kept.exists() {
        fs::create_dir(&kept)?;
    }
    let mut used = settle_blobs(directory)? + settle_rings(directory)?;
    for (name, bytes, step) in settled(directory)? {
        used += bytes;
        match step {
            Step::Keep => fs::hard_link(directory.join(&name), kept.join(&name))?,
            Step::LetGo => fs::remove_file(kept.join(&name))?,
            Step::Nothing => {}
        }
    }
    Ok(used)
}

/// The session's quota and what is used of it, for an onlooker: changes nothing.
pub(crate) fn look_at_quota(directory: &Path) -> io::Result<Option<(u64, u64)>> {
    let Some(quota) = quota(directory)? else { return Ok(None) };
    let pools: u64 = settled(directory)?.iter().map(|(_, bytes, _)| bytes).sum();
    Ok(Some((quota, pools + bytes_of_blobs(directory)? + bytes_of_rings(directory)?)))
}

/// Each pool that has a name, the bytes for which it counts, and what is to be done.
fn settled(directory: &Path) -> io::Result<Vec<(OsString, u64, Step)>> {
    let kept_directory = directory.join(KEPT);
    let named = pools(directory)?;
    let kept = match pools(&kept_directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
        listed => listed?,
    };
    let settle_one = |pool: &OsString| {
        let second = kept_directory.join(pool);
        let (counts, step) = settle(named.contains(pool), kept.contains(pool), || is_mapped(&second));
        let path = if named.contains(pool) { directory.join(pool) } else { second };
        let bytes = if counts { fs::metadata(&path)?.blocks() * 512 } else { 0 };
        Ok((pool.clone(), bytes, step))
    };
    named.union(&kept).map(settle_one).collect()
}

/// A file system that cannot tell has the pool let go: its memory is not counted after its publisher has left.
fn is_mapped(path: &Path) -> bool {
    File::open(path)
        .and_then(|file| is_used_elsewhere(&file))
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "cannot tell whether a pool is still used"))
        .unwrap_or(false)
}

/// Names of the pools that lie in a directory.
fn pools(directory: &Path) -> io::Result<BTreeSet<OsString>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if name.as_encoded_bytes().ends_with(POOL_SUFFIX.as_bytes()) {
            found.insert(name);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_quota_stays() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(quota(directory.path()).unwrap(), None);
        assert_eq!(set_quota(directory.path(), 7).unwrap(), 7);
        assert_eq!(set_quota(directory.path(), 8).unwrap(), 7);
        fs::write(directory.path().join(QUOTA_FILE), "many").unwrap();
        assert_eq!(quota(directory.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn without_a_quota_nothing_is_counted_or_kept() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.pool"), [1; 9000]).unwrap();
        settle_session(directory.path());
        admit_to_quota(directory.path(), u64::MAX, || unreachable!()).unwrap();
        assert!(!directory.path().join(KEPT).exists());
    }

    #[test]
    fn a_pool_counts_until_its_last_name_and_use_are_gone() {
        let directory = tempfile::tempdir().unwrap();
        set_quota(directory.path(), 1 << 20).unwrap();
        let pool = directory.path().join("a.pool");
        fs::write(&pool, [1; 4 * 4096]).unwrap();
        let bytes = fs::metadata(&pool).unwrap().blocks() * 512;
        let used = || super::used(directory.path()).unwrap();
        assert_eq!(used(), bytes);
        let open = File::open(&pool).unwrap();
        fs::remove_file(&pool).unwrap();
        assert_eq!(look_at_quota(directory.path()).unwrap(), Some((1 << 20, bytes)), "still open");
        assert_eq!(used(), bytes, "still open");
        drop(open);
        assert_eq!(used(), 0);
        assert_eq!(fs::read_dir(directory.path().join(KEPT)).unwrap().count(), 0);
    }

    #[test]
    fn the_dead_are_cleaned_up_only_if_room_is_short() {
        let directory = tempfile::tempdir().unwrap();
        set_quota(directory.path(), 40_000).unwrap();
        let pool = directory.path().join("a.pool");
        fs::write(&pool, [1; 20_480]).unwrap();
        settle_session(directory.path());
        admit_to_quota(directory.path(), 19_520, || unreachable!()).unwrap();
        let refused = admit_to_quota(directory.path(), 19_521, || {});
        assert!(matches!(refused, Err(PoolError::Quota { needed: 19_521, used: 20_480, quota: 40_000 })));
        admit_to_quota(directory.path(), 40_000, || fs::remove_file(&pool).unwrap()).unwrap();
    }
}
