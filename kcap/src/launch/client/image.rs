//! The executor's image in an engine: found there, pulled, or loaded from a file.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{
    Dialect,
    bare::{Bare, EXECUTOR, host_architecture},
    pointer,
};
use crate::launch::{call::Call, oci::image};

/// The repository of images that kcap made of bare executors and OCI layouts. They are kept: named by
/// their content, they are made once.
const MADE: &str = "kcap-executor";

/// An image that the engine has.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// What the engine calls it, however its name is moved meanwhile.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The program to run, where the image names none.
    pub entry_point: Option<&'static str>,
}

/// The image of this name.
///
/// # Errors
/// Where there is none, or it is for other machines.
pub(super) fn by_name(dialect: &Dialect, name: &str) -> Result<Image> {
    ensure!(
        !name.is_empty()
            && !name.starts_with('-')
            && !name.contains(|c: char| c.is_control() || c.is_whitespace()),
        "{name:?} is no name of an image"
    );
    if let Some(image) = inspect(dialect, name)? {
        return Ok(image);
    }
    let pulled = Call::new(dialect.name, ["pull", "--quiet", name])
        .lengthy()
        .run()?;
    ensure!(
        pulled.success,
        "{} cannot pull the image {name}: {}; {}",
        dialect.name,
        pulled.complaint,
        dialect.image_remedy
    );
    inspect(dialect, name)?.with_context(|| {
        format!(
            "{} pulled the image {name} and does not have it",
            dialect.name
        )
    })
}

/// The image in this file or folder: a bare executor, an OCI layout, or an archive.
///
/// # Errors
/// Where it is none of these, or the engine does not take it.
pub(super) fn by_path(dialect: &Dialect, path: &Path) -> Result<Image> {
    let entry = fs::metadata(path)
        .with_context(|| format!("cannot find the executor {}", path.display()))?;
    if entry.is_dir() {
        let layout = image::Image::open(path)
            .with_context(|| format!("cannot use the OCI layout {}", path.display()))?;
        let digest = layout.id.trim_start_matches("sha256:");
        return made(dialect, path, digest, |tag, to| layout.save(tag, to));
    }
    ensure!(
        entry.is_file(),
        "the executor {} is neither a file nor a folder",
        path.display()
    );
    let mut head = [0; 4];
    let length = File::open(path)
        .and_then(|mut file| file.read(&mut head))
        .with_context(|| format!("cannot read the executor {}", path.display()))?;
    if head[..length] == *b"\x7fELF" {
        let bare = Bare::new(path)?;
        return made(dialect, path, &bare.digest(), |tag, to| bare.write(tag, to));
    }
    let name = load(dialect, path, &mut |to| {
        io::copy(&mut File::open(path)?, to)?;
        Ok(())
    })?;
    required(dialect, &name)
}

/// An image whose name says what is in it: loaded where the engine does not have it.
fn made(
    dialect: &Dialect,
    path: &Path,
    digest: &str,
    mut write: impl FnMut(&str, &mut dyn io::Write) -> Result<()> + Send,
) -> Result<Image> {
    let tag = format!("{MADE}:{digest}");
    if let Some(image) = inspect(dialect, &tag)? {
        return Ok(image);
    }
    load(dialect, path, &mut |to| write(&tag, to))?;
    required(dialect, &tag)
}

/// Loads an archive. Returns the image's name or id.
fn load(
    dialect: &Dialect,
    path: &Path,
    write: &mut (dyn FnMut(&mut dyn io::Write) -> Result<()> + Send),
) -> Result<String> {
    let loaded = Call::new(dialect.name, ["load", "--quiet"])
        .lengthy()
        .feed(write)
        .with_context(|| format!("cannot load the executor {}", path.display()))?;
    ensure!(
        loaded.success,
        "{} cannot load the executor {}: {}; it takes a bare binary, an OCI layout or a docker archive",
        dialect.name,
        path.display(),
        loaded.complaint
    );
    // `Loaded image: NAME`, `Loaded image ID: sha256:…`, `Loaded image(s): NAME,NAME`.
    let mut names = loaded.output.lines().filter_map(|line| {
        let (what, name) = line.split_once(": ")?;
        what.starts_with("Loaded image").then(|| name.trim())
    });
    match (names.next(), names.next()) {
        (Some(name), None) if !name.contains(',') => Ok(name.to_owned()),
        (None, _) => bail!(
            "{} loaded {} and did not say what it is",
            dialect.name,
            path.display()
        ),
        _ => bail!(
            "there are several images in {}: keep one in it",
            path.display()
        ),
    }
}

fn required(dialect: &Dialect, name: &str) -> Result<Image> {
    inspect(dialect, name)?.with_context(|| {
        format!(
            "{} loaded the image {name} and does not have it",
            dialect.name
        )
    })
}

/// What the engine knows of the image; `None` where it does not have it.
fn inspect(dialect: &Dialect, name: &str) -> Result<Option<Image>> {
    let answer = Call::new(dialect.name, ["image", "inspect", name]).run()?;
    if !answer.success {
        return Ok(None);
    }
    let found: Value = serde_json::from_str(&answer.output)
        .with_context(|| format!("`{} image inspect` gave no JSON", dialect.name))?;
    described(&found[0], name).map(Some)
}

fn described(found: &Value, name: &str) -> Result<Image> {
    let id = pointer(found, "/Id");
    ensure!(!id.is_empty(), "the image {name} has no id");
    let (system, architecture) = (pointer(found, "/Os"), pointer(found, "/Architecture"));
    let host = host_architecture();
    ensure!(
        matches!(system, "" | "linux") && (architecture.is_empty() || architecture == host),
        "the image {name} is for {system}/{architecture}, and this machine is linux/{host}: pull it with \
         `--platform linux/{host}`"
    );
    let has_entry_point = found
        .pointer("/Config/Entrypoint")
        .is_some_and(|program| !program.is_null() && *program != Value::Array(vec![]));
    Ok(Image {
        id: id.to_owned(),
        name: name.to_owned(),
        entry_point: (!has_entry_point).then_some(EXECUTOR),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn images_for_other_machines_are_refused() {
        let host = host_architecture();
        let image = |os: &str, arch: &str, entry: Value| {
            let found = json!({
                "Id": "sha256:1", "Os": os, "Architecture": arch, "Config": {"Entrypoint": entry},
            });
            described(&found, "x")
        };
        assert_eq!(
            image("linux", host, json!(["/k"])).unwrap().entry_point,
            None
        );
        assert_eq!(image("linux", "", json!(["/k"])).unwrap().id, "sha256:1");
        for none in [json!(null), json!([])] {
            assert_eq!(
                image("linux", host, none).unwrap().entry_point,
                Some(EXECUTOR)
            );
        }
        let error = image("linux", "s390x", json!(["/k"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("is for linux/s390x"), "{error}");
        assert!(image("windows", host, json!(["/k"])).is_err());
    }
}
