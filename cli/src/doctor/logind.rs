//! systemd's login manager removes the shared memory of a user who has logged out everywhere.

use std::fs;
use std::path::Path;

use super::check::{Check, Status};

/// Users up to this one belong to the system, and nothing of theirs is removed.
const LAST_SYSTEM_USER: u32 = 999;

/// A hint if the sessions of this user end with the user's last login. `None` where nothing is removed.
pub(super) fn check() -> Option<Check> {
    let user = rustix::process::geteuid().as_raw();
    if user <= LAST_SYSTEM_USER || !Path::new("/run/systemd/system").is_dir() || !removes_ipc(&settings()) {
        return None;
    }
    let name = std::env::var("USER").unwrap_or_default();
    if !name.is_empty() && Path::new("/var/lib/systemd/linger").join(&name).exists() {
        return None;
    }
    let name = if name.is_empty() { "USER".to_owned() } else { name };
    Some(Check::ok("logout", "systemd removes this user's shared memory when its last login ends (RemoveIPC)").but(
        Status::Info,
        format!("for programs that go on after logout: `loginctl enable-linger {name}`, or run them as a system user"),
    ))
}

/// What logind is told, in the order in which it reads it.
fn settings() -> String {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let mut text = String::new();
    for root in ["/usr/lib/systemd", "/etc/systemd"] {
        text.push_str(&read(&Path::new(root).join("logind.conf")));
        let entries = fs::read_dir(Path::new(root).join("logind.conf.d")).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
        files.sort();
        for file in files {
            text.push('\n');
            text.push_str(&read(&file));
        }
    }
    text
}

/// Whether shared memory is removed at logout: `RemoveIPC`, which the last line decides and which is on by default.
fn removes_ipc(settings: &str) -> bool {
    let values = settings.lines().filter_map(|line| line.trim().strip_prefix("RemoveIPC"));
    let last = values.rev().find_map(|rest| rest.trim_start().strip_prefix('='));
    !last.is_some_and(|value| ["no", "false", "off", "0"].contains(&value.trim().to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_decides() {
        assert!(removes_ipc(""));
        assert!(removes_ipc("[Login]\n#RemoveIPC=no\n"));
        assert!(!removes_ipc("[Login]\nRemoveIPC = no\n"));
        assert!(!removes_ipc("RemoveIPC=yes\nRemoveIPC=false\n"));
        assert!(removes_ipc("RemoveIPC=no\nRemoveIPC=yes\n"));
    }
}
