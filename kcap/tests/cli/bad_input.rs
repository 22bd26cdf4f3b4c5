//! Hosts and arguments that kcap cannot work with: one line that says what to do, the right code,
//! and nothing left behind.

use std::{fs, io, os::unix::process::CommandExt as _, process::Command};

use crate::harness::{Place, can_trace, hide, skip};

fn is_root() -> bool {
    // SAFETY: takes nothing.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn usage_errors_are_clap_s_and_exit_2() {
    let place = Place::new();
    for args in [
        &[][..],
        &["--no-such-option", "--", "true"],
        &["--hook", "magic", "--", "true"],
        &["--ring-size", "3", "--", "true"],
        &["--ring-size", "1024", "--", "true"],
        &["--table-size", "-1", "--", "true"],
        &["--table-size", "1", "--", "true"],
        &["--report", "", "--", "true"],
        &["--no-such-option"],
        &["--grace", "-1", "--", "true"],
        &["--grace", "inf", "--", "true"],
        &["--format", "xml", "--", "true"],
    ] {
        let done = place.done(&mut place.run(args));
        assert_eq!(done.code(), Some(2), "{args:?} {done:?}");
        assert_eq!(done.stdout(), "", "{args:?}");
    }
}

#[test]
fn help_has_examples_and_exit_codes() {
    let place = Place::new();
    let done = place.done(&mut place.run(["--help"]));
    assert_eq!(done.code(), Some(0));
    for part in ["Examples:", "kcap run --report", "Exit code:", "125"] {
        assert!(done.stdout().contains(part), "{part} in {done:?}");
    }
}

#[test]
fn a_nobody_is_told_to_be_root() {
    let place = Place::new();
    let mut command = place.run(["--", "true"]);
    if is_root() {
        // The folder that it was built in may be closed to others.
        let copy = place.path("kcap");
        fs::copy(env!("CARGO_BIN_EXE_kcap"), &copy).expect("a copy");
        command = Command::new(copy);
        command
            .args(["run", "--", "true"])
            .uid(65534)
            .gid(65534)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
    }
    place
        .done(&mut command)
        .is_error(125, &["refused", "as root"]);
}

#[test]
fn root_without_capabilities_is_told_which() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let mut command = place.run(["--", "touch", "ran"]);
    // SAFETY: between fork and exec, only system calls are made.
    unsafe {
        command.pre_exec(|| {
            for cap in [21, 38, 39] {
                // A kernel without that capability has nothing to drop.
                libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0);
            }
            Ok(())
        });
    }
    place
        .done(&mut command)
        .is_error(125, &["Operation not permitted", "CAP_BPF", "kcap doctor"]);
    assert!(!place.path("ran").exists());
}

/// Has `bpf(2)` fail with `errno`.
fn without_bpf(command: &mut Command, errno: i32) {
    const LOAD_NUMBER: libc::sock_filter = libc::sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let answer = |k| libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let filter = [
        LOAD_NUMBER,
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: libc::SYS_bpf as u32,
        },
        answer(libc::SECCOMP_RET_ERRNO | errno as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    // SAFETY: between fork and exec, only system calls are made; the filter is the closure's own.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog {
                len: filter.len() as u16,
                filter: filter.as_ptr().cast_mut(),
            };
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
            {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

#[test]
fn a_kernel_without_bpf_is_named_and_so_is_a_sandbox() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    for (errno, part) in [
        (libc::ENOSYS, "CONFIG_BPF_SYSCALL"),
        (libc::EPERM, "as root"),
    ] {
        let mut command = place.run(["--", "touch", "ran"]);
        without_bpf(&mut command, errno);
        place.done(&mut command).is_error(125, &["refused", part]);
        assert!(!place.path("ran").exists());
    }
}

#[test]
fn a_kernel_without_btf_is_named() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("folder")).expect("ours");
    fs::write(place.path("empty"), "").expect("ours");
    fs::write(place.path("damaged"), vec![0x9f; 1000]).expect("ours");
    for (hidden, with) in [
        ("/sys/kernel/btf", "folder"),
        ("/sys/kernel/btf/vmlinux", "empty"),
        ("/sys/kernel/btf/vmlinux", "damaged"),
    ] {
        let mut command = place.run(["--", "touch", "ran"]);
        hide(&mut command, hidden, &place.path(with));
        place.done(&mut command).is_error(125, &["BTF"]);
        assert!(!place.path("ran").exists());
    }
}

#[test]
fn without_symbols_there_is_still_a_report() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    fs::write(place.path("empty"), "").expect("ours");
    let mut command = place.script(&["-q", "--report", "r", "--capture", "c"], "chown 1 empty");
    hide(&mut command, "/proc/kallsyms", &place.path("empty"));
    let done = place.done(&mut command);
    assert_eq!(done.code(), Some(0), "{done:?}");
    let capture = place.capture("c");
    let mut frames = capture.evidence.iter().flat_map(|e| &e.path).peekable();
    assert!(frames.peek().is_some(), "there are call paths");
    assert!(frames.all(|frame| frame.symbol.is_none() && frame.address != 0));
    assert!(done.stderr().contains("kernel.kptr_restrict"), "{done:?}");
    let report = place.report("r");
    assert!(report.host.blind.contains(&"symbols".to_owned()));
    assert!(report.required.iter().any(|cap| cap.to_string() == "CHOWN"));
}

#[test]
fn commands_that_cannot_be_started_get_a_shell_s_codes() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    fs::write(place.path("plain"), "#!/bin/sh\n").expect("ours");
    fs::write(place.path("odd"), "#!/no/such/interpreter\n").expect("ours");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(place.path("odd"), mode).expect("ours");
    for (command, code, parts) in [
        ("no-such-command", 127, ["not found", "PATH"]),
        ("./no-such-command", 127, ["no such file", "path"]),
        ("", 127, ["cannot run", "PATH"]),
        ("./plain", 126, ["permission denied", "chmod +x"]),
        ("/", 126, ["permission denied", "executable"]),
        ("./odd", 126, ["interpreter", "install"]),
    ] {
        let done = place.done(&mut place.run(["--report", "r", "--capture", "c", "--", command]));
        done.is_error(code, &parts);
        assert!(!place.path("r").exists() && !place.path("c").exists());
    }
}

#[test]
fn a_dockerfile_that_cannot_be_read_is_found_out_first() {
    let place = Place::new();
    for (name, part) in [("no-such-file", "No such file"), ("/", "directory")] {
        let done = place.done(&mut place.run(["--dockerfile", name, "--", "touch", "ran"]));
        done.is_error(125, &["Dockerfile", part]);
        assert!(!place.path("ran").exists());
    }
}

#[test]
fn doctor_works_for_anyone() {
    let done = Command::new(env!("CARGO_BIN_EXE_kcap"))
        .arg("doctor")
        .output()
        .expect("kcap starts");
    assert!(matches!(done.status.code(), Some(0 | 1)), "{done:?}");
    assert!(!done.stdout.is_empty());
    if !is_root() {
        skip("the part that tries the hooks needs root");
    }
}

#[test]
fn the_version_is_the_package_s() {
    let done = Command::new(env!("CARGO_BIN_EXE_kcap"))
        .arg("--version")
        .output()
        .expect("kcap starts");
    let expected = format!("kcap {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&done.stdout), expected);
}
