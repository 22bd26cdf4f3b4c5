//! What commands do to their tracer: end in all ways, leave processes, fork much, move away, trace
//! on their own.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use kcap::{host::cgroup::Layout, report::Report};

use crate::harness::{Place, can_trace};

/// Checks of CAP_CHOWN in a report.
fn chowns(report: &Report) -> u64 {
    let capability = report
        .capabilities
        .iter()
        .find(|c| c.name.to_string() == "CHOWN");
    capability.map_or(0, |c| c.checks)
}

#[test]
fn the_exit_code_is_the_command_s_own() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 128 + libc::SIGTERM),
        ("kill -KILL $$", 128 + libc::SIGKILL),
        ("kill -SEGV $$", 128 + libc::SIGSEGV),
    ] {
        let done = place.done(&mut place.script(&["-q", "--report", "r"], script));
        assert_eq!(done.code(), Some(code), "{script}: {done:?}");
        assert_eq!(done.stderr(), "", "{script}");
        let report = place.report("r");
        assert_eq!(report.subject.exit_status, Some(code), "{script}");
        assert!(report.complete && !report.interrupted, "{script}");
    }
}

#[test]
fn the_command_starts_as_it_would_without_kcap() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let read = ["grep", "-E", "^(SigBlk|SigIgn|Cap)", "/proc/self/status"];
    let plain = Command::new(read[0]).args(&read[1..]).output();
    let traced = place.done(&mut place.run(["-q", "--"].iter().chain(&read)));
    let start = |text: &[u8]| -> Vec<u64> {
        let text = String::from_utf8_lossy(text);
        let sets = text
            .lines()
            .filter_map(|line| line.split_whitespace().last());
        let mut sets: Vec<u64> = sets
            .filter_map(|set| u64::from_str_radix(set, 16).ok())
            .collect();
        // The two behind the standard signals are the C library's own.
        sets[1] &= 0x7fff_ffff;
        sets
    };
    assert_eq!(
        start(&traced.output.stdout),
        start(&plain.expect("grep runs").stdout),
        "signals and capabilities"
    );
    // What follows the command is its own, with or without a separator.
    let done = place.done(&mut place.run(["-q", "sh", "-c", "exit 7", "-q", "--report"]));
    assert_eq!(done.code(), Some(7), "{done:?}");
}

#[test]
fn success_with_an_incomplete_report_is_3_and_failure_is_its_own() {
    if !can_trace() {
        return;
    }
    // With next to no place for records and tallies, and kcap stopped meanwhile, much is lost.
    let options = ["-q", "--report=r", "--ring-size=4096", "--table-size=2"];
    let flood = "kill -STOP $PPID; for j in 1 2 3 4 5 6 7 8 9; do \
                 /bin/true; /bin/chown 1 .; /bin/chmod 755 .; done; kill -CONT $PPID";
    for (end, code) in [("", 3), ("; exit 7", 7)] {
        let place = Place::new();
        let done = place.done(&mut place.script(&options, &format!("{flood}{end}")));
        assert_eq!(done.code(), Some(code), "{done:?}");
        assert!(!place.report("r").complete);
    }
}

#[test]
fn processes_left_behind_are_ended() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let script = "sleep 1000 & setsid sh -c 'trap \"\" TERM HUP; echo $$ > number; \
                  sleep 1000 & sleep 1000; true' & \
                  while ! [ -s number ]; do sleep 0.02; done; exit 4";
    let done = place.done(&mut place.script(&["-q", "--report", "r"], script));
    assert_eq!(done.code(), Some(4), "{done:?}");
    assert!(
        done.stderr().contains("processes running: killed"),
        "{done:?}"
    );
    let number = fs::read_to_string(place.path("number")).expect("written");
    let status = fs::read_to_string(format!("/proc/{}/status", number.trim()));
    assert!(status.is_err() || status.is_ok_and(|s| s.contains("State:\tZ")));
    assert!(!place.report("r").interrupted);
}

#[test]
fn many_forks_are_all_seen() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let script = "for i in 1 2 3 4 5 6 7 8; do (i=0; while [ $i -lt 25 ]; do \
                  /bin/chown 1 f$i; i=$((i+1)); done) & done; wait";
    for i in 0..25 {
        fs::write(place.path(format!("f{i}")), "").expect("ours");
    }
    let done = place.done(&mut place.script(&["-q", "--report", "r"], script));
    assert_eq!(done.code(), Some(0), "{done:?}");
    let report = place.report("r");
    assert!(report.complete, "{:?}", report.loss);
    assert_eq!(chowns(&report), 200);
}

/// A group beside kcap's, removed when dropped.
struct Beside(PathBuf);

impl Beside {
    fn new(layout: &Layout) -> Self {
        let path = layout
            .mount
            .join(format!("cli-test-{}", std::process::id()));
        fs::create_dir(&path).expect("a group");
        Self(path)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // A test that failed before this may have left a process in it.
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_command_that_moves_to_another_cgroup_is_followed() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let group = Beside::new(&Layout::detect().expect("there are cgroups"));
    let script = format!(
        "/bin/chown 1 .; (echo 0 > {0}/cgroup.procs; /bin/chown 2 .; sh -c '/bin/chown 3 .; true'); \
         /bin/chown 4 .; cat {0}/cgroup.procs",
        group.0.display()
    );
    let done = place.done(&mut place.script(&["-q", "--report", "r"], &script));
    assert_eq!(
        (done.code(), done.stderr()),
        (Some(0), String::new()),
        "{done:?}"
    );
    let report = place.report("r");
    assert!(report.complete, "{:?}", report.loss);
    assert_eq!(chowns(&report), 4);
}

#[test]
fn kcap_traces_kcap() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let inner = [
        env!("CARGO_BIN_EXE_kcap"),
        "run",
        "-q",
        "--report",
        "inner",
        "--",
    ];
    let outer = ["-q", "--report", "outer", "--"];
    let command = ["chown", "1", "."];
    let done = place.done(&mut place.run([&outer[..], &inner, &command].concat()));
    assert_eq!(
        (done.code(), done.stderr()),
        (Some(0), String::new()),
        "{done:?}"
    );
    assert_eq!(chowns(&place.report("inner")), 1);
    assert_eq!(chowns(&place.report("outer")), 1);
    assert!(place.report("inner").complete && place.report("outer").complete);
}

#[test]
fn side_by_side_each_sees_its_own() {
    if !can_trace() {
        return;
    }
    let places: Vec<_> = (1..=3).map(|n| (n, Place::new())).collect();
    let running: Vec<_> = places
        .iter()
        .map(|(n, place)| {
            let script = format!(
                "touch ready; while ! [ -e go ]; do sleep 0.02; done; \
                 i=0; while [ $i -lt {n}0 ]; do /bin/chown 1 .; i=$((i+1)); done"
            );
            let mut command = place.script(&["-q", "--report", "r"], &script);
            (
                n,
                place,
                command.stdout(Stdio::piped()).spawn().expect("kcap starts"),
            )
        })
        .collect();
    for (_, place, _) in &running {
        place.wait_for("ready");
    }
    for (_, place, _) in &running {
        fs::write(place.path("go"), "").expect("ours");
    }
    for (n, place, child) in running {
        let done = place.finish(child);
        assert_eq!(done.code(), Some(0), "{done:?}");
        assert_eq!(chowns(&place.report("r")), n * 10);
    }
}

#[test]
fn verbose_says_how_the_trace_is_made() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    for option in ["-v", "--verbose", "-vv"] {
        let done = place.done(&mut place.run(["-q", option, "--", "true"]));
        assert_eq!(done.code(), Some(0), "{done:?}");
        for part in ["kcap: hook: ", "blind to ", "kcap: scope: ", " ms\n"] {
            assert!(done.stderr().contains(part), "{part}: {done:?}");
        }
    }
}
