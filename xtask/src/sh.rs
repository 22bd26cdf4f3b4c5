//! Running other programs, with errors of one line that name the program and what it said.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, fmt, fs};

use anyhow::{Context, Result, bail};

/// An end of the process with a status of its own, carried as an error to `main`.
#[derive(Debug)]
pub struct Exit(pub u8);

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit status {}", self.0)
    }
}

impl std::error::Error for Exit {}

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// The folder of cargo's output that this process was built into, for outputs of ours beside it.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The cargo that runs this task, free of what it set for this package alone, in the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command.current_dir(workspace());
    command
}

/// The target that static programs are built for; naming it keeps build scripts dynamic.
const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// A cargo that builds programs which need no others, in a folder of its own: other flags would have
/// it build everything anew each time.
pub fn static_cargo() -> Command {
    let mut cargo = cargo();
    cargo
        .env("CARGO_TARGET_DIR", target().join("vm"))
        .env("CARGO_BUILD_TARGET", STATIC_TARGET)
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    cargo
}

/// Builds a kcap that needs no libraries, and returns its path.
///
/// # Errors
/// Where cargo fails.
pub fn static_kcap() -> Result<PathBuf> {
    run(static_cargo().args(["build", "--quiet", "--package", "kcap", "--bin", "kcap"]))?;
    Ok((target().join("vm").join(STATIC_TARGET)).join("debug/kcap"))
}

/// Whether a program of that name is on `PATH`, or in the folders of system programs.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// The command as one would type it, shortened.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let words: Vec<_> = std::iter::once(program.file_name().unwrap_or(program.as_os_str()))
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    let text = words.join(" ");
    match text.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Runs to the end with this process's output.
///
/// # Errors
/// Where the program does not start or does not exit with 0.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs to the end and returns standard output without its trailing white space.
///
/// # Errors
/// Where the program does not start or does not exit with 0: with the last line it wrote to
/// standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{}`", shown(command)))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.lines().rfind(|line| !line.trim().is_empty());
        bail!(
            "`{}` failed: {}",
            shown(command),
            last.unwrap_or(&output.status.to_string())
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}

/// Whether this process is the superuser.
pub fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Moves a finished folder to its place, so that what is there is always complete.
///
/// # Errors
/// Where the folder that is in the way cannot be removed, or the rename fails.
pub fn publish(finished: &Path, place: &Path) -> Result<()> {
    if place.exists() {
        fs::remove_dir_all(place).with_context(|| format!("cannot remove {}", place.display()))?;
    }
    fs::rename(finished, place)
        .with_context(|| format!("cannot move {} to {}", finished.display(), place.display()))
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on an interrupt or a request to end is for the children alone: this process stays, to
/// clean up after them. Unlike signals that are ignored, this is not inherited by what it runs.
pub fn outlive_signals() {
    extern "C" fn note(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler stores to a lock-free atomic, and stays valid for as long as the
        // process lives.
        unsafe { libc::signal(signal, note as *const () as libc::sighandler_t) };
    }
}

/// Whether such a signal has come since [`outlive_signals`].
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}
