//! What runs for a container that its engine has removed: podman has no daemon, and a client that is
//! killed while it starts a container leaves processes that the next one does not know of.

use std::{
    ffi::OsStr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use procfs::process::{Process, all_processes};

use super::Dialect;

/// How long processes that were killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Kills the processes of this container and those that work for it, where the engine has such.
///
/// # Errors
/// Where some do not end.
pub(super) fn end(dialect: &Dialect, id: &str) -> Result<()> {
    if dialect.helpers.is_empty() {
        return Ok(());
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut left = 0;
        // A process that cannot be read has ended.
        for process in all_processes()?.flatten() {
            if belongs(&process, dialect.helpers, id) {
                left += 1;
                // SAFETY: numbers only. What was just read of the process names the container, and its
                // id is used again only after all others have been.
                unsafe {
                    libc::kill(process.pid, libc::SIGKILL);
                }
            }
        }
        if left == 0 {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{left} processes of {}'s container {id} do not end although they were killed",
            dialect.name
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// It runs in the container's cgroup, or is a helper that was told the container's id.
fn belongs(process: &Process, helpers: &[&str], id: &str) -> bool {
    // One that has ended and is not waited for has neither, and cannot be killed.
    if process
        .stat()
        .is_ok_and(|stat| matches!(stat.state, 'Z' | 'X'))
    {
        return false;
    }
    let Ok(words) = process.cmdline() else {
        return false;
    };
    let is_helper = words.first().is_some_and(|program| {
        let name = Path::new(program).file_name().and_then(OsStr::to_str);
        name.is_some_and(|name| helpers.contains(&name))
    });
    (is_helper && words.iter().any(|word| word == id))
        || process
            .cgroups()
            .is_ok_and(|groups| groups.into_iter().any(|group| group.pathname.contains(id)))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt as _, process::Command};

    use super::*;
    use crate::launch::client::{docker::DOCKER, podman::PODMAN};

    #[test]
    fn helpers_of_this_container_are_ended() {
        let id = "c0ffee".repeat(11);
        let start = |name: &str, id: &str| {
            Command::new("sh")
                .arg0(name)
                .args(["-c", "read line", id])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        };
        let mut own = start("/usr/bin/conmon", &id);
        let mut others = [
            start("/usr/bin/conmon", &id.replace('c', "d")),
            start("other", &id),
        ];
        end(&DOCKER, &id).unwrap();
        assert!(own.try_wait().unwrap().is_none());
        let waits = thread::spawn(move || own.wait().unwrap());
        end(&PODMAN, &id).unwrap();
        assert!(!waits.join().unwrap().success());
        for other in &mut others {
            assert!(other.try_wait().unwrap().is_none());
            other.kill().unwrap();
            other.wait().unwrap();
        }
    }
}
