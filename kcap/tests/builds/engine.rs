//! Engines to build with, each apart from the machine's own: docker with a daemon of the test's on a
//! private socket, podman with storage of the test's, kcap's own bundles in a cache of the test's.

use std::{
    fs::{self, File},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{left::Left, programs};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Docker,
    Podman,
    Oci,
}

impl Kind {
    /// As `--engine` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Oci => "oci",
        }
    }

    /// Why this machine cannot test it.
    fn lacks(self) -> Option<String> {
        // SAFETY: takes nothing.
        if unsafe { libc::geteuid() } != 0 {
            return Some("needs root".into());
        }
        if !Path::new("/sys/kernel/btf/vmlinux").exists() {
            return Some("needs a kernel with BTF".into());
        }
        if let Err(why) = is_static(&executor()) {
            return Some(why);
        }
        let found = |program: &&str| {
            Command::new(program)
                .arg("--version")
                .stdin(Stdio::null())
                .output()
                .is_ok()
        };
        let programs: &[&str] = match self {
            Self::Docker => &["docker", "dockerd"],
            Self::Podman => &["podman"],
            Self::Oci => {
                let some = ["runc", "crun"].iter().any(found);
                return (!some).then(|| "there is neither runc nor crun".into());
            }
        };
        let missing = programs.iter().find(|program| !found(program))?;
        Some(format!("there is no {missing}"))
    }
}

/// The known executor.
pub fn executor() -> PathBuf {
    programs::example("KCAP_EXECUTOR", "executor")
}

/// Whether a program of a 64-bit machine runs without others: its image holds nothing else.
fn is_static(program: &Path) -> Result<(), String> {
    const PT_INTERP: u32 = 3;
    let bytes = fs::read(program).map_err(|e| format!("no {}: {e}", program.display()))?;
    let number = |at: usize, len: usize| {
        let mut wide = [0; 8];
        wide[..len].copy_from_slice(&bytes[at..at + len]);
        u64::from_le_bytes(wide) as usize
    };
    let (headers, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let interpreted = |n| number(headers + n * size, 4) == PT_INTERP as usize;
    if (0..count).any(interpreted) {
        return Err(format!(
            "{} is linked dynamically: run `cargo xtask test --only engines`",
            program.display()
        ));
    }
    Ok(())
}

/// An engine that works, and a folder for what is built. Dropped, all of it is gone.
pub struct Engine {
    pub kind: Kind,
    dir: TempDir,
    daemon: Option<Daemon>,
    environment: Vec<(&'static str, PathBuf)>,
}

impl Engine {
    /// Starts one, or says why not.
    pub fn start(kind: Kind) -> Result<Self, String> {
        if let Some(why) = kind.lacks() {
            return Err(why);
        }
        // Not below /tmp: that may be in memory, and what is executed from there without capabilities.
        let dir = TempDir::with_prefix_in("kcap-builds-", "/var/tmp").expect("a temporary folder");
        let place = |name: &str| dir.path().join(name);
        for folder in ["files", "tmp", "cache", "home"] {
            fs::create_dir(place(folder)).expect("a folder");
        }
        let mut environment = vec![
            ("TMPDIR", place("tmp")),
            ("XDG_CACHE_HOME", place("cache")),
            ("HOME", place("home")),
        ];
        match kind {
            Kind::Docker => {
                let socket = format!("unix://{}", place("socket").display());
                environment.push(("DOCKER_HOST", socket.into()));
                environment.push(("DOCKER_CONFIG", place("home")));
            }
            Kind::Podman => {
                let (storage, containers) = (place("storage.conf"), place("containers.conf"));
                let text = format!(
                    "[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
                    place("root").display(),
                    place("run").display()
                );
                fs::write(&storage, text).expect("a file");
                // Without systemd; with limits that root of a container may set; by runc where there
                // is one, since older versions of crun refuse hosts that have cgroups v1 and v2.
                let runc = Command::new("runc").arg("--version").output().is_ok();
                let text = format!(
                    "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
                     [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n\
                     tmp_dir = \"{}\"\n{}",
                    place("podman").display(),
                    if runc { "runtime = \"runc\"\n" } else { "" }
                );
                fs::write(&containers, text).expect("a file");
                environment.push(("CONTAINERS_STORAGE_CONF", storage));
                environment.push(("CONTAINERS_CONF", containers));
            }
            Kind::Oci => {}
        }
        let mut engine = Self {
            kind,
            dir,
            daemon: None,
            environment,
        };
        if kind == Kind::Docker {
            engine.daemon = Some(Daemon::start(&engine));
        }
        Ok(engine)
    }

    /// A file of the test's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("files").join(name)
    }

    /// Writes a file, and gives its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let folder = path.parent().expect("below the folder");
        fs::create_dir_all(folder).expect("a folder");
        fs::write(&path, text).expect("a file");
        path
    }

    /// A program that uses this engine and no other.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.dir.path().join("files"))
            .stdin(Stdio::null());
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    /// `kcap build` with the known executor.
    pub fn build(&self) -> Command {
        let mut command = self.kcap();
        command.arg("--executor").arg(executor());
        command
    }

    /// `kcap prove` with the known executor.
    pub fn prove(&self) -> Command {
        let mut command = self.subcommand("prove");
        command.arg("--executor").arg(executor());
        command
    }

    /// `kcap build` with this engine.
    pub fn kcap(&self) -> Command {
        self.subcommand("build")
    }

    fn subcommand(&self, name: &str) -> Command {
        let mut command = self.command(programs::kcap());
        command.args([name, "--engine", self.kind.name()]);
        if self.kind == Kind::Docker {
            // The test's daemon has no network.
            command.args(["--network", "none"]);
        }
        command
    }

    /// Ends docker's daemon, if it is docker.
    pub fn stop(&mut self) {
        self.daemon = None;
    }

    /// What is there now, to compare with later.
    pub fn look(&self) -> Left {
        let containers = match self.kind {
            Kind::Oci => files(&self.dir.path().join("cache/kcap/builds")),
            _ => self.lines(&["ps", "--all", "--quiet"]),
        };
        Left::look(containers, files(&self.dir.path().join("tmp")))
    }

    fn lines(&self, args: &[&str]) -> Vec<String> {
        let output = self.command(self.kind.name()).args(args).output();
        let output = output.expect("the engine starts");
        assert!(output.status.success(), "{}", said(&output));
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.daemon = None;
        if self.kind != Kind::Podman {
            return;
        }
        for args in [["rm", "--all", "--force"], ["rmi", "--all", "--force"]] {
            // What is left is a temporary folder too many.
            let _ = self.command("podman").args(args).output();
        }
        // podman keeps this folder mounted on itself.
        let layers = self.dir.path().join("root/overlay");
        if let Ok(layers) = std::ffi::CString::new(layers.as_os_str().as_bytes()) {
            // SAFETY: a path that outlives the call.
            unsafe {
                libc::umount2(layers.as_ptr(), libc::MNT_DETACH);
            }
        }
    }
}

/// Names in a folder; none where there is no such folder.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// What a program said.
pub fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    format!("{}\n{stdout}\n{stderr}", output.status)
}

/// A docker daemon. Dropped, it is ended.
struct Daemon(Child);

impl Daemon {
    fn start(engine: &Engine) -> Self {
        let place = |name: &str| engine.dir.path().join(name).display().to_string();
        fs::write(place("daemon.json"), "{}").expect("a file");
        let daemon = Command::new("dockerd")
            .arg(format!("--host=unix://{}", place("socket")))
            .arg(format!("--config-file={}", place("daemon.json")))
            .arg(format!("--data-root={}", place("data")))
            .arg(format!("--exec-root={}", place("exec")))
            .arg(format!("--pidfile={}", place("pid")))
            .args(["--bridge=none", "--iptables=false", "--ip-masq=false"])
            .arg("--ip-forward=false")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(place("log")).expect("a file"))
            .spawn()
            .expect("dockerd starts");
        let mut daemon = Self(daemon);
        let deadline = Instant::now() + PATIENCE;
        let answers = || {
            let output = engine.command("docker").arg("version").output();
            output.is_ok_and(|output| output.status.success())
        };
        while !answers() {
            let ended = daemon.0.try_wait().expect("it can be waited for");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "dockerd does not answer: {}",
                fs::read_to_string(place("log")).unwrap_or_default()
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
