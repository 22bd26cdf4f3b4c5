//! Whose builds are: `kcap watch` beside a Docker, a podman and a containerd of the test's own, with
//! builds of the known executor (`tests/executor`) in containers that live for an instant. Each report is
//! held against what its Dockerfile says, and against what its container was started with.
//!
//! Needs root, BPF, and for each engine its programs; says what it could not test. The executor has to be
//! linked statically, since its image holds nothing else: `cargo xtask test --only engines` builds it so,
//! and names it in `KCAP_EXECUTOR`.

#[path = "support/counts.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod counts;
#[path = "whose/cri.rs"]
mod cri;
#[path = "whose/docker.rs"]
mod docker;
#[path = "whose/host.rs"]
mod host;
#[path = "whose/image.rs"]
mod image;
#[allow(dead_code, reason = "shared with tests that use the rest")]
#[path = "support/lab.rs"]
mod lab;
#[path = "whose/podman.rs"]
mod podman;
#[path = "support/programs.rs"]
mod programs;
#[allow(dead_code, reason = "shared with tests that use the rest")]
#[path = "support/watching.rs"]
mod watching;

use std::sync::{Mutex, MutexGuard};

use kcap::report::Identity;

/// One watch at a time.
static ONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// A Dockerfile whose build makes `n` checks of a kind that others do not make as often: its path in the
/// image, its text, and the counts.
fn numbered(n: usize) -> (String, String, String) {
    let text = format!(
        "FROM scratch\nRUN truth setuid:{n}\nCOPY --chown=7:7 chown:{} /srv\n",
        2 * n
    );
    let counts = format!("prepare:1 setuid:{n} chown:{}", 2 * n);
    (format!("/d/Dockerfile.{n}"), text, counts)
}

/// The same of a build that is there long enough to be looked at on any machine.
fn lingering(n: usize) -> (String, String, String) {
    let (path, text, counts) = numbered(n);
    (path, format!("{text}RUN truth sleep:300\n"), counts)
}

/// What identifies a build, in the order of a table's columns: project, commit, pipeline, job.
fn told(identity: &Identity) -> [&str; 4] {
    [
        &identity.project,
        &identity.commit,
        &identity.pipeline,
        &identity.job,
    ]
    .map(|told| told.as_deref().unwrap_or_default())
}
