//! Where kcap keeps executor images that it unpacked, base images, and the root file systems of
//! builds.
//!
//! On a real file system, in the first of `$XDG_CACHE_HOME/kcap`, `~/.cache/kcap` and
//! `/var/cache/kcap` that serves: only root can change it, as builds run what is in it, and it is
//! mounted without `nosuid`, `nodev` and `noexec`, which would hold inside the container and change
//! what a build needs. Not in `/tmp` or `/run`: in memory, a build of some gigabytes can fail.

use std::{
    borrow::Cow,
    env, fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::fs::StatVfsMountFlags;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::image::{self, Image, Process};

/// The cache, with its folders there.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

/// An executor image, unpacked.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// Its files. They are never changed.
    pub rootfs: PathBuf,
    /// The process that it is run as.
    pub process: Process,
}

/// An image that was pulled before.
#[derive(Clone, Debug)]
pub struct Known {
    /// What its name meant then, as the program says that pulled it.
    pub version: String,
    /// Digest of its configuration.
    pub image: String,
    /// It.
    pub unpacked: Unpacked,
}

/// A file that says what a name meant.
#[derive(Deserialize, Serialize)]
struct Meant<'a> {
    name: Cow<'a, str>,
    version: Cow<'a, str>,
    image: Cow<'a, str>,
}

impl Cache {
    /// Finds a place, and makes the folders.
    ///
    /// # Errors
    /// Where no place serves: what is wrong with each.
    pub fn find() -> Result<Self> {
        let absolute = |name| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        let places = [
            absolute("XDG_CACHE_HOME"),
            absolute("HOME").map(|home| home.join(".cache")),
            Some("/var/cache".into()),
        ];
        let mut wrong = Vec::new();
        for place in places.into_iter().flatten() {
            let dir = place.join("kcap");
            match Self::at(&dir) {
                Ok(cache) => return Ok(cache),
                Err(e) => wrong.push(format!("{e:#}")),
            }
        }
        bail!(
            "no place for root file systems: {}; set XDG_CACHE_HOME to a folder of root's on a disk",
            wrong.join("; ")
        )
    }

    fn at(dir: &Path) -> Result<Self> {
        // Without this, a folder of another's would be found out only after writing to it.
        let nearest = dir
            .ancestors()
            .find(|p| p.exists())
            .unwrap_or(Path::new("/"));
        only_roots(nearest)?;
        for name in ["", "executors", "names", "builds", "proofs", "pulled"] {
            let dir = dir.join(name);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let dir = dir.canonicalize()?;
        only_roots(&dir)?;
        let flags = rustix::fs::statvfs(&dir)?.f_flag;
        for (flag, name) in [
            (StatVfsMountFlags::RDONLY, "ro"),
            (StatVfsMountFlags::NOSUID, "nosuid"),
            (StatVfsMountFlags::NODEV, "nodev"),
            (StatVfsMountFlags::NOEXEC, "noexec"),
        ] {
            ensure!(!flags.contains(flag), "{} is mounted {name}", dir.display());
        }
        Ok(Self { dir })
    }

    /// Where the bundles of builds are.
    pub fn builds(&self) -> PathBuf {
        self.dir.join("builds")
    }

    /// Where replays are kept.
    pub fn proofs(&self) -> PathBuf {
        self.dir.join("proofs")
    }

    /// Where base images are.
    pub fn bases(&self) -> PathBuf {
        self.dir.join("pulled")
    }

    /// An image's files: those that are there, or unpacked now, by way of a folder on the same file
    /// system that is the caller's to remove.
    ///
    /// # Errors
    /// Where it cannot be unpacked.
    pub fn unpacked(&self, image: &Image, scratch: &Path) -> Result<Unpacked> {
        let place = self.place(&image.id);
        if let Some(found) = Unpacked::read(&place) {
            return Ok(found);
        }
        // Under a name of its own until it is whole.
        let making = scratch.join("executor");
        let rootfs = making.join("rootfs");
        fs::create_dir_all(&rootfs)?;
        image.unpack(&rootfs)?;
        fs::write(
            making.join("process.json"),
            serde_json::to_vec(&image.process())?,
        )?;
        // A power cut must not leave a whole name with half its files.
        rustix::fs::syncfs(fs::File::open(&making)?)?;
        match fs::rename(&making, &place) {
            Ok(()) => {}
            // Another kcap was faster.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) => {}
            Err(e) => return Err(e).with_context(|| format!("cannot make {}", place.display())),
        }
        Unpacked::read(&place).ok_or_else(|| anyhow!("{} is damaged: remove it", place.display()))
    }
}

impl Cache {
    /// Where an image is, by its id.
    fn place(&self, id: &str) -> PathBuf {
        self.dir.join("executors").join(id.replace(':', "-"))
    }

    fn file(&self, name: &str) -> PathBuf {
        let file = image::written(&Sha256::digest(name));
        self.dir.join("names").join(file.replace(':', "-"))
    }

    /// What is known of a name; nothing where the image is not there any more.
    pub fn known(&self, name: &str) -> Option<Known> {
        let bytes = fs::read(self.file(name)).ok()?;
        let meant: Meant<'_> = serde_json::from_slice(&bytes).ok()?;
        // The id becomes a path.
        let whole = meant.name == name && image::blob(&meant.image).is_ok();
        let unpacked = whole.then(|| Unpacked::read(&self.place(&meant.image)));
        Some(Known {
            unpacked: unpacked.flatten()?,
            version: meant.version.into_owned(),
            image: meant.image.into_owned(),
        })
    }

    /// Keeps what a name means, by way of a folder as [`Cache::unpacked`] takes it.
    ///
    /// # Errors
    /// The system's.
    pub fn know(&self, name: &str, version: &str, image: &str, scratch: &Path) -> Result<()> {
        let meant = Meant {
            name: name.into(),
            version: version.into(),
            image: image.into(),
        };
        let (making, place) = (scratch.join("name"), self.file(name));
        fs::write(&making, serde_json::to_vec(&meant)?)
            .and_then(|()| fs::rename(&making, &place))
            .with_context(|| format!("cannot write {}", place.display()))
    }
}

impl Unpacked {
    fn read(place: &Path) -> Option<Self> {
        let rootfs = place.join("rootfs");
        let process = fs::read(place.join("process.json")).ok()?;
        rootfs.is_dir().then_some(Self {
            rootfs,
            process: serde_json::from_slice(&process).ok()?,
        })
    }
}

/// Nobody but root can change what a path leads to.
fn only_roots(path: &Path) -> Result<()> {
    for part in path.canonicalize()?.ancestors() {
        let meta = part.symlink_metadata()?;
        let shared = meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0;
        ensure!(
            meta.uid() == 0 && !shared,
            "{} can be changed by others than root",
            part.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        if fs::metadata(dir.path()).unwrap().uid() != 0 {
            // Not root: nothing here is root's alone.
            assert!(only_roots(dir.path()).is_err());
            return;
        }
        only_roots(dir.path()).unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let below = open.join("below");
        fs::create_dir(&below).unwrap();
        for path in [&open, &below] {
            let error = only_roots(path).unwrap_err().to_string();
            assert!(error.contains("open can be changed"), "{error}");
        }
        // A cache is not made there either.
        assert!(Cache::at(&open.join("kcap")).is_err());
        assert!(!open.join("kcap").exists());
    }

    #[test]
    fn a_name_is_known_as_long_as_its_image_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache {
            dir: dir.path().to_owned(),
        };
        let id = image::written(&Sha256::digest("x"));
        let rootfs = cache.place(&id).join("rootfs");
        fs::create_dir_all(&rootfs).unwrap();
        fs::create_dir(dir.path().join("names")).unwrap();
        fs::write(cache.place(&id).join("process.json"), "{}").unwrap();
        assert!(cache.known("a:1").is_none());
        cache.know("a:1", "first", &id, dir.path()).unwrap();
        cache.know("a:1", "second", &id, dir.path()).unwrap();
        let known = cache.known("a:1").unwrap();
        assert_eq!((known.version.as_str(), &known.image), ("second", &id));
        assert_eq!(known.unpacked.rootfs, rootfs);
        assert!(cache.known("a:2").is_none());
        // A file that was moved, or leads elsewhere, says nothing.
        fs::copy(cache.file("a:1"), cache.file("a:2")).unwrap();
        assert!(cache.known("a:2").is_none());
        cache.know("a:3", "x", "sha256:../..", dir.path()).unwrap();
        assert!(cache.known("a:3").is_none());
        fs::remove_dir_all(&rootfs).unwrap();
        assert!(cache.known("a:1").is_none());
    }
}
