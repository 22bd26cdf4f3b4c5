//! Where replays are kept, so that a proof that was interrupted goes on, and one that is made again
//! builds only what is not known: a folder for each build, named after all that it depends on.
//!
//! What is kept is a build's trace and what its image differs in, not the image.

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::FlockOperation;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{judge::Replay, planner::Set};
use crate::{
    capture::{self, Capture},
    compare::{self, Image},
};

/// Changes where older files cannot be read any more.
const FORMAT: u32 = 1;
/// Most bytes of all that is kept; what was used longest ago goes first.
const KEPT: u64 = 1 << 30;
/// Most bytes of a file, unpacked.
const FILE: u64 = 256 << 20;
/// How well it is packed: quick.
const LEVEL: i32 = 3;
/// Replays of another day are only of use where the world is still the same.
pub const FRESH: Duration = Duration::from_secs(3600);
/// The first image of a build with the starting set.
const REFERENCE: &str = "reference.zst";
/// What was seen of that build.
const CAPTURE: &str = "reference.kcap";

/// All that a build's outcome depends on, but for its capabilities.
#[derive(Debug, Serialize)]
pub struct Inputs<'a> {
    /// The Dockerfile's path and bytes, and those of its ignore file, as SHA-256.
    pub dockerfile: &'a str,
    /// The context, as [`super::context::digest`] gives it.
    pub context: &'a str,
    /// What runs the build.
    pub engine: &'a str,
    /// Digest of the executor.
    pub executor: &'a str,
    /// Digests of base images, by name.
    pub bases: &'a std::collections::BTreeMap<String, String>,
    /// Flags, variables, network and seccomp profile: all else that was given.
    pub given: &'a [String],
    /// The starting set.
    pub start: Set,
}

/// Where replays are kept that nobody needs root for: `$XDG_CACHE_HOME/kcap/proofs`, else the same in
/// `~/.cache`. They hold no programs, but what builds printed: only their owner can read them.
///
/// # Errors
/// Where there is no such folder, or others can change it.
pub fn own_place() -> Result<PathBuf> {
    let absolute = |name| (env::var_os(name).map(PathBuf::from)).filter(|path| path.is_absolute());
    let cache =
        absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let cache = cache.context("there is no folder for replays: set XDG_CACHE_HOME")?;
    let proofs = cache.join("kcap/proofs");
    let cannot = || {
        format!(
            "cannot keep replays in {}: set XDG_CACHE_HOME",
            proofs.display()
        )
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&proofs)
        .with_context(cannot)?;
    let found = fs::metadata(&proofs).with_context(cannot)?;
    ensure!(
        found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0,
        "others can change {}: set XDG_CACHE_HOME to a folder of your own",
        proofs.display()
    );
    Ok(proofs)
}

/// The folder of one build. While it is open, no other kcap uses it.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Holds the lock.
    _lock: File,
    next: usize,
}

impl Store {
    /// Opens the folder of a build below `proofs`, and makes room for it.
    ///
    /// # Errors
    /// Where there is no place for it, or another kcap proves the same build now.
    pub fn open(proofs: &Path, inputs: &Inputs<'_>) -> Result<Self> {
        let mut hash = Sha256::new();
        // What is kept are reports: another kcap may come to others.
        hash.update(fs::read("/proc/self/exe").unwrap_or_default());
        hash.update(FORMAT.to_le_bytes());
        // The kernel decides what is asked for.
        hash.update(fs::read("/proc/sys/kernel/osrelease").unwrap_or_default());
        hash.update(serde_json::to_vec(inputs)?);
        let name: String = hash.finalize()[..16]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        make_room(proofs, &name);
        Self::at(proofs.join(name))
    }

    fn at(folder: PathBuf) -> Result<Self> {
        let cannot = || format!("cannot keep replays in {}", folder.display());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(cannot)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join("lock"))
            .with_context(cannot)?;
        ensure!(
            rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
            "another kcap proves the same build now: wait for it, or end it"
        );
        let mut store = Self {
            folder,
            _lock: lock,
            next: 0,
        };
        // Left by one that was killed.
        for (name, path) in store.files() {
            if name.ends_with(".tar") || name.ends_with(".new") {
                let _ = fs::remove_file(path);
            } else if let Some(number) = number(&name) {
                store.next = store.next.max(number + 1);
            }
        }
        Ok(store)
    }

    /// What is kept: the first image of a build with the starting set, and replays in their order.
    /// What cannot be read is not there.
    pub fn read(&self) -> Option<(Image, Vec<Replay>)> {
        let reference = File::open(self.folder.join(REFERENCE)).ok()?;
        let reference = compare::read_inventory(reference).ok()?;
        let mut names: Vec<(usize, String)> = self
            .files()
            .filter_map(|(name, _)| Some((number(&name)?, name)))
            .collect();
        names.sort();
        let replays = names.iter().filter_map(|(_, name)| {
            let replay: Replay = serde_json::from_slice(&self.unpacked(name)?).ok()?;
            Some(Replay {
                kept: true,
                ..replay
            })
        });
        Some((reference, replays.collect()))
    }

    /// How long ago a replay was kept last.
    pub fn age(&self) -> Duration {
        let newest = self.files().filter(|(name, _)| number(name).is_some());
        let times = newest.filter_map(|(_, path)| path.metadata().ok()?.modified().ok());
        times
            .max()
            .and_then(|time| SystemTime::now().duration_since(time).ok())
            .unwrap_or(Duration::MAX)
    }

    /// Keeps the first image of a build with the starting set.
    ///
    /// # Errors
    /// The system's.
    pub fn keep_reference(&self, image: &Image) -> Result<()> {
        self.write(REFERENCE, |file| compare::write_inventory(image, file))
    }

    /// Keeps what was seen of that build.
    ///
    /// # Errors
    /// The system's.
    pub fn keep_capture(&self, seen: &Capture) -> Result<()> {
        self.write(CAPTURE, |file| Ok(capture::write(seen, file)?))
    }

    /// What was seen of the first build with the starting set.
    pub fn read_capture(&self) -> Option<Capture> {
        capture::read(File::open(self.folder.join(CAPTURE)).ok()?).ok()
    }

    /// Keeps a replay.
    ///
    /// # Errors
    /// The system's.
    pub fn keep(&mut self, replay: &Replay) -> Result<()> {
        let name = format!("{}.zst", self.next);
        self.next += 1;
        let bytes = serde_json::to_vec(replay)?;
        self.write(&name, |mut file| {
            Ok(file.write_all(&zstd::encode_all(&bytes[..], LEVEL)?)?)
        })
    }

    /// Forgets all that is kept.
    pub fn clear(&mut self) {
        for (name, path) in self.files() {
            if name.ends_with(".zst") || name == CAPTURE {
                let _ = fs::remove_file(path);
            }
        }
        self.next = 0;
    }

    /// Where a build can write its image; the caller removes it.
    pub fn archive(&self, number: usize) -> PathBuf {
        self.folder.join(format!("image-{number}.tar"))
    }

    fn files(&self) -> impl Iterator<Item = (String, PathBuf)> + use<> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
    }

    fn unpacked(&self, name: &str) -> Option<Vec<u8>> {
        let file = File::open(self.folder.join(name)).ok()?;
        let mut bytes = vec![];
        let unpacked = zstd::Decoder::new(file).ok()?;
        unpacked.take(FILE + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= FILE).then_some(bytes)
    }

    /// A file is there whole or not at all.
    fn write(&self, name: &str, contents: impl FnOnce(&File) -> Result<()>) -> Result<()> {
        let (new, place) = (
            self.folder.join(format!("{name}.new")),
            self.folder.join(name),
        );
        let write = || -> Result<()> {
            let file = File::create(&new)?;
            contents(&file)?;
            file.sync_data()?;
            Ok(fs::rename(&new, &place)?)
        };
        write().with_context(|| format!("cannot keep a replay in {}", place.display()))
    }
}

fn number(name: &str) -> Option<usize> {
    name.strip_suffix(".zst")?.parse().ok()
}

/// Removes what was used longest ago, until there is room. What is in use stays, and so does `mine`.
fn make_room(proofs: &Path, mine: &str) {
    let size = |folder: &Path| -> (SystemTime, u64) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let metas = entries.filter_map(|entry| entry.metadata().ok());
        metas.fold((SystemTime::UNIX_EPOCH, 0), |(time, sum), meta| {
            let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            (time.max(used), sum + meta.len())
        })
    };
    let folders = fs::read_dir(proofs).into_iter().flatten().flatten();
    let mut found: Vec<(SystemTime, u64, PathBuf)> = folders
        .map(|folder| {
            let (time, sum) = size(&folder.path());
            (time, sum, folder.path())
        })
        .collect();
    found.sort();
    let mut sum: u64 = found.iter().map(|(_, size, _)| size).sum();
    for (_, size, folder) in found {
        if sum <= KEPT {
            return;
        }
        if folder.ends_with(mine) {
            continue;
        }
        // Held until it is gone, so that no other kcap begins there meanwhile.
        let Ok(_held) = Store::at(folder.clone()) else {
            continue;
        };
        if fs::remove_dir_all(&folder).is_ok() {
            sum -= size;
        }
    }
}
