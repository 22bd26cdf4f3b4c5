//! Containers without an engine, and what runs in them: a cgroup each, and the executor of known truth.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use kcap::host::cgroup::Layout;
use tempfile::TempDir;

use crate::programs;

/// Longer than anything here takes, in a virtual machine too.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn example() -> PathBuf {
    programs::example("KCAP_EXECUTOR", "executor")
}

/// A folder with the executor under its three names, and with Dockerfiles.
pub struct Lab(pub TempDir);

impl Lab {
    pub fn new() -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        for (folder, name) in [("kaniko", "executor"), ("bin", "sh"), ("bin", "truth")] {
            let folder = dir.path().join(folder);
            fs::create_dir_all(&folder).expect("a folder");
            fs::copy(example(), folder.join(name)).expect("the executor can be copied");
        }
        Self(dir)
    }

    pub fn path(&self, name: &str) -> String {
        let path = self.0.path().join(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// Writes a Dockerfile whose shell is the known one, and gives its path.
    pub fn dockerfile(&self, name: &str, head: &str, rest: &str) -> String {
        let shell = self.path("bin/sh");
        let path = self.path(name);
        let text = format!("{head}\nSHELL [\"{shell}\", \"-c\"]\n{rest}");
        fs::write(&path, text).expect("a Dockerfile");
        path
    }

    /// The lines of a RUN instruction's phases.
    pub fn run_lines(&self, text: &str) -> [String; 3] {
        let shell = self.path("bin/sh");
        [
            format!("Cmd: {shell}"),
            format!("Args: [-c {text}]"),
            format!("Running: [{shell} -c {text}]"),
        ]
    }
}

/// A cgroup at the root of the hierarchy that defines the scope, as of a container's.
pub struct Group(pub PathBuf);

impl Group {
    pub fn new(name: &str) -> Self {
        let layout = Layout::detect().expect("cgroups");
        let path = layout
            .mount
            .join(format!("kcap-test-{}-{name}", std::process::id()));
        fs::create_dir(&path).expect("a cgroup");
        Self(path)
    }

    /// A command that moves into the group before it executes its program, in a mount namespace of its
    /// own if that is `apart`.
    pub fn command(&self, apart: bool, program: &str) -> Command {
        let procs = self.0.join("cgroup.procs");
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // SAFETY: the C library's `fork` leaves the allocator usable in the child, and nothing else
        // that another thread could hold is used there.
        unsafe {
            command.pre_exec(move || {
                if apart && libc::unshare(libc::CLONE_NEWNS) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                fs::write(&procs, "0")
            });
        }
        command
    }

    /// Runs it to its end.
    pub fn run(&self, apart: bool, command: &[&str]) -> ExitStatus {
        self.command(apart, command[0])
            .args(&command[1..])
            .stderr(Stdio::null())
            .status()
            .expect("it starts")
    }
}

/// Has a command run with these capabilities and no others, as a user that is nobody where `nobody`.
pub fn confine(command: &mut Command, caps: u64, nobody: bool) {
    const NOBODY: u32 = 65534;
    let must = |r: i32| match r {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: system calls with integers and live structs alone.
    unsafe {
        command.pre_exec(move || {
            for cap in (0..64).filter(|cap| caps >> cap & 1 == 0) {
                // Refused beyond the last.
                libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0);
            }
            if !nobody {
                return Ok(());
            }
            must(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
            must(libc::setgroups(0, std::ptr::null()))?;
            must(libc::setresgid(NOBODY, NOBODY, NOBODY))?;
            must(libc::setresuid(NOBODY, NOBODY, NOBODY))?;
            let header: [u32; 2] = [0x2008_0522, 0];
            let (low, high) = (caps as u32, (caps >> 32) as u32);
            let data = [low, low, low, high, high, high];
            must(libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) as i32)?;
            for cap in (0..64).filter(|cap| caps >> cap & 1 != 0) {
                let raise = libc::PR_CAP_AMBIENT_RAISE;
                must(libc::prctl(libc::PR_CAP_AMBIENT, raise, cap, 0, 0))?;
            }
            Ok(())
        });
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let end = Instant::now() + PATIENCE;
        // Its processes may be just dying.
        while fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
    }
}
