//! `kcap watch` on builds that somebody else starts: an executor of known truth in containers of the
//! test's own, each report held against what its Dockerfile says. Needs root and BPF; runs the same
//! inside the virtual machines of `cargo xtask test`.

#[allow(dead_code, reason = "shared with tests that use the rest")]
#[path = "support/counts.rs"]
mod counts;
#[allow(dead_code, reason = "shared with tests that use the rest")]
#[path = "support/lab.rs"]
mod lab;
#[path = "support/programs.rs"]
mod programs;
#[path = "support/watching.rs"]
mod watching;

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use counts::Counts;
use kcap::report::Cap;
use lab::{Group, Lab, PATIENCE};
use serde_json::Value;
use watching::{Watch, all, files, is_whole};

/// One watch at a time.
static ONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// A Dockerfile whose build makes `n` checks of a kind that others do not make as often.
fn numbered(lab: &Lab, n: usize) -> (String, String) {
    lingering(lab, n, 0)
}

/// The same, of a build that is there for so many milliseconds more: whose it is can be read by then, on a
/// busy machine too.
fn lingering(lab: &Lab, n: usize, pause: u64) -> (String, String) {
    let name = format!("Dockerfile.{n}");
    let text = format!(
        "RUN truth setuid:{n} sleep:{pause}\nCOPY --chown=7:7 chown:{} /srv\n",
        2 * n
    );
    let path = lab.dockerfile(&name, "FROM scratch", &text);
    (path, format!("prepare:1 setuid:{n} chown:{}", 2 * n))
}

#[test]
fn fifty_containers_at_once_are_fifty_reports_with_exact_counts() {
    const CONTAINERS: usize = 50;
    let _one = alone();
    let lab = Lab::new();
    let mut watch = Watch::start(&lab, &[]);
    let groups: Vec<Group> = (0..CONTAINERS)
        .map(|n| Group::new(&n.to_string()))
        .collect();
    let mut expected = BTreeMap::new();
    let mut running = vec![];
    for (n, group) in groups.iter().enumerate() {
        let (dockerfile, counts) = lingering(&lab, n + 1, 3000);
        let child = group
            .command(true, &lab.path("kaniko/executor"))
            .args(["-f", &dockerfile, "-c", "/"])
            .env("CI_PROJECT_PATH", format!("group/p{n}"))
            .env("CI_COMMIT_SHA", format!("{n:040}"))
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        running.push(child);
        expected.insert(dockerfile, (n, counts));
    }
    for mut child in running {
        assert!(child.wait().expect("it can be waited for").success());
    }
    let lines = watch.wait("report", CONTAINERS);
    assert_eq!(watch.stop(), Some(0), "{}", watch.errors());
    for line in &lines {
        let report = watch.report(line);
        let dockerfile = report.subject.dockerfile.clone().expect("a Dockerfile");
        let (n, counts) = expected.remove(&dockerfile).expect("each once");
        is_whole(&report);
        assert_eq!(report.subject.exit_status, Some(0));
        assert!(!report.subject.late && !report.interrupted);
        let capture = watch.capture(line);
        assert_eq!(all(&capture), Counts::of(&counts), "{dockerfile}");
        let identity = report.subject.identity.expect("whose it is");
        assert_eq!(identity.project, Some(format!("group/p{n}")));
        let name = line["name"].as_str().expect("a name");
        assert!(name.starts_with(&format!("host/group/p{n}/")), "{name}");
    }
    assert!(expected.is_empty(), "{expected:?}");
    assert_eq!(files(&watch.out, "json").len(), CONTAINERS);
    assert!(files(&watch.out, "partial").is_empty());
}

#[test]
fn two_builds_in_one_container_are_two_reports() {
    let _one = alone();
    let lab = Lab::new();
    let mut watch = Watch::start(&lab, &[]);
    let (first, first_counts) = numbered(&lab, 3);
    let (second, second_counts) = numbered(&lab, 5);
    let group = Group::new("two");
    let script = "\"$1\" -f \"$2\" -c / && \"$4\" setgid:9 && \"$1\" -f \"$3\" -c /";
    let (executor, truth) = (lab.path("kaniko/executor"), lab.path("bin/truth"));
    let job = [
        "/bin/sh", "-c", script, "sh", &executor, &first, &second, &truth,
    ];
    assert!(group.run(true, &job).success());
    let lines = watch.wait("report", 2);
    assert_eq!(watch.stop(), Some(0), "{}", watch.errors());
    let mut found: Vec<(String, Counts)> = lines
        .iter()
        .map(|line| {
            let report = watch.report(line);
            is_whole(&report);
            let counts = all(&watch.capture(line));
            (report.subject.dockerfile.expect("a Dockerfile"), counts)
        })
        .collect();
    found.sort();
    // What the job did between them is of the session that was there by then, where the container has a
    // cgroup of its own.
    let between = format!("{first_counts} setgid:9");
    assert_eq!(found[0], (first, Counts::of(&between)));
    assert_eq!(found[1], (second, Counts::of(&second_counts)));
}

#[test]
fn a_build_that_runs_already_is_late_and_one_that_is_cut_is_interrupted() {
    let _one = alone();
    // In a guest, kcap takes longer to start than a build here may wait.
    if !late_and_cut(Duration::from_millis(2500)) {
        assert!(
            late_and_cut(Duration::from_secs(45)),
            "kcap was not there in time"
        );
    }
}

/// False where the build was over before kcap was there.
fn late_and_cut(pause: Duration) -> bool {
    let lab = Lab::new();
    let dockerfile = lab.dockerfile(
        "Dockerfile",
        "FROM scratch",
        &format!("RUN truth sleep:{} setuid:4\n", pause.as_millis()),
    );
    let endless = lab.dockerfile(
        "Endless",
        "FROM scratch",
        "RUN truth chown:3 sleep:600000\n",
    );
    let executor = lab.path("kaniko/executor");
    let (group, other) = (Group::new("late"), Group::new("cut"));
    let build = |group: &Group, dockerfile: &str| {
        let mut command = group.command(true, &executor);
        command
            .args(["-f", dockerfile, "-c", "/"])
            .stderr(Stdio::null());
        command.spawn().expect("it starts")
    };
    let mut late = build(&group, &dockerfile);
    thread::sleep(Duration::from_millis(500));
    let mut watch = Watch::start(&lab, &[]);
    if late.try_wait().expect("it can be waited for").is_some() {
        return false;
    }
    let mut cut = build(&other, &endless);
    assert!(late.wait().expect("it can be waited for").success());
    let line = watch.wait("report", 1).remove(0);
    let report = watch.report(&line);
    assert!(report.subject.late && !report.interrupted, "{line:#}");
    assert_eq!(report.subject.exit_status, Some(0));
    assert_eq!(all(&watch.capture(&line)), Counts::of("setuid:4"));
    // It makes its checks before it waits.
    thread::sleep(Duration::from_millis(500));
    assert_eq!(watch.stop(), Some(0), "{}", watch.errors());
    // It goes on: it is nobody's to end.
    assert!(cut.try_wait().expect("it can be waited for").is_none());
    let _ = cut.kill();
    let _ = cut.wait();
    kill_all(&other);
    let line = watch.wait("report", 2).remove(1);
    let report = watch.report(&line);
    assert!(report.interrupted && !report.subject.late, "{line:#}");
    assert_eq!(report.subject.exit_status, None);
    assert_eq!(all(&watch.capture(&line)), Counts::of("prepare:1 chown:3"));
    true
}

/// Ends what is left in a group.
fn kill_all(group: &Group) {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let procs = fs::read_to_string(group.0.join("cgroup.procs")).unwrap_or_default();
        let pids: Vec<i32> = procs.lines().filter_map(|pid| pid.parse().ok()).collect();
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            // SAFETY: processes of this test's own group.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn build(lab: &Lab, name: &str, dockerfile: &str) {
    let group = Group::new(name);
    let command = [&lab.path("kaniko/executor"), "-f", dockerfile, "-c", "/"];
    group.run(true, &command);
}

#[test]
fn reports_wait_for_their_folder_and_finished_ones_outlive_a_kill() {
    let _one = alone();
    let lab = Lab::new();
    let (dockerfile, _) = numbered(&lab, 2);
    let mut watch = Watch::start(&lab, &[]);
    build(&lab, "a", &dockerfile);
    watch.wait("report", 1);
    // The folder goes, and something that is none stands in its place.
    fs::remove_dir_all(&watch.out).expect("the folder goes");
    fs::write(&watch.out, "in the way").expect("a file");
    build(&lab, "b", &dockerfile);
    let end = Instant::now() + PATIENCE;
    while !watch.errors().contains("reports wait") {
        assert!(Instant::now() < end, "{}", watch.errors());
        thread::sleep(Duration::from_millis(20));
    }
    build(&lab, "c", &dockerfile);
    fs::remove_file(&watch.out).expect("it goes");
    let lines = watch.wait("report", 3);
    for line in &lines[1..] {
        is_whole(&watch.report(line));
    }
    watch.signal(libc::SIGKILL);
    let _ = watch.child.wait();
    assert_eq!(files(&watch.out, "json").len(), 2);
    fs::write(watch.out.join(".kcap-1.partial"), "half").expect("a file");
    let mut again = Watch::start(&lab, &[]);
    build(&lab, "d", &dockerfile);
    again.wait("report", 1);
    assert_eq!(again.stop(), Some(0), "{}", again.errors());
    assert_eq!(files(&again.out, "json").len(), 3);
    assert!(files(&again.out, "partial").is_empty());
}

#[test]
fn a_session_over_its_bounds_is_marked_and_others_are_untouched() {
    let _one = alone();
    let lab = Lab::new();
    let (small, counts) = numbered(&lab, 4);
    // Each of its programs is remembered, up to a megabyte.
    let many: String = (0..1500).map(|_| "RUN truth setuid:1\n").collect();
    let large = lab.dockerfile("Large", "FROM scratch", &many);
    let mut watch = Watch::start(&lab, &["--session-memory", "1", "--max-sessions", "2"]);
    let (one, two, three) = (Group::new("one"), Group::new("two"), Group::new("three"));
    let executor = lab.path("kaniko/executor");
    let start = |group: &Group, dockerfile: &str| {
        let mut command = group.command(true, &executor);
        command
            .args(["-f", dockerfile, "-c", "/"])
            .stderr(Stdio::null());
        command.spawn().expect("it starts")
    };
    let hold = lab.dockerfile("Hold", "FROM scratch", "RUN truth sleep:600000\n");
    let mut first = start(&one, &large);
    let mut second = start(&two, &hold);
    watch.wait("opened", 2);
    // There is no room for a third.
    let mut third = start(&three, &small);
    assert!(third.wait().expect("it can be waited for").success());
    let left = watch.wait("left-out", 1).remove(0);
    assert!(
        left["why"]
            .as_str()
            .is_some_and(|why| why.contains("--max-sessions")),
        "{left}"
    );
    assert!(first.wait().expect("it can be waited for").success());
    let line = watch.wait("report", 1).remove(0);
    assert_eq!(
        (&line["over_bounds"], &line["complete"]),
        (&true.into(), &false.into()),
        "{line:#}"
    );
    // Now there is.
    build(&lab, "four", &small);
    let line = watch.wait("report", 2).remove(1);
    assert_eq!(line["over_bounds"], false, "{line:#}");
    is_whole(&watch.report(&line));
    assert_eq!(all(&watch.capture(&line)), Counts::of(&counts));
    let _ = second.kill();
    let _ = second.wait();
    kill_all(&two);
    watch.wait("report", 3);
    assert_eq!(watch.stop(), Some(0), "{}", watch.errors());
}

#[test]
fn builds_that_take_all_memory_leave_the_others_their_share() {
    let _one = alone();
    let lab = Lab::new();
    let (small, counts) = numbered(&lab, 5);
    // Each takes about a megabyte, and may have half of one and an eighth of what is left.
    let many: String = (0..1500).map(|_| "RUN truth setuid:1\n").collect();
    let large = lab.dockerfile("Large", "FROM scratch", &many);
    let mut watch = Watch::start(&lab, &["--memory", "3", "--max-sessions", "3"]);
    let executor = lab.path("kaniko/executor");
    let groups = ["one", "two"].map(Group::new);
    let started = groups.each_ref().map(|group| {
        let mut command = group.command(true, &executor);
        command
            .args(["-f", &large, "-c", "/"])
            .stderr(Stdio::null());
        command.spawn().expect("it starts")
    });
    watch.wait("opened", 2);
    build(&lab, "three", &small);
    for mut child in started {
        assert!(child.wait().expect("it can be waited for").success());
    }
    let mut over = 0;
    for line in watch.wait("report", 3) {
        if line["over_bounds"] == true {
            over += 1;
            assert_eq!(line["complete"], false, "{line:#}");
        } else {
            is_whole(&watch.report(&line));
            assert_eq!(all(&watch.capture(&line)), Counts::of(&counts));
        }
    }
    assert_eq!(over, 2);
    assert_eq!(watch.stop(), Some(0), "{}", watch.errors());
}

#[test]
fn settings_are_read_again_and_unwanted_builds_are_left_alone() {
    let _one = alone();
    let lab = Lab::new();
    let (dockerfile, _) = numbered(&lab, 2);
    let config = lab.path("watch.toml");
    fs::write(&config, "[only]\ntrace = \"yes\"\n").expect("a file");
    let mut watch = Watch::start(&lab, &["--config", &config]);
    build(&lab, "a", &dockerfile);
    let left = watch.wait("left-out", 1).remove(0);
    assert_eq!(left["why"], "it has no label trace=yes");
    // What cannot be read changes nothing.
    for (text, said) in [("[only", "nothing is changed"), ("", "settings read again")] {
        fs::write(&config, text).expect("a file");
        watch.signal(libc::SIGHUP);
        let end = Instant::now() + PATIENCE;
        while !watch.errors().contains(said) {
            assert!(Instant::now() < end, "{}", watch.errors());
            thread::sleep(Duration::from_millis(20));
        }
    }
    build(&lab, "b", &dockerfile);
    let line = watch.wait("report", 1).remove(0);
    is_whole(&watch.report(&line));
    assert_eq!(watch.stop(), Some(0), "{}", watch.errors());
    assert_eq!(files(&watch.out, "json").len(), 1);
}

#[test]
fn refusals_are_told_with_line_and_capability() {
    let _one = alone();
    let lab = Lab::new();
    let dockerfile = lab.dockerfile(
        "Dockerfile",
        "FROM scratch",
        "RUN truth setuid:1\nRUN truth setgroups:2\n",
    );
    let mut watch = Watch::start(&lab, &[]);
    let group = Group::new("refused");
    let mut command = group.command(true, &lab.path("kaniko/executor"));
    command
        .args(["-f", &dockerfile, "-c", "/"])
        .stderr(Stdio::null());
    lab::confine(&mut command, !Cap::SETGID.mask(), false);
    command.status().expect("it starts");
    let line = watch.wait("report", 1).remove(0);
    let refused: Vec<Value> = (watch.seen.iter())
        .filter(|line| line["event"] == "refused" && line["capability"] == "SETGID")
        .cloned()
        .collect();
    assert_eq!(refused.len(), 1, "{:#?} {line:#}", watch.seen);
    assert_eq!(
        (&refused[0]["line"], &refused[0]["count"]),
        (&4.into(), &2.into()),
        "{refused:#?}"
    );
    assert_eq!(refused[0]["failed"], line["exit_status"] != 0);
    // It was told as it happened, too.
    let denied: Vec<usize> = (0..watch.seen.len())
        .filter(|at| watch.seen[*at]["event"] == "denied")
        .collect();
    let [at] = denied[..] else {
        panic!("{:#?}", watch.seen)
    };
    let over = watch.seen.iter().position(|line| line["event"] == "report");
    assert!(over.is_some_and(|over| at < over));
    assert_eq!(watch.seen[at]["capability"], "SETGID");
    assert!(
        watch.seen[at]["line"]
            .as_str()
            .is_some_and(|line| line.contains("setgroups:2"))
    );
    assert_eq!(watch.stop(), Some(0), "{}", watch.errors());
}

#[test]
fn every_build_has_samples_of_its_own_however_many_were_before() {
    const BUILDS: usize = 12;
    let _one = alone();
    let lab = Lab::new();
    let run = "RUN truth setgroups:2 setuid:3 chown:5\n";
    let dockerfile = lab.dockerfile("Dockerfile", "FROM scratch", run);
    let mut watch = Watch::start(&lab, &[]);
    for number in 0..BUILDS {
        let group = Group::new(&format!("sampled-{number}"));
        let mut command = group.command(true, &lab.path("kaniko/executor"));
        command
            .args(["-f", &dockerfile, "-c", "/"])
            .stderr(Stdio::null());
        lab::confine(&mut command, !Cap::SETGID.mask(), false);
        command.status().expect("it starts");
    }
    let lines = watch.wait("report", BUILDS);
    assert_eq!(watch.stop(), Some(0), "{}", watch.errors());
    for line in &lines {
        let capture = watch.capture(line);
        let sampled = |syscall: i64| {
            let of = |tally: u32| capture.tallies[tally as usize].syscall == Some(syscall as u16);
            capture.evidence.iter().any(|sample| of(sample.tally))
        };
        for syscall in [libc::SYS_setgroups, libc::SYS_setuid, libc::SYS_fchown] {
            assert!(sampled(syscall), "no sample of {syscall}: {line:#}");
        }
    }
    let denied = watch.seen.iter().filter(|line| line["event"] == "denied");
    assert_eq!(denied.count(), BUILDS, "{:#?}", watch.seen);
}

/// The capabilities that a file of `deploy/` gives, in its order: the words after `key`.
fn given(path: &str, key: &str) -> Vec<Cap> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(path);
    let text = fs::read_to_string(path).expect("a file of deploy/");
    let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
    (line
        .expect("a line of capabilities")
        .split([' ', ',', '[', ']']))
    .filter(|word| !word.is_empty())
    .map(|word| word.parse().expect("a capability"))
    .collect()
}

/// Has the kernel answer `openat2(2)` with ENOSYS, as systemd does where its unit restricts SUID bits.
fn without_openat2(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    let filter = move || {
        let step = |code: u32, jt, jf, k| libc::sock_filter {
            code: code as u16,
            jt,
            jf,
            k,
        };
        let refuse = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        let mut steps = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            step(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                0,
                1,
                libc::SYS_openat2 as u32,
            ),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog {
            len: steps.len() as u16,
            filter: steps.as_mut_ptr(),
        };
        // SAFETY: the program is live, and its steps are as many as it says.
        let set = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        match set {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: one system call, which needs no memory.
    unsafe { command.pre_exec(filter) };
}

#[test]
fn it_says_where_a_filter_keeps_it_from_looking_into_containers() {
    let _one = alone();
    let lab = Lab::new();
    let dockerfile = lab.dockerfile("Dockerfile", "FROM scratch", "RUN truth chown:5\n");
    let mut kcap = Command::new(programs::kcap());
    without_openat2(&mut kcap);
    let mut watch = Watch::start_as(&lab, kcap, &[]);
    assert!(
        watch.errors().contains("RestrictSUIDSGID="),
        "{}",
        watch.errors()
    );
    let group = Group::new("filtered");
    let mut command = group.command(true, &lab.path("kaniko/executor"));
    command
        .args(["-f", &dockerfile, "-c", "/"])
        .stderr(Stdio::null());
    assert!(command.status().expect("it starts").success());
    let line = &watch.wait("report", 1)[0];
    assert_eq!(line["dockerfile"], Value::Null, "{line:#}");
    assert_eq!(watch.stop(), Some(0), "{}", watch.errors());
    // Nor does the unit that is shipped.
    if Path::new(env!("CARGO_MANIFEST_DIR")).exists() {
        let unit =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/kcap-watch.service");
        let unit = fs::read_to_string(unit).expect("the unit");
        let forbids =
            |line: &str| line.starts_with("RestrictSUIDSGID=") || line.starts_with("DynamicUser=");
        assert!(!unit.lines().any(forbids), "{unit}");
    }
}

#[test]
fn it_runs_without_root_and_with_exactly_what_its_unit_grants() {
    // In a guest there is no copy of the repository.
    let unit: Vec<Cap> = if !Path::new(env!("CARGO_MANIFEST_DIR")).exists() {
        "BPF PERFMON SYS_PTRACE DAC_READ_SEARCH SYSLOG SYS_NICE"
            .split(' ')
            .map(|name| name.parse().expect("a capability"))
            .collect()
    } else {
        let unit = given("systemd/kcap-watch.service", "CapabilityBoundingSet=");
        assert_eq!(
            unit,
            given("systemd/kcap-watch.service", "AmbientCapabilities=")
        );
        assert_eq!(unit, given("kubernetes/daemonset.yaml", "add:"));
        unit
    };
    let mask = |caps: &[Cap]| caps.iter().fold(0, |mask, cap| mask | cap.mask());
    let _one = alone();
    let lab = Lab::new();
    // Where nobody can execute and write it.
    let own = lab.path("kcap");
    fs::copy(programs::kcap(), &own).expect("kcap can be copied");
    let open = |path: &str, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    open(&lab.path(""), 0o755).expect("a folder");
    fs::create_dir(lab.path("out")).expect("a folder");
    open(&lab.path("out"), 0o777).expect("a folder");
    let mut kcap = Command::new(&own);
    lab::confine(&mut kcap, mask(&unit), true);
    let mut watch = Watch::start_as(&lab, kcap, &[]);
    let status = fs::read_to_string(format!("/proc/{}/status", watch.child.id())).expect("it runs");
    let kept = [
        "CapEff:\t0000008400080004",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
    ];
    for line in kept.iter().chain(&["Uid:\t65534"]) {
        assert!(status.contains(line), "{line}: {status}");
    }
    // So does every other thread; the one that must not come too late has its priority all the same.
    let tasks = fs::read_dir(format!("/proc/{}/task", watch.child.id())).expect("it runs");
    let mut names = vec![];
    for task in tasks.flatten() {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).expect("a thread");
        let (name, status) = (read("comm").trim().to_owned(), read("status"));
        for line in kept {
            assert!(status.contains(line), "{name}: {line}: {status}");
        }
        // Behind the name in parentheses: the policy is the 41st word of all.
        let stat = read("stat");
        let (_, words) = stat.rsplit_once(')').expect("a name");
        let policy = words.split_whitespace().nth(38);
        let expected = if name == "kcap-collect" {
            libc::SCHED_FIFO
        } else {
            libc::SCHED_OTHER
        };
        assert_eq!(policy, Some(&*expected.to_string()), "{name}: {stat}");
        names.push(name);
    }
    assert!(names.contains(&"kcap-collect".into()), "{names:?}");
    let (dockerfile, counts) = numbered(&lab, 6);
    build(&lab, "confined", &dockerfile);
    let line = watch.wait("report", 1).remove(0);
    let report = watch.report(&line);
    is_whole(&report);
    assert!(
        !report.notes.iter().any(|note| note.contains("names")),
        "{:?}",
        report.notes
    );
    assert_eq!(all(&watch.capture(&line)), Counts::of(&counts));
    assert_eq!(watch.stop(), Some(0), "{}", watch.errors());

    // And says so where one is missing, but for the one that it can do without.
    for cap in unit.iter().filter(|cap| cap.to_string() != "SYS_NICE") {
        let rest: Vec<Cap> = unit.iter().filter(|other| *other != cap).copied().collect();
        let mut kcap = Command::new(&own);
        lab::confine(&mut kcap, mask(&rest), true);
        let output = kcap
            .args(["watch", "--match", "/x"])
            .output()
            .expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{cap}: {errors}");
        assert!(
            errors.contains(&format!("lacks {cap},")) && errors.lines().count() == 1,
            "{errors}"
        );
    }
}
