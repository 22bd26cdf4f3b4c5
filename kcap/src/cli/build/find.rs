//! Which Dockerfiles are meant by `-f`: files, folders and patterns.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use glob::{MatchOptions, Pattern};

/// How deep below a folder Dockerfiles are looked for.
const DEEPEST: usize = 32;
/// Most entries of folders that are looked at for one `-f`.
const ENTRIES: usize = 200_000;
/// Folders of others' files that are not looked into.
const LEFT_OUT: [&str; 1] = ["node_modules"];

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Dockerfiles' paths, sorted, each file once.
    pub paths: Vec<PathBuf>,
    /// What was not looked at, a line each.
    pub notes: Vec<String>,
}

/// Finds the Dockerfiles. A file is taken whatever its name. Below a folder every `Dockerfile`,
/// `Dockerfile.*`, `*.Dockerfile` and the same with `Containerfile` is, in any case of letters;
/// hidden files and folders, `node_modules` and symbolic links are left out there. What is neither
/// is taken as a pattern, for a shell that did not expand it.
///
/// # Errors
/// Where one names nothing, or what is no Dockerfile.
pub fn find(given: &[PathBuf]) -> Result<Found> {
    let mut search = Search::default();
    if given.is_empty() {
        search.current()?;
    }
    for path in given {
        search.entries = 0;
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                let before = search.paths.len();
                search.below(&short(path), 0, &mut |path| is_dockerfile(path.file_name()))?;
                if search.paths.len() == before {
                    bail!(
                        "no Dockerfile in the folder {} or below it: name the file with -f",
                        path.display()
                    );
                }
            }
            Ok(found) if found.is_file() => search.paths.push(short(path)),
            Ok(_) => bail!(
                "{} is neither a file nor a folder: -f takes a Dockerfile",
                path.display()
            ),
            Err(e) if e.kind() == io::ErrorKind::NotFound && is_pattern(path) => {
                search.pattern(path)?;
            }
            Err(e) => {
                return Err(e).with_context(|| {
                    format!("cannot read the Dockerfile {} (-f FILE)", path.display())
                });
            }
        }
    }
    search.finish()
}

#[derive(Default)]
struct Search {
    paths: Vec<PathBuf>,
    notes: Vec<String>,
    links: usize,
    entries: usize,
}

impl Search {
    /// What there is without `-f`.
    fn current(&mut self) -> Result<()> {
        let usual = ["Dockerfile", "Containerfile"].map(Path::new);
        match usual.into_iter().find(|path| path.is_file()) {
            Some(path) => self.paths.push(path.to_owned()),
            None => {
                bail!("there is no Dockerfile here: name one with -f, or a folder that has some")
            }
        }
        Ok(())
    }

    /// Takes what is wanted in a folder and below it.
    fn below(
        &mut self,
        dir: &Path,
        depth: usize,
        wanted: &mut dyn FnMut(&Path) -> bool,
    ) -> Result<()> {
        let entries = match fs::read_dir(if dir == Path::new("") {
            Path::new(".")
        } else {
            dir
        }) {
            Ok(entries) => entries,
            // The folder that was named has to be read; one below it is another's matter.
            Err(e) if depth == 0 => {
                return Err(e).with_context(|| format!("cannot look into {}", dir.display()));
            }
            Err(e) => {
                self.notes
                    .push(format!("not looked into: {} ({e})", dir.display()));
                return Ok(());
            }
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot look into {}", dir.display()))?;
            self.entries += 1;
            if self.entries > ENTRIES {
                bail!("more than {ENTRIES} files in and below one folder: name its parts with -f");
            }
            let name = entry.file_name();
            if is_left_out(&name) {
                continue;
            }
            let path = dir.join(&name);
            let Ok(kind) = entry.file_type() else {
                // It went away meanwhile.
                continue;
            };
            if kind.is_dir() {
                if depth >= DEEPEST {
                    self.notes
                        .push(format!("not looked into, too deep: {}", path.display()));
                } else {
                    self.below(&path, depth + 1, wanted)?;
                }
            } else if wanted(&path) {
                if kind.is_file() {
                    self.paths.push(path);
                } else {
                    self.links += 1;
                }
            }
        }
        Ok(())
    }

    /// Takes what a pattern matches: files whatever their names, and all below its folders.
    fn pattern(&mut self, text: &Path) -> Result<()> {
        let text = short(text);
        let pattern = text
            .to_str()
            .with_context(|| format!("{} does not exist", text.display()))?;
        let pattern = Pattern::new(pattern)
            .with_context(|| format!("{pattern} neither exists nor is a pattern for files"))?;
        let plain = text.components().take_while(|c| !is_pattern(c.as_ref()));
        let base: PathBuf = plain.collect();
        let options = MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let before = self.paths.len();
        self.below(&base, 0, &mut |path| {
            // A folder that matches stands for the Dockerfiles below it.
            let folder = path.ancestors().skip(1).take_while(|dir| *dir != base);
            pattern.matches_path_with(path, options)
                || is_dockerfile(path.file_name())
                    && folder
                        .into_iter()
                        .any(|dir| pattern.matches_path_with(dir, options))
        })
        .with_context(|| format!("no file matches {}", text.display()))?;
        if self.paths.len() == before {
            bail!(
                "no file matches {}: name a Dockerfile with -f",
                text.display()
            );
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Found> {
        if self.links > 0 {
            self.notes.push(format!(
                "left out: {} that are symbolic links or no files; name them with -f to have them",
                self.links
            ));
        }
        self.paths.sort();
        let mut seen = BTreeSet::new();
        let mut paths = vec![];
        for path in self.paths {
            let real = fs::canonicalize(&path)
                .with_context(|| format!("cannot read the Dockerfile {}", path.display()))?;
            if seen.insert(real) {
                paths.push(path);
            }
        }
        Ok(Found {
            paths,
            notes: self.notes,
        })
    }
}

/// The path without `.` in it.
fn short(path: &Path) -> PathBuf {
    path.components()
        .filter(|c| *c != Component::CurDir)
        .collect()
}

fn is_pattern(path: &Path) -> bool {
    path.as_os_str()
        .as_encoded_bytes()
        .iter()
        .any(|byte| b"*?[".contains(byte))
}

fn is_left_out(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".") || LEFT_OUT.iter().any(|out| name == *out)
}

/// Whether a file's name says that it is a Dockerfile.
fn is_dockerfile(name: Option<&OsStr>) -> bool {
    let Some(name) = name else {
        return false;
    };
    let name = name.to_string_lossy().to_ascii_lowercase();
    if name.ends_with(".dockerignore") {
        return false;
    }
    ["dockerfile", "containerfile"].iter().any(|kind| {
        let before = name.strip_suffix(kind);
        let after = name.strip_prefix(kind);
        after.is_some_and(|rest| rest.is_empty() || rest.len() > 1 && rest.starts_with('.'))
            || before.is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    })
}

#[cfg(test)]
#[path = "find_tests.rs"]
mod tests;
