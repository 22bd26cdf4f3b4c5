//! The corpus' folders: a Dockerfile with its context, `why.md`, and where it wants more than the
//! defaults, `build.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::lab::capabilities::{self, Set};
use crate::lab::kaniko::Recipe;

/// After this many seconds a build is ended.
const TIMEOUT: u64 = 600;

/// What the corpus keeps about a Dockerfile beside it, and no build sees.
const OURS: [&str; 4] = ["why.md", "truth.json", "build.toml", CAPTURE];
/// What kcap recorded of a build.
const CAPTURE: &str = "capture.kcap";

/// What a build with the whole starting set comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expect {
    /// An image.
    #[default]
    Success,
    /// A failure; then needed is what it takes to fail in the same way.
    Fail,
}

/// `build.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// What the build comes to.
    expect: Expect,
    /// More flags for the executor.
    flags: Vec<String>,
    /// Environment variables of the executor's container.
    variables: BTreeMap<String, String>,
    /// Capabilities to start with, beside Docker's default.
    start: Vec<String>,
    /// Seconds after which a build is ended.
    timeout: Option<u64>,
    /// What a reader of the truth should know.
    notes: Vec<String>,
}

/// A Dockerfile of the corpus.
#[derive(Debug)]
pub struct Subject {
    /// Its folder's name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// What the build comes to with the whole starting set.
    pub expect: Expect,
    /// What capabilities are taken from.
    pub start: Set,
    /// What a reader of the truth should know.
    pub notes: Vec<String>,
    settings: Settings,
}

/// The Dockerfiles in `corpus`, by name: those named, or all.
///
/// # Errors
/// Where a name is not in the corpus, or a `build.toml` cannot be understood.
pub fn subjects(corpus: &Path, names: &[String]) -> Result<Vec<Subject>> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(corpus).with_context(|| format!("cannot read {}", corpus.display()))?;
    for entry in entries {
        let folder = entry?.path();
        if folder.join("Dockerfile").is_file() {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            if names.is_empty() || names.iter().any(|wanted| *wanted == name) {
                found.push(Subject::open(name.into_owned(), &folder)?);
            }
        }
    }
    if let Some(name) = names
        .iter()
        .find(|name| found.iter().all(|s| s.name != **name))
    {
        bail!(
            "{} has no folder {name:?} with a Dockerfile",
            corpus.display()
        );
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

impl Subject {
    fn open(name: String, folder: &Path) -> Result<Self> {
        let path = folder.join("build.toml");
        let mut settings = Settings::default();
        if path.exists() {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            settings = toml::from_str(&text)
                .with_context(|| format!("cannot understand {}", path.display()))?;
        }
        let mut start = Set::DOCKER_DEFAULT;
        for name in &settings.start {
            let number = capabilities::number(name)
                .with_context(|| format!("{}: no capability {name:?}", path.display()))?;
            start = start.with(number);
        }
        Ok(Self {
            name,
            folder: folder.to_owned(),
            expect: settings.expect,
            start,
            notes: std::mem::take(&mut settings.notes),
            settings,
        })
    }

    /// The file that holds what kcap recorded of a build.
    pub fn capture(&self) -> PathBuf {
        self.folder.join(CAPTURE)
    }

    /// The file that holds what was found.
    pub fn truth(&self) -> PathBuf {
        self.folder.join("truth.json")
    }

    /// A digest of all that the truth was found from: the context and `build.toml`. Where it has
    /// changed, the truth is an old one.
    ///
    /// # Errors
    /// Where something cannot be read.
    pub fn inputs(&self) -> Result<String> {
        let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
        let place = scratch.path().join("context");
        self.recipe(&place)?;
        let mut hash = Sha256::new();
        let settings = self.folder.join("build.toml");
        let settings = if settings.exists() {
            fs::read(settings)?
        } else {
            Vec::new()
        };
        hash.update((settings.len() as u64).to_le_bytes());
        hash.update(settings);
        digest(&place, &mut hash)?;
        let digest = hash.finalize();
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What to build: a copy of the context in the new folder `place`, with the modes that git
    /// keeps and this process as owner, whoever checked the corpus out.
    ///
    /// # Errors
    /// Where something cannot be copied.
    pub fn recipe(&self, place: &Path) -> Result<Recipe> {
        copy(&self.folder, place, true)
            .with_context(|| format!("cannot copy {}", self.folder.display()))?;
        let variables = &self.settings.variables;
        Ok(Recipe {
            dockerfile: place.join("Dockerfile"),
            context: place.to_owned(),
            flags: self.settings.flags.clone(),
            variables: variables
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            timeout: Duration::from_secs(self.settings.timeout.unwrap_or(TIMEOUT)),
        })
    }
}

fn copy(from: &Path, to: &Path, is_top: bool) -> Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, source) = (entry.file_name(), entry.path());
        let target = to.join(&name);
        let kind = entry.file_type()?;
        let text = name.to_string_lossy();
        if is_top && OURS.contains(&&*text) {
            continue;
        }
        if kind.is_dir() {
            copy(&source, &target, false)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_file() {
            fs::write(&target, fs::read(&source)?)?;
            let runs = entry.metadata()?.permissions().mode() & 0o100 != 0;
            let mode = if runs { 0o755 } else { 0o644 };
            fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
        } else {
            bail!("{} is neither file, folder nor link", source.display());
        }
    }
    Ok(())
}

/// Takes in a folder of what [`copy`] makes: names, kinds, modes, contents.
fn digest(folder: &Path, hash: &mut Sha256) -> Result<()> {
    let entries: std::io::Result<Vec<_>> = fs::read_dir(folder)?.collect();
    let mut entries = entries?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let part = |hash: &mut Sha256, bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for entry in entries {
        let (path, facts) = (entry.path(), entry.metadata()?);
        part(hash, entry.file_name().as_bytes());
        part(hash, &facts.mode().to_le_bytes());
        if facts.is_dir() {
            digest(&path, hash)?;
            part(hash, b"..");
        } else if facts.is_symlink() {
            part(hash, fs::read_link(&path)?.as_os_str().as_bytes());
        } else {
            part(hash, &fs::read(&path)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus(settings: &str) -> tempfile::TempDir {
        let corpus = tempfile::tempdir().unwrap();
        let folder = corpus.path().join("one");
        fs::create_dir_all(folder.join("sub")).unwrap();
        for (name, text) in [
            ("Dockerfile", "FROM scratch\n"),
            ("why.md", "Why.\n"),
            ("build.toml", settings),
            ("sub/why.md", "of the context\n"),
        ] {
            fs::write(folder.join(name), text).unwrap();
        }
        fs::set_permissions(folder.join("sub/why.md"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(corpus.path().join("no-dockerfile")).unwrap();
        corpus
    }

    #[test]
    fn a_build_sees_the_context_and_nothing_that_is_ours() {
        let corpus = corpus("flags = ['--single-snapshot']\nstart = ['cap_sys_admin']\n");
        let subjects = subjects(corpus.path(), &[]).unwrap();
        let [subject] = &subjects[..] else {
            panic!("{subjects:?}");
        };
        assert_eq!(subject.start, Set::DOCKER_DEFAULT.with(21));
        let place = corpus.path().join("copy");
        let recipe = subject.recipe(&place).unwrap();
        assert_eq!(recipe.flags, ["--single-snapshot"]);
        assert!(recipe.dockerfile.is_file());
        assert!(!place.join("why.md").exists() && !place.join("build.toml").exists());
        let mode = fs::metadata(place.join("sub/why.md"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o755);
    }

    #[test]
    fn mistakes_are_named() {
        for (settings, said) in [("expct = 'fail'", "expct"), ("start = ['X']", "\"X\"")] {
            let corpus = corpus(settings);
            let error = subjects(corpus.path(), &[]).unwrap_err();
            assert!(format!("{error:#}").contains(said), "{error:#}");
        }
        let corpus = corpus("");
        let error = subjects(corpus.path(), &["no-dockerfile".into()]).unwrap_err();
        assert!(format!("{error:#}").contains("no-dockerfile"));
    }

    #[test]
    fn inputs_change_with_what_a_build_sees() {
        let corpus = corpus("");
        let inputs = || subjects(corpus.path(), &[]).unwrap()[0].inputs().unwrap();
        let first = inputs();
        assert_eq!(first, inputs());
        let folder = corpus.path().join("one");
        fs::write(folder.join("why.md"), "Another why.\n").unwrap();
        fs::write(folder.join("truth.json"), "{}").unwrap();
        assert_eq!(first, inputs());
        let script = folder.join("sub/why.md");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).unwrap();
        let second = inputs();
        assert_ne!(first, second);
        fs::write(script, "other\n").unwrap();
        let third = inputs();
        assert_ne!(second, third);
        fs::write(folder.join("build.toml"), "timeout = 5\n").unwrap();
        assert_ne!(third, inputs());
    }
}
