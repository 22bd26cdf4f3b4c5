//! Programs and daemons of the tests' own.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::lab::{self, PATIENCE};

/// Why this machine cannot do it, if so.
pub fn lacks(programs: &[&str]) -> Option<String> {
    const PT_INTERP: u32 = 3;
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        return Some("needs root".into());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("needs a kernel with BTF".into());
    }
    let bytes = fs::read(lab::example()).expect("the executor is built");
    let number = |at: usize, len: usize| {
        let mut wide = [0; 8];
        wide[..len].copy_from_slice(&bytes[at..at + len]);
        u64::from_le_bytes(wide) as usize
    };
    // Program headers of a 64-bit ELF file: where, how large, how many.
    let (at, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    if (0..count).any(|n| number(at + n * size, 4) == PT_INTERP as usize) {
        return Some(
            "the executor is linked dynamically: run `cargo xtask test --only engines`".into(),
        );
    }
    programs.iter().find_map(|program| {
        let found = Command::new(program).arg("--version").output();
        found.is_err().then(|| format!("there is no {program}"))
    })
}

/// Says, past the capturing of test output, what a test cannot do here.
pub fn skip(what: &str) {
    // Where standard output is closed, nobody reads it.
    let _ = writeln!(io::stdout(), "SKIP: {what}");
}

/// What a program said.
pub fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    format!("{}\n{stdout}\n{stderr}", output.status)
}

/// Runs a program to its success, and gives its output.
pub fn run(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A daemon. Dropped, it is ended.
pub struct Daemon(Child);

impl Daemon {
    /// Starts it, and waits until it answers.
    pub fn start(command: &mut Command, log: &Path, answers: &dyn Fn() -> bool) -> Self {
        let daemon = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log).expect("a file"))
            .spawn()
            .expect("the daemon starts");
        let mut daemon = Self(daemon);
        let deadline = Instant::now() + PATIENCE;
        while !answers() {
            let ended = daemon.0.try_wait().expect("it can be waited for");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the daemon does not answer: {}",
                fs::read_to_string(log).unwrap_or_default()
            );
            thread::sleep(Duration::from_millis(50));
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // SAFETY: numbers only; the child is not reaped yet, so the id is its own.
        unsafe {
            libc::kill(self.0.id() as i32, libc::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

/// Takes away a mount that an engine keeps although it has ended; where there is none, nothing is done.
pub fn unmount(path: &Path) {
    let path = std::ffi::CString::new(path.display().to_string()).expect("a path");
    // SAFETY: a path that outlives the call.
    unsafe {
        libc::umount2(path.as_ptr(), libc::MNT_DETACH);
    }
}

/// Nothing below the folder is mounted any more.
pub fn assert_no_mounts(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let dir = dir.display().to_string();
    let left: Vec<_> = mounts.lines().filter(|line| line.contains(&dir)).collect();
    assert!(left.is_empty(), "{left:#?}");
}
