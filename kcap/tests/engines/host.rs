//! What the tests make of this machine: a daemon, storage, and builds that run.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use kcap::launch::Launch;

/// How long anything may take here.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn executor() -> PathBuf {
    env::var_os("KCAP_KANIKO_EXECUTOR")
        .filter(|value| !value.is_empty())
        .map_or_else(|| "/kaniko/executor".into(), PathBuf::from)
}

/// Why this machine cannot do it.
pub fn lacks(programs: &[&str]) -> Option<String> {
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        return Some("needs root".into());
    }
    for path in [&executor(), Path::new("/bin/busybox")] {
        if !path.exists() {
            return Some(format!("there is no {}", path.display()));
        }
    }
    programs.iter().find_map(|program| {
        let found = Command::new(program).arg("--version").output();
        found.is_err().then(|| format!("there is no {program}"))
    })
}

/// Says that a test did not run.
pub fn skipped(test: &str, reason: &str) {
    // Where standard output is closed, nobody reads it.
    let _ = writeln!(io::stdout(), "SKIP: {test}: {reason}");
}

pub fn set(name: &str, value: impl AsRef<OsStr>) {
    // SAFETY: variables of this program are read and written by the standard library alone, which
    // locks.
    unsafe { env::set_var(name, value) }
}

/// Takes away a mount that an engine keeps although it has ended; where there is none, nothing is
/// done.
pub fn unmount(folder: &str) {
    let folder = std::ffi::CString::new(folder).unwrap();
    // SAFETY: a path that outlives the call.
    unsafe {
        libc::umount2(folder.as_ptr(), libc::MNT_DETACH);
    }
}

/// A docker daemon, and the network namespace that it keeps. Dropped, it is ended.
pub struct Daemon(Child, String);

impl Daemon {
    /// One without a network of its own.
    pub fn start(dir: &Path) -> Self {
        Self::start_on(dir, "none")
    }

    /// One with this bridge, which is there already.
    pub fn start_on(dir: &Path, bridge: &str) -> Self {
        let place = |name: &str| dir.join(name).display().to_string();
        fs::write(dir.join("daemon.json"), "{}").unwrap();
        let daemon = Command::new("dockerd")
            .arg(format!("--host=unix://{}", place("socket")))
            .arg(format!("--config-file={}", place("daemon.json")))
            .arg(format!("--data-root={}", place("data")))
            .arg(format!("--exec-root={}", place("exec")))
            .arg(format!("--pidfile={}", place("pid")))
            .arg(format!("--bridge={bridge}"))
            .args(["--iptables=false", "--ip-masq=false"])
            .args(["--ip-forward=false"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut daemon = Self(daemon, place("exec/netns/default"));
        let deadline = Instant::now() + PATIENCE;
        while !tool("docker", &["version"]).2 {
            let ended = daemon.0.try_wait().unwrap();
            let log = || fs::read_to_string(dir.join("log")).unwrap_or_default();
            assert!(ended.is_none(), "dockerd ended: {}", log());
            assert!(
                Instant::now() < deadline,
                "dockerd does not answer: {}",
                log()
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
        unmount(&self.1);
    }
}

/// The storage of a podman, by its folder of layers, which it keeps mounted on itself. Dropped, it is
/// emptied.
pub struct Storage(pub String);

impl Drop for Storage {
    fn drop(&mut self) {
        let _ = tool("podman", &["rm", "--all", "--force"]);
        let _ = tool("podman", &["rmi", "--all", "--force"]);
        unmount(&self.0);
    }
}

/// Output, complaint and success of a program.
pub fn tool(program: &str, arguments: &[&str]) -> (String, String, bool) {
    let out = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    (text(&out.stdout), text(&out.stderr), out.status.success())
}

/// A started build, and its output by lines.
pub struct Running {
    pub child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    pub fn start(launch: &Launch) -> Self {
        let mut child = Command::new(&launch.command[0])
            .args(&launch.command[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let pass_on = |pipe: Box<dyn io::Read + Send>| {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        };
        pass_on(Box::new(out));
        pass_on(Box::new(err));
        Self { child, lines }
    }

    /// Waits for a line that has this text.
    pub fn until(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if line.contains(text) {
                return;
            }
            seen.push(line);
        }
        panic!("no {text:?} in {seen:#?}");
    }

    /// Waits for the end: the status, and the lines that were not read yet.
    pub fn end(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(5));
        };
        (status, self.lines.iter().collect::<Vec<_>>().join("\n"))
    }
}

/// Nothing below the folder is mounted any more.
pub fn assert_no_mounts(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let left: Vec<_> = mounts
        .lines()
        .filter(|line| line.contains(&dir.display().to_string()))
        .collect();
    assert!(left.is_empty(), "{left:#?}");
}
