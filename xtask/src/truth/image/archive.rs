//! Docker archives: a tar of a manifest, a configuration, and layers that are tars themselves.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tar::{Archive, Entry, EntryType};

use super::Image;
use super::extended::Extended;
use super::tree::{Change, Kind, Node, Tree};

/// How long manifest and configuration may be, in bytes.
const JSON: u64 = 16 << 20;

/// One image of an archive.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    config: String,
    layers: Vec<String>,
}

/// Reads images. Remembers layers by their names, which are digests: builds of one Dockerfile
/// share those of the base image, the largest by far.
#[derive(Debug, Default)]
pub struct Reader {
    known: HashMap<String, Arc<Vec<Change>>>,
}

impl Reader {
    /// Reads an image, and keeps its layers for later images if `remember`.
    ///
    /// # Errors
    /// Where the archive is not as docker and Kaniko write them, or holds several images.
    pub fn read(&mut self, path: &path::Path, remember: bool) -> Result<Image> {
        self.try_read(path, remember)
            .with_context(|| format!("cannot read the image {}", path.display()))
    }

    fn try_read(&mut self, path: &path::Path, remember: bool) -> Result<Image> {
        let mut file = File::open(path)?;
        let places = places(&mut file)?;
        let mut part = |name: &str| -> Result<std::io::Take<File>> {
            let Some(&(at, length)) = places.get(name.as_bytes()) else {
                bail!("{name:?} is missing");
            };
            file.seek(SeekFrom::Start(at))?;
            Ok(file.try_clone()?.take(length))
        };
        let manifests: Vec<Manifest> = json(part("manifest.json")?)?;
        let [manifest] = &manifests[..] else {
            bail!("it holds {} images in place of one", manifests.len());
        };
        let config = config(json(part(&manifest.config)?)?);
        let mut tree = Tree::default();
        for name in &manifest.layers {
            let layer = match self.known.get(name) {
                Some(layer) => Arc::clone(layer),
                None => Arc::new(
                    layer(part(name)?)
                        .with_context(|| format!("cannot read the layer {name:?}"))?,
                ),
            };
            tree.apply(&layer)
                .with_context(|| format!("cannot apply the layer {name:?}"))?;
            if remember {
                self.known.insert(name.clone(), layer);
            }
        }
        Ok(Image { tree, config })
    }
}

/// Where each file of an archive is, and how long.
fn places(file: &mut File) -> Result<HashMap<Vec<u8>, (u64, u64)>> {
    let mut places = HashMap::new();
    for entry in Archive::new(file).entries_with_seek()? {
        let entry = entry?;
        let name = entry.path_bytes().into_owned();
        places.insert(name, (entry.raw_file_position(), entry.size()));
    }
    Ok(places)
}

fn json<T: for<'de> Deserialize<'de>>(from: impl Read) -> Result<T> {
    Ok(serde_json::from_reader(BufReader::new(from.take(JSON)))?)
}

/// What a container starts with, of all that a configuration says.
fn config(whole: Map<String, Value>) -> Map<String, Value> {
    let mut kept = Map::new();
    for (name, value) in whole {
        match (name.as_str(), value) {
            ("config", Value::Object(config)) => kept.extend(config),
            ("architecture" | "os" | "variant" | "author", value) => {
                kept.insert(name, value);
            }
            _ => {}
        }
    }
    kept.retain(|_, value| match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::String(value) => !value.is_empty(),
        Value::Array(value) => !value.is_empty(),
        Value::Object(value) => !value.is_empty(),
        Value::Number(_) => true,
    });
    kept
}

/// A layer's entries, gzipped or not.
fn layer(from: impl Read + 'static) -> Result<Vec<Change>> {
    let mut from = BufReader::with_capacity(1 << 16, from);
    let start = std::io::BufRead::fill_buf(&mut from)?;
    let plain: Box<dyn Read> = if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(MultiGzDecoder::new(from))
    } else {
        Box::new(from)
    };
    let mut changes = Vec::new();
    let mut extended = Extended::default();
    for entry in Archive::new(plain).entries()?.raw(true) {
        let mut entry = entry?;
        if !extended.take(&mut entry)? {
            changes.extend(change(&mut entry, std::mem::take(&mut extended))?);
        }
    }
    Ok(changes)
}

fn change(entry: &mut Entry<'_, impl Read>, extended: Extended) -> Result<Option<Change>> {
    let path = match &extended.path {
        Some(path) => clean(path)?,
        None => clean(&entry.path_bytes())?,
    };
    let at = path
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |at| at + 1);
    if let Some(hidden) = path[at..].strip_prefix(b".wh.") {
        let folder = &path[..at.saturating_sub(1)];
        return Ok(match hidden {
            b".wh..opq" => Some(Change::Opaque(folder.to_owned())),
            // Bookkeeping of aufs.
            _ if hidden.starts_with(b".wh.") => None,
            _ => Some(Change::Whiteout([&path[..at], hidden].concat())),
        });
    }
    let target = || -> Result<Vec<u8>> {
        if let Some(target) = &extended.target {
            return Ok(target.clone());
        }
        let target = entry.link_name_bytes();
        Ok(target.context("a link without a target")?.into_owned())
    };
    let header = entry.header();
    let device = || -> Result<(u32, u32)> {
        let numbers = (header.device_major()?, header.device_minor()?);
        Ok((numbers.0.unwrap_or(0), numbers.1.unwrap_or(0)))
    };
    let kind = match header.entry_type() {
        EntryType::Link => return Ok(Some(Change::Link(path, clean(&target()?)?))),
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(target()?),
        EntryType::Char => {
            let (major, minor) = device()?;
            Kind::Character(major, minor)
        }
        EntryType::Block => {
            let (major, minor) = device()?;
            Kind::Block(major, minor)
        }
        EntryType::Fifo => Kind::Fifo,
        EntryType::XGlobalHeader => return Ok(None),
        EntryType::Regular | EntryType::Continuous => Kind::File(digest(entry)?),
        other => bail!("{} is of unknown type {other:?}", path.escape_ascii()),
    };
    let header = entry.header();
    let node = Node {
        kind,
        mode: header.mode()? & 0o7777,
        uid: extended.uid.map_or_else(|| header.uid(), Ok)?,
        gid: extended.gid.map_or_else(|| header.gid(), Ok)?,
        xattrs: extended.xattrs,
    };
    Ok(Some(Change::Put(path, node)))
}

fn digest(from: &mut impl Read) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = [0; 1 << 14];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            length => hash.update(&buffer[..length]),
        }
    }
}

/// A path relative to the root, which must not lead out of it.
fn clean(path: &[u8]) -> Result<Vec<u8>> {
    let names: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .collect();
    if names.contains(&b"..".as_slice()) {
        bail!("{} leads out of the image", path.escape_ascii());
    }
    Ok(names.join(&b'/'))
}

#[cfg(test)]
mod tests;
