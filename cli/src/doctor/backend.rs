//! Where sessions lie on this machine, and why not in shared memory if they do not.

use tensorbus::{Backend, BackendChoice, BackendError, ChosenBy, NotChosen};

use super::check::{Check, Status};

const NAME: &str = "backend";

pub(super) fn check(found: &Result<BackendChoice, BackendError>) -> Check {
    let choice = match found {
        Ok(choice) => choice,
        Err(error @ (BackendError::NoSuchBackend { .. } | BackendError::Unusable { .. })) => {
            return Check::ok(NAME, error.to_string())
                .but(Status::Fail, "unset TENSORBUS_BACKEND, or name another one");
        }
        Err(error) => return Check::ok(NAME, error.to_string()).but(Status::Fail, "make one of them usable"),
    };
    let check = Check::ok(NAME, choice.to_string());
    let shm = choice.passed_over.iter().find(|other| other.backend == Backend::Shm);
    match shm {
        // Asked for: then it is as it should be.
        Some(shm) if choice.chosen_by == ChosenBy::Default => check.but(Status::Warn, advice(&shm.reason)),
        _ => check,
    }
}

fn advice(reason: &NotChosen) -> String {
    let how = match reason {
        NotChosen::TooSmall { .. } => {
            "start the container with `--shm-size=1g` (Docker, Podman) or mount an emptyDir with medium Memory there \
             (Kubernetes); elsewhere `mount -o remount,size=1g /dev/shm` as root"
        }
        NotChosen::NotWritable { .. } => {
            "let this user write to it: not mounted read-only, and `chmod 1777 /dev/shm` as root"
        }
        _ => "mount a tmpfs: `mkdir -p /dev/shm && mount -t tmpfs -o size=50%,mode=1777 tmpfs /dev/shm` as root",
    };
    format!("the bus works, and is faster in shared memory: {how}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensorbus::Bus;

    #[test]
    fn a_place_on_disk_is_told_with_its_reason() {
        let found = Bus::builder().session("d").directory("/tmp").backend(Backend::File).open().unwrap();
        let mut choice = found.backend().clone();
        assert_eq!(check(&Ok(choice.clone())), Check::ok(NAME, "file in /tmp"));
        choice.chosen_by = ChosenBy::Default;
        choice.passed_over[0].reason = NotChosen::NotThere { directory: "/dev/shm".into() };
        let told = check(&Ok(choice));
        assert_eq!((told.status, told.fact.as_str()), (Status::Warn, "file in /tmp, because /dev/shm is not there"));
        assert!(told.advice.unwrap().contains("mount -t tmpfs"));
    }

    #[test]
    fn a_wrong_wish_fails() {
        let told = check(&Err(BackendError::NoSuchBackend { value: "ram".to_owned() }));
        assert!(told.status == Status::Fail && told.fact.contains("\"ram\""), "{told:?}");
    }
}
