//! `cargo xtask setup`: what the other tasks need besides stable Rust and a C linker.
//!
//! Programs come as Debian packages. What would get in the way of a person's own installation (a
//! second Rust compiler, kernels, a registry that starts as a service) is unpacked into kcap's
//! cache instead. Every task calls [`ensure`] with its own needs, so that none installs more.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;

use crate::bpf::toolchain;
use crate::sh::{self, Exit};

/// What `cargo xtask setup` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only what these tasks need
    #[arg(long = "for", value_name = "TASK", value_enum, value_delimiter = ',')]
    tasks: Vec<Need>,
}

/// A task that needs something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Need {
    /// A traced build by buildah
    Demo,
    /// A traced build by Kaniko in a container of runc's
    Kaniko,
    /// Builds of the corpus by Kaniko, with its base images
    Corpus,
    /// Builds by docker, by podman and by container runtimes
    Engines,
    /// An object store that speaks S3
    Store,
    /// Container runtimes, and virtual machines with older kernels
    Test,
    /// Compiling the BPF object
    Bpf,
    /// Comparing with bpftrace
    Bench,
    /// Fuzzing
    Fuzz,
    /// The HTML page in a browser
    Pages,
}

/// Debian packages, the program that shows one is not needed, and who needs it.
const PACKAGES: [(&str, Option<&str>, &[Need]); 27] = [
    (
        "buildah",
        Some("buildah"),
        &[Need::Demo, Need::Kaniko, Need::Corpus],
    ),
    (
        "busybox-static",
        None,
        &[Need::Demo, Need::Kaniko, Need::Corpus, Need::Test],
    ),
    (
        "runc",
        Some("runc"),
        &[Need::Kaniko, Need::Corpus, Need::Engines, Need::Test],
    ),
    ("docker.io", Some("dockerd"), &[Need::Engines]),
    ("podman", Some("podman"), &[Need::Engines]),
    ("skopeo", Some("skopeo"), &[Need::Engines]),
    ("debootstrap", Some("debootstrap"), &[Need::Corpus]),
    ("dpkg-dev", Some("dpkg-scanpackages"), &[Need::Corpus]),
    // The library alone: the packages of Swift's servers would start them.
    ("python3-swift", None, &[Need::Store]),
    ("crun", Some("crun"), &[Need::Engines, Need::Test]),
    ("libcap2-bin", Some("setcap"), &[Need::Test]),
    // What shows man pages, and the shells that completions are for.
    ("man-db", Some("man"), &[Need::Test]),
    ("mandoc", Some("mandoc"), &[Need::Test]),
    ("zsh", Some("zsh"), &[Need::Test]),
    ("fish", Some("fish"), &[Need::Test]),
    ("qemu-system-x86", Some("qemu-system-x86_64"), &[Need::Test]),
    ("bpftrace", Some("bpftrace"), &[Need::Bench]),
    ("chromium", Some("chromium"), &[Need::Pages]),
    ("npm", Some("npm"), &[Need::Pages]),
    ("gcc", Some("cc"), &[Need::Engines, Need::Test, Need::Bpf]),
    ("g++", Some("c++"), &[Need::Fuzz]),
    ("libc6-dev", None, &[Need::Engines, Need::Test, Need::Bpf]),
    ("llvm-22-dev", None, &[Need::Bpf]),
    ("libpolly-22-dev", None, &[Need::Bpf]),
    ("libzstd-dev", None, &[Need::Bpf]),
    ("zlib1g-dev", None, &[Need::Bpf]),
    ("libxml2-dev", None, &[Need::Bpf]),
];

/// Meta packages that lead to the newest guest kernel of a series, and the series.
const KERNELS: [(&str, &str); 2] = [
    ("6.1", "linux-image-cloud-amd64"),
    ("6.12", "linux-image-6.12-cloud-amd64"),
];

/// Installs for the tasks asked for, or for all.
///
/// # Errors
/// As [`ensure`].
pub fn run(args: &Args) -> Result<()> {
    let all = Need::value_variants();
    let needs = if args.tasks.is_empty() {
        all
    } else {
        &args.tasks
    };
    if !ensure(needs)? {
        println!("nothing to do: all that is needed is here");
    }
    Ok(())
}

/// Installs what `needs` lack, and says whether there was anything.
///
/// # Errors
/// [`Exit`] 2 where something is missing that only a person can install: what, and by which
/// command, has been printed. Any other error where an installation fails.
pub fn ensure(needs: &[Need]) -> Result<bool> {
    let plan = Plan::new(needs)?;
    if plan.is_empty() {
        return Ok(false);
    }
    if !is_debian() {
        eprintln!("{}", plan.by_hand());
        return Err(Exit(2).into());
    }
    if !plan.packages.is_empty() && !sh::is_root() {
        let packages = plan.packages.join(" ");
        eprintln!(
            "missing Debian packages; run this, then the task again:\n  sudo apt-get update\n  \
             sudo apt-get install --no-install-recommends -y {packages}"
        );
        return Err(Exit(2).into());
    }
    plan.carry_out()?;
    Ok(true)
}

/// The folder of a guest kernel's series, whether it is there yet or not.
fn kernel_folder(series: &str) -> Result<PathBuf> {
    Ok(cache()?.join("kernels").join(series))
}

/// The boot image of a guest kernel that [`ensure`] unpacked, by its series, `6.1` say.
///
/// # Errors
/// Where it is not there.
pub fn kernel(series: &str) -> Result<PathBuf> {
    first_file(&kernel_folder(series)?.join("boot"), "vmlinuz-")
        .with_context(|| format!("no guest kernel {series}: run `cargo xtask setup --for test`"))
}

/// The `docker-registry` program: the person's own, else where [`ensure`] unpacks one.
///
/// # Errors
/// Where there is no cache folder.
pub fn registry() -> Result<PathBuf> {
    match sh::find("docker-registry") {
        Some(own) => Ok(own),
        None => Ok(cache()?.join("registry/usr/bin/docker-registry")),
    }
}

/// The release of axe-core, rules of accessibility, that pages are held against.
const AXE: &str = "axe-core@4.14.1";

/// The script of axe-core, where [`ensure`] installs it.
///
/// # Errors
/// Where there is no cache folder.
pub fn axe() -> Result<PathBuf> {
    Ok(cache()?.join(AXE).join("node_modules/axe-core/axe.min.js"))
}

/// BusyBox, linked statically.
pub const BUSYBOX: &str = "/bin/busybox";

/// kcap's cache folder.
///
/// # Errors
/// Where neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn cache() -> Result<PathBuf> {
    toolchain::cache().context("no cache folder: set XDG_CACHE_HOME or HOME")
}

fn first_file(folder: &Path, prefix: &str) -> Option<PathBuf> {
    fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with(prefix)
        })
}

fn is_debian() -> bool {
    sh::find("apt-get").is_some() && sh::find("dpkg").is_some()
}

/// What is to be done.
struct Plan {
    packages: Vec<&'static str>,
    compiler: bool,
    linker: bool,
    kernels: Vec<(&'static str, &'static str)>,
    registry: bool,
    axe: bool,
}

impl Plan {
    fn new(needs: &[Need]) -> Result<Self> {
        // A toolchain of rustup's serves as well, with all that it stands on.
        let bpf = needs.contains(&Need::Bpf) && toolchain::discover().is_none();
        let packages = missing(
            needs
                .iter()
                .copied()
                .filter(|need| *need != Need::Bpf || bpf),
        );
        let folder = toolchain::folder().context("no cache folder: set XDG_CACHE_HOME or HOME")?;
        let linker = folder.join(toolchain::linker_folder());
        let guests = needs.contains(&Need::Test) && cfg!(target_arch = "x86_64");
        Ok(Self {
            packages,
            compiler: bpf && toolchain::unpacked(&folder).is_none(),
            linker: bpf && !linker.join("bin/bpf-linker").is_file(),
            kernels: KERNELS
                .into_iter()
                .filter(|(series, _)| guests && kernel(series).is_err())
                .collect(),
            registry: [Need::Kaniko, Need::Corpus]
                .iter()
                .any(|need| needs.contains(need))
                && !registry()?.is_file(),
            axe: needs.contains(&Need::Pages) && !axe()?.is_file(),
        })
    }

    fn is_empty(&self) -> bool {
        self.packages.is_empty()
            && self.kernels.is_empty()
            && !(self.compiler || self.linker || self.registry || self.axe)
    }

    /// What a person does where there is no apt.
    fn by_hand(&self) -> String {
        let mut text = String::from(
            "this is neither Debian nor Ubuntu, so set-up is up to you; what is missing:",
        );
        for package in &self.packages {
            text.push_str(&format!("\n  {package} (as Debian calls it)"));
        }
        if self.compiler || self.linker {
            text.push_str(
                "\n  a BPF toolchain: rustup toolchain install nightly --component rust-src; \
                 cargo install bpf-linker",
            );
        }
        for (series, _) in &self.kernels {
            text.push_str(&format!(
                "\n  a Linux {series} boot image (vmlinuz) as {}/boot/vmlinuz-{series}",
                kernel_folder(series).unwrap_or_default().display()
            ));
        }
        if self.registry {
            text.push_str("\n  a registry (`docker-registry`)");
        }
        if self.axe {
            let folder = cache().unwrap_or_default().join(AXE);
            text.push_str(&format!(
                "\n  axe-core: npm install --ignore-scripts --prefix {} {AXE}",
                folder.display()
            ));
        }
        text
    }

    fn carry_out(&self) -> Result<()> {
        // A source that does not answer is no obstacle as long as the others have what we want.
        if let Err(why) = sh::output(Command::new("apt-get").args(["update", "-q"])) {
            eprintln!("setup: package lists may be old: {why}");
        }
        if !self.packages.is_empty() {
            say(&format!("installing {}", self.packages.join(" ")));
            let mut command = Command::new("apt-get");
            command
                .env("DEBIAN_FRONTEND", "noninteractive")
                .args(["install", "-y", "-qq", "--no-install-recommends"])
                .args(["-o", "Dpkg::Use-Pty=0"])
                .args(&self.packages);
            sh::output(&mut command)?;
        }
        if self.compiler {
            compiler()?;
        }
        if self.linker {
            linker()?;
        }
        for (series, meta) in &self.kernels {
            guest_kernel(series, meta)?;
        }
        if self.registry {
            say("unpacking docker-registry");
            unpack(&["docker-registry"], |_, _| Ok(cache()?.join("registry")))?;
        }
        if self.axe {
            axe_core()?;
        }
        Ok(())
    }
}

/// The packages that `needs` want and that are not installed, nor their programs.
fn missing(needs: impl Iterator<Item = Need>) -> Vec<&'static str> {
    let needs: Vec<Need> = needs.collect();
    let wanted = PACKAGES
        .iter()
        .filter(|(_, _, by)| by.iter().any(|need| needs.contains(need)))
        .filter(|(_, program, _)| program.is_none_or(|name| sh::find(name).is_none()))
        .map(|(name, _, _)| *name);
    if !is_debian() {
        // Only what is not a program by itself is left: there is no telling how it is called.
        let is_here = |name: &str| name != "busybox-static" || Path::new(BUSYBOX).exists();
        let has_program = |name: &str| PACKAGES.iter().any(|(n, p, _)| *n == name && p.is_some());
        return wanted
            .filter(|name| has_program(name) || !is_here(name))
            .collect();
    }
    let wanted: Vec<&str> = wanted.collect();
    // It exits with 1 where it does not know one of them, and lists the others all the same.
    let listed = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Abbrev}${Package}\n"])
        .args(&wanted)
        .output();
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let listed = listed.unwrap_or_default();
    let is_installed = |name: &str| listed.lines().any(|line| line == format!("ii {name}"));
    wanted
        .into_iter()
        .filter(|name| !is_installed(name))
        .collect()
}

fn say(what: &str) {
    eprintln!("setup: {what}");
}

/// The packages that `package` depends on, as this machine's sources have it.
fn depends(package: &str) -> Result<Vec<String>> {
    let text = sh::output(Command::new("apt-cache").args(["depends", package]))?;
    Ok(text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .map(str::to_owned)
        .collect())
}

/// Downloads packages, unpacks them, and moves the result to where `place` says, which is given
/// the names of the downloaded files and the folder they were unpacked into.
fn unpack(packages: &[&str], place: impl Fn(&[String], &Path) -> Result<PathBuf>) -> Result<()> {
    let cache = cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let scratch = tempfile::Builder::new()
        .prefix(".unpack-")
        .tempdir_in(&cache)
        .with_context(|| format!("cannot make a folder in {}", cache.display()))?;
    let (debs, root) = (scratch.path().join("debs"), scratch.path().join("root"));
    fs::create_dir(&debs)?;
    fs::create_dir(&root)?;
    sh::output(
        Command::new("apt-get")
            .args(["download", "-q"])
            .args(packages)
            .current_dir(&debs),
    )?;
    let mut names = Vec::new();
    for entry in fs::read_dir(&debs)? {
        let path = entry?.path();
        sh::output(Command::new("dpkg").arg("-x").arg(&path).arg(&root))?;
        names.extend(path.file_name().map(|n| n.to_string_lossy().into_owned()));
    }
    let place = place(&names, &root)?;
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    sh::publish(&root, &place)
}

/// Unpacks `rustc-web`, with its library for BPF.
fn compiler() -> Result<()> {
    let library = depends("libstd-rust-web-dev").ok().and_then(|names| {
        let mut versioned = names.into_iter();
        versioned.find(|name| name.starts_with("libstd-rust-web-1."))
    });
    let Some(library) = library else {
        bail!(
            "this release of Debian or Ubuntu has no rustc-web: install rustup's nightly with \
             rust-src, and `cargo install bpf-linker`"
        );
    };
    say("unpacking rustc-web (375 MB)");
    let packages = [
        "rustc-web",
        &library,
        "libstd-rust-web-dev",
        "libstd-rust-web-dev-bpf",
    ];
    let folder = toolchain::folder().context("no cache folder")?;
    unpack(&packages, |names, root| {
        toolchain::compiler_runs(root).map_err(|why| anyhow!(why))?;
        let version = names
            .iter()
            .find_map(|name| name.strip_prefix("rustc-web_")?.split('_').next())
            .context("apt-get download rustc-web left no file of that name")?;
        // In file names apt writes the colon of an epoch as %3a.
        Ok(folder.join(format!("rustc-web-{}", version.replace("%3a", "."))))
    })
}

/// Builds bpf-linker against Debian's LLVM.
fn linker() -> Result<()> {
    let folder = toolchain::folder().context("no cache folder")?;
    say("building bpf-linker (a minute)");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let scratch = tempfile::Builder::new()
        .prefix(".linker-")
        .tempdir_in(&folder)?;
    let root = scratch.path().join("root");
    let version = format!("bpf-linker@{}", toolchain::LINKER_VERSION);
    sh::output(
        sh::cargo()
            .env("LLVM_PREFIX", "/usr/lib/llvm-22")
            .env("CARGO_TARGET_DIR", scratch.path().join("target"))
            .args(["install", &version, "--locked", "--no-default-features"])
            .args(["--features", "llvm-22", "--root"])
            .arg(&root),
    )?;
    sh::publish(&root, &folder.join(toolchain::linker_folder()))
}

/// Installs axe-core from npm, without running anything of it.
fn axe_core() -> Result<()> {
    say(&format!("installing {AXE}"));
    let cache = cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let scratch = tempfile::Builder::new()
        .prefix(".axe-")
        .tempdir_in(&cache)?;
    let root = scratch.path().join("root");
    sh::output(
        Command::new("npm")
            .args(["install", "--ignore-scripts", "--no-audit", "--no-fund"])
            .arg("--prefix")
            .arg(&root)
            .arg(AXE),
    )?;
    sh::publish(&root, &cache.join(AXE))
}

/// Unpacks the newest kernel of a series.
fn guest_kernel(series: &str, meta: &str) -> Result<()> {
    let prefix = format!("linux-image-{series}.");
    let package = depends(meta)
        .ok()
        .and_then(|names| names.into_iter().find(|name| name.starts_with(&prefix)));
    let Some(package) = package else {
        eprintln!(
            "setup: this machine's package sources have no guest kernel {series} ({meta}); tests \
             that need it are skipped"
        );
        return Ok(());
    };
    say(&format!("unpacking {package}"));
    unpack(&[&package], |_, _| kernel_folder(series))
}
