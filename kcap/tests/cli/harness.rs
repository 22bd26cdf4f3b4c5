//! Running kcap in a folder of its own, and looking at what it said and left behind.

use std::{
    ffi::{CString, OsStr},
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use kcap::{
    capture::{self, Capture},
    report::{self, Report},
};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const CAP_SYS_ADMIN: u64 = 21;

/// Says, past the capturing of test output, that a test cannot run.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(io::stdout(), "SKIP: {test}: {why}");
}

/// Whether this machine lets us trace; says so where not. What is looked at is not kcap: where these
/// hold, kcap has to work.
pub fn can_trace() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .expect("status names the effective set");
    if effective & 1 << CAP_SYS_ADMIN == 0 {
        skip("needs root with CAP_SYS_ADMIN");
        return false;
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        skip("needs a kernel with BTF");
        return false;
    }
    true
}

/// A folder to run kcap in.
pub struct Place(TempDir);

/// A finished kcap.
pub struct Done {
    pub pid: u32,
    pub output: Output,
}

impl Place {
    pub fn new() -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        // For tests that run as nobody.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).expect("it is ours");
        Self(dir)
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// `kcap run ARGS`, reading nothing, its outputs piped.
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        self.subcommand("run", args)
    }

    /// `kcap build ARGS`, in the same way.
    pub fn build<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        self.subcommand("build", args)
    }

    /// `kcap compare ARGS`, in the same way.
    pub fn compare<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        self.subcommand("compare", args)
    }

    /// Any subcommand, in the same way.
    pub fn subcommand<A: AsRef<OsStr>>(
        &self,
        name: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kcap"));
        command
            .arg(name)
            .args(args)
            .current_dir(self.0.path())
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// `kcap run OPTIONS -- sh -c SCRIPT`.
    pub fn script(&self, options: &[&str], script: &str) -> Command {
        self.run(options.iter().chain(&["--", "sh", "-c", script]))
    }

    /// Waits until the traced command has made a file.
    pub fn wait_for(&self, name: &str) {
        wait_until(&format!("the command makes {name}"), || {
            self.path(name).exists()
        });
    }

    /// Waits for kcap's end and looks at what it left: no cgroup, no unfinished file.
    pub fn finish(&self, child: Child) -> Done {
        let pid = child.id();
        let output = child.wait_with_output().expect("kcap is waited for");
        let done = Done { pid, output };
        let groups = groups(pid);
        assert!(groups.is_empty(), "left {groups:?}: {done:?}");
        let left: Vec<_> = fs::read_dir(self.0.path())
            .expect("it is ours")
            .map(|entry| entry.expect("it is ours").file_name())
            .filter(|name| name.to_string_lossy().contains("partial"))
            .collect();
        assert!(left.is_empty(), "left {left:?}: {done:?}");
        done
    }

    pub fn done(&self, command: &mut Command) -> Done {
        self.finish(command.spawn().expect("kcap starts"))
    }

    pub fn report(&self, name: &str) -> Report {
        let text = fs::read(self.path(name)).expect("there is a report");
        report::from_json(&text).expect("the report is one")
    }

    pub fn capture(&self, name: &str) -> Capture {
        let file = File::open(self.path(name)).expect("there is a capture");
        capture::read(io::BufReader::new(file)).expect("the capture is one")
    }
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "kcap {}: {}\n{}\n{}",
            self.pid,
            self.output.status,
            self.stdout(),
            self.stderr()
        )
    }
}

impl Done {
    pub fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Asserts that kcap ended with `code` and nothing but one line that has all of `parts`.
    #[track_caller]
    pub fn is_error(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code(), Some(code), "{self:?}");
        assert_eq!(self.stdout(), "", "{self:?}");
        let text = self.stderr();
        let line = text.strip_suffix('\n').expect("the line ends");
        assert!(!line.contains(char::is_control), "one line: {self:?}");
        assert!(line.starts_with("kcap: "), "{self:?}");
        assert!(line.chars().count() < 1100, "bounded: {self:?}");
        for part in parts {
            assert!(line.contains(part), "no {part:?} in: {self:?}");
        }
    }
}

/// Control groups that the kcap with that number made and that are still there.
pub fn groups(pid: u32) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut left = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = left.pop() {
        // Other groups come and go meanwhile.
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                let name = entry.file_name();
                if name.to_string_lossy().starts_with(&format!("kcap-{pid}-")) {
                    found.push(entry.path());
                }
                left.push(entry.path());
            }
        }
    }
    found
}

#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        sleep(Duration::from_millis(10));
    }
}

pub fn signal(pid: i32, number: i32) {
    // SAFETY: numbers only, to a process or group that the test started.
    assert_eq!(unsafe { libc::kill(pid, number) }, 0, "kill {pid}");
}

/// Has `place` show `with` to the command, by a mount that nobody else sees.
pub fn hide(command: &mut Command, place: &str, with: &Path) {
    let c = |text: &OsStr| CString::new(text.as_encoded_bytes()).expect("no NUL");
    let (root, place, with) = (c("/".as_ref()), c(place.as_ref()), c(with.as_os_str()));
    let mount = move |from: *const libc::c_char, to: &CString, flags| {
        // SAFETY: NUL-terminated paths, no data.
        unsafe { libc::mount(from, to.as_ptr(), std::ptr::null(), flags, std::ptr::null()) }
    };
    // SAFETY: between fork and exec, only system calls are made.
    unsafe {
        command.pre_exec(move || {
            let private = libc::MS_REC | libc::MS_PRIVATE;
            if libc::unshare(libc::CLONE_NEWNS) != 0
                || mount(std::ptr::null(), &root, private) != 0
                || mount(with.as_ptr(), &place, libc::MS_BIND) != 0
            {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}
