//! The runtime that runs a bundle: runc or crun, whichever is there.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::render::escape;

/// What is looked for, best first.
const NAMES: [&str; 2] = ["runc", "crun"];
/// Where distributions put them, beside what PATH says: root's PATH is short at times.
const FOLDERS: [&str; 5] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
];
/// Most columns of a runtime's message in an error.
const MESSAGE: usize = 300;

/// A program that understands bundles of the Open Container Initiative.
#[derive(Clone, Debug)]
pub struct Runtime {
    program: PathBuf,
}

impl Runtime {
    /// Finds one: the one asked for, by name or path, or runc, or crun.
    ///
    /// # Errors
    /// Where there is none: what to install.
    pub fn find(wanted: Option<&OsStr>) -> Result<Self> {
        let found = match wanted {
            Some(name) => program(name).with_context(|| {
                format!(
                    "no runtime {}: give runc, crun or a path to one",
                    escape::head(&name.to_string_lossy(), MESSAGE)
                )
            })?,
            None => NAMES
                .iter()
                .find_map(|name| program(OsStr::new(name)))
                .context(
                    "neither runc nor crun is installed: apt install runc, or dnf install crun",
                )?,
        };
        Ok(Self { program: found })
    }

    /// Its name, as reports show it.
    pub fn name(&self) -> String {
        let name = self.program.file_name().unwrap_or_default();
        escape::head(&name.to_string_lossy(), 40)
    }

    /// The command that runs a bundle in the foreground. `state` is where the runtime keeps what it
    /// knows of containers.
    pub fn run(&self, state: &Path, bundle: &Path, id: &str) -> Vec<OsString> {
        vec![
            self.program.clone().into(),
            "--root".into(),
            state.into(),
            "run".into(),
            "--bundle".into(),
            bundle.into(),
            id.into(),
        ]
    }

    /// Kills a container with all in it, and removes what the runtime made for it: control groups
    /// and state. It is no error where there is no such container.
    ///
    /// # Errors
    /// Where it may be there still.
    pub fn delete(&self, state: &Path, id: &str) -> Result<()> {
        if !state.join(id).exists() {
            return Ok(());
        }
        let output = Command::new(&self.program)
            .arg("--root")
            .arg(state)
            .args(["delete", "--force", id])
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        if state.join(id).exists() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().last().unwrap_or("it said nothing");
            bail!(
                "{} cannot delete container {id}: {}",
                self.program.display(),
                escape::head(last, MESSAGE)
            );
        }
        Ok(())
    }
}

/// A program by its name or a path to it.
pub fn program(name: &OsStr) -> Option<PathBuf> {
    let name = Path::new(name);
    if name.components().count() > 1 {
        return std::path::absolute(name).ok().filter(|p| is_executable(p));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .chain(FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_is_not_there_is_told() {
        for name in [
            "no-such-runtime",
            "./no-such-runtime",
            "/no/such/runtime",
            "/etc/passwd",
        ] {
            let error = Runtime::find(Some(OsStr::new(name)))
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(name) && error.contains("give runc"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        let runtime = Runtime::find(Some(OsStr::new("/bin/sh"))).unwrap();
        assert_eq!(runtime.name(), "sh");
        let command = runtime.run(Path::new("/s t"), Path::new("/b"), "kcap-1-0");
        let expected = [
            "/bin/sh", "--root", "/s t", "run", "--bundle", "/b", "kcap-1-0",
        ];
        assert_eq!(command, expected.map(OsString::from));
    }

    #[test]
    fn a_container_that_is_not_there_needs_no_runtime() {
        let runtime = Runtime::find(Some(OsStr::new("/bin/false"))).unwrap();
        let state = tempfile::tempdir().unwrap();
        runtime.delete(state.path(), "kcap-1-0").unwrap();
        std::fs::create_dir(state.path().join("kcap-1-1")).unwrap();
        let error = runtime
            .delete(state.path(), "kcap-1-1")
            .unwrap_err()
            .to_string();
        assert!(error.contains("kcap-1-1"), "{error}");
    }
}
