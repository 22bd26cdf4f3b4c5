use clap::Parser;

use super::*;
use crate::{capture::Tally, interpret::interpret, report::Cap};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn parsed(args: &[&str]) -> Result<Args, clap::Error> {
    Cli::try_parse_from(["build"].iter().chain(args)).map(|cli| cli.args)
}

#[test]
fn arguments_as_people_write_them() {
    let args = parsed(&[
        "-f",
        "a/Dockerfile",
        "b/Dockerfile",
        "-f",
        "c",
        "--cap-drop",
        "all",
        "--cap-add=chown,CAP_SETUID",
        "--cap-add",
        "KILL",
        "-j4",
        "-o",
        "reports",
        "--engine-flag",
        "--memory=4g",
        "--",
        "--build-arg=A=1",
        "-d",
        "x",
    ])
    .unwrap();
    assert_eq!(
        args.files,
        ["a/Dockerfile", "b/Dockerfile", "c"].map(PathBuf::from)
    );
    assert_eq!(args.kaniko, ["--build-arg=A=1", "-d", "x"]);
    assert_eq!(args.jobs.get(), 4);
    assert_eq!(args.engine_flags, ["--memory=4g"]);
    let request = request::request(&args).unwrap();
    assert_eq!(
        Cap::of_mask(request.capabilities).collect::<Vec<_>>(),
        [Cap::CHOWN, Cap::KILL, Cap::SETUID]
    );
    assert!(!request.push);
    assert_eq!(args.show(), Show::Progress);
    for odd in [
        &["--jobs=0"][..],
        &["--cap-add", "NOTHING"],
        &["--engine", "lxc"],
        &["-q", "-v"],
        &["Dockerfile"],
        &["--format", "xml"],
    ] {
        assert!(parsed(odd).is_err(), "{odd:?}");
    }
}

fn build(change: impl FnOnce(&mut Capture)) -> Build {
    let mut capture = Capture::default();
    capture.subject.exit_status = Some(0);
    capture.subject.duration_ms = 3_400;
    change(&mut capture);
    Build::traced("a/Dockerfile".into(), interpret(&capture))
}

#[test]
fn one_line_on_how_a_build_ended() {
    let with = |change: fn(&mut Capture)| summary::line(&build(change));
    assert_eq!(
        with(|_| {}),
        "built in 3.4s, 0 checks; nothing was seen to be needed"
    );
    assert_eq!(
        with(|c| c.loss.checks = 1),
        "built in 3.4s, 0 checks; nothing was seen to be needed; incomplete: something was lost"
    );
    assert!(with(|c| c.interrupted = true).starts_with("interrupted after 3.4s, "));
    let refused = with(|c| {
        c.subject.exit_status = Some(1);
        c.host.arch = "x86_64".into();
        // A chown that was refused with EPERM.
        c.tallies.push(Tally {
            cap: Some(0),
            result: 1,
            syscall: Some(92),
            abi: 1,
            count: 1,
            failed: [(1, 1)].into(),
            ..Tally::default()
        });
    });
    assert_eq!(
        refused,
        "failed with exit code 1 after 3.4s, 1 checks; needs CHOWN; refused: CHOWN"
    );
    let killed = with(|c| {
        c.subject.exit_status = Some(137);
        c.subject.out_of_memory = true;
    });
    assert!(
        killed.starts_with("killed for want of memory after 3.4s: "),
        "{killed}"
    );
}

#[test]
fn the_exit_code_is_the_gravest() {
    let ok = || build(|_| {});
    let lossy = || build(|c| c.loss.checks = 1);
    let failed = || build(|c| c.subject.exit_status = Some(1));
    let unseen = || Build::unseen("x".into(), Status::Error, "line 1".into());
    assert_eq!(exit_code(&[ok(), ok()], false), OK);
    assert_eq!(exit_code(&[ok(), lossy()], false), exit::INCOMPLETE);
    assert_eq!(exit_code(&[lossy(), failed()], false), exit::NO);
    assert_eq!(exit_code(&[ok(), unseen()], false), exit::NO);
    assert_eq!(
        exit_code(&[build(|c| c.interrupted = true)], false),
        exit::NO
    );
    assert_eq!(exit_code(&[failed(), ok()], true), exit::USAGE);
}

#[test]
fn a_container_without_an_executor_is_no_build() {
    let of = |change: fn(&mut Capture)| {
        let (status, why) = unstarted(&build(change).report.unwrap());
        assert!(!why.is_empty());
        status
    };
    assert_eq!(of(|_| {}), Status::Error);
    assert_eq!(of(|c| c.subject.exit_status = Some(125)), Status::Error);
    assert_eq!(of(|c| c.interrupted = true), Status::NotStarted);
}
