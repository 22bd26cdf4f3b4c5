//! The executor's environment: the image's variables, with those of the request.

use anyhow::{Context as _, Result, ensure};

use crate::{launch::Request, render::escape};

/// Most columns of a name in an error.
const SHOWN: usize = 100;

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
        ensure!(
            !name.is_empty() && !name.contains(['=', '\0']),
            "`{}` is no name of a variable",
            escape::head(name, SHOWN)
        );
        let value = value
            .to_str()
            .filter(|value| !value.contains('\0'))
            .with_context(|| {
                format!(
                    "the value of {} is not UTF-8, or has a NUL: a container's configuration cannot hold it",
                    escape::head(name, SHOWN)
                )
            })?;
        set(name, value);
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsString,
        os::unix::ffi::OsStringExt as _,
        path::{Path, PathBuf},
    };

    use super::*;
    use crate::launch::{Executor, Seccomp};

    #[test]
    fn a_variable_is_set_once_and_the_request_wins() {
        let image = vec!["PATH=/kaniko".into(), "HOME=/root".into(), "HOME=/r".into()];
        let mut request = Request {
            dockerfile: PathBuf::from("Dockerfile"),
            context: PathBuf::from("."),
            seccomp: Seccomp::None,
            environment: vec![("TOKEN".into(), "t0p".into()), ("PATH".into(), "/x".into())],
            ..Request::new(Executor::Path(Path::new("/kaniko/executor").into()), 0)
        };
        let env = environment(image, "host", &request).unwrap();
        assert_eq!(env, ["HOSTNAME=host", "HOME=/r", "TOKEN=t0p", "PATH=/x"]);
        request.environment = vec![("A=B".into(), "x".into())];
        assert!(environment(Vec::new(), "host", &request).is_err());
        request.environment = vec![("A".into(), OsString::from_vec(b"s3cret\xff".into()))];
        let error = format!(
            "{:#}",
            environment(Vec::new(), "host", &request).unwrap_err()
        );
        assert!(
            error.contains("A is not UTF-8") && !error.contains("s3cret"),
            "{error}"
        );
    }
}
