//! Base images in kcap's cache: an OCI layout each, named after the digest of its manifest; what names
//! meant when they were last asked for; and what is removed once the folder becomes too large.
//!
//! Whoever uses a layout holds a shared lock on its folder, so that no other kcap removes it meanwhile.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::manifest::{Descriptor, Manifest, media_type};
use crate::launch::oci::{cache::Cache, image};

/// Most bytes that are kept beyond what is in use.
pub const MOST: u64 = 10 << 30;

/// The folder.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

/// What a name meant.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Meant {
    /// The name, with all that decides what it means.
    pub key: String,
    /// Digest of what it means: a list or an image.
    pub top: String,
    /// Digest of the image.
    pub image: String,
}

/// A kept image, in use.
#[derive(Debug)]
pub struct Kept {
    dir: PathBuf,
    /// Locked.
    _folder: File,
    /// Digest of its manifest.
    pub image: String,
    /// What it is made of.
    pub blobs: Vec<Descriptor>,
}

/// A folder for what is being made, with a lock while it is. Dropped, it is gone.
#[derive(Debug)]
pub struct Making {
    pub path: PathBuf,
    _folder: File,
}

impl Store {
    /// The one in kcap's cache. Removes what a kcap that was killed left half made.
    ///
    /// # Errors
    /// Where there is no place for it.
    pub fn open() -> Result<Self> {
        Self::at(Cache::find()?.bases())
    }

    pub(super) fn at(dir: PathBuf) -> Result<Self> {
        for name in ["images", "names", "making"] {
            let dir = dir.join(name);
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let store = Self { dir };
        for left in store.folders("making") {
            let _ = remove(&left, &left);
        }
        Ok(store)
    }

    /// A folder on the file system of the store.
    ///
    /// # Errors
    /// The system's.
    pub fn making(&self) -> Result<Making> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = (self.dir.join("making")).join(format!("{}-{count}", std::process::id()));
            let make = || {
                fs::create_dir(&path)?;
                let folder = File::open(&path)?;
                lock(&folder, libc::LOCK_EX)?;
                Ok::<_, io::Error>(folder)
            };
            match make() {
                // Before it was locked, another kcap may have taken it for one that is left.
                Ok(folder) if !is(&folder, &path) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound && self.dir.exists() => {}
                Ok(folder) => {
                    return Ok(Making {
                        path,
                        _folder: folder,
                    });
                }
                Err(e) => return Err(e).with_context(|| format!("cannot make {}", path.display())),
            }
        }
    }

    /// What a name meant last, where its image is still here.
    pub fn meant(&self, key: &str) -> Option<(Meant, Kept)> {
        let bytes = fs::read(self.name(key)).ok()?;
        let meant: Meant = serde_json::from_slice(&bytes).ok()?;
        let kept = self.kept(&meant.image).filter(|_| meant.key == key)?;
        // The list is beside the image that was taken from it.
        kept.manifest(&meant.top).ok()?;
        Some((meant, kept))
    }

    /// A kept image, used from now on; `None` where it is not here, or not whole.
    pub fn kept(&self, image: &str) -> Option<Kept> {
        let dir = self.place(image)?;
        let folder = File::open(&dir).ok()?;
        lock(&folder, libc::LOCK_SH).ok()?;
        // It may have been removed before the lock was had.
        if !is(&folder, &dir) {
            return None;
        }
        let mut kept = Kept {
            dir,
            _folder: folder,
            image: image.to_owned(),
            blobs: Vec::new(),
        };
        let Ok(Manifest::Image(blobs)) = Manifest::read(&kept.manifest(image).ok()?) else {
            return None;
        };
        let whole = blobs.iter().all(|blob| {
            let found = kept
                .path(&blob.digest)
                .and_then(|path| fs::metadata(path).ok());
            found.is_some_and(|found| found.is_file() && found.len() == blob.size)
        });
        // When it was used last; where that cannot be noted, it goes the sooner.
        let _ = kept._folder.set_modified(SystemTime::now());
        kept.blobs = blobs;
        whole.then_some(kept)
    }

    /// Keeps an image that a program wrote as containers' `dir:` layout, and the list that it is of.
    ///
    /// # Errors
    /// Where it is not this image, or not whole; the system's.
    pub fn keep(&self, image: &str, top: &[u8], from: &Path, making: &Making) -> Result<Kept> {
        let manifest = fs::read(from.join("manifest.json")).context("it has no manifest")?;
        ensure!(
            image::written(&Sha256::digest(&manifest)) == image,
            "what came is not {image}"
        );
        let Manifest::Image(blobs) = Manifest::read(&manifest)? else {
            anyhow::bail!("{image} is a list");
        };
        let layout = making.path.join("layout");
        fs::create_dir_all(layout.join("blobs/sha256"))?;
        for blob in blobs {
            let path = image::blob(&blob.digest)?;
            let name = path.file_name().context("a digest has a name")?;
            let (given, place) = (from.join(name), layout.join(&path));
            let found =
                fs::symlink_metadata(&given).with_context(|| format!("no {}", blob.digest))?;
            ensure!(
                found.is_file() && found.len() == blob.size,
                "{} has {} bytes, not {}",
                blob.digest,
                found.len(),
                blob.size
            );
            fs::rename(&given, &place)?;
        }
        fs::write(layout.join(image::blob(image)?), &manifest)?;
        fs::write(
            layout.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )?;
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": media_type(&manifest)?, "digest": image, "size": manifest.len()}]});
        fs::write(layout.join("index.json"), index.to_string())?;
        // A power cut must not leave a whole name with half its files.
        rustix::fs::syncfs(File::open(&layout)?)?;
        let place = self.place(image).context("no digest")?;
        if fs::rename(&layout, &place).is_err() {
            // Another kcap was faster, or what is there is damaged.
            if self.kept(image).is_none() {
                remove_soon(&place, &making.path.join("damaged"))
                    .context("it cannot be replaced")?;
                fs::rename(&layout, &place)?;
            }
        }
        let kept = self
            .kept(image)
            .with_context(|| format!("{} is damaged", place.display()))?;
        self.add(&kept, top, making)?;
        Ok(kept)
    }

    /// Keeps a list beside an image of it.
    ///
    /// # Errors
    /// The system's.
    pub fn add(&self, kept: &Kept, top: &[u8], making: &Making) -> Result<()> {
        let digest = image::written(&Sha256::digest(top));
        let place = kept.path(&digest).context("no digest")?;
        if kept.manifest(&digest).is_err() {
            let new = making.path.join("list");
            fs::write(&new, top)
                .and_then(|()| fs::rename(&new, &place))
                .with_context(|| format!("cannot write {}", place.display()))?;
        }
        Ok(())
    }

    /// Keeps what a name means.
    ///
    /// # Errors
    /// The system's.
    pub fn know(&self, meant: &Meant, making: &Making) -> Result<()> {
        let (new, place) = (making.path.join("name"), self.name(&meant.key));
        fs::write(&new, serde_json::to_vec(meant)?)
            .and_then(|()| fs::rename(&new, &place))
            .with_context(|| format!("cannot write {}", place.display()))
    }

    /// Removes images that nobody uses, those that were used longest ago first, until no more than
    /// this many bytes are left or all are in use; and names of what is gone.
    pub fn shrink(&self, most: u64) {
        let mut images: Vec<(SystemTime, u64, PathBuf)> = self
            .folders("images")
            .into_iter()
            .filter_map(|dir| {
                let used = fs::metadata(&dir).and_then(|meta| meta.modified()).ok()?;
                Some((used, size(&dir), dir))
            })
            .collect();
        images.sort();
        let mut total: u64 = images.iter().map(|(_, size, _)| size).sum();
        if total <= most {
            return;
        }
        let Ok(making) = self.making() else { return };
        for (nth, (_, size, dir)) in images.iter().enumerate() {
            if total <= most {
                break;
            }
            if remove(dir, &making.path.join(nth.to_string())).is_ok() {
                total -= size;
            }
        }
        for file in self.folders("names") {
            let meant = fs::read(&file).ok().and_then(|bytes| {
                let meant: Meant = serde_json::from_slice(&bytes).ok()?;
                self.place(&meant.image)
            });
            if !meant.is_some_and(|place| place.exists()) {
                // It says nothing any more.
                let _ = fs::remove_file(&file);
            }
        }
    }

    fn place(&self, image: &str) -> Option<PathBuf> {
        let hex = image::blob(image).ok()?.file_name()?.to_owned();
        Some(self.dir.join("images").join(hex))
    }

    fn name(&self, key: &str) -> PathBuf {
        let file = image::written(&Sha256::digest(key)).replace(':', "-");
        self.dir.join("names").join(file)
    }

    /// What is in one of its folders.
    fn folders(&self, name: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.join(name)).into_iter().flatten();
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect()
    }
}

impl Kept {
    /// Where a blob or manifest of it is, if it is.
    pub fn path(&self, digest: &str) -> Option<PathBuf> {
        Some(self.dir.join(image::blob(digest).ok()?))
    }

    /// A manifest that is kept with it.
    ///
    /// # Errors
    /// Where it is not there, or damaged.
    pub fn manifest(&self, digest: &str) -> Result<Vec<u8>> {
        let path = self.path(digest).context("it is no digest")?;
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(
            image::written(&Sha256::digest(&bytes)) == digest,
            "{} is damaged",
            path.display()
        );
        Ok(bytes)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // What is left is removed by the next kcap.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Locks an open folder.
fn lock(folder: &File, how: libc::c_int) -> io::Result<()> {
    // SAFETY: an open descriptor, and numbers.
    match unsafe { libc::flock(folder.as_raw_fd(), how) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// An open folder is what this path leads to.
fn is(folder: &File, path: &Path) -> bool {
    let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    match (folder.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => same(open, there),
        _ => false,
    }
}

/// Removes a folder that nobody has locked, by way of another name, so that no half of it is ever there.
fn remove(dir: &Path, by: &Path) -> io::Result<()> {
    let folder = File::open(dir)?;
    lock(&folder, libc::LOCK_EX | libc::LOCK_NB)?;
    if !is(&folder, dir) {
        return Err(io::ErrorKind::NotFound.into());
    }
    if dir != by {
        fs::rename(dir, by)?;
    }
    fs::remove_dir_all(by)
}

/// As [`remove`], but for some milliseconds not the first refusal counts: a program that another thread is
/// starting has all that is open here, locks included, until it is executed.
fn remove_soon(dir: &Path, by: &Path) -> io::Result<()> {
    for _ in 0..20 {
        match remove(dir, by) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
    remove(dir, by)
}

/// Bytes of a layout.
fn size(layout: &Path) -> u64 {
    let blobs = fs::read_dir(layout.join("blobs/sha256"))
        .into_iter()
        .flatten();
    blobs
        .filter_map(|blob| Some(blob.ok()?.metadata().ok()?.len()))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image of one blob, as a program writes it; its digest and manifest.
    fn written(dir: &Path, blob: &[u8]) -> (String, Vec<u8>) {
        let digest = image::written(&Sha256::digest(blob));
        let part = json!({"digest": digest, "size": blob.len()});
        let manifest = json!({"config": part, "layers": []})
            .to_string()
            .into_bytes();
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("manifest.json"), &manifest).unwrap();
        fs::write(dir.join(digest.strip_prefix("sha256:").unwrap()), blob).unwrap();
        (image::written(&Sha256::digest(&manifest)), manifest)
    }

    fn keep(store: &Store, blob: &[u8]) -> (Kept, Meant) {
        let making = store.making().unwrap();
        let from = making.path.join("from");
        let (image, manifest) = written(&from, blob);
        let kept = store.keep(&image, &manifest, &from, &making).unwrap();
        let meant = Meant {
            key: format!("name of {}", blob.len()),
            top: image.clone(),
            image,
        };
        store.know(&meant, &making).unwrap();
        (kept, meant)
    }

    #[test]
    fn the_oldest_go_first_and_never_what_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().to_owned()).unwrap();
        let blobs = [vec![1; 1001], vec![2; 1002], vec![3; 1003]];
        let [first, second, third] = blobs.map(|blob| keep(&store, &blob));
        let hour = Duration::from_secs(3600);
        for (age, (kept, _)) in [(3, &first), (2, &second), (1, &third)] {
            let then = SystemTime::now() - hour * age;
            kept._folder.set_modified(then).unwrap();
        }
        let there = || store.folders("images").len();
        // All are used.
        store.shrink(0);
        assert_eq!(there(), 3);
        drop(first.0);
        drop(second.0);
        store.shrink(1 << 20);
        assert_eq!(there(), 3, "small enough");
        store.shrink(3000);
        assert_eq!(there(), 2);
        assert!(store.meant(&first.1.key).is_none(), "the oldest is gone");
        assert_eq!(store.folders("names").len(), 2);
        let (meant, again) = store.meant(&second.1.key).unwrap();
        assert_eq!(meant, second.1);
        drop(third.0);
        store.shrink(0);
        assert_eq!(there(), 1, "one is used");
        drop(again);
        assert_eq!(store.folders("making").len(), 0);
    }

    #[test]
    fn what_is_damaged_is_not_used_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().to_owned()).unwrap();
        let (kept, meant) = keep(&store, b"blob");
        let blob = kept.path(&kept.blobs[0].digest).unwrap();
        let manifest = kept.path(&kept.image).unwrap();
        drop(kept);
        for (file, text) in [(&blob, "blo"), (&manifest, "{}")] {
            fs::write(file, text).unwrap();
            assert!(store.meant(&meant.key).is_none());
            drop(keep(&store, b"blob"));
            assert!(store.meant(&meant.key).is_some());
        }
        fs::remove_file(&blob).unwrap();
        assert!(store.kept(&meant.image).is_none());
        assert!(store.kept("sha256:../..").is_none());
    }

    #[test]
    fn another_image_than_was_asked_for_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().to_owned()).unwrap();
        let making = store.making().unwrap();
        let from = making.path.join("from");
        let (image, manifest) = written(&from, b"blob");
        let other = image::written(&Sha256::digest("x"));
        assert!(store.keep(&other, &manifest, &from, &making).is_err());
        let blob = image::written(&Sha256::digest("blob")).replace("sha256:", "");
        fs::write(from.join(&blob), "short").unwrap();
        assert!(store.keep(&image, &manifest, &from, &making).is_err());
        assert!(store.kept(&image).is_none());
    }

    #[test]
    fn what_a_killed_kcap_left_is_removed_and_what_is_made_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().to_owned()).unwrap();
        let left = dir.path().join("making/1-0");
        fs::create_dir_all(left.join("x")).unwrap();
        let making = store.making().unwrap();
        Store::at(dir.path().to_owned()).unwrap();
        assert!(!left.exists());
        assert!(making.path.exists());
    }
}
