//! An executor of known truth: stands in for Kaniko in tests. It takes the flags that Kaniko takes,
//! reads the Dockerfile, writes the lines that Kaniko writes to its log (each by one `write(2)` to
//! standard error, as logrus does), and makes for each instruction exactly the capability checks that
//! the Dockerfile names. It prints nothing else: what must have been seen follows from the Dockerfile.
//!
//! Its image may hold nothing else: where there is no `/bin/sh`, it unpacks itself as one with each
//! base. Under the name `sh` it is the shell of its own image, under any other name but `executor` it just
//! performs: a RUN instruction's processes make exactly the checks named there.
//!
//! ```text
//! # unpack: noatime:3@2           the next stage's base is unpacked with these checks
//! # initial: noatime:4            its first snapshot makes these
//! FROM scratch
//! # snapshot: noatime:2           the snapshot after the next instruction makes these
//! RUN truth chown:7 setuid:3      a process that executes the shell makes these
//! RUN truth chown:1 background sleep:50 fowner:9      a daemon that outlives the RUN makes the rest
//! COPY --chown=7:7 chown:40@4 /srv                    the executor itself makes these, by 4 threads
//! RUN truth exit:3                                    fails
//! # silent                        at the head of the file: no log, as of an executor unknown to kcap
//! ```
//!
//! An operation is `NAME:COUNT` or `NAME:COUNT@THREADS`, see `ops`. Anything else is text: words of
//! COPY, ADD and WORKDIR that are no operations, and whole instructions of other kinds.
//!
//! Its status is 0, that of the RUN instruction that failed, 1 where something else did, and 2 where
//! it was called wrongly or the Dockerfile cannot be used.

mod build;
mod dockerfile;
mod image;
mod log;
mod ops;
#[allow(dead_code, reason = "shared with the workload, which uses the rest")]
#[path = "../workload/sys.rs"]
mod sys;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use build::Failure;
use sys::Res;

fn main() -> ExitCode {
    let mut args = std::env::args();
    let path = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    let done = match path.rsplit('/').next() {
        Some("executor") => execute(&args),
        Some("sh") => shell(&args).map_err(Failure::Build),
        _ => ops::parse(args.iter().map(String::as_str))
            .and_then(|ops| ops::perform(&ops))
            .map_err(Failure::Build),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Run(status)) => ExitCode::from(status),
        Err(Failure::Build(error)) => {
            log::raw(&format!("error building image: {error}\n"));
            ExitCode::FAILURE
        }
        Err(Failure::Usage(error)) => {
            log::raw(&format!("{error}\n"));
            ExitCode::from(2)
        }
    }
}

/// `sh -c "truth OPERATION..."`. `background` starts a daemon, in a session of its own, for the
/// operations behind it; nobody waits for it.
fn shell(args: &[String]) -> Res {
    let [flag, text] = args else {
        return Err(format!("sh: expected -c and a command, got {args:?}"));
    };
    let mut words = text.split_whitespace();
    if flag != "-c" || words.next() != Some("truth") {
        return Err(format!("sh: not found: {text}"));
    }
    let words: Vec<&str> = words.collect();
    let (own, later) = match words.iter().position(|word| *word == "background") {
        Some(at) => (&words[..at], Some(&words[at + 1..])),
        None => (&words[..], None),
    };
    let own = ops::parse(own.iter().copied())?;
    if let Some(later) = later {
        let later = ops::parse(later.iter().copied())?;
        sys::fork(|| {
            sys::must("setsid", sys::setsid())?;
            ops::perform(&later)
        })?;
    }
    ops::perform(&own)
}

/// Builds as the flags say. Those that are not known take the form `--flag=value`, or are taken for
/// a flag of their own: none that kcap passes has its value in a word of its own but those named here.
fn execute(args: &[String]) -> Result<(), Failure> {
    let mut dockerfile = PathBuf::from("Dockerfile");
    let mut context = PathBuf::from("/workspace");
    let mut archive = PathBuf::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let (flag, value) = match arg.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (arg.as_str(), None),
        };
        let into = match flag {
            "-f" | "--dockerfile" => &mut dockerfile,
            "-c" | "--context" => &mut context,
            "--tar-path" => &mut archive,
            _ => continue,
        };
        let value = value.or_else(|| args.next().map(String::as_str));
        let value =
            value.ok_or_else(|| Failure::Usage(format!("flag needs an argument: {flag}")))?;
        *into = value.strip_prefix("dir://").unwrap_or(value).into();
    }
    // As Kaniko: a Dockerfile that is not where it says is looked for in the context.
    if !dockerfile.exists() {
        dockerfile = context.join(dockerfile);
    }
    let text = std::fs::read_to_string(&dockerfile).map_err(|e| {
        Failure::Usage(format!(
            "error resolving dockerfile path: {}: {e}",
            dockerfile.display()
        ))
    })?;
    let dockerfile = dockerfile::parse(&text).map_err(Failure::Usage)?;
    build::build(&dockerfile)?;
    if archive != Path::new("") {
        image::save(&archive)?;
    }
    Ok(())
}
