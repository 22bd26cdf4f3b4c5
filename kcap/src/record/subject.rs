//! What a capture says of its host, its command and its times.

use std::{ffi::OsString, os::unix::process::ExitStatusExt as _, path::PathBuf};

use sha2::{Digest as _, Sha256};

use super::trace::Ended;
use crate::{
    capture::{Capture, Host, Subject},
    host::{Facts, cgroup::Layout},
    launch::arguments,
};

/// Options of engines that take `NAME=VALUE`, where the value can be a secret.
const HIDES_VALUE: [&str; 4] = ["--build-arg", "--env", "--secret", "-e"];

/// The host, as found.
pub fn host(
    facts: &Facts,
    layout: &Layout,
    hook: &str,
    mut blind: Vec<String>,
    capture: &Capture,
) -> Host {
    blind.sort();
    let first = capture.programs.iter().find_map(|p| p.exec.as_ref());
    // The program that follows system calls to their end sees it.
    let follows = !blind.iter().any(|what| what == "outcome");
    Host {
        kernel: facts.kernel.clone(),
        arch: facts.arch.clone(),
        hook: hook.into(),
        cgroup: layout.kind.as_str().into(),
        blind,
        sees: follows
            .then(|| "suppressed".to_owned())
            .into_iter()
            .collect(),
        preemption: facts.preemption.mode.as_str().into(),
        lsm: facts.lsm.clone().unwrap_or_default(),
        seccomp: match first {
            Some(e) if e.seccomp => "filter",
            Some(_) => "none",
            None => "unknown",
        }
        .into(),
        sysctl: facts.sysctl.clone(),
        user_ns: Facts::initial_user_ns_inode(),
    }
}

/// The command as shown, what it builds and how it ended.
pub fn subject(
    command: Vec<String>,
    dockerfile: Option<&(PathBuf, Vec<u8>)>,
    context: Option<String>,
    ended: &Ended,
) -> Subject {
    Subject {
        command,
        dockerfile: dockerfile.map(|(path, _)| path.to_string_lossy().into_owned()),
        dockerfile_text: dockerfile.map(|(_, text)| String::from_utf8_lossy(text).into_owned()),
        dockerfile_sha256: dockerfile.map(|(_, text)| {
            Sha256::digest(text)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect()
        }),
        context,
        exit_status: ended.status.map(|status| {
            status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
        }),
        started: rfc3339(ended.started_ns),
        duration_ms: ended.duration.as_millis() as u64,
        ..Subject::default()
    }
}

/// The command line without the values of build arguments and of variables, and without passwords in
/// addresses; and those.
pub fn masked(command: &[OsString]) -> (Vec<String>, Vec<String>) {
    let texts = command.iter().map(|arg| arg.to_string_lossy().into_owned());
    masked_texts(&texts.collect::<Vec<_>>())
}

/// The same of one that is text already.
pub fn masked_texts(command: &[String]) -> (Vec<String>, Vec<String>) {
    let texts: Vec<&str> = command.iter().map(String::as_str).collect();
    let masked = arguments::masked(&texts, &HIDES_VALUE);
    (masked.shown, masked.secrets)
}

/// `CLOCK_MONOTONIC`, the clock of every kernel-side time.
pub fn monotonic_ns() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// `CLOCK_REALTIME`.
pub fn wall_ns() -> u64 {
    clock(libc::CLOCK_REALTIME)
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both clocks exist on every Linux; `t` is a timespec.
    unsafe { libc::clock_gettime(id, &raw mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// A time since the epoch as RFC 3339 in UTC, to the millisecond.
pub fn rfc3339(ns: u64) -> String {
    let (secs, ms) = (ns / 1_000_000_000, ns / 1_000_000 % 1000);
    let (days, rest) = (secs / 86400, secs % 86400);
    // Days to a date, after Howard Hinnant's civil_from_days.
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_399_123_000_000), "2000-02-28T23:59:59.123Z");
        assert_eq!(rfc3339(951_782_400_000_000_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(
            rfc3339(1_798_761_599_999_000_000),
            "2026-12-31T23:59:59.999Z"
        );
    }
    #[test]
    fn values_that_can_be_secret_are_masked() {
        let line = "docker build --build-arg TOKEN=a=b -e KEY=v --env=X=1 --build-arg=Y= -e HOME \
                    --secret id=npm --label a=b";
        let command: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let expected = "docker build --build-arg TOKEN=*** -e KEY=*** --env=X=*** --build-arg=Y= \
                        -e HOME --secret id=*** --label a=b";
        let expected: Vec<&str> = expected.split_whitespace().collect();
        let (shown, secrets) = masked(&command);
        assert_eq!(shown, expected);
        // Shorter ones are in the text of any build.
        assert_eq!(secrets, ["a=b", "npm"]);
    }
}
