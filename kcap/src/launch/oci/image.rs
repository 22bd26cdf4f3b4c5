//! An executor image on this host: an OCI layout (a folder, or a tar of one) or a docker archive.
//!
//! Only what is needed is read: the image for this processor, its configuration and its layers.
//! The configuration's digest is checked where one is given, and each layer against the
//! configuration's `diff_ids`, so that a damaged or mixed-up image is found in either form.

mod save;

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use tar::{Archive, EntryType};

use super::{
    layer,
    root::{Root, clean},
    tarball::{members, shown},
};

/// Most bytes of an index, a manifest or a configuration.
const DOCUMENT: u64 = 4 << 20;
/// Most indexes within each other, and links in a docker archive one after the other.
const NESTED: usize = 8;
/// Most bytes that an executor image may have unpacked.
const UNPACKED: u64 = 8 << 30;
/// Most bytes of a zstd window, as a power of two: what `zstd -d` takes without being told.
const ZSTD_WINDOW_LOG: u32 = 27;

/// An image that was found, not unpacked yet.
#[derive(Debug)]
pub struct Image {
    store: Store,
    /// Name of its configuration in the store.
    name: PathBuf,
    /// Names of its layers in the store, lowest first.
    layers: Vec<PathBuf>,
    /// Digest of its configuration, `sha256:` and 64 digits: what docker calls the image's id.
    pub id: String,
    /// Its configuration.
    pub config: Config,
}

/// What an image says of itself.
#[derive(Debug, Deserialize)]
pub struct Config {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    rootfs: RootFs,
    #[serde(default)]
    config: Option<Process>,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// What an image says of the process that it is run as.
#[derive(Clone, Debug, Default, Deserialize, serde::Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Process {
    /// The program, with its first arguments.
    pub entrypoint: Option<Vec<String>>,
    /// The environment, `NAME=VALUE`.
    pub env: Option<Vec<String>>,
    /// Whom it runs as.
    pub user: String,
    /// Where it runs.
    pub working_dir: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// An image in a docker archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: PathBuf,
    layers: Vec<PathBuf>,
}

impl Image {
    /// Finds the image for this processor in a folder or archive.
    ///
    /// # Errors
    /// Where it is neither, or damaged, or has no image for this processor.
    pub fn open(path: &Path) -> Result<Self> {
        let store = if path.is_dir() {
            Store::Folder(Root::open(path)?)
        } else {
            Store::archive(File::open(path)?)?
        };
        if store.has("index.json") {
            Self::in_layout(store)
        } else if store.has("manifest.json") {
            Self::in_docker_archive(store)
        } else {
            bail!(
                "it has neither index.json nor manifest.json: give an OCI layout, an archive of \
                 `docker save`, or the executor's binary"
            )
        }
    }

    fn in_layout(store: Store) -> Result<Self> {
        let mut index: Index = store.document(Path::new("index.json"), None)?;
        for _ in 0..NESTED {
            let chosen = choose(&index.manifests)?;
            let blob = blob(&chosen.digest)?;
            if chosen.media_type.contains("index") || chosen.media_type.contains("manifest.list") {
                index = store.document(&blob, Some(&chosen.digest))?;
                continue;
            }
            let manifest: Manifest = store.document(&blob, Some(&chosen.digest))?;
            let config: PathBuf = self::blob(&manifest.config.digest)?;
            let layers = manifest
                .layers
                .iter()
                .map(|layer| self::blob(&layer.digest))
                .collect::<Result<_>>()?;
            return Self::with(store, &config, Some(manifest.config.digest), layers);
        }
        bail!("it has indexes within each other, more than {NESTED}")
    }

    fn in_docker_archive(store: Store) -> Result<Self> {
        let images: Vec<Saved> = store.document(Path::new("manifest.json"), None)?;
        let count = images.len();
        let Ok([image]) = <[Saved; 1]>::try_from(images) else {
            bail!("it holds {count} images: save the executor's alone");
        };
        // docker names the configuration by its digest, in one of two ways.
        let name = image
            .config
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let hex = name.strip_suffix(".json").unwrap_or(&name);
        let hex = hex.strip_prefix("sha256:").unwrap_or(hex);
        let digest = format!("sha256:{hex}");
        let digest = blob(&digest).is_ok().then_some(digest);
        Self::with(store, &image.config.clone(), digest, image.layers)
    }

    fn with(
        store: Store,
        name: &Path,
        digest: Option<String>,
        layers: Vec<PathBuf>,
    ) -> Result<Self> {
        let bytes = store.bytes(name, digest.as_deref())?;
        let config: Config = parse(name, &bytes)?;
        let (os, arch) = (config.os.as_str(), config.architecture.as_str());
        ensure!(
            matches!(os, "" | "linux") && (arch.is_empty() || arch == super::arch()),
            "the image is for {}, this host is linux/{}: give the image for it",
            shown(format!("{os}/{arch}").as_bytes()),
            super::arch()
        );
        let ids = config.rootfs.diff_ids.len();
        ensure!(
            ids == layers.len() && ids > 0,
            "its manifest and its configuration do not agree on the number of layers: {} and {ids}",
            layers.len()
        );
        Ok(Self {
            store,
            name: name.to_owned(),
            layers,
            id: digest_of(&bytes),
            config,
        })
    }

    /// The process that it is run as.
    pub fn process(&self) -> Process {
        self.config.config.clone().unwrap_or_default()
    }

    /// Unpacks its layers into an empty folder.
    ///
    /// # Errors
    /// Where a layer is damaged, hostile or not the one that the configuration names.
    pub fn unpack(&self, root: &Path) -> Result<()> {
        let root = Root::open(root)?;
        let mut left = UNPACKED;
        for (layer, expected) in self.layers.iter().zip(&self.config.rootfs.diff_ids) {
            let name = || shown(layer.as_os_str().as_bytes());
            let content = decompressed(self.store.open(layer)?.1)
                .with_context(|| format!("cannot read layer {}", name()))?;
            let mut content = Hashing {
                inner: content,
                hash: Sha256::new(),
                left: &mut left,
            };
            layer::apply(&root, &mut content)
                // What is behind the archive's end is part of the digest.
                .and_then(|()| Ok(io::copy(&mut content, &mut io::sink())?))
                .with_context(|| format!("layer {}", name()))?;
            let found = written(&content.hash.finalize());
            ensure!(
                found == *expected,
                "layer {} is damaged: its content has digest {found}, not {}",
                name(),
                shown(expected.as_bytes())
            );
        }
        Ok(())
    }
}

/// The manifest for this processor, which is one alone.
fn choose(manifests: &[Descriptor]) -> Result<&Descriptor> {
    let ours = |d: &&Descriptor| {
        d.platform
            .as_ref()
            .is_none_or(|p| p.os == "linux" && p.architecture == super::arch())
    };
    let mut fit = manifests.iter().filter(ours);
    let chosen = fit.next();
    ensure!(
        fit.all(|other| chosen.is_some_and(|chosen| chosen.digest == other.digest)),
        "it has several images for linux/{}: keep one in it",
        super::arch()
    );
    chosen.with_context(|| {
        let others: Vec<String> = manifests
            .iter()
            .filter_map(|d| d.platform.as_ref())
            .map(|p| shown(format!("{}/{}", p.os, p.architecture).as_bytes()))
            .take(NESTED)
            .collect();
        format!(
            "it has no image for linux/{}, only for: {}",
            super::arch(),
            others.join(", ")
        )
    })
}

/// Where a layout keeps a blob. The digest is a stranger's: nothing but digits gets into the path.
///
/// # Errors
/// Where it is no SHA-256.
pub fn blob(digest: &str) -> Result<PathBuf> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    ensure!(
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
        "{} is no sha256 digest",
        shown(digest.as_bytes())
    );
    Ok(Path::new("blobs/sha256").join(hex))
}

/// The digest of bytes, as images write it.
fn digest_of(bytes: &[u8]) -> String {
    written(&Sha256::digest(bytes))
}

/// A SHA-256, as images write it.
pub fn written(hash: &[u8]) -> String {
    let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

fn parse<T: DeserializeOwned>(name: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .with_context(|| format!("{} is damaged", shown(name.as_os_str().as_bytes())))
}

/// Where an image's files are.
#[derive(Debug)]
enum Store {
    Folder(Root),
    Archive(File, HashMap<PathBuf, Slot>),
}

/// A member of an archive.
#[derive(Debug)]
enum Slot {
    Data { offset: u64, size: u64 },
    Link(PathBuf),
}

impl Store {
    /// Notes where an archive has what.
    fn archive(mut file: File) -> Result<Self> {
        let mut slots = HashMap::new();
        file.seek(SeekFrom::Start(0))?;
        let mut archive = Archive::new(BufReader::new(&file));
        let entries = archive
            .entries_with_seek()
            .context("the archive is damaged")?;
        members(entries, &mut |member, content| {
            // Members that no image has need not be understood.
            let Ok(path) = clean(&member.path) else {
                return Ok(());
            };
            let slot = match member.kind {
                EntryType::Regular | EntryType::Continuous => Slot::Data {
                    offset: content.raw_file_position(),
                    size: member.size,
                },
                EntryType::Link => Slot::Link(member.link.clone()),
                // `docker save` of old, for a layer that it has already.
                EntryType::Symlink => Slot::Link(beside(&path, &member.link)),
                _ => return Ok(()),
            };
            slots.insert(path, slot);
            Ok(())
        })?;
        drop(archive);
        Ok(Self::Archive(file, slots))
    }

    fn has(&self, name: &str) -> bool {
        self.open(Path::new(name)).is_ok()
    }

    /// A file of the image and how many bytes it has.
    fn open(&self, name: &Path) -> Result<(u64, Box<dyn Read + '_>)> {
        let missing = || format!("it has no {}", shown(name.as_os_str().as_bytes()));
        match self {
            Self::Folder(root) => {
                let file = root.read(name).with_context(missing)?;
                Ok((file.metadata()?.len(), Box::new(file)))
            }
            Self::Archive(file, slots) => {
                let mut name = clean(name)?;
                for _ in 0..NESTED {
                    match slots.get(&name).with_context(missing)? {
                        Slot::Data { offset, size } => {
                            let slice = Slice {
                                file,
                                offset: *offset,
                                left: *size,
                            };
                            return Ok((*size, Box::new(slice)));
                        }
                        Slot::Link(target) => name = clean(target)?,
                    }
                }
                bail!("{}: only links to links", missing())
            }
        }
    }

    fn bytes(&self, name: &Path, digest: Option<&str>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let shown = || shown(name.as_os_str().as_bytes());
        self.open(name)?
            .1
            .take(DOCUMENT + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read {}", shown()))?;
        ensure!(
            bytes.len() as u64 <= DOCUMENT,
            "{} is larger than {DOCUMENT} bytes",
            shown()
        );
        if let Some(digest) = digest {
            ensure!(
                digest_of(&bytes) == digest,
                "{} is damaged: its digest differs",
                shown()
            );
        }
        Ok(bytes)
    }

    fn document<T: DeserializeOwned>(&self, name: &Path, digest: Option<&str>) -> Result<T> {
        parse(name, &self.bytes(name, digest)?)
    }
}

/// Where a symlink leads, by words alone; a name that cannot be where it leads out.
fn beside(link: &Path, target: &Path) -> PathBuf {
    let mut path = link.parent().unwrap_or(Path::new("")).to_owned();
    for part in target {
        if part == ".." {
            path.pop();
        } else {
            path.push(part);
        }
    }
    path
}

/// A part of a file.
struct Slice<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Slice<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..most], self.offset)?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// A layer's archive, by what its first bytes are: media types are not always right.
fn decompressed<'a>(blob: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
    let mut blob = BufReader::with_capacity(1 << 16, blob);
    let first = io::BufRead::fill_buf(&mut blob)?;
    Ok(match first {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(blob)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::Decoder::with_buffer(blob)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        _ => Box::new(blob),
    })
}

/// Hashes what is read through it, which can be no more than is left.
struct Hashing<'a, R> {
    inner: R,
    hash: Sha256,
    left: &'a mut u64,
}

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        *self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other(format!("the image unpacks to more than {UNPACKED} bytes"))
        })?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
