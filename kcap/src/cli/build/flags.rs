//! Kaniko's own flags, given after `--`: what kcap has to know of them.

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _};

use anyhow::{Result, bail};

/// Flags of Kaniko that kcap sets itself: long name, short name, and what to give instead.
const OURS: [(&str, Option<u8>, &str); 3] = [
    (
        "dockerfile",
        Some(b'f'),
        "give the Dockerfile to kcap, before --",
    ),
    ("context", Some(b'c'), "give -c to kcap, before --"),
    (
        "kaniko-dir",
        None,
        "leave it out: the executor has to stay where kcap looks for it",
    ),
];

/// Checks the flags. With `push`, there has to be a destination.
///
/// # Errors
/// Where they take the build away from what kcap mounted and traces, or contradict `push`.
pub fn check(flags: &[OsString], push: bool) -> Result<()> {
    for (long, short, instead) in OURS {
        if flags.iter().any(|flag| is(flag, long, short)) {
            bail!("Kaniko's --{long} is set by kcap: {instead}");
        }
    }
    if flags
        .iter()
        .any(|flag| flag.as_bytes().starts_with(b"--no-push="))
    {
        bail!("Kaniko's --no-push takes no value here: to push, give --push to kcap, before --");
    }
    let has = |long, short| flags.iter().any(|flag| is(flag, long, short));
    match (push, has("no-push", None), has("destination", Some(b'd'))) {
        (true, true, _) => bail!("--push and Kaniko's --no-push contradict each other: drop one"),
        (true, false, false) => {
            bail!("--push needs a place to push to: end with -- --destination=IMAGE")
        }
        _ => Ok(()),
    }
}

/// Checks flags of builds that are made again and again.
///
/// # Errors
/// Where they have a build leave out work, or write its image elsewhere.
pub fn check_replayed(flags: &[OsString]) -> Result<()> {
    for (long, why) in [
        (
            "cache",
            "each build has to do all of its work: leave it out",
        ),
        ("tar-path", "the image is kept to be compared: leave it out"),
        ("tarPath", "the image is kept to be compared: leave it out"),
        ("no-push-cache", "there is no cache: leave it out"),
    ] {
        if flags
            .iter()
            .any(|flag| is(flag, long, None) && flag != "--cache=false")
        {
            bail!("Kaniko's --{long} does not go with a proof: {why}");
        }
    }
    Ok(())
}

/// Whether an argument is the flag, with its value or before it.
pub fn is(flag: &OsString, long: &str, short: Option<u8>) -> bool {
    let flag = flag.as_bytes();
    match flag.strip_prefix(b"--") {
        Some(name) => name.split(|b| *b == b'=').next() == Some(long.as_bytes()),
        None => short.is_some_and(|short| flag.starts_with(&[b'-', short])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(flags: &[&str], push: bool) -> Result<()> {
        let flags: Vec<OsString> = flags.iter().map(OsString::from).collect();
        check(&flags, push)
    }

    #[test]
    fn what_kcap_sets_is_refused() {
        for flags in [
            &["--dockerfile", "x"][..],
            &["--dockerfile=x"],
            &["-f", "x"],
            &["-fx"],
            &["--cache", "--context=dir:///x"],
            &["-c", "x"],
            &["--kaniko-dir=/k"],
        ] {
            let error = checked(flags, false).unwrap_err().to_string();
            assert!(error.starts_with("Kaniko's --"), "{error}");
        }
        for flags in [
            &[][..],
            &[
                "--context-sub-path=x",
                "--build-arg=A=-f",
                "--cache",
                "-v",
                "debug",
            ],
            &["--build-arg", "A=1", "--destination", "x"],
            &["--no-push"],
        ] {
            checked(flags, false).unwrap();
        }
    }

    #[test]
    fn pushing_needs_a_place() {
        for flags in [
            &["--destination=x"][..],
            &["-d", "x"],
            &["--destination", "x"],
        ] {
            checked(flags, true).unwrap();
        }
        let error = checked(&["--cache"], true).unwrap_err().to_string();
        assert!(error.contains("--destination="), "{error}");
        let error = checked(&["-d", "x", "--no-push"], true)
            .unwrap_err()
            .to_string();
        assert!(error.contains("contradict"), "{error}");
    }
}
