//! Containers of a kcap that was killed: the next one removes them. Each has a label that names its
//! process, for whoever sees the same processes.

use std::{fs, process};

use anyhow::{Context as _, Result};
use procfs::process::Process;

use super::{Dialect, container};
use crate::launch::call::Call;

/// The label of containers that kcap made.
pub(super) const LABEL: &str = "kcap.owner";

/// This process: boot, process namespace, process id, start time.
pub(super) fn owner() -> Result<String> {
    let process = process::id();
    let started = started(process).context("cannot read when this process was started")?;
    Ok(format!("{}/{process}/{started}", place()?))
}

/// Where process ids mean what they mean here.
fn place() -> Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .context("cannot read the boot's id")?;
    let namespace =
        fs::read_link("/proc/self/ns/pid").context("cannot read this process's namespace")?;
    let digits: String = namespace
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    Ok(format!("{}/{digits}", boot.trim()))
}

fn started(process: u32) -> Option<u64> {
    let stat = Process::new(i32::try_from(process).ok()?)
        .ok()?
        .stat()
        .ok()?;
    Some(stat.starttime)
}

/// Its owner has ended. Of a process that cannot be seen from here, nothing is known.
fn is_stale(owner: &str, place: &str) -> bool {
    let Some(rest) = owner.strip_prefix(place).and_then(|r| r.strip_prefix('/')) else {
        return false;
    };
    let Some((process, start)) = rest.split_once('/') else {
        return false;
    };
    match (process.parse(), start.parse()) {
        (Ok(process), Ok(start)) => started(process) != Some(start),
        _ => false,
    }
}

/// Removes what ended kcaps left. That it cannot is no reason not to build.
pub(super) fn remove(dialect: &Dialect) {
    let Ok(place) = place() else {
        return;
    };
    let filter = format!("--filter=label={LABEL}");
    let ids = ask(dialect, &["ps", "--all", "--quiet", "--no-trunc", &filter]);
    let ids: Vec<&str> = ids
        .lines()
        .filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit()))
        .collect();
    if ids.is_empty() {
        return;
    }
    let format = format!("--format={{{{.Id}}}} {{{{index .Config.Labels \"{LABEL}\"}}}}");
    let words = [&["inspect", "--type=container", &format], &ids[..]].concat();
    for line in ask(dialect, &words).lines() {
        if let Some((id, owner)) = line.split_once(' ')
            && ids.contains(&id)
            && is_stale(owner.trim(), &place)
        {
            let _ = container::remove(dialect, id);
        }
    }
}

/// What the engine prints; a container that goes meanwhile is left out, and makes it no success.
fn ask(dialect: &Dialect, words: &[&str]) -> String {
    let answer = Call::new(dialect.name, words).run();
    answer.map(|answer| answer.output).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_have_ended_is_stale() {
        let (own, place) = (owner().unwrap(), place().unwrap());
        assert!(!is_stale(&own, &place));
        assert!(
            is_stale(&format!("{own}1"), &place),
            "a process id is used again"
        );
        assert!(is_stale(&format!("{place}/4194305/1"), &place));
        for unknown in [
            "",
            "x",
            "boot/1/4194305/1",
            &format!("{place}1/4194305/1"),
            &place,
        ] {
            assert!(!is_stale(unknown, &place), "{unknown}");
        }
    }
}
