//! An image's inventory: all of an [`Image`] as compressed JSON lines, without the contents of its
//! files. The first line is about the image, each other an entry.

use std::io::{BufRead, BufReader, BufWriter, Read, Write};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{Config, Entry, Image, Step, Tree, tree};

/// What the first line calls the format.
const SCHEMA: &str = "kcap.inventory/v1";
/// Effort of the compression: more gains little on digests.
const LEVEL: i32 = 3;
/// Most bytes of a line: paths and attributes are bounded.
const LINE: u64 = 16 << 20;

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    schema: String,
    id: String,
    manifest: Option<String>,
    config: Config,
    history: Vec<Step>,
    /// Lines that follow.
    entries: u64,
}

/// Writes an inventory. The same image gives the same bytes.
///
/// # Errors
/// Those of `to`.
pub fn write_inventory(image: &Image, to: impl Write) -> Result<()> {
    let mut to = BufWriter::new(zstd::Encoder::new(to, LEVEL)?);
    let entries = image.tree.entries();
    let head = Head {
        schema: SCHEMA.into(),
        id: image.id.clone(),
        manifest: image.manifest.clone(),
        config: image.config.clone(),
        history: image.history.clone(),
        entries: entries.len() as u64,
    };
    serde_json::to_writer(&mut to, &head)?;
    for entry in entries {
        to.write_all(b"\n")?;
        serde_json::to_writer(&mut to, entry)?;
    }
    to.write_all(b"\n")?;
    let encoder = to.into_inner().map_err(|e| e.into_error())?;
    encoder.finish()?.flush()?;
    Ok(())
}

/// Reads an inventory.
///
/// # Errors
/// Where it is none, or damaged or cut off.
pub fn read_inventory(from: impl Read) -> Result<Image> {
    let mut from = BufReader::new(zstd::Decoder::new(from)?);
    let mut line = Vec::new();
    let mut next = |what: &str| -> Result<Vec<u8>> {
        line.clear();
        (&mut from)
            .take(LINE)
            .read_until(b'\n', &mut line)
            .context("the inventory is damaged")?;
        ensure!(line.ends_with(b"\n"), "the inventory ends before {what}");
        Ok(std::mem::take(&mut line))
    };
    let head: Head = serde_json::from_slice(&next("its first line")?)
        .context("it is no inventory of an image")?;
    if head.schema != SCHEMA {
        bail!("it is an inventory of another version than {SCHEMA}");
    }
    let mut entries = Vec::new();
    let mut held = 0;
    for _ in 0..head.entries {
        let entry: Entry =
            serde_json::from_slice(&next("its last entry")?).context("the inventory is damaged")?;
        held += entry.path.len() as u64 + tree::OVERHEAD;
        ensure!(held <= tree::HELD, "the inventory has too many entries");
        entries.push(entry);
    }
    Ok(Image {
        id: head.id,
        manifest: head.manifest,
        config: head.config,
        history: head.history,
        tree: Tree::sorted(entries)?,
    })
}
