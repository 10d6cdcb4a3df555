//! This command raises its own limit of open files; other programs have the one of the shell that starts them.

use tensorbus::ResourceLimit;

/// Sets the limit to that of the process which started this one, where the system tells it.
pub(super) fn take_those_of_the_shell(limit: &mut ResourceLimit) {
    let Some(parent) = rustix::process::getppid() else { return };
    let text = std::fs::read_to_string(format!("/proc/{}/limits", parent.as_raw_nonzero())).unwrap_or_default();
    if let Some((soft, hard)) = open_files(&text) {
        (limit.soft, limit.hard) = (soft, hard);
    }
}

/// Soft and hard limit of open files, from the text of `/proc/PID/limits`; `None` in them is no limit.
fn open_files(limits: &str) -> Option<(Option<u64>, Option<u64>)> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map(|text| match text {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    });
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
            Max processes             96383                96383                processes \n\
            Max open files            1024                 unlimited            files     \n";
        assert_eq!(open_files(text), Some((Some(1024), None)));
        assert_eq!(open_files("Max open files            many 1 files"), None);
        assert_eq!(open_files(""), None);
    }
}
