//! An image from its folder or archive. Layers that it shares with others are read once.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::Read as _,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Image, Tree,
    config::Document,
    layer::{self, Budget, Layer},
};
use crate::image::{Packed, Pick, decompressed, tarball::shown};

/// Layers that are read at once. Each takes a core, and memory for its decompression.
const THREADS: usize = 2;
/// Most layers of an image: engines mount no more than some hundred.
const LAYERS: usize = 1000;
/// Bytes of entries that are remembered for images that are still to be read.
const REMEMBERED: u64 = 64 << 20;

/// Layers that were read already, by the digest of their content. Those that were not of use for the
/// longest time are forgotten where they take too much memory. Can be used by several threads.
#[derive(Debug, Default)]
pub struct Layers {
    /// The last one was of use last.
    known: Mutex<VecDeque<(String, Arc<Layer>)>>,
}

impl Layers {
    fn get(&self, diff_id: &str) -> Option<Arc<Layer>> {
        // A thread that panicked meanwhile has moved one at most.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let at = known.iter().position(|(id, _)| id == diff_id)?;
        let found = known.remove(at)?;
        let layer = Arc::clone(&found.1);
        known.push_back(found);
        Some(layer)
    }

    fn put(&self, diff_id: &str, layer: &Arc<Layer>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.iter().all(|(id, _)| id != diff_id) {
            known.push_back((diff_id.into(), Arc::clone(layer)));
        }
        let mut held: u64 = known.iter().map(|(_, layer)| layer.held).sum();
        while held > REMEMBERED {
            match known.pop_front() {
                Some((_, layer)) => held -= layer.held,
                None => break,
            }
        }
    }
}

/// Reads an image: an OCI layout, as a folder or a tar of one, or a docker archive, as `docker save`
/// and Kaniko's `--tar-path` write it. Of a layout with several images, the one for this host's
/// processor is meant.
///
/// # Errors
/// Where it is none, or damaged, hostile or out of bounds.
pub fn read(path: &Path) -> Result<Image> {
    read_with(path, &Layers::default())
}

/// [`read`], without reading layers that are known. Such a layer is taken to be what its digest
/// says: whether it is damaged in this image is not found out.
///
/// # Errors
/// Those of [`read`].
pub fn read_with(path: &Path, known: &Layers) -> Result<Image> {
    let opened = Opened::open(path)?;
    let layers = read_layers(&[&opened], known)?;
    opened.finish(&layers)
}

/// Reads two images, side by side: layers that both have are read once.
///
/// # Errors
/// Those of [`read`].
pub fn read_both(a: &Path, b: &Path) -> Result<(Image, Image)> {
    let (a, b) = (Opened::open(a)?, Opened::open(b)?);
    let layers = read_layers(&[&a, &b], &Layers::default())?;
    Ok((a.finish(&layers)?, b.finish(&layers)?))
}

/// An image of which no layer is read yet.
struct Opened {
    /// What it is called in errors.
    name: String,
    packed: Packed,
    document: Document,
    budget: Budget,
}

/// A layer that is to be read.
struct Job<'a> {
    image: &'a Opened,
    layer: &'a Path,
    diff_id: &'a str,
    size: u64,
}

impl Opened {
    fn open(path: &Path) -> Result<Self> {
        let name = format!("the image {}", shown(path.as_os_str().as_bytes()));
        let open = || -> Result<_> {
            let kind = path.metadata()?.file_type();
            ensure!(
                kind.is_dir() || kind.is_file(),
                "it is neither a file nor a folder"
            );
            if kind.is_file() {
                refuse_compressed(path)?;
            }
            let packed = Packed::open(path, Pick::Only)?;
            let document: Document = packed.config()?;
            packed.agrees_on(document.diff_ids().len())?;
            ensure!(
                packed.layers.len() <= LAYERS,
                "it has more than {LAYERS} layers"
            );
            Ok((packed, document))
        };
        let (packed, document) = open().with_context(|| format!("cannot read {name}"))?;
        Ok(Self {
            name,
            packed,
            document,
            budget: Budget::default(),
        })
    }

    fn finish(self, layers: &HashMap<String, Arc<Layer>>) -> Result<Image> {
        let finish = || -> Result<_> {
            let mut changes = Vec::new();
            for diff_id in self.document.diff_ids() {
                let layer = layers.get(diff_id).context("a layer was not read")?;
                changes.push(layer.changes.as_slice());
            }
            let tree = Tree::flatten(changes)?;
            let (config, history) = self.document.split()?;
            Ok(Image {
                id: self.packed.id,
                manifest: self.packed.manifest,
                config,
                history,
                tree,
            })
        };
        finish().with_context(|| format!("cannot read {}", self.name))
    }
}

/// What `docker load` takes as well: its members cannot be read in place.
fn refuse_compressed(path: &Path) -> Result<()> {
    let mut first = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut first)?;
    let by = match first.as_slice() {
        [0x1f, 0x8b, ..] => "gunzip",
        [0x28, 0xb5, 0x2f, 0xfd] => "unzstd",
        [b'B', b'Z', b'h', ..] => "bunzip2",
        [0xfd, b'7', b'z', b'X'] => "unxz",
        _ => return Ok(()),
    };
    bail!("the archive is compressed as a whole: unpack it with {by} first")
}

/// Reads the layers of images that are not known, each once, the largest first.
fn read_layers(images: &[&Opened], known: &Layers) -> Result<HashMap<String, Arc<Layer>>> {
    let mut layers = HashMap::new();
    let mut jobs: HashMap<&str, Job<'_>> = HashMap::new();
    for image in images {
        for (layer, diff_id) in image.packed.layers.iter().zip(image.document.diff_ids()) {
            // It has to be there, even if it need not be read.
            let (size, _) = image
                .packed
                .store
                .open(layer)
                .with_context(|| format!("cannot read {}", image.name))?;
            if let Some(layer) = known.get(diff_id) {
                layers.insert(diff_id.clone(), layer);
            } else if !jobs.contains_key(diff_id.as_str()) {
                let job = Job {
                    image,
                    layer,
                    diff_id,
                    size,
                };
                jobs.insert(diff_id, job);
            }
        }
    }
    let mut jobs: Vec<Job<'_>> = jobs.into_values().collect();
    jobs.sort_by(|a, b| (a.size, a.diff_id).cmp(&(b.size, b.diff_id)));
    let count = jobs.len();
    let queue = Mutex::new(jobs);
    let work = || -> Result<_> {
        let mut done = Vec::new();
        loop {
            let job = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(job) = job else {
                return Ok(done);
            };
            match job.read() {
                Ok(layer) => done.push((job.diff_id.to_owned(), Arc::new(layer))),
                Err(e) => {
                    // The others need not go on.
                    queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    return Err(e);
                }
            }
        }
    };
    let results = thread::scope(|scope| {
        let others: Vec<_> = (1..count.min(THREADS)).map(|_| scope.spawn(work)).collect();
        let mut results = vec![work()];
        for other in others {
            let result = other.join();
            results.push(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    });
    for result in results {
        for (diff_id, layer) in result? {
            known.put(&diff_id, &layer);
            layers.insert(diff_id, layer);
        }
    }
    Ok(layers)
}

impl Job<'_> {
    fn read(&self) -> Result<Layer> {
        let image = self.image;
        let name = shown(self.layer.as_os_str().as_bytes());
        let read = || -> Result<_> {
            let (_, blob) = image.packed.store.open(self.layer)?;
            let (layer, digest) = layer::read(decompressed(blob)?, &image.budget)?;
            ensure!(
                self.diff_id.strip_prefix("sha256:") == Some(digest.to_string().as_str()),
                "it is damaged: its content has digest sha256:{digest}, not {}",
                shown(self.diff_id.as_bytes())
            );
            Ok(layer)
        };
        read().with_context(|| format!("cannot read {}: layer {name}", image.name))
    }
}

#[cfg(test)]
mod tests;
