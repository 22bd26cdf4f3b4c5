//! The executor's phases, and containers that somebody else starts: an executor of known truth
//! (`tests/executor`) is traced by the real `kcap`, and the capture held against what its Dockerfile
//! says. Needs root and BPF; runs the same inside the virtual machines of `cargo xtask test`.
//!
//! `KCAP_TEST_BIN` and `KCAP_EXECUTOR` name the two programs where they are not beside this one.

#[path = "support/counts.rs"]
mod counts;
#[allow(dead_code, reason = "shared with tests that use the rest")]
#[path = "support/lab.rs"]
mod lab;
#[path = "support/programs.rs"]
mod programs;

use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use counts::{Counts, Phase, executors};
use kcap::capture::{self, Capture, Origin, Program};
use lab::{Group, Lab, PATIENCE};

/// One trace at a time.
static ONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(|e| e.into_inner())
}

impl Lab {
    fn start(&self, name: &str, command: &[&str]) -> Trace {
        let files = ["capture", "ready", "done"].map(|kind| self.path(&format!("{name}.{kind}")));
        let [capture, ready, done] = &files;
        let errors = self.path(&format!("{name}.errors"));
        let child = Command::new(programs::kcap())
            .args(["run", "--quiet", "--capture", capture])
            .args(["--match", &self.path("kaniko/executor")])
            .arg("--")
            .args(command)
            .env("READY", ready)
            .env("DONE", done)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&errors).expect("a file"))
            .spawn()
            .expect("kcap runs");
        Trace {
            child,
            capture: capture.into(),
            ready: ready.into(),
            done: done.into(),
            errors: errors.into(),
        }
    }

    /// Traces a command to its end.
    fn trace(&self, name: &str, command: &[&str]) -> Capture {
        self.start(name, command).end().0
    }

    /// Traces a command that just waits, while others start containers. `args` come last in it.
    fn wait(&self, name: &str, args: &[&str]) -> Trace {
        let script = "touch \"$READY\"; until [ -e \"$DONE\" ]; do sleep 0.02; done";
        let mut command = vec!["/bin/sh", "-c", script, "sh"];
        command.extend(args);
        let mut trace = self.start(name, &command);
        let end = Instant::now() + PATIENCE;
        while !trace.ready.exists() {
            let ended = trace.child.try_wait().expect("kcap can be waited for");
            assert!(
                ended.is_none() && Instant::now() < end,
                "kcap does not start the command: {}",
                trace.errors()
            );
            thread::sleep(Duration::from_millis(10));
        }
        trace
    }
}

/// A kcap that runs.
struct Trace {
    child: Child,
    capture: PathBuf,
    ready: PathBuf,
    done: PathBuf,
    errors: PathBuf,
}

impl Trace {
    fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Has the command end, and gives the capture and what kcap said.
    fn end(mut self) -> (Capture, String) {
        fs::write(&self.done, "").expect("a file");
        let status = self.child.wait().expect("kcap can be waited for");
        let errors = self.errors();
        assert!(matches!(status.code(), Some(0 | 3)), "{status}: {errors}");
        let file = File::open(&self.capture).expect("a capture");
        let capture = capture::read(BufReader::new(file)).expect("a capture");
        let loss = &capture.loss;
        assert!(loss.is_none() || loss.unproven.is_some(), "{loss:?}");
        (capture, errors)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // It has ended, but where a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All of a capture's checks, but those for memory.
fn all(capture: &Capture) -> Counts {
    let mut counts = Counts::default();
    capture.tallies.iter().for_each(|tally| counts.add(tally));
    counts
}

/// Everything before the first instruction of a stage from scratch.
fn opening(first: &str, unpack: &str) -> Vec<Phase> {
    vec![
        Phase::new("", "prepare:1", ""),
        Phase::new("Built cross stage deps: map[]", "", ""),
        Phase::new(
            "Building stage 'scratch' [idx: '0', base-idx: '-1']",
            "",
            "",
        ),
        Phase::new(
            &format!("Unpacking rootfs as cmd {first} requires it."),
            unpack,
            "",
        ),
    ]
}

const END: &str = "Skipping push to container registry due to --no-push flag";
const FULL: &str = "Taking snapshot of full filesystem...";

#[test]
fn every_phase_has_exactly_its_own_checks() {
    let _one = alone();
    let lab = Lab::new();
    let dockerfile = lab.dockerfile(
        "Dockerfile",
        "# unpack: chown:12 noatime:5@3\n# initial: noatime:300@4\nFROM scratch",
        "\
# snapshot: noatime:200@4
RUN truth chown:7 setuid:3
COPY --chown=7:7 chown:5000 /srv
# snapshot: fowner:6@2
RUN truth chown:1 setgid:2@3 background sleep:150 fowner:9 setgid:2
USER 1000:1000
RUN truth setuid:4
# The daemon is still there.
RUN truth sleep:600
ADD chown:300@5 settime:2 /srv
FROM scratch
COPY chown:3 /x
",
    );
    let context = lab.path("");
    let executor = lab.path("kaniko/executor");
    let command = [&executor, "--dockerfile", &dockerfile, "-c", &context];
    let capture = lab.trace("phases", &command);

    let mut expected = opening("RUN truth chown:7 setuid:3", "chown:12 noatime:5@3");
    let mut is = |line: &str, own: &str, children: &str| {
        expected.push(Phase::new(line, own, children));
    };
    let lookup = |is: &mut dyn FnMut(&str, &str, &str)| {
        let user = "Util.Lookup returned: &{Uid:1000 Gid: Username: Name: HomeDir:/}";
        is(user, "", "");
        is("Performing slow lookup of group ids for", "", "");
    };
    is(
        &format!("SHELL [\"{}\", \"-c\"]", lab.path("bin/sh")),
        "",
        "",
    );
    is("RUN truth chown:7 setuid:3", "", "");
    is("Initializing snapshotter ...", "", "");
    is(FULL, "noatime:300@4", "");
    let [cmd, args, running] = lab.run_lines("truth chown:7 setuid:3");
    is(&cmd, "", "");
    is(&args, "", "");
    is(&running, "", "chown:7 setuid:3");
    is(FULL, "noatime:200@4", "");
    is("COPY --chown=7:7 chown:5000 /srv", "chown:5000", "");
    is("Taking snapshot of files...", "", "");
    let daemon = "truth chown:1 setgid:2@3 background sleep:150 fowner:9 setgid:2";
    is(&format!("RUN {daemon}"), "", "");
    let [cmd, args, running] = lab.run_lines(daemon);
    is(&cmd, "", "");
    is(&args, "", "");
    // What the daemon does is of this RUN, whenever it does it.
    is(&running, "", "chown:1 setgid:8 fowner:9");
    is(FULL, "fowner:6@2", "");
    is("USER 1000:1000", "", "");
    is("Cmd: USER", "", "");
    is("RUN truth setuid:4", "", "");
    let [cmd, args, running] = lab.run_lines("truth setuid:4");
    is(&cmd, "", "");
    is(&args, "", "");
    lookup(&mut is);
    // The user is changed in the child before it executes anything.
    is(&running, "", "setgroups:1 setgid:1 setuid:5");
    is(FULL, "", "");
    is("RUN truth sleep:600", "", "");
    let [cmd, args, running] = lab.run_lines("truth sleep:600");
    is(&cmd, "", "");
    is(&args, "", "");
    lookup(&mut is);
    is(&running, "", "setgroups:1 setgid:1 setuid:1");
    is(FULL, "", "");
    is("ADD chown:300@5 settime:2 /srv", "chown:1500 settime:2", "");
    is("Taking snapshot of files...", "", "");
    is("Deleting filesystem...", "", "");
    is(
        "Building stage 'scratch' [idx: '1', base-idx: '-1']",
        "",
        "",
    );
    is(
        "Unpacking rootfs as cmd COPY chown:3 /x requires it.",
        "",
        "",
    );
    is("COPY chown:3 /x", "chown:3", "");
    is("Taking snapshot of files...", "", "");
    is(END, "", "");
    let seen = executors(&capture);
    assert_eq!(seen.len(), 1);
    for (at, (seen, expected)) in seen[0].iter().zip(&expected).enumerate() {
        assert_eq!(seen, expected, "phase {at}");
    }
    assert_eq!(seen[0].len(), expected.len());

    // The daemon did go on beyond its RUN instruction.
    let next = capture
        .log
        .iter()
        .find(|l| l.text.contains(" RUN truth setuid:4"));
    let next = next.expect("a line").time_ns;
    let of_sh = |p: &&Program| p.path == lab.path("bin/sh") && p.origin == Origin::Fork;
    let daemon = (capture.programs.iter().filter(of_sh)).find(|p| p.end_ns > Some(next));
    assert!(daemon.is_some(), "no child of the shell outlived its RUN");
}

#[test]
fn an_executor_without_a_log_has_one_phase() {
    let _one = alone();
    let lab = Lab::new();
    let dockerfile = lab.dockerfile(
        "Dockerfile",
        "# silent\nFROM scratch",
        "COPY chown:50@3 /a\nRUN truth setuid:5\nCOPY fowner:2 /b\n",
    );
    let executor = lab.path("kaniko/executor");
    let command = [&executor, "-f", &dockerfile, "--context=/", "--no-push"];
    let capture = lab.trace("silent", &command);
    assert!(capture.log.is_empty(), "{:?}", capture.log);
    let all = Phase::new("", "prepare:1 chown:150 fowner:2", "setuid:5");
    assert_eq!(executors(&capture), [[all]]);
}

#[test]
fn a_failing_instruction_is_the_last_phase_but_its_error() {
    let _one = alone();
    let lab = Lab::new();
    let dockerfile = lab.dockerfile(
        "Dockerfile",
        "FROM scratch",
        "RUN truth chown:3 exit:7\nCOPY chown:5 /never\n",
    );
    let script = "\"$1\" -f \"$2\"; [ $? = 7 ]";
    let executor = lab.path("kaniko/executor");
    let command = ["/bin/sh", "-c", script, "sh", &executor, &dockerfile];
    let capture = lab.trace("failing", &command);
    let seen = executors(&capture);
    assert_eq!(seen.len(), 1);
    let [.., running, error] = &seen[0][..] else {
        panic!("no phases: {seen:?}");
    };
    assert_eq!(running.children, Counts::of("chown:3"));
    assert_eq!(
        error.line,
        "error building image: error building stage: failed to execute command: waiting for process \
         to exit: exit status 7"
    );
    assert_eq!(all(&capture), Counts::of("prepare:1 chown:3"));
}

/// What an executor does with [`small`], its children included.
const SMALL: &str = "prepare:1 noatime:60 chown:40 setuid:9";

/// A Dockerfile that comes to [`SMALL`].
fn small(lab: &Lab, name: &str) -> String {
    lab.dockerfile(
        name,
        "# initial: noatime:20@3\nFROM scratch",
        "COPY chown:20@2 /a\nRUN truth setuid:9\n",
    )
}

#[test]
fn a_container_opens_a_session_at_its_executors_first_instruction() {
    let _one = alone();
    let lab = Lab::new();
    let dockerfile = small(&lab, "Dockerfile");
    // As an engine's command line does, the traced one ends with the executor's.
    let trace = lab.wait("opens", &["-f", &dockerfile, "-c", "/"]);
    const CONTAINERS: usize = 5;
    // The shell is there before the executor: what it does by then is not seen, what it does from then
    // on is.
    let script = "\"$1\" chown:3; \"$2\" -f \"$3\" -c /; \"$1\" setgid:4; true";
    let (truth, executor) = (lab.path("bin/truth"), lab.path("kaniko/executor"));
    for container in 0..CONTAINERS {
        let group = Group::new(&container.to_string());
        let status = group.run(
            true,
            &[
                "/bin/sh",
                "-c",
                script,
                "sh",
                &truth,
                &executor,
                &dockerfile,
            ],
        );
        assert!(status.success(), "{status}");
        // As by `docker exec`: a process from elsewhere.
        let status = group.run(true, &[&truth, "setgroups:11"]);
        assert!(status.success(), "{status}");
    }
    let (capture, errors) = trace.end();
    let each = format!("{SMALL} setgid:4 setgroups:11 ");
    assert_eq!(
        all(&capture),
        Counts::of(&each.repeat(CONTAINERS)),
        "{errors}"
    );
    let seen = executors(&capture);
    assert_eq!(seen.len(), CONTAINERS);
    for phases in &seen {
        assert_eq!(*phases, seen[0]);
        assert_eq!(phases[0], Phase::new("", "prepare:1", ""));
    }
    // The shell of each was taken into its session, as the executor's parent.
    let entered = |p: &&Program| p.origin == Origin::Enter && p.exec.is_none();
    let above = capture.programs.iter().filter(entered).count();
    assert!(above >= CONTAINERS, "{above} processes entered");
}

#[test]
fn in_the_hosts_namespace_a_session_is_the_executors_tree() {
    let _one = alone();
    let lab = Lab::new();
    let dockerfile = small(&lab, "Dockerfile");
    let trace = lab.wait("tree", &["-f", &dockerfile, "-c", "/"]);
    let group = Group::new("tree");
    let script = "\"$1\" chown:3; \"$2\" -f \"$3\" -c /; \"$1\" setgid:4; true";
    let (truth, executor) = (lab.path("bin/truth"), lab.path("kaniko/executor"));
    let command = [
        "/bin/sh",
        "-c",
        script,
        "sh",
        &truth,
        &executor,
        &dockerfile,
    ];
    assert!(group.run(false, &command).success());
    assert!(group.run(false, &[&truth, "setgroups:11"]).success());
    let (capture, errors) = trace.end();
    assert_eq!(all(&capture), Counts::of(SMALL), "{errors}");
    assert_eq!(executors(&capture).len(), 1);
}

#[test]
fn two_containers_that_start_at_once_do_not_mix() {
    let _one = alone();
    let lab = Lab::new();
    let ours = small(&lab, "ours");
    let theirs = lab.dockerfile(
        "theirs",
        "FROM scratch",
        "COPY chown:5000@2 setgid:1000 /a\nRUN truth setuid:900\n",
    );
    let args = ["-f", &ours, "--context", "/ours", "--no-push"];
    let trace = lab.wait("mixed", &args);
    let executor = lab.path("kaniko/executor");
    let (one, other) = (Group::new("one"), Group::new("other"));
    let other_args = ["-f", &theirs, "--context", "/theirs", "--no-push"];
    let run = |group: &Group, args: &[&str]| {
        let mut command = vec![executor.as_str()];
        command.extend(args);
        for _ in 0..3 {
            assert!(group.run(true, &command).success());
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| run(&one, &args));
        scope.spawn(|| run(&other, &other_args));
    });
    let (capture, errors) = trace.end();
    assert_eq!(all(&capture), Counts::of(&[SMALL; 3].join(" ")), "{errors}");
    assert!(
        errors.contains("left out 1 of 2 containers"),
        "it is said: {errors}"
    );
    let other_path = Path::new(&theirs);
    let named = |text: &str| text.contains(other_path.to_str().expect("a path in UTF-8"));
    assert!(!capture.log.iter().any(|line| named(&line.text)));
}
