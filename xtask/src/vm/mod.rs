//! `cargo xtask vm`: one program, in a virtual machine of its own, on a kernel of one's choice.
//!
//! The guest is a boot image and an initramfs of BusyBox and the given files; QEMU emulates the
//! processor, so no virtualisation is needed of the host. What the program writes arrives at this
//! process's output as it is written.

mod cpio;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::setup::{self, Need};
use crate::sh::Exit;

/// What `cargo xtask vm` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kernel: 6.1, 6.12, or a boot image's path
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// When the kernel lets other tasks interrupt it
    #[arg(long, value_enum, default_value_t = Preempt::Full)]
    preempt: Preempt,
    /// How the guest's control groups are laid out
    #[arg(long, value_enum, default_value_t = Cgroup::V2)]
    cgroup: Cgroup,
    /// Number of processors
    #[arg(long, default_value_t = 2)]
    smp: u32,
    /// A file to put into the guest; without a destination at the same path
    #[arg(long = "file", value_name = "SOURCE[:DESTINATION]")]
    files: Vec<String>,
    /// An environment variable of the program
    #[arg(long = "env", value_name = "NAME=VALUE")]
    environment: Vec<String>,
    /// Seconds after which the machine is stopped
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// What to run: BusyBox's programs, and the given files
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<String>,
}

/// The kernel's preemption modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preempt {
    /// Only where the kernel offers it
    Voluntary,
    /// Nearly everywhere
    Full,
}

impl Preempt {
    /// As the kernel's command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Voluntary => "voluntary",
            Self::Full => "full",
        }
    }
}

/// Layouts of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cgroup {
    /// One version 1 hierarchy for each controller
    V1,
    /// One version 2 hierarchy
    V2,
    /// Version 1 hierarchies, and one of version 2 without controllers
    Hybrid,
}

/// Memory of a guest that does nothing unusual, in MiB.
pub const MEMORY: u32 = 1024;

/// A machine to boot once.
#[derive(Debug)]
pub struct Machine {
    /// The boot image.
    pub kernel: PathBuf,
    /// The preemption mode; the boot fails where the kernel does not take it.
    pub preempt: Preempt,
    /// The layout of control groups.
    pub cgroup: Cgroup,
    /// Number of processors.
    pub processors: u32,
    /// Memory, in MiB.
    pub memory: u32,
    /// The image of a disk, `/dev/nvme0n1` in the guest; what the guest writes to it is forgotten.
    pub disk: Option<PathBuf>,
    /// Files on the host, and where they are put in the guest.
    pub files: Vec<(PathBuf, String)>,
    /// Environment of the program, as `NAME=VALUE`.
    pub environment: Vec<String>,
    /// How long it may take, boot included.
    pub timeout: Duration,
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// Boots one machine as the arguments say and passes its program's status on.
///
/// # Errors
/// [`Exit`] with the program's status where that is not 0; otherwise as [`Machine::run`].
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Need::Test])?;
    let kernel = if args.kernel.contains('/') {
        PathBuf::from(&args.kernel)
    } else {
        setup::kernel(&args.kernel)?
    };
    let files = args.files.iter().map(|file| {
        let (source, place) = file.split_once(':').unwrap_or((file, ""));
        let source = fs::canonicalize(source).with_context(|| format!("cannot find {source}"))?;
        let place = if place.is_empty() {
            source.to_string_lossy().into_owned()
        } else {
            place.to_owned()
        };
        Ok((source, place))
    });
    let machine = Machine {
        kernel,
        preempt: args.preempt,
        cgroup: args.cgroup,
        processors: args.smp,
        memory: MEMORY,
        disk: None,
        files: files.collect::<Result<_>>()?,
        environment: args.environment.clone(),
        timeout: Duration::from_secs(args.timeout),
        command: args.command.clone(),
    };
    match machine.run(|line| println!("{line}"))? {
        0 => Ok(()),
        status => Err(Exit(status).into()),
    }
}

impl Machine {
    /// Boots, hands every line of the guest's console to `line`, and returns the status of the
    /// program: 125 where the guest could not be made ready for it, as it has said.
    ///
    /// # Errors
    /// Where QEMU does not start, the guest ends without a status, or the time is over.
    pub fn run(&self, mut line: impl FnMut(&str)) -> Result<u8> {
        let mark = format!("kcap-vm-exit-{}", std::process::id());
        let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
        let initramfs = scratch.path().join("initramfs");
        fs::write(&initramfs, self.initramfs(&mark)?)
            .with_context(|| format!("cannot write {}", initramfs.display()))?;
        let mut qemu = self.boot(&initramfs)?;
        let console = qemu.stdout.take().context("QEMU has no output")?;
        let guard = Deadline::start(qemu, self.timeout);
        let mut status = None;
        for bytes in BufReader::new(console).split(b'\n') {
            let bytes = bytes.context("cannot read the guest's console")?;
            let text = String::from_utf8_lossy(&bytes);
            let text = text.trim_end_matches('\r');
            match text.split_once(&mark) {
                Some((before, code)) => {
                    if !before.is_empty() {
                        line(before);
                    }
                    status = code.trim().parse().ok();
                }
                // After the program's end the kernel only says that it powers off.
                None if status.is_some() => {}
                None => line(text),
            }
        }
        let late = guard.stop();
        match status {
            Some(status) => Ok(status),
            None if late => bail!(
                "the guest was stopped after {} s: see its output above, or allow it more time",
                self.timeout.as_secs()
            ),
            None => bail!("the guest ended without a status: see its output above"),
        }
    }

    fn boot(&self, initramfs: &Path) -> Result<Child> {
        let arguments = format!(
            "console=ttyS0 quiet panic=-1 preempt={}",
            self.preempt.name()
        );
        let mut qemu = Command::new("qemu-system-x86_64");
        if let Some(disk) = &self.disk {
            // A comma in a value is written twice.
            let path = disk.to_string_lossy().replace(',', ",,");
            let drive = format!("file={path},format=raw,if=none,id=disk,snapshot=on,cache=unsafe");
            // NVMe, since Debian's cloud kernels have that driver built in.
            qemu.args(["-drive", &drive])
                .args(["-device", "nvme,drive=disk,serial=kcap"]);
        }
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max"])
            .args(["-m", &format!("{}M", self.memory)])
            .args(["-smp", &self.processors.to_string()])
            .args(["-nodefaults", "-display", "none", "-serial", "stdio"])
            .arg("-no-reboot")
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", &arguments])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run qemu-system-x86_64: run `cargo xtask setup --for test`")
    }

    fn initramfs(&self, mark: &str) -> Result<Vec<u8>> {
        let read =
            |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let mut archive = cpio::Archive::default();
        for folder in [
            "dev", "proc", "sys", "tmp", "root", "run", "sbin", "usr/bin", "var/tmp",
        ] {
            archive.folder(folder);
        }
        archive.device("dev/console", 5, 1);
        archive.file("bin/busybox", 0o755, &read(Path::new(setup::BUSYBOX))?);
        archive.file("init", 0o755, include_bytes!("init.sh"));
        archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
        archive.file("etc/group", 0o644, b"root:x:0:\n");
        let cgroup = match self.cgroup {
            Cgroup::V1 => "v1",
            Cgroup::V2 => "v2",
            Cgroup::Hybrid => "hybrid",
        };
        let config = format!(
            "MARK={}\nCGROUP={cgroup}\nPREEMPT={}\n",
            quoted(mark),
            self.preempt.name()
        );
        archive.file("kcap-vm/config", 0o644, config.as_bytes());
        archive.file("kcap-vm/program", 0o644, self.program().as_bytes());
        for (source, place) in &self.files {
            archive.file(place, 0o755, &read(source)?);
        }
        Ok(archive.finish())
    }

    fn program(&self) -> String {
        let mut text = String::new();
        for variable in &self.environment {
            text.push_str(&format!("export {}\n", quoted(variable)));
        }
        text.push_str("exec");
        for word in &self.command {
            text.push(' ');
            text.push_str(&quoted(word));
        }
        text.push('\n');
        text
    }
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Kills a child after a while, or when it is dropped.
struct Deadline {
    done: Arc<AtomicBool>,
    watcher: Option<thread::JoinHandle<bool>>,
}

impl Deadline {
    fn start(mut child: Child, after: Duration) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&done);
        let watcher = thread::spawn(move || {
            let end = Instant::now() + after;
            loop {
                let late = Instant::now() >= end;
                if late || seen.load(Ordering::Acquire) {
                    // It may have ended by itself in the meantime, which is as good.
                    let _ = child.kill();
                    let _ = child.wait();
                    return late;
                }
                if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                    return false;
                }
                thread::sleep(Duration::from_millis(50));
            }
        });
        Self {
            done,
            watcher: Some(watcher),
        }
    }

    /// Ends the child and says whether it had run out of time.
    fn stop(mut self) -> bool {
        self.end()
    }

    fn end(&mut self) -> bool {
        self.done.store(true, Ordering::Release);
        let watcher = self.watcher.take();
        watcher.is_some_and(|thread| thread.join().unwrap_or(false))
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        for word in ["", "a b", "it's", "$HOME `x` \\ \"", "a\nb"] {
            let script = format!("printf %s {}", quoted(word));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }
}
