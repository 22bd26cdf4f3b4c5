//! Compiling the BPF object: which toolchains can, and how each is called so that the same
//! toolchain gives the same bytes in every folder.
//!
//! Two ways: Debian's `rustc-web` unpacked into kcap's cache by `cargo xtask setup`, which has a
//! ready `core` for the target; or rustup's nightly with rust-src, which builds `core`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The compiler's name for the target: BPF, little endian.
pub const TARGET: &str = "bpfel-unknown-none";
/// The version of bpf-linker that `cargo xtask setup` installs.
pub const LINKER_VERSION: &str = "0.13.0";

/// Code generation flags that do not depend on where anything lies; part of the source hash.
///
/// One codegen unit keeps the order of functions from depending on how work was split;
/// debug information is what BTF is made from, and is itself never loaded into the kernel.
pub const FLAGS: [&str; 5] = [
    "-Clink-arg=--btf",
    "-Ctarget-cpu=v3",
    "-Cdebuginfo=2",
    "-Cpanic=abort",
    "-Ccodegen-units=1",
];

/// Something that can compile the object.
#[derive(Clone, Debug)]
pub enum Toolchain {
    /// `rustc-web` in kcap's cache.
    Unpacked {
        /// The folder it was unpacked into; its name holds the package's version.
        root: PathBuf,
        /// `bpf-linker`.
        linker: PathBuf,
    },
    /// rustup's nightly with rust-src.
    Rustup {
        /// `bpf-linker`.
        linker: PathBuf,
    },
}

/// Where toolchains are kept: `$KCAP_TOOLCHAIN`, else `kcap/toolchain` in the user's cache.
pub fn folder() -> Option<PathBuf> {
    if let Some(folder) = env::var_os("KCAP_TOOLCHAIN").filter(|v| !v.is_empty()) {
        return Some(folder.into());
    }
    Some(cache()?.join("toolchain"))
}

/// kcap's folder in the user's cache. `None` where there is neither `XDG_CACHE_HOME` nor `HOME`.
pub fn cache() -> Option<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(base.join("kcap"))
}

/// The name of the linker's folder below [`folder`].
pub fn linker_folder() -> String {
    format!("bpf-linker-{LINKER_VERSION}-llvm22")
}

/// The last by name of the complete `rustc-web-VERSION` folders below `folder`.
pub fn unpacked(folder: &Path) -> Option<PathBuf> {
    fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            name.starts_with("rustc-web-") && path.join("usr/bin/rustc").is_file()
        })
        .max()
}

/// The first toolchain that is complete on this machine; kcap's own before rustup's.
pub fn discover() -> Option<Toolchain> {
    if let Some(folder) = folder() {
        let linker = folder.join(linker_folder()).join("bin/bpf-linker");
        if let Some(root) = unpacked(&folder).filter(|_| linker.is_file()) {
            return Some(Toolchain::Unpacked { root, linker });
        }
    }
    let linker = env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join("bpf-linker"))
        .find(|path| path.is_file())?;
    let sysroot = PathBuf::from(first_line(
        Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]),
    )?);
    sysroot
        .join("lib/rustlib/src/rust/library/core")
        .is_dir()
        .then_some(Toolchain::Rustup { linker })
}

impl Toolchain {
    /// Names the versions of everything that decides the object's bytes besides its sources.
    ///
    /// # Errors
    /// Where a part of the toolchain does not run; one line.
    pub fn id(&self) -> Result<String, String> {
        let linker = match self {
            Self::Unpacked { linker, .. } | Self::Rustup { linker } => linker,
        };
        let version = |command: &mut Command| {
            let shown = command.get_program().to_string_lossy().into_owned();
            first_line(command).ok_or(format!("`{shown}` does not run: run `cargo xtask setup`"))
        };
        let linker = version(Command::new(linker).arg("--version"))?;
        let cargo = version(self.cargo().arg("--version"))?;
        let rustc = match self {
            Self::Unpacked { root, .. } => {
                let name = root.file_name().unwrap_or_default().to_string_lossy();
                name.into_owned()
            }
            Self::Rustup { .. } => {
                version(Command::new("rustup").args(["run", "nightly", "rustc", "--version"]))?
            }
        };
        Ok(format!("{rustc}, {linker}, {cargo}"))
    }

    /// A command that runs cargo, free of what an outer cargo or the user set for other targets.
    fn cargo(&self) -> Command {
        let mut command = match self {
            Self::Unpacked { .. } => {
                Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            }
            Self::Rustup { .. } => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]);
                command
            }
        };
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            let ours = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR"];
            let foreign = text.starts_with("RUSTC")
                || text.starts_with("RUSTFLAGS")
                || text == "RUSTUP_TOOLCHAIN"
                || text.starts_with("CARGO") && !ours.iter().any(|keep| text.starts_with(keep));
            if foreign {
                command.env_remove(name);
            }
        }
        command
    }

    /// Compiles the object of `workspace` with all its intermediate files in `target`, and
    /// returns its bytes.
    ///
    /// # Errors
    /// Where the compiler fails; its own messages have gone to standard error.
    pub fn compile(&self, workspace: &Path, target: &Path) -> Result<Vec<u8>, String> {
        // The name of the registry's folder differs between people and is known once it is there;
        // where this fails the build says why.
        let _ = self
            .cargo()
            .args(["fetch", "--quiet", "--locked", "--target", TARGET])
            .current_dir(workspace)
            .stderr(Stdio::null())
            .status();
        let mut command = self.cargo();
        let mut flags: Vec<OsString> = FLAGS.iter().map(OsString::from).collect();
        let mut remap = |from: &Path, to: &str| {
            let mut flag = OsString::from("--remap-path-prefix=");
            flag.push(from);
            flag.push("=");
            flag.push(to);
            flags.push(flag);
        };
        remap(workspace, "/kcap");
        remap(target, "/target");
        if let Some(registry) = cargo_home().map(|home| home.join("registry/src")) {
            for entry in fs::read_dir(registry).into_iter().flatten().flatten() {
                remap(&entry.path(), "/registry");
            }
        }
        let linker = match self {
            Self::Unpacked { root, linker } => {
                command.env("RUSTC", root.join("usr/bin/rustc"));
                command.env("LD_LIBRARY_PATH", libraries(root));
                // The packaged compiler is a stable release; BPF needs unstable features of it.
                command.env("RUSTC_BOOTSTRAP", "1");
                linker
            }
            Self::Rustup { linker } => linker,
        };
        command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
        command.env("CARGO_ENCODED_RUSTFLAGS", join(&flags));
        command.args(["build", "--quiet", "--locked", "--release", "--package"]);
        command.args(["kcap-ebpf", "--target", TARGET, "--target-dir"]);
        command.arg(target);
        if let Self::Rustup { .. } = self {
            command.args(["-Z", "build-std=core"]);
        }
        command.current_dir(workspace).stdin(Stdio::null());
        let status = command
            .status()
            .map_err(|e| format!("cannot run cargo for the BPF object: {e}"))?;
        if !status.success() {
            return Err(
                "the BPF object does not compile: see the compiler's messages above".into(),
            );
        }
        let object = target.join(TARGET).join("release/kcap-ebpf");
        let bytes =
            fs::read(&object).map_err(|e| format!("cannot read {}: {e}", object.display()))?;
        super::strip::debug_sections(&bytes)
    }
}

/// Tries an unpacked `rustc-web`.
///
/// # Errors
/// Where it does not run: what it said, in one line.
pub fn compiler_runs(root: &Path) -> Result<(), String> {
    let output = Command::new(root.join("usr/bin/rustc"))
        .arg("--version")
        .env("LD_LIBRARY_PATH", libraries(root))
        .output()
        .map_err(|e| format!("cannot run the unpacked rustc: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or("no message");
    Err(format!("the unpacked rustc does not run: {first}"))
}

/// The folder of an unpacked package's libraries, `usr/lib/x86_64-linux-gnu` say.
fn libraries(root: &Path) -> PathBuf {
    let lib = root.join("usr/lib");
    fs::read_dir(&lib)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
        .unwrap_or(lib)
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}

/// Flags as cargo wants them where a path may hold blanks.
fn join(flags: &[OsString]) -> OsString {
    let mut joined = OsString::new();
    for (index, flag) in flags.iter().enumerate() {
        if index > 0 {
            joined.push("\x1f");
        }
        joined.push(flag);
    }
    joined
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success())
        .then(|| text.lines().next().map(str::to_owned))
        .flatten()
}
