//! A container of the runtime's, from before its start until all that was made for it is gone.

use std::{fs, path::PathBuf};

use anyhow::Result;

use super::{bundle::Bundle, runtime::Runtime};
use crate::launch::{Container, oom::Log};

/// A bundle with what runs in it. Dropped, it is killed, and removed.
#[derive(Debug)]
pub struct Bundled {
    /// What runs it.
    pub runtime: Runtime,
    /// Its files.
    pub bundle: Bundle,
    /// The kernel's log, from before it was started.
    pub log: Option<Log>,
    /// The image that the executor writes: made empty before it starts.
    pub archive: Option<PathBuf>,
}

impl Container for Bundled {
    /// None: the runtime is the command, and the container's processes descend from it.
    fn id(&self) -> Option<String> {
        None
    }

    fn kill(&self) -> Result<()> {
        // A runtime that has not read it yet starts nothing.
        let _ = fs::remove_file(self.bundle.path.join("config.json"));
        self.runtime.delete(&self.bundle.state(), &self.bundle.id)
    }

    fn out_of_memory(&self) -> bool {
        self.log
            .as_ref()
            .is_some_and(|log| log.names(&self.bundle.cgroup()))
    }
}

impl Drop for Bundled {
    fn drop(&mut self) {
        if let Err(e) = self.kill() {
            // The next kcap tries again.
            log::warn!("{e:#}");
            self.bundle.leave();
        }
        if let Some(archive) = &self.archive
            && archive.metadata().is_ok_and(|meta| meta.len() == 0)
        {
            // The build did not come that far.
            let _ = fs::remove_file(archive);
        }
    }
}
