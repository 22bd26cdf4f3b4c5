//! What the containers of all builds have in common.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};

use super::{Args, SeccompKind, capabilities, engine};
use crate::launch::{Request, Seccomp};

/// What is asked for, without a Dockerfile and a context.
///
/// # Errors
/// Where an argument is none.
pub fn request(args: &Args) -> Result<Request> {
    let environment = args.env.iter().map(variable).collect::<Result<_>>()?;
    Ok(Request {
        dockerfile: PathBuf::new(),
        context: PathBuf::new(),
        executor: engine::executor(&args.executor)?,
        capabilities: capabilities::mask(&args.cap_drop, &args.cap_add)?,
        seccomp: match args.seccomp {
            SeccompKind::Docker => Seccomp::Docker,
            SeccompKind::None => Seccomp::None,
        },
        flags: args.kaniko.clone(),
        unshown: vec![],
        secrets: vec![],
        push: args.push,
        archive: None,
        environment,
        network: args.network.clone(),
        engine_flags: args.engine_flags.clone(),
    })
}

/// `NAME=VALUE`, or `NAME` for kcap's own value. The value is a secret: no error shows it.
fn variable(given: &OsString) -> Result<(String, OsString)> {
    let bytes = given.as_bytes();
    let end = bytes.iter().position(|b| *b == b'=').unwrap_or(bytes.len());
    let name = str::from_utf8(&bytes[..end]).unwrap_or_default();
    if name.is_empty() || name.contains(char::is_control) {
        bail!("--env takes NAME=VALUE, or NAME to pass kcap's own value on");
    }
    let value = match bytes.get(end + 1..) {
        Some(value) => OsStr::from_bytes(value).to_owned(),
        None => env::var_os(name)
            .with_context(|| format!("--env {name}: kcap has no such variable to pass on"))?,
    };
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_their_errors_show_no_value() {
        let one = |text: &[u8]| variable(&OsString::from(OsStr::from_bytes(text)));
        assert_eq!(one(b"A=b=c").unwrap(), ("A".into(), "b=c".into()));
        assert_eq!(one(b"A=").unwrap(), ("A".into(), "".into()));
        assert_eq!(one(b"PATH").unwrap().1, env::var_os("PATH").unwrap());
        for odd in [
            &b"=secret"[..],
            b"",
            b"\xff=secret",
            b"A\x1b=secret",
            b"KCAP_NO_SUCH_VARIABLE",
        ] {
            let error = format!("{:#}", one(odd).unwrap_err());
            assert!(error.starts_with("--env "), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
