//! Which engine runs the containers, and which executor is in them.

use std::{ffi::OsStr, path::Path};

use anyhow::{Result, bail};

use crate::launch::{Engine, Executor, choose};

/// The maintained fork of Kaniko.
pub const EXECUTOR: &str = "ghcr.io/osscontainertools/kaniko:latest";

/// What runs containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The first that works
    #[default]
    Auto,
    /// The docker command
    Docker,
    /// The podman command
    Podman,
    /// A bundle of kcap's own, run by runc or crun: needs no daemon
    Oci,
    /// Jobs in a cluster, of kcap prove: nothing is traced there
    Kubernetes,
}

/// The engine, ready to make containers, its name, and what to say about the choice.
///
/// # Errors
/// Why it cannot be used.
pub fn open(kind: Kind) -> Result<(Box<dyn Engine>, &'static str, Vec<String>)> {
    let name = match kind {
        Kind::Auto => {
            let choice = choose::auto(choose::CANDIDATES)?;
            let mut notes = choice.passed_over;
            notes.push(format!("engine: {}", choice.name));
            return Ok((choice.engine, choice.name, notes));
        }
        Kind::Docker => "docker",
        Kind::Podman => "podman",
        Kind::Oci => "oci",
        Kind::Kubernetes => bail!(
            "--engine kubernetes is for kcap prove, which traces nothing: builds of a cluster are traced on \
             its nodes, by kcap watch"
        ),
    };
    match choose::CANDIDATES.iter().find(|(known, _)| *known == name) {
        Some((name, open)) => Ok((open()?, name, vec![])),
        None => bail!("this kcap has no engine {name}: give another with --engine"),
    }
}

/// The executor that is meant: what is written as a path (`/…`, `./…`, `../…`) or exists as one is
/// a path, anything else an image's name.
///
/// # Errors
/// Where a path leads to nothing, or an image's name is none.
pub fn executor(given: &OsStr) -> Result<Executor> {
    let path = Path::new(given);
    let bytes = given.as_encoded_bytes();
    let is_path = [&b"/"[..], b"./", b"../"]
        .iter()
        .any(|start| bytes.starts_with(start));
    if path.exists() {
        return Ok(Executor::Path(path.canonicalize()?));
    }
    match given.to_str() {
        Some(name) if !is_path && is_name(name) => Ok(Executor::Image(name.to_owned())),
        _ if is_path => bail!(
            "there is no executor at {}: --executor takes an image's name, an OCI layout, a docker \
             archive or a Kaniko binary",
            path.display()
        ),
        _ => bail!(
            "{} is no name of an image: --executor takes one, or a path",
            path.display()
        ),
    }
}

/// Whether a text can be the name of an image, and nothing that a command could take for an option.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-/:@[]".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &str) -> Result<Executor> {
        executor(OsStr::new(given))
    }

    #[test]
    fn paths_and_names_are_told_apart() {
        assert_eq!(of(EXECUTOR).unwrap(), Executor::Image(EXECUTOR.into()));
        for name in ["kaniko", "[::1]:5000/kaniko", "r:5000/k@sha256:00"] {
            assert_eq!(of(name).unwrap(), Executor::Image(name.into()));
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let real = file.path().canonicalize().unwrap();
        assert_eq!(
            of(file.path().to_str().unwrap()).unwrap(),
            Executor::Path(real)
        );
        for missing in ["/nonexistent/executor", "./nonexistent", "../nonexistent"] {
            let error = of(missing).unwrap_err().to_string();
            assert!(error.starts_with("there is no executor at "), "{error}");
        }
        for odd in ["", "--privileged", "a b", "a\nb", "é"] {
            let error = of(odd).unwrap_err().to_string();
            assert!(error.contains("no name of an image"), "{error}");
        }
    }
}
