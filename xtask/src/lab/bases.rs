//! The corpus' base images, made once and kept in kcap's cache as what a registry stores.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::registry::Registry;
use super::{busybox, debian};
use crate::{setup, sh};

/// To be raised with every change to how the images are made.
const RECIPE: u32 = 2;

/// The digests' file, in a folder of images.
const LIST: &str = "digests.json";

/// Packages that Dockerfiles of the corpus install, one a line; `#` starts a comment.
const PACKAGES: &str = "corpus/packages.txt";

/// Digests of the manifests, by the name that a Dockerfile uses.
pub type Digests = BTreeMap<String, String>;

/// The images, as a registry stores them.
#[derive(Debug)]
pub struct Bases {
    /// The registry's storage.
    pub data: PathBuf,
    /// What is in it.
    pub digests: Digests,
    /// Locked for as long as the storage is in use.
    _list: File,
}

impl Bases {
    /// The images from the cache, made first where they are missing or made otherwise.
    ///
    /// # Errors
    /// Where they cannot be made, or the cache cannot be read.
    pub fn get() -> Result<Self> {
        let packages = packages(&sh::workspace().join(PACKAGES))?;
        let bases = setup::cache()?.join("bases");
        fs::create_dir_all(&bases).with_context(|| format!("cannot make {}", bases.display()))?;
        // Only one process makes them; the others wait for it.
        let lock = File::create(bases.join("lock"))?;
        lock.lock().context("cannot lock the base images")?;
        let place = bases.join(key(&packages)?);
        if !place.exists() {
            eprintln!("truth: making the base images (some minutes, once)");
            make(&bases, &place, &packages)?;
        }
        let path = place.join(LIST);
        let mut list = File::open(&path).with_context(|| format!("no {}", path.display()))?;
        list.lock_shared().context("cannot lock the base images")?;
        remove_others(&bases, &place)?;
        let mut text = String::new();
        list.read_to_string(&mut text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let digests = serde_json::from_str(&text)
            .with_context(|| format!("{} is not ours: remove its folder", path.display()))?;
        Ok(Self {
            data: place.join("data"),
            digests,
            _list: list,
        })
    }
}

/// What the images are made from.
fn key(packages: &[String]) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(RECIPE.to_le_bytes());
    hash.update(fs::read(setup::BUSYBOX).context("cannot read BusyBox")?);
    hash.update(packages.join("\n"));
    let digest = hash.finalize();
    Ok(digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// The packages that a list names, sorted.
fn packages(list: &Path) -> Result<Vec<String>> {
    if !list.exists() {
        return Ok(Vec::new());
    }
    let text =
        fs::read_to_string(list).with_context(|| format!("cannot read {}", list.display()))?;
    let mut packages = Vec::new();
    for line in text.lines() {
        let name = line.split('#').next().unwrap_or_default().trim();
        if name.is_empty() {
            continue;
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
        if !name.chars().all(allowed) || name.starts_with('-') {
            bail!("{}: {name:?} is no Debian package name", list.display());
        }
        packages.push(name.to_owned());
    }
    packages.sort();
    packages.dedup();
    Ok(packages)
}

/// Removes the folders of other keys, and what an interrupted process left, unless they are in
/// use.
fn remove_others(bases: &Path, place: &Path) -> Result<()> {
    for entry in fs::read_dir(bases)? {
        let path = entry?.path();
        if !path.is_dir() || path == place {
            continue;
        }
        // Nobody makes anything now: the caller has the lock for that.
        let used = File::open(path.join(LIST)).is_ok_and(|list| list.try_lock().is_err());
        if !used {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn make(bases: &Path, place: &Path, packages: &[String]) -> Result<()> {
    let scratch = tempfile::Builder::new()
        .prefix(".make-")
        .tempdir_in(bases)?;
    let store = scratch.path().join("store");
    let registry = Registry::start(&store)?;
    busybox::make(scratch.path())?;
    debian::make(scratch.path(), packages)?;
    let mut digests = Digests::new();
    for (from, name) in [
        ("busybox", busybox::NAME),
        ("debian:bookworm", debian::NAME),
    ] {
        let repository = name.trim_start_matches("docker.io/");
        let digest = super::push(scratch.path(), name, registry.address(), repository)?;
        digests.insert(from.to_owned(), digest);
    }
    drop(registry);
    fs::write(store.join(LIST), serde_json::to_string_pretty(&digests)?)?;
    sh::publish(&store, place)?;
    scratch
        .close()
        .context("cannot remove what the base images were made in")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_lists_are_sorted_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("packages.txt");
        assert_eq!(packages(&list).unwrap(), Vec::<String>::new());
        fs::write(&list, "# for setcap\nsudo\n\nlibcap2-bin # setcap\nsudo\n").unwrap();
        assert_eq!(packages(&list).unwrap(), ["libcap2-bin", "sudo"]);
        for bad in ["-o=x", "a;b", "A"] {
            fs::write(&list, bad).unwrap();
            assert!(packages(&list).is_err(), "{bad}");
        }
    }
}
