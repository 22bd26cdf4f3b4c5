//! Signals: the build ends, what was seen is still written, and nothing outlives kcap.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command},
    ptr,
    time::{Duration, Instant},
};

use crate::harness::{Done, Place, can_trace, groups, signal, wait_until};

/// Options that have the result written.
const FILES: [&str; 3] = ["--report=r", "--capture=c", "-q"];
/// Longer than a signal takes, shorter than kcap waits before it kills.
const SOON: Duration = Duration::from_secs(8);

fn start(place: &Place, options: &[&str], script: &str) -> Child {
    let options = [&FILES[..], options].concat();
    let child = place.script(&options, script).process_group(0).spawn();
    let child = child.expect("kcap starts");
    place.wait_for("ready");
    child
}

/// Starts kcap with a command that only waits; gives the command's process id, too. Before it is
/// `sleep`, it is a shell that deals with signals in its own way.
fn start_waiting(place: &Place) -> (Child, String) {
    let child = start(place, &[], "echo $$ > number; touch ready; exec sleep 1000");
    let number = fs::read_to_string(place.path("number")).expect("written before");
    let number = number.trim().to_owned();
    wait_until("the shell becomes sleep", || {
        fs::read_to_string(format!("/proc/{number}/comm")).is_ok_and(|name| name == "sleep\n")
    });
    (child, number)
}

#[track_caller]
fn is_written(place: &Place, done: &Done, status: i32) {
    assert_eq!(done.code(), Some(status), "{done:?}");
    let report = place.report("r");
    assert!(report.interrupted, "{done:?}");
    assert_eq!(report.subject.exit_status, Some(status));
    assert!(place.capture("c").interrupted);
}

#[test]
fn a_signal_to_kcap_ends_the_build_and_the_result_is_written() {
    if !can_trace() {
        return;
    }
    for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let place = Place::new();
        let (child, _) = start_waiting(&place);
        let start = Instant::now();
        signal(child.id() as i32, number);
        let done = place.finish(child);
        assert!(start.elapsed() < SOON, "{done:?}");
        is_written(&place, &done, 128 + number);
    }
}

#[test]
fn so_does_a_signal_to_the_whole_group() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let (child, _) = start_waiting(&place);
    signal(-(child.id() as i32), libc::SIGINT);
    let done = place.finish(child);
    is_written(&place, &done, 128 + libc::SIGINT);
}

#[test]
fn a_signal_before_the_command_starts_has_it_not_started() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let mut command = place.run(["--report=r", "--", "touch", "ran"]);
    // SAFETY: between fork and exec, only system calls are made. The signal waits, blocked, for the
    // program that is executed.
    unsafe {
        command.pre_exec(|| {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGINT);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
            libc::raise(libc::SIGINT);
            Ok(())
        });
    }
    let done = place.done(&mut command);
    done.is_error(128 + libc::SIGINT, &["interrupted before"]);
    assert!(!place.path("ran").exists() && !place.path("r").exists());
}

#[test]
fn a_command_that_ends_well_keeps_its_own_status() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let script = "trap 'exit 5' TERM; touch ready; while :; do sleep 0.05; done";
    let child = start(&place, &[], script);
    signal(child.id() as i32, libc::SIGTERM);
    is_written(&place, &place.finish(child), 5);
}

#[test]
fn a_command_that_ignores_a_signal_is_killed_after_the_grace() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let script = "trap '' TERM; touch ready; while :; do sleep 0.05; done";
    let child = start(&place, &["--grace=0.5"], script);
    signal(child.id() as i32, libc::SIGTERM);
    let start = Instant::now();
    let done = place.finish(child);
    assert!(start.elapsed() >= Duration::from_millis(400), "{done:?}");
    assert!(
        done.stderr().contains("interrupt again to kill it"),
        "{done:?}"
    );
    is_written(&place, &done, 128 + libc::SIGKILL);
}

#[test]
fn a_second_signal_kills_at_once() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let script = "trap 'touch got' INT; touch ready; while :; do sleep 0.05; done";
    let child = start(&place, &["--grace=1000"], script);
    signal(child.id() as i32, libc::SIGINT);
    place.wait_for("got");
    signal(child.id() as i32, libc::SIGINT);
    is_written(&place, &place.finish(child), 128 + libc::SIGKILL);
}

#[test]
fn a_flood_of_records_does_not_keep_a_signal_waiting() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let script = "touch ready; for i in 1 2 3 4; do \
                  while :; do /bin/true; done & done; wait";
    let child = start(&place, &[], script);
    std::thread::sleep(Duration::from_secs(1));
    let start = Instant::now();
    signal(child.id() as i32, libc::SIGTERM);
    let done = place.finish(child);
    assert!(start.elapsed() < SOON, "{done:?}");
    is_written(&place, &done, 128 + libc::SIGTERM);
}

#[test]
fn what_the_starter_ignores_stays_ignored() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let script = "touch ready; while ! [ -e go ]; do sleep 0.05; done; exit 9";
    let mut command = place.script(&FILES, script);
    // SAFETY: between fork and exec, only system calls are made.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            Ok(())
        });
    }
    let child = command.spawn().expect("kcap starts");
    place.wait_for("ready");
    signal(child.id() as i32, libc::SIGHUP);
    fs::write(place.path("go"), "").expect("ours");
    let done = place.finish(child);
    assert_eq!(done.code(), Some(9), "{done:?}");
    assert!(!place.report("r").interrupted);
}

/// A terminal: our side, and that of the programs on it.
pub fn terminal() -> (File, OwnedFd) {
    let (mut ours, mut theirs) = (0, 0);
    let null = ptr::null_mut;
    // SAFETY: two integers to write to, and no name, settings or size.
    let made = unsafe {
        libc::openpty(
            &raw mut ours,
            &raw mut theirs,
            null(),
            ptr::null(),
            ptr::null(),
        )
    };
    assert_eq!(made, 0, "{}", io::Error::last_os_error());
    // SAFETY: the descriptors are new, and nobody else's.
    unsafe {
        // Programs that other tests start meanwhile must not keep it open.
        libc::fcntl(ours, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::fcntl(theirs, libc::F_SETFD, libc::FD_CLOEXEC);
        (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs))
    }
}

/// Makes its standard input the terminal of a session that the command leads.
fn lead(command: &mut Command) {
    // SAFETY: between fork and exec, only system calls are made.
    unsafe {
        command.pre_exec(|| {
            if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

#[test]
fn ctrl_c_reaches_the_command_once() {
    if !can_trace() {
        return;
    }
    // In the terminal's foreground group it has the signal from there; in another, from kcap.
    for prefix in ["", "setsid -w "] {
        let place = Place::new();
        let count = "n=0; trap 'n=$((n+1))' INT; touch ready; \
                     i=0; while [ $i -lt 30 ]; do sleep 0.03; i=$((i+1)); done; exit $n";
        let script = match prefix {
            "" => count.to_owned(),
            // Interrupted itself, setsid must not end before its child.
            _ => {
                fs::write(place.path("count"), count).expect("ours");
                "exec setsid sh count".to_owned()
            }
        };
        let (mut ours, theirs) = terminal();
        let mut command = place.script(&FILES, &script);
        command.stdin(theirs);
        lead(&mut command);
        let child = command.spawn().expect("kcap starts");
        place.wait_for("ready");
        ours.write_all(b"\x03").expect("a key is pressed");
        is_written(&place, &place.finish(child), 1);
    }
}

/// Ids of the BPF programs that a process holds.
fn programs(pid: u32) -> Vec<u32> {
    let dir = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it runs");
    dir.flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .filter_map(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("prog_id:"))?;
            line.trim().parse().ok()
        })
        .collect()
}

/// Whether the kernel still has the program.
fn is_loaded(program: u32) -> bool {
    const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
    let attr = [program, 0, 0];
    // SAFETY: the attribute is the id, the next id and flags.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_GET_FD_BY_ID,
            attr.as_ptr(),
            size_of_val(&attr),
        )
    };
    if fd < 0 {
        let errno = io::Error::last_os_error();
        assert_eq!(errno.raw_os_error(), Some(libc::ENOENT), "{errno}");
        return false;
    }
    // SAFETY: the descriptor is new.
    drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    true
}

#[test]
fn a_killed_kcap_leaves_no_program_and_no_build_and_the_next_one_tidies_up() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let (mut child, number) = start_waiting(&place);
    let programs = programs(child.id());
    assert!(programs.len() >= 5, "{programs:?}");
    assert!(programs.iter().all(|&id| is_loaded(id)));
    let [group] = &groups(child.id())[..] else {
        panic!("a group while it runs");
    };
    child.kill().expect("it runs");
    child.wait().expect("it ran");
    wait_until("the build ends", || {
        // Where nobody collects orphans, it stays a zombie.
        let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
        status.is_empty() || status.contains("State:\tZ")
    });
    wait_until("the programs are gone", || {
        !programs.iter().any(|&id| is_loaded(id))
    });
    assert!(!place.path("r").exists() && !place.path("c").exists());

    // Another test's kcap may have been faster.
    let next = Place::new();
    let done = next.done(&mut next.run(["-q", "--", "true"]));
    assert_eq!(done.code(), Some(0), "{done:?}");
    wait_until("the group is gone", || !group.exists());
}
