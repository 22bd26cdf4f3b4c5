//! Kaniko's command line: what runs, and what a report may show of it.

use std::ffi::{OsStr, OsString};

use anyhow::{Context as _, Result};

use crate::{launch::Request, render::escape};

/// Where the container sees the Dockerfile. A `.dockerignore` of its own is beside it.
pub const DOCKERFILE: &str = "/kaniko-dockerfile/Dockerfile";
/// Where it sees the ignore file that goes with this Dockerfile alone.
pub const DOCKERIGNORE: &str = "/kaniko-dockerfile/Dockerfile.dockerignore";
/// Where it sees the build context.
pub const CONTEXT: &str = "/kaniko-context";
/// Where it writes the image.
pub const ARCHIVE: &str = "/kaniko-archive/image.tar";

/// Most columns of an argument in an error.
const SHOWN: usize = 100;
/// What stands for a value that is not shown.
const MASK: &str = "***";
/// Kaniko's option whose value is `NAME=VALUE`, where the value can be a secret.
const BUILD_ARG: &str = "--build-arg";

/// The executor with its arguments: what kcap sets, then the flags of the request, which win.
///
/// # Errors
/// A flag that is not UTF-8, which a bundle's configuration cannot hold.
pub fn arguments(entrypoint: Vec<String>, request: &Request) -> Result<Vec<String>> {
    let mut args = entrypoint;
    args.push(format!("--dockerfile={DOCKERFILE}"));
    args.push(format!("--context=dir://{CONTEXT}"));
    if !request.push {
        args.push("--no-push".into());
    }
    if request.archive.is_some() {
        args.push(format!("--tar-path={ARCHIVE}"));
    }
    for flag in &request.flags {
        args.push(utf8(flag, "the flag")?.into());
    }
    Ok(args)
}

/// Variables as `NAME=VALUE`: those of the image, then those of the request, which win.
///
/// # Errors
/// A value that is not UTF-8, or a name that is none.
pub fn environment(image: Vec<String>, hostname: &str, request: &Request) -> Result<Vec<String>> {
    let mut env = Vec::new();
    let mut set = |name: &str, value: &str| {
        let start = format!("{name}=");
        env.retain(|entry: &String| !entry.starts_with(&start));
        env.push(start + value);
    };
    // As docker: what the image does not set.
    set(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    set("HOSTNAME", hostname);
    for entry in &image {
        if let Some((name, value)) = entry.split_once('=') {
            set(name, value);
        }
    }
    for (name, value) in &request.environment {
        anyhow::ensure!(
            !name.is_empty() && !name.contains(['=', '\0']),
            "`{}` is no name of a variable",
            escape::head(name, SHOWN)
        );
        set(
            name,
            utf8(
                value,
                &format!("the value of {}", escape::head(name, SHOWN)),
            )?,
        );
    }
    Ok(env)
}

/// The text, which must be UTF-8.
///
/// # Errors
/// Where it is not.
pub fn utf8<'a>(text: &'a OsStr, what: &str) -> Result<&'a str> {
    text.to_str().with_context(|| {
        format!(
            "{what} {} is not UTF-8, which a container's configuration must be: rename it",
            escape::head(&text.to_string_lossy(), SHOWN)
        )
    })
}

/// Arguments as they may be shown: without values of build arguments, and without passwords in
/// addresses.
pub fn masked(args: &[String]) -> Vec<String> {
    let mut next = false;
    args.iter()
        .map(|arg| {
            if std::mem::take(&mut next) {
                return mask_value(arg);
            }
            next = arg == BUILD_ARG;
            match build_arg(arg) {
                Some(pair) => format!("{BUILD_ARG}={}", mask_value(pair)),
                None => match password(arg) {
                    Some(password) => arg.replace(password, MASK),
                    None => arg.clone(),
                },
            }
        })
        .collect()
}

/// What must not be written anywhere: values of build arguments and of variables, and passwords in
/// addresses.
pub fn secrets(args: &[String], environment: &[(String, OsString)]) -> Vec<String> {
    let values = environment
        .iter()
        .map(|(_, value)| value.to_string_lossy().into_owned());
    let mut next = false;
    let arguments = args.iter().filter_map(|arg| {
        let pair = if std::mem::take(&mut next) {
            Some(arg.as_str())
        } else {
            build_arg(arg)
        };
        next = arg == BUILD_ARG;
        let secret = match pair {
            Some(pair) => pair.split_once('=').map(|(_, value)| value),
            None => password(arg),
        };
        secret.map(String::from)
    });
    let mut secrets: Vec<String> = values.chain(arguments).filter(|s| !s.is_empty()).collect();
    secrets.sort();
    secrets.dedup();
    secrets
}

fn build_arg(arg: &str) -> Option<&str> {
    arg.strip_prefix(BUILD_ARG)?.strip_prefix('=')
}

fn mask_value(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, value)) if !value.is_empty() => format!("{name}={MASK}"),
        _ => pair.to_owned(),
    }
}

/// The password of an address such as `git://user:password@host/path`, or its token where it has
/// no user: `https://token@host/path`.
fn password(arg: &str) -> Option<&str> {
    let (_, rest) = arg.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    let secret = user.split_once(':').map_or(user, |(_, password)| password);
    (!secret.is_empty()).then_some(secret)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::ffi::OsStringExt as _, path::PathBuf};

    use super::*;
    use crate::launch::{Executor, Seccomp};

    fn request(flags: &[&str]) -> Request {
        Request {
            dockerfile: PathBuf::from("Dockerfile"),
            context: PathBuf::from("."),
            executor: Executor::Image("kaniko".into()),
            capabilities: 0,
            seccomp: Seccomp::None,
            flags: flags.iter().map(OsString::from).collect(),
            push: false,
            archive: None,
            environment: vec![("TOKEN".into(), "t0p".into()), ("PATH".into(), "/x".into())],
            network: None,
            engine_flags: vec![],
        }
    }

    #[test]
    fn flags_of_the_request_come_last() {
        let mut request = request(&["--context=dir:///other", "--reproducible"]);
        let args = arguments(vec!["/kaniko/executor".into()], &request).unwrap();
        let expected = [
            "/kaniko/executor",
            "--dockerfile=/kaniko-dockerfile/Dockerfile",
            "--context=dir:///kaniko-context",
            "--no-push",
            "--context=dir:///other",
            "--reproducible",
        ];
        assert_eq!(args, expected);
        request.push = true;
        request.archive = Some("out.tar".into());
        request.flags = vec![OsString::from_vec(vec![b'-', 0xff])];
        let error = arguments(Vec::new(), &request).unwrap_err().to_string();
        assert!(error.contains("not UTF-8"), "{error}");
        request.flags.clear();
        let args = arguments(Vec::new(), &request).unwrap();
        assert_eq!(args[2..], ["--tar-path=/kaniko-archive/image.tar"]);
    }

    #[test]
    fn a_variable_is_set_once_and_the_request_wins() {
        let image = vec!["PATH=/kaniko".into(), "HOME=/root".into(), "HOME=/r".into()];
        let mut request = request(&[]);
        let env = environment(image, "host", &request).unwrap();
        assert_eq!(env, ["HOSTNAME=host", "HOME=/r", "TOKEN=t0p", "PATH=/x"]);
        request.environment = vec![("A=B".into(), "x".into())];
        assert!(environment(Vec::new(), "host", &request).is_err());
    }

    #[test]
    fn secrets_are_masked_and_listed() {
        let args: Vec<String> = "e --build-arg A=s3cret --build-arg=B=x=y --build-arg C -c \
                                 git://me:pw@host/a:b@c --git=https://tok@host --label a=b \
                                 --build-arg=D= https://host/@x"
            .split_whitespace()
            .map(String::from)
            .collect();
        let expected = "e --build-arg A=*** --build-arg=B=*** --build-arg C -c \
                        git://me:***@host/a:b@c --git=https://***@host --label a=b \
                        --build-arg=D= https://host/@x";
        assert_eq!(
            masked(&args).join(" "),
            expected.split_whitespace().collect::<Vec<_>>().join(" ")
        );
        let secrets = secrets(&args, &request(&[]).environment);
        assert_eq!(secrets, ["/x", "pw", "s3cret", "t0p", "tok", "x=y"]);
    }
}
