//! Where an image's files are: a folder, or an archive whose members are read in place.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use flate2::bufread::MultiGzDecoder;
use serde::de::DeserializeOwned;
use tar::{Archive, EntryType};

use super::{
    digest_of,
    packed::name_shown,
    root::{Root, clean},
    tarball::members,
};

/// Most bytes of an index, a manifest or a configuration.
const DOCUMENT: u64 = 4 << 20;
/// Most links in an archive one after the other.
const LINKS: usize = 8;
/// Most bytes of a name that is remembered: a layout's are 77.
const NAME: usize = 255;
/// Most names that are remembered.
const NAMES: usize = 100_000;
/// Most bytes of a zstd window, as a power of two: what `zstd -d` takes without being told.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Bytes that are read from a blob at once.
const CHUNK: usize = 1 << 17;

/// Where an image's files are.
#[derive(Debug)]
pub enum Store {
    /// A folder.
    Folder(Root),
    /// An archive, and where it has what.
    Archive(File, HashMap<PathBuf, Slot>),
}

/// A member of an archive.
#[derive(Debug)]
pub enum Slot {
    /// A file.
    Data {
        /// Bytes before it.
        offset: u64,
        /// Bytes of it.
        size: u64,
    },
    /// Another name of a file.
    Link(PathBuf),
}

impl Store {
    /// Notes where an archive has what.
    ///
    /// # Errors
    /// Where the archive is damaged or out of bounds.
    pub fn archive(mut file: File) -> Result<Self> {
        let mut slots = HashMap::new();
        file.seek(SeekFrom::Start(0))?;
        let length = file.metadata()?.len();
        let mut archive = Archive::new(BufReader::new(&file));
        let entries = archive
            .entries_with_seek()
            .context("the archive is damaged")?;
        members(entries, &mut |member, content| {
            // Members that no image has need not be understood.
            let Ok(path) = clean(&member.path) else {
                return Ok(());
            };
            if path.as_os_str().len() > NAME || member.link.as_os_str().len() > NAME {
                return Ok(());
            }
            let slot = match member.kind {
                EntryType::Regular | EntryType::Continuous => {
                    let offset = content.raw_file_position();
                    // It is passed over unread.
                    ensure!(
                        offset
                            .checked_add(member.size)
                            .is_some_and(|end| end <= length),
                        "the archive ends within {}",
                        name_shown(&path)
                    );
                    Slot::Data {
                        offset,
                        size: member.size,
                    }
                }
                EntryType::Link => Slot::Link(member.link.clone()),
                // `docker save` of old, for a layer that it has already.
                EntryType::Symlink => Slot::Link(beside(&path, &member.link)),
                _ => return Ok(()),
            };
            slots.insert(path, slot);
            ensure!(
                slots.len() <= NAMES,
                "the archive holds more than {NAMES} files, which no image's does"
            );
            Ok(())
        })?;
        drop(archive);
        Ok(Self::Archive(file, slots))
    }

    /// Whether there is a file of that name.
    pub fn has(&self, name: &str) -> bool {
        self.open(Path::new(name)).is_ok()
    }

    /// A file of the image and how many bytes it has.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn open(&self, name: &Path) -> Result<(u64, Box<dyn Read + '_>)> {
        let missing = || format!("it has no {}", name_shown(name));
        match self {
            Self::Folder(root) => {
                let file = root.read(name).with_context(missing)?;
                Ok((file.metadata()?.len(), Box::new(file)))
            }
            Self::Archive(file, slots) => {
                let mut name = clean(name)?;
                for _ in 0..LINKS {
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

    /// A document's bytes, whose digest is checked where one is given.
    ///
    /// # Errors
    /// Where there is none of that name, it is too large, or another than the digest's.
    pub fn bytes(&self, name: &Path, digest: Option<&str>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let shown = || name_shown(name);
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

    /// A document.
    ///
    /// # Errors
    /// Those of [`Self::bytes`]; where it is no such document.
    pub fn document<T: DeserializeOwned>(&self, name: &Path, digest: Option<&str>) -> Result<T> {
        parse(name, &self.bytes(name, digest)?)
    }
}

/// Reads a JSON document.
pub(super) fn parse<T: DeserializeOwned>(name: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).with_context(|| format!("{} is damaged", name_shown(name)))
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
///
/// # Errors
/// Those of the blob.
pub fn decompressed<'a>(blob: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
    let mut blob = BufReader::with_capacity(CHUNK, blob);
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
