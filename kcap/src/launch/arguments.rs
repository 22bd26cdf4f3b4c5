//! Kaniko's command line: what kcap sets, then what was given; and what of it may be shown.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use anyhow::{Context as _, Result};

use super::Request;

/// Where the container finds the Dockerfile. Like the others, no place that a Dockerfile fills, as
/// `/Dockerfile` is by `COPY . /`: Kaniko leaves alone what is mounted.
pub(super) const DOCKERFILE: &str = "/kaniko-dockerfile/Dockerfile";
/// Where it finds the ignore file that goes with this Dockerfile alone.
pub(super) const DOCKERIGNORE: &str = "/kaniko-dockerfile/Dockerfile.dockerignore";
/// Where it finds the build context.
pub(super) const CONTEXT: &str = "/kaniko-context";
/// Where it writes the image.
pub(super) const ARCHIVE: &str = "/kaniko-archive/image.tar";
/// What stands for a value that must not be shown.
pub(crate) const HIDDEN: &str = "***";
/// Secrets shorter than this many bytes are not looked for: masking every `1` or `no` of a log would
/// destroy it, and tell as much.
pub(crate) const LEAST: usize = 3;

/// Flags of a program.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// As the program gets them.
    pub given: Vec<String>,
    /// Without the values that must not be shown.
    pub shown: Vec<String>,
    /// Those values.
    pub secrets: Vec<String>,
}

/// Kaniko's arguments for this build. Values of the executor's variables are among the secrets.
///
/// # Errors
/// Where one is not UTF-8: what engines and runtimes take is JSON.
pub(super) fn kaniko(request: &Request) -> Result<Arguments> {
    let mut own = vec![
        "-f".to_owned(),
        DOCKERFILE.into(),
        "-c".into(),
        CONTEXT.into(),
    ];
    if !request.push {
        own.push("--no-push".into());
    }
    if request.archive.is_some() {
        own.push(format!("--tar-path={ARCHIVE}"));
    }
    let mut arguments = Arguments {
        shown: own.clone(),
        given: own,
        secrets: Vec::new(),
    };
    let unshown = texts(&request.unshown).context("a flag cannot be passed on to Kaniko")?;
    arguments
        .given
        .extend(unshown.into_iter().map(str::to_owned));
    for secret in &request.secrets {
        arguments.hide(secret);
    }
    for (_, value) in &request.environment {
        arguments.hide(&value.to_string_lossy());
    }
    let flags = texts(&request.flags).context("a flag cannot be passed on to Kaniko")?;
    let flags = masked(&flags, &["--build-arg"]);
    arguments.given.extend(flags.given);
    arguments.shown.extend(flags.shown);
    for secret in &flags.secrets {
        arguments.hide(secret);
    }
    Ok(arguments)
}

/// Values among Kaniko's flags that must not be shown.
pub(crate) fn kaniko_secrets(flags: &[OsString]) -> Vec<String> {
    let texts: Vec<_> = flags.iter().map(|flag| flag.to_string_lossy()).collect();
    let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    masked(&texts, &["--build-arg"]).secrets
}

/// These flags; `carriers` are those that are followed by, or hold, `NAME=VALUE` with a value that must
/// not be shown. Nor are passwords in addresses, whichever flag has them.
pub(crate) fn masked(flags: &[&str], carriers: &[&str]) -> Arguments {
    let mut arguments = Arguments::default();
    let mut pair_follows = false;
    for &flag in flags {
        let start = if pair_follows {
            Some(0)
        } else {
            carriers.iter().find_map(|carrier| {
                let rest = flag.strip_prefix(carrier)?;
                // `-eNAME=VALUE` is possible for flags of one letter.
                (rest.starts_with('=') || (!carrier.starts_with("--") && !rest.is_empty()))
                    .then_some(carrier.len() + usize::from(rest.starts_with('=')))
            })
        };
        arguments.given.push(flag.to_owned());
        match start.and_then(|start| Some((start, flag[start..].split_once('=')?))) {
            Some((start, (name, value))) if !value.is_empty() => {
                arguments
                    .shown
                    .push(format!("{}{name}={HIDDEN}", &flag[..start]));
                arguments.hide(value);
            }
            _ => match password(flag) {
                Some(password) => {
                    arguments.shown.push(flag.replace(password, HIDDEN));
                    arguments.hide(password);
                }
                None => arguments.shown.push(flag.to_owned()),
            },
        }
        pair_follows = !pair_follows && carriers.contains(&flag);
    }
    arguments
}

impl Arguments {
    /// Adds a secret; each line of several for itself too, since logs are written by lines.
    fn hide(&mut self, value: &str) {
        let lines = value.lines().filter(|_| value.contains('\n'));
        for text in lines.chain([value]) {
            if text.len() >= LEAST && !self.secrets.iter().any(|known| known == text) {
                self.secrets.push(text.to_owned());
            }
        }
    }
}

/// The password of an address such as `git://user:password@host/path`, or its token where it has
/// no user: `https://token@host/path`.
fn password(flag: &str) -> Option<&str> {
    let (_, rest) = flag.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    let secret = user.split_once(':').map_or(user, |(_, password)| password);
    (!secret.is_empty()).then_some(secret)
}

/// The texts, where all are some.
///
/// # Errors
/// Where one is not UTF-8.
pub(super) fn texts(values: &[OsString]) -> Result<Vec<&str>> {
    values.iter().map(|value| text(value)).collect()
}

/// The text, where it is some.
///
/// # Errors
/// Where it is not UTF-8.
pub(super) fn text(value: &OsStr) -> Result<&str> {
    value
        .to_str()
        .with_context(|| format!("{:?} is not UTF-8", value.display().to_string()))
}

/// The path as text, for use in a container's configuration.
///
/// # Errors
/// Where it is not UTF-8.
pub(super) fn path_text(path: &Path) -> Result<&str> {
    text(path.as_os_str()).context("a path cannot be mounted; rename it")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::launch::Executor;

    fn request(flags: &[&str]) -> Request {
        Request {
            dockerfile: "Dockerfile".into(),
            context: ".".into(),
            flags: flags.iter().map(Into::into).collect(),
            ..Request::new(Executor::Image("kaniko".into()), 0)
        }
    }

    #[test]
    fn given_flags_come_last() {
        let mut request = request(&["--no-push=false", "--reproducible"]);
        assert_eq!(
            kaniko(&request).unwrap().given,
            [
                "-f",
                "/kaniko-dockerfile/Dockerfile",
                "-c",
                "/kaniko-context",
                "--no-push",
                "--no-push=false",
                "--reproducible"
            ]
        );
        request.push = true;
        request.archive = Some(PathBuf::from("image.tar"));
        let given = kaniko(&request).unwrap().given;
        assert!(!given.contains(&"--no-push".to_owned()), "{given:?}");
        assert_eq!(given[4], "--tar-path=/kaniko-archive/image.tar");
    }

    #[test]
    fn values_of_build_arguments_are_not_shown() {
        let mut request = request(&[
            "--build-arg",
            "TOKEN=first-secret",
            "--build-arg=KEY=second=secret",
            "--build-arg",
            "INHERITED",
            "--build-arg",
            "--build-arg=x=third-secret",
            "--target=x",
        ]);
        let arguments = kaniko(&request).unwrap();
        assert_eq!(
            arguments.shown[5..],
            [
                "--build-arg",
                "TOKEN=***",
                "--build-arg=KEY=***",
                "--build-arg",
                "INHERITED",
                "--build-arg",
                "--build-arg=***",
                "--target=x"
            ]
        );
        assert_eq!(arguments.given[6], "TOKEN=first-secret");
        request.environment = vec![("KEYS".into(), "one line\nno\nfirst-secret".into())];
        let secrets = kaniko(&request).unwrap().secrets;
        for secret in [
            "one line",
            "one line\nno\nfirst-secret",
            "first-secret",
            "second=secret",
            "x=third-secret",
        ] {
            assert!(secrets.iter().any(|s| s == secret), "{secret}: {secrets:?}");
        }
        assert_eq!(
            secrets.len(),
            5,
            "short texts and doubles stay out: {secrets:?}"
        );
    }

    #[test]
    fn flags_of_one_letter_carry_pairs_too() {
        let flags = [
            "--memory=64m",
            "-e",
            "A=first",
            "--env=B=second",
            "-eC=third",
            "-e=D=fourth",
            "--env",
            "E",
            "--env-file=x=y",
            "--entrypoint=/x",
        ];
        let arguments = masked(&flags, &["--env", "-e"]);
        assert_eq!(
            arguments.shown,
            [
                "--memory=64m",
                "-e",
                "A=***",
                "--env=B=***",
                "-eC=***",
                "-e=D=***",
                "--env",
                "E",
                "--env-file=x=y",
                "--entrypoint=/x"
            ]
        );
        assert_eq!(arguments.given, flags);
        assert_eq!(arguments.secrets, ["first", "second", "third", "fourth"]);
    }

    #[test]
    fn passwords_in_addresses_are_not_shown() {
        let flags = [
            "--registry-mirror=http://me:pass/word@host/@x",
            "--context=git://me:passw@host/a:b@c",
            "--git=https://token@host",
            "--label=a@b",
            "https://host/@x",
        ];
        let arguments = masked(&flags, &[]);
        assert_eq!(
            arguments.shown,
            [
                // A slash ends the part that can hold a password: it has to be written `%2F`.
                "--registry-mirror=http://me:pass/word@host/@x",
                "--context=git://me:***@host/a:b@c",
                "--git=https://***@host",
                "--label=a@b",
                "https://host/@x"
            ]
        );
        assert_eq!(arguments.given, flags);
        assert_eq!(arguments.secrets, ["passw", "token"]);
    }

    #[test]
    fn flags_that_are_not_text_are_refused() {
        use std::os::unix::ffi::OsStringExt as _;
        let mut request = request(&[]);
        request.flags = vec![OsString::from_vec(b"--label=\xff".to_vec())];
        let error = format!("{:#}", kaniko(&request).unwrap_err());
        assert!(error.contains("is not UTF-8"), "{error}");
    }
}
