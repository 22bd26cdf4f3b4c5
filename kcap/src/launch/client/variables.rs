//! Variables of the executor, on no command line and in no file.
//!
//! Plain values reach the client as an environment file on its standard input. Values that such a file
//! cannot hold, or that some versions read in another way, are variables of the client itself, which it
//! passes on by name; that is not possible for those that the client acts on.

use std::{
    ffi::{OsStr, OsString},
    io::Write,
};

use anyhow::{Result, ensure};

use crate::launch::{
    arguments::text,
    call::{Answer, Call},
};

/// Beginnings of names that docker and podman act on.
const ACTED_ON: [&str; 19] = [
    "BUILDAH_",
    "CONTAINERS_",
    "CONTAINER_",
    "DOCKER_API_",
    "DOCKER_CERT_",
    "DOCKER_CLI_",
    "DOCKER_CONFIG",
    "DOCKER_CONTENT_",
    "DOCKER_CONTEXT",
    "DOCKER_CUSTOM_",
    "DOCKER_DEFAULT_",
    "DOCKER_HOST",
    "DOCKER_TLS",
    "GO",
    "LD_",
    "PODMAN_",
    "STORAGE_",
    "XDG_",
    "_CONTAINERS_",
];
/// Whole names of that kind.
const ACTED_ON_TOO: [&str; 4] = ["HOME", "PATH", "TMPDIR", "REGISTRY_AUTH_FILE"];

/// Variables, by how they reach the container.
#[derive(Debug, Default)]
pub(super) struct Variables<'a> {
    /// Lines of an environment file.
    file: Vec<(&'a str, &'a str)>,
    /// Variables of the client.
    inherited: Vec<(&'a str, &'a OsStr)>,
}

/// Sorts them.
///
/// # Errors
/// Which one cannot be passed to `engine`, and why.
pub(super) fn split<'a>(engine: &str, given: &'a [(String, OsString)]) -> Result<Variables<'a>> {
    let mut variables = Variables::default();
    for (name, value) in given {
        let mut letters = name.bytes();
        ensure!(
            letters
                .next()
                .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
                && letters.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')),
            "{name:?} is no name of a variable that {engine} can pass on"
        );
        let Ok(text) = text(value) else {
            anyhow::bail!("the value of {name} is not UTF-8, and {engine} cannot pass it on");
        };
        if is_plain(text) {
            variables.file.push((name, text));
            continue;
        }
        ensure!(
            !text.contains('\0'),
            "the value of {name} has a NUL, which no variable can hold"
        );
        ensure!(
            !ACTED_ON.iter().any(|start| name.starts_with(start))
                && !ACTED_ON_TOO.contains(&name.as_str()),
            "the value of {name} has line breaks, quotes or the like, and {engine} itself acts on a \
             variable of that name: mount a file with the value instead"
        );
        variables.inherited.push((name, value));
    }
    Ok(variables)
}

/// Every version reads it from an environment file as it is.
fn is_plain(value: &str) -> bool {
    value.trim() == value
        && !value.is_empty()
        && !value.contains(|c: char| c.is_control() || matches!(c, '#' | '\'' | '"' | '`' | '\\'))
}

impl Variables<'_> {
    /// The flags of `create` for them.
    pub fn flags(&self) -> Vec<String> {
        let file = (!self.file.is_empty()).then(|| "--env-file=/dev/stdin".to_owned());
        let inherited = self
            .inherited
            .iter()
            .map(|(name, _)| format!("--env={name}"));
        file.into_iter().chain(inherited).collect()
    }

    /// Flags that stand for them in a report.
    pub fn shown(&self) -> Vec<String> {
        let names = self.file.iter().map(|(name, _)| *name);
        let names = names.chain(self.inherited.iter().map(|(name, _)| *name));
        names.map(|name| format!("--env={name}")).collect()
    }

    /// Carries out a `create` that has [`Variables::flags`].
    ///
    /// # Errors
    /// As [`Call::run`].
    pub fn create(&self, call: Call<'_>) -> Result<Answer> {
        let call = call.inherit(&self.inherited);
        if self.file.is_empty() {
            return call.run();
        }
        call.feed(&mut |file: &mut dyn Write| {
            for (name, value) in &self.file {
                writeln!(file, "{name}={value}")?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> Vec<(String, OsString)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.into()))
            .collect()
    }

    #[test]
    fn odd_values_are_inherited() {
        let given = given(&[
            ("TOKEN", "a=b c/d+e=="),
            ("DOCKER_CONFIG", "/kaniko/.docker"),
            ("KEY", "-----BEGIN\nx\n"),
            ("DOCKER_AUTH_CONFIG", r#"{"auths": {}}"#),
            ("PADDED", " x "),
            ("EMPTY", ""),
        ]);
        let variables = split("docker", &given).unwrap();
        assert_eq!(
            variables.file,
            [
                ("TOKEN", "a=b c/d+e=="),
                ("DOCKER_CONFIG", "/kaniko/.docker")
            ]
        );
        assert_eq!(
            variables.flags(),
            [
                "--env-file=/dev/stdin",
                "--env=KEY",
                "--env=DOCKER_AUTH_CONFIG",
                "--env=PADDED",
                "--env=EMPTY"
            ]
        );
        assert_eq!(variables.shown().len(), 6);
    }

    #[test]
    fn what_cannot_be_passed_is_refused() {
        for (name, value, reason) in [
            ("DOCKER_HOST", "a\nb", "itself acts on"),
            ("HOME", "'x'", "itself acts on"),
            ("", "x", "is no name"),
            ("A=B", "x", "is no name"),
            ("A*", "x", "is no name"),
            ("1A", "x", "is no name"),
            ("A\nB", "x", "is no name"),
            ("A", "x\0", "has a NUL"),
        ] {
            let given = given(&[(name, value)]);
            let error = split("docker", &given).unwrap_err().to_string();
            assert!(error.contains(reason), "{name:?}: {error}");
            assert!(value.len() < 2 || !error.contains(value), "{error}");
        }
    }
}
