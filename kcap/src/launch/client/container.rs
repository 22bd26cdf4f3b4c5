//! A container that was made.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use serde_json::Value;

use super::{Archive, Dialect, pointer, remains};
use crate::launch::{
    Container,
    call::{Call, bounded},
};

/// A container of docker or podman. Dropped, it is removed.
pub(super) struct Made {
    dialect: &'static Dialect,
    id: String,
    removed: AtomicBool,
    /// Dropped after the container, which may be writing to it.
    _archive: Option<Archive>,
}

impl Made {
    pub fn new(dialect: &'static Dialect, id: String, archive: Option<Archive>) -> Self {
        Self {
            dialect,
            id,
            removed: AtomicBool::new(false),
            _archive: archive,
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

    fn out_of_memory(&self) -> bool {
        let state = self.state();
        // Where it succeeded, what was killed was some program that could be spared.
        state["OOMKilled"] == true && state["ExitCode"] != 0
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
