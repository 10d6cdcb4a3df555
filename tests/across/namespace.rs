//! Programs in a mount namespace of their own, where /dev/shm is not as it should be.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Output};

/// Ways in which /dev/shm cannot be used: a name, the commands that make it so, and what is said about it then.
pub(crate) const UNUSABLE: [(&str, &str, &str); 3] = [
    (
        "missing",
        // A directory /dev of its own: the real one is not touched.
        "d=$(mktemp -d); mount -t tmpfs none $d; \
         for n in null zero full random urandom; do touch $d/$n; mount --bind /dev/$n $d/$n; done; \
         mount --rbind $d /dev; umount -R $d; rmdir $d; test ! -e /dev/shm",
        "because /dev/shm is not there",
    ),
    ("read-only", "mount -t tmpfs -o ro none /dev/shm", "because /dev/shm is not writable"),
    (
        "64 KiB large",
        "mount -t tmpfs -o size=64k none /dev/shm",
        "because /dev/shm has 65536 bytes in all, at least 16777216 are needed",
    ),
];

/// A command that runs `program` in a mount namespace which the shell commands `setup` have changed.
///
/// `None` where this machine lets nobody make one; that is said, and only believed for reasons that are known.
pub(crate) fn command(setup: &str, program: impl AsRef<OsStr>) -> Option<Command> {
    let flags = ["-m", "-rm"].into_iter().map(|flags| (flags, unshare(flags))).collect::<Vec<_>>();
    let Some((flags, _)) = flags.iter().find(|(_, tried)| tried.as_ref().is_ok_and(|tried| tried.status.success()))
    else {
        let why: Vec<_> = flags.iter().map(|(flags, tried)| format!("unshare {flags}: {}", said(tried))).collect();
        let why = why.join("; ");
        // Not `println`, which is only shown when a test fails.
        let _ = writeln!(std::io::stdout(), "SKIPPED, NOT TESTED: no mount namespace can be made here: {why}");
        let known = ["Operation not permitted", "Permission denied", "No space left", "No such file", "not found"];
        assert!(known.iter().any(|known| why.contains(known)), "unexpected: {why}");
        return None;
    };
    let mut command = Command::new("unshare");
    command.args([flags, "sh", "-ec", format!("{setup}\nexec \"$@\"").as_str(), "sh"]).arg(program);
    command.env_remove("TENSORBUS_BACKEND");
    Some(command)
}

fn unshare(flags: &str) -> std::io::Result<Output> {
    // Mounting must be allowed too.
    Command::new("unshare")
        .args([flags, "sh", "-ec", "mount -t tmpfs none /dev/shm || mount -t tmpfs none /tmp"])
        .output()
}

fn said(tried: &std::io::Result<Output>) -> String {
    match tried {
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    }
}
