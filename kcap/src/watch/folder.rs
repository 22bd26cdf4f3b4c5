//! Reports in a folder of this host.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anyhow::{Context as _, Result};

use super::{
    Destination, place,
    retention::{Keep, Pruned, doomed},
};

/// Beginning of a file that is being written.
const OURS: &str = ".kcap-";
/// Ending of a file that is being written.
const PARTIAL: &str = ".partial";
/// Deepest folders that are looked through.
const DEPTH: usize = 24;

/// A folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes it where it is not there, and removes what an earlier kcap left half written in it.
    ///
    /// # Errors
    /// Where nothing can be written there.
    pub fn open(path: &Path) -> Result<Self> {
        let folder = Self {
            path: path.to_owned(),
        };
        let tried = || -> io::Result<()> {
            fs::create_dir_all(path)?;
            let probe = path.join(format!("{OURS}{}{PARTIAL}", std::process::id()));
            fs::write(&probe, "")?;
            fs::remove_file(&probe)
        };
        tried().with_context(|| {
            format!(
                "cannot write into {}: choose a folder that is writable, or can be made",
                path.display()
            )
        })?;
        folder.each(&mut |path, _| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(OURS) && name.ends_with(PARTIAL) {
                // Another may have done so.
                let _ = fs::remove_file(path);
            }
        });
        Ok(folder)
    }

    /// Calls `found` with each file below it; links are not followed.
    fn each(&self, found: &mut dyn FnMut(&Path, &fs::Metadata)) {
        let mut folders = vec![(self.path.clone(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                // Of the entry itself: it may be a link.
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() && depth < DEPTH {
                    folders.push((entry.path(), depth + 1));
                } else if meta.is_file() {
                    found(&entry.path(), &meta);
                }
            }
        }
    }
}

impl Destination for Folder {
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        let folder = path.parent().unwrap_or(&self.path);
        let partial = folder.join(format!("{OURS}{}{PARTIAL}", std::process::id()));
        let write = || -> io::Result<()> {
            fs::create_dir_all(folder)?;
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o640)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&partial)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&partial, &path)?;
            // The name is as lasting as the bytes.
            File::open(folder)?.sync_all()
        };
        write().map_err(|e| {
            let _ = fs::remove_file(&partial);
            anyhow::Error::new(e).context(format!("cannot write {}", path.display()))
        })
    }

    fn prune(&mut self, keep: &Keep, now: u64) -> Result<Pruned> {
        let mut paths = vec![];
        let mut reports = vec![];
        self.each(&mut |path, meta| {
            if path
                .file_name()
                .is_some_and(|name| place::is_name(&name.to_string_lossy()))
            {
                let modified = meta.modified().ok();
                let time = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                reports.push((time.map_or(now, |time| time.as_secs()), meta.len()));
                paths.push(path.to_owned());
            }
        });
        let mut pruned = Pruned::default();
        for at in doomed(&reports, keep, now) {
            let path = &paths[at];
            match fs::remove_file(path) {
                Ok(()) => {
                    pruned.reports += 1;
                    pruned.bytes += reports[at].1;
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    return Err(e).with_context(|| format!("cannot remove {}", path.display()));
                }
            }
            // Folders that are empty now go too, up to the root; others refuse.
            for folder in path.ancestors().skip(1).take_while(|f| **f != self.path) {
                if fs::remove_dir(folder).is_err() {
                    break;
                }
            }
        }
        Ok(pruned)
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_whole_and_what_is_left_half_written_goes() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("out");
        let mut folder = Folder::open(&root).unwrap();
        folder.put("a/b/c.json", b"{}\n").unwrap();
        assert_eq!(fs::read(root.join("a/b/c.json")).unwrap(), b"{}\n");
        fs::write(root.join("a/b/.kcap-12.partial"), "half").unwrap();
        fs::write(root.join("a/b/.12.partial"), "another's").unwrap();
        folder = Folder::open(&root).unwrap();
        assert!(!root.join("a/b/.kcap-12.partial").exists());
        assert!(root.join("a/b/.12.partial").exists());
        // The folder is removed meanwhile: it is made again.
        fs::remove_dir_all(&root).unwrap();
        folder.put("a/d.json", b"{}").unwrap();
        assert!(root.join("a/d.json").exists());
        // Nothing is left behind of what could not be written.
        fs::create_dir(root.join("a/e.json")).unwrap();
        assert!(folder.put("a/e.json", b"{}").is_err());
        assert_eq!(fs::read_dir(root.join("a")).unwrap().count(), 2);
    }

    #[test]
    fn links_are_not_followed_and_empty_folders_go() {
        let dir = tempfile::tempdir().unwrap();
        let (root, other) = (dir.path().join("out"), dir.path().join("other"));
        fs::create_dir(&other).unwrap();
        let name = "20261128T063731.123Z-nocommit-nocontainer-1.json";
        fs::write(other.join(name), "{}").unwrap();
        let mut folder = Folder::open(&root).unwrap();
        folder.put(&format!("t/p/{name}"), b"{}").unwrap();
        // Somebody else's.
        folder.put("package.json", b"{}").unwrap();
        std::os::unix::fs::symlink(&other, root.join("link")).unwrap();
        let keep = Keep {
            age: None,
            bytes: Some(0),
        };
        let pruned = folder.prune(&keep, u64::MAX / 2).unwrap();
        assert_eq!(
            pruned,
            Pruned {
                reports: 1,
                bytes: 2
            }
        );
        assert!(other.join(name).exists() && !root.join("t").exists());
        assert!(root.join("package.json").exists());
    }
}
