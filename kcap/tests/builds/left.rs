//! What builds can leave behind on a machine: mounts, control groups, containers, temporary files.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::engine::Engine;

/// How long what was ended may take to be gone. Others' builds that are seen meanwhile end, too.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is there at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left(BTreeSet<String>);

impl Left {
    /// Looks at the machine; what belongs to the engine is given.
    pub fn look(containers: Vec<String>, files: Vec<String>) -> Self {
        let mut all = BTreeSet::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let point = |line: &str| Some(format!("mount {}", line.split(' ').nth(4)?));
        all.extend(mounts.lines().filter_map(point));
        groups(Path::new("/sys/fs/cgroup"), &mut all);
        all.extend(containers.into_iter().map(|id| format!("container {id}")));
        all.extend(files.into_iter().map(|name| format!("file {name}")));
        Self(all)
    }

    /// Asserts that nothing is there that was not there then.
    #[track_caller]
    pub fn is_all(&self, engine: &Engine) {
        let deadline = Instant::now() + PATIENCE;
        let mut more: Option<BTreeSet<String>> = None;
        loop {
            let now: BTreeSet<String> = engine.look().0.difference(&self.0).cloned().collect();
            // What comes and goes is somebody else's: only what has been there since the first look.
            let still = match &more {
                None => now,
                Some(before) => before.intersection(&now).cloned().collect(),
            };
            if still.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {still:#?}");
            more = Some(still);
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The groups of kcap and of containers: others come and go with what runs on the machine.
fn groups(folder: &Path, all: &mut BTreeSet<String>) {
    let folders = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect()
    };
    for group in folders(folder) {
        let name = group.file_name().unwrap_or_default().to_string_lossy();
        let is_id = |part: &str| part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit());
        let of_kcap = name
            .strip_prefix("kcap-")
            .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b == b'-'));
        if of_kcap || name.split(['-', '.']).any(is_id) {
            all.insert(format!("cgroup {}", group.display()));
        }
        groups(&group, all);
    }
}
