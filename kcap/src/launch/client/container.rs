//! A container that was made.

use std::{
    env, fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Archive, Dialect, pointer, remains};
use crate::launch::{
    Container,
    call::{Call, bounded},
    oom::Log,
};

/// A folder that a client runs in. Dropped, it is removed with what the engine left in it.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes one of this name, which nobody else has.
    pub fn new(name: &str) -> Result<Self> {
        let path = env::temp_dir().join(name);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it in the temporary folder harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A container of docker or podman. Dropped, it is removed.
pub(super) struct Made {
    dialect: &'static Dialect,
    id: String,
    removed: AtomicBool,
    log: Option<Log>,
    /// Dropped after the container, which may be writing to it.
    _archive: Option<Archive>,
    /// Where its client runs.
    _folder: Folder,
}

impl Made {
    pub fn new(
        dialect: &'static Dialect,
        id: String,
        archive: Option<Archive>,
        folder: Folder,
    ) -> Self {
        Self {
            dialect,
            id,
            removed: AtomicBool::new(false),
            log: Log::now(),
            _archive: archive,
            _folder: folder,
        }
    }

    /// How it is, as the engine tells; `Null` where it does not.
    fn state(&self) -> Value {
        let format = [
            "inspect",
            "--type=container",
            "--format={{json .State}}",
            &self.id,
        ];
        Call::new(self.dialect.name, format)
            .run()
            .ok()
            .filter(|answer| answer.success)
            .and_then(|answer| serde_json::from_str(&answer.output).ok())
            .unwrap_or_default()
    }
}

impl Container for Made {
    fn id(&self) -> Option<String> {
        Some(self.id.clone())
    }

    fn kill(&self) -> Result<()> {
        if !self.removed.load(Ordering::Relaxed) {
            // Removed rather than killed: a start that is under way could come after a kill.
            let first = remove(self.dialect, &self.id);
            remains::end(self.dialect, &self.id)?;
            // What is still being started may hold its files until all of that has ended.
            first.or_else(|_| remove(self.dialect, &self.id))?;
            self.removed.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn killed_on_interrupt(&self) -> bool {
        // A client of docker only asks; podman's does the work itself, and the network namespace that it
        // has just made would stay. Removing waits for it.
        self.dialect.name == "podman"
    }

    fn out_of_memory(&self) -> bool {
        let state = self.state();
        // Where it succeeded, what was killed was some program that could be spared.
        // podman does not say it where version 1 control groups count memory; the kernel does.
        let killed = || {
            self.log
                .as_ref()
                .is_some_and(|log| log.names_container(&self.id))
        };
        state["ExitCode"] != 0 && (state["OOMKilled"] == true || killed())
    }

    fn not_started(&self) -> Option<String> {
        let state = self.state();
        let status = pointer(&state, "/Status");
        (status == "created" || status == "configured" || status == "initialized").then(|| {
            match pointer(&state, "/Error") {
                "" => format!("{} did not start the container", self.dialect.name),
                reason => format!(
                    "{} did not start the container: {}",
                    self.dialect.name,
                    bounded(reason)
                ),
            }
        })
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // Where it fails, the next kcap removes the container.
        let _ = self.kill();
    }
}

/// Removes a container by id or name, running or not. One that is not there is removed.
///
/// # Errors
/// Where it may still be there.
pub(super) fn remove(dialect: &Dialect, container: &str) -> Result<()> {
    let words = dialect.remove.iter().copied().chain([container]);
    let answer = Call::new(dialect.name, words).run()?;
    let gone = [
        "no such container",
        "No such container",
        "already in progress",
    ];
    if !answer.success && !gone.iter().any(|text| answer.complaint.contains(text)) {
        bail!(
            "{} cannot remove the container {container}, which may still run: {}",
            dialect.name,
            answer.complaint
        );
    }
    Ok(())
}
