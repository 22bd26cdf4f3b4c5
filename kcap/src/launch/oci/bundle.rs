//! The folders of builds: made, locked as long as their kcap lives, removed after.
//!
//! A bundle is `builds/kcap-<pid>-<n>` in the cache, with `config.json`, `rootfs/`, the runtime's
//! `state/`, and what the container sees of kcap's in `etc/`. A kcap that was killed leaves its
//! bundles behind, unlocked; the next one removes them.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, ensure};

use super::runtime::Runtime;

/// What the names of bundles, which are those of containers, start with.
const PREFIX: &str = "kcap-";

/// The folder of one build. Dropped, it is removed, in the background: a root file system can have
/// a hundred thousand files.
#[derive(Debug)]
pub struct Bundle {
    /// Name of the folder, and of the container.
    pub id: String,
    /// The folder.
    pub path: PathBuf,
    lock: Option<File>,
    left: bool,
    remover: Arc<Remover>,
}

/// Removes folders beside what else is done. Dropped, it waits until they are gone.
#[derive(Debug, Default)]
pub struct Remover(Mutex<Vec<JoinHandle<()>>>);

impl Bundle {
    /// Makes and locks a folder.
    ///
    /// # Errors
    /// The system's.
    pub fn create(builds: &Path, remover: &Arc<Remover>) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let _gate = gate(builds)?;
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let id = format!("{PREFIX}{}-{n}", std::process::id());
            let path = builds.join(&id);
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                // Of a namesake that was killed.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e).with_context(|| format!("cannot make {}", path.display())),
            }
            let mut bundle = Self {
                id,
                path,
                lock: None,
                left: false,
                remover: Arc::clone(remover),
            };
            let lock = File::open(&bundle.path)?;
            lock.try_lock()
                .with_context(|| format!("cannot lock {}", bundle.path.display()))?;
            bundle.lock = Some(lock);
            for name in ["rootfs", "state", "etc"] {
                fs::DirBuilder::new()
                    .mode(if name == "rootfs" { 0o755 } else { 0o700 })
                    .create(bundle.path.join(name))
                    .with_context(|| format!("cannot fill {}", bundle.path.display()))?;
            }
            return Ok(bundle);
        }
    }

    /// Leaves the folder to the next kcap: something may still run in it.
    pub fn leave(&mut self) {
        self.left = true;
    }

    /// The root file system.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// Where the runtime keeps its state.
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Path of the container's control group, in each hierarchy. The name is not one of those that
    /// the recorder takes for groups of its own.
    pub fn cgroup(&self) -> String {
        format!("/{PREFIX}oci-{}", &self.id[PREFIX.len()..])
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if !self.left {
            self.remover.remove(self.path.clone(), self.lock.take());
        }
    }
}

impl Remover {
    /// Starts to remove a folder; its lock is let go once it is gone.
    fn remove(&self, path: PathBuf, lock: Option<File>) {
        let work = move || {
            let _lock = lock;
            if let Err(e) = remove_tree(&path) {
                log::warn!("{e:#}");
            }
        };
        match thread::Builder::new()
            .name("kcap-remover".into())
            .spawn(work)
        {
            Ok(handle) => {
                let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                running.retain(|handle| !handle.is_finished());
                running.push(handle);
            }
            // The next kcap finds it.
            Err(e) => log::warn!("cannot start a thread: {e}"),
        }
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        let running = std::mem::take(self.0.get_mut().unwrap_or_else(PoisonError::into_inner));
        for handle in running {
            // A panic in it was printed.
            let _ = handle.join();
        }
    }
}

/// Removes the containers and bundles of kcaps that are gone.
///
/// # Errors
/// Where the folder of builds cannot be read. What cannot be removed is left, and told to the log.
pub fn remove_stale(builds: &Path, runtime: &Runtime) -> Result<()> {
    let mut stale = Vec::new();
    {
        let _gate = gate(builds)?;
        for entry in fs::read_dir(builds)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            let lock = File::open(entry.path())?;
            if lock.try_lock().is_ok() {
                stale.push((name.to_owned(), entry.path(), lock));
            }
        }
    }
    for (id, path, _lock) in stale {
        let gone = runtime
            .delete(&path.join("state"), &id)
            .and_then(|()| remove_tree(&path));
        if let Err(e) = gone {
            log::warn!("left behind by a kcap that was killed: {e:#}");
        }
    }
    Ok(())
}

/// Held while a bundle is made or stale ones are looked for: between the making of a folder and its
/// locking, it looks like one left behind.
fn gate(builds: &Path) -> Result<File> {
    let gate = File::open(builds).with_context(|| format!("cannot open {}", builds.display()))?;
    gate.lock()
        .with_context(|| format!("cannot lock {}", builds.display()))?;
    Ok(gate)
}

/// Removes a bundle, unless something is mounted in it: kcap mounts nothing there, so it would be
/// somebody's folder.
fn remove_tree(path: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read mounts")?;
    // Neither the cache's layout nor an id has a character that mountinfo escapes.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let inside = format!("/builds/{name}/");
    ensure!(
        !mounts.lines().any(|line| line
            .split(' ')
            .nth(4)
            .is_some_and(|at| at.contains(&inside))),
        "something is mounted in {}: unmount it, and remove it",
        path.display()
    );
    fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_bundle_is_removed_with_its_own() {
        let builds = tempfile::tempdir().unwrap();
        let remover = Arc::new(Remover::default());
        let one = Bundle::create(builds.path(), &remover).unwrap();
        let two = Bundle::create(builds.path(), &remover).unwrap();
        assert_ne!(one.id, two.id);
        assert!(one.cgroup().starts_with("/kcap-oci-"));
        fs::write(one.rootfs().join("file"), "x").unwrap();
        drop(one);
        drop(two);
        drop(remover);
        assert_eq!(fs::read_dir(builds.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_what_nobody_holds_is_stale() {
        let builds = tempfile::tempdir().unwrap();
        let remover = Arc::new(Remover::default());
        let held = Bundle::create(builds.path(), &remover).unwrap();
        let left = builds.path().join("kcap-1-0");
        fs::create_dir_all(left.join("state")).unwrap();
        fs::write(left.join("config.json"), "{}").unwrap();
        let others = builds.path().join("somebody's");
        fs::create_dir(&others).unwrap();
        let runtime = Runtime::find(Some(OsStr::new("/bin/false"))).unwrap();
        remove_stale(builds.path(), &runtime).unwrap();
        assert!(held.path.exists() && others.exists() && !left.exists());
        // A container that may still run keeps its bundle.
        fs::create_dir_all(left.join("state/kcap-1-0")).unwrap();
        remove_stale(builds.path(), &runtime).unwrap();
        assert!(left.exists());
    }
}
