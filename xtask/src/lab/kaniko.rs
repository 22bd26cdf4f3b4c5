//! Kaniko's executor, and builds by it in containers of runc's.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::bases::{Bases, Digests};
use super::bundle::{self, Bundle};
use super::capabilities::Set;
use super::netns::{self, Namespace};
use super::registry::Registry;
use crate::sh;

/// Where the executor's own image has it.
const DEFAULT: &str = "/kaniko/executor";

/// Where it is in a bundle.
pub const PLACE: &str = "rootfs/kaniko/executor";

/// How much of a build's log is read, from its end, in bytes.
const LOG: u64 = 64 * 1024;

/// The executor to build with: `$KCAP_KANIKO_EXECUTOR`, else where its image has it.
pub fn executor() -> Option<PathBuf> {
    let named = env::var_os("KCAP_KANIKO_EXECUTOR").filter(|value| !value.is_empty());
    let path = named.map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from);
    fs::canonicalize(path).ok().filter(|path| path.is_file())
}

/// What an executor calls its version.
///
/// # Errors
/// Where it does not run.
pub fn version(executor: &Path) -> Result<String> {
    let text = sh::output(Command::new(executor).arg("version"))?;
    let (_, version) = text
        .rsplit_once(':')
        .with_context(|| format!("{} does not say its version", executor.display()))?;
    Ok(version.trim().to_owned())
}

/// Lays out a bundle: the files of the executor's image, and those that an engine adds to every
/// container.
///
/// # Errors
/// Where a file cannot be written.
pub fn lay_out(bundle: &Path, executor: &Path) -> Result<()> {
    lay_out_around(bundle)?;
    fs::copy(executor, bundle.join(PLACE))?;
    Ok(())
}

/// Lays out everything but the executor itself.
///
/// # Errors
/// Where a file cannot be written.
pub fn lay_out_around(bundle: &Path) -> Result<()> {
    let root = bundle.join("rootfs");
    for folder in ["kaniko/ssl/certs", "kaniko/.docker", "etc", "workspace"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::set_permissions(root.join("kaniko"), fs::Permissions::from_mode(0o777))?;
    let certificates = Path::new("/etc/ssl/certs/ca-certificates.crt");
    if certificates.exists() {
        fs::copy(
            certificates,
            root.join("kaniko/ssl/certs/ca-certificates.crt"),
        )?;
    }
    fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
    // By this file Kaniko knows that it is in a container and may overwrite the root.
    fs::write(root.join(".dockerenv"), "")?;
    let resolver = fs::read("/etc/resolv.conf").unwrap_or_default();
    fs::write(bundle.join("resolv.conf"), resolver)?;
    let name = bundle::HOSTNAME;
    fs::write(
        bundle.join("hosts"),
        format!("127.0.0.1\tlocalhost {name}\n"),
    )?;
    fs::write(bundle.join("hostname"), format!("{name}\n"))?;
    Ok(())
}

/// A container of runc's, removed when dropped.
#[derive(Debug)]
pub struct Container {
    /// runc's own folder.
    pub state: PathBuf,
    /// The container's name.
    pub name: String,
}

impl Container {
    /// A runc command that knows the container.
    pub fn runc(&self) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(&self.state);
        command
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // After a build that ended by itself there is none left, which is as it should be.
        let _ = sh::output(self.runc().args(["delete", "--force", &self.name]));
    }
}

/// What to build, and how.
#[derive(Debug)]
pub struct Recipe {
    /// The Dockerfile.
    pub dockerfile: PathBuf,
    /// The build context.
    pub context: PathBuf,
    /// Flags of the executor beside those that every build has.
    pub flags: Vec<String>,
    /// Environment variables of the executor's container, as `NAME=value`.
    pub variables: Vec<String>,
    /// After this a build is ended.
    pub timeout: Duration,
}

/// How a build ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status; as a shell has it, 128 and more is a signal.
    Exited(i32),
    /// It took longer than its [`Recipe::timeout`].
    TimedOut,
}

/// A build that ended; its files are there until this is dropped.
#[derive(Debug)]
pub struct Built {
    /// How.
    pub ended: Ended,
    /// The end of what the executor and the programs that it ran have written.
    pub log: String,
    folder: TempDir,
}

impl Built {
    /// The image, as a docker archive; it is there where the build succeeded.
    pub fn image(&self) -> PathBuf {
        self.folder.path().join("out/image.tar")
    }
}

/// What shows that a file was changed: mode, owner, group, size and time of the last change.
type Stamp = (u32, u32, u32, u64, i64, i64);

fn stamp(path: &Path) -> Result<Stamp> {
    let facts = fs::metadata(path).context("the executor is gone")?;
    let id = (facts.mode(), facts.uid(), facts.gid(), facts.size());
    Ok((id.0, id.1, id.2, id.3, facts.mtime(), facts.mtime_nsec()))
}

/// An executor, a registry with the base images, and a folder for builds.
#[derive(Debug)]
pub struct Kaniko {
    /// A copy, which all bundles have a link to: it is large, and builds are many.
    executor: PathBuf,
    state: Stamp,
    version: String,
    bases: Bases,
    registry: Registry,
    scratch: TempDir,
    builds: AtomicU32,
}

impl Kaniko {
    /// Gets everything ready.
    ///
    /// # Errors
    /// Without an executor, or where base images or registry cannot be had, or where the
    /// temporary folder is on a file system that ignores setuid bits or devices.
    pub fn open() -> Result<Self> {
        let Some(executor) = executor() else {
            bail!("no Kaniko executor: set KCAP_KANIKO_EXECUTOR to its path");
        };
        let version = version(&executor)?;
        let bases = Bases::get()?;
        let scratch = tempfile::Builder::new()
            .prefix("kcap-lab-")
            .tempdir()
            .context("cannot make a temporary folder")?;
        honours_bits(scratch.path())?;
        let registry = Registry::serve(&scratch.path().join("registry"), &bases.data)?;
        let copy = scratch.path().join("executor");
        fs::copy(&executor, &copy).context("cannot copy the executor")?;
        Ok(Self {
            state: stamp(&copy)?,
            executor: copy,
            version,
            bases,
            registry,
            scratch,
            builds: AtomicU32::new(0),
        })
    }

    /// Ends the registry and removes all folders.
    ///
    /// # Errors
    /// Where a folder cannot be removed.
    pub fn close(self) -> Result<()> {
        drop(self.registry);
        self.scratch
            .close()
            .context("cannot remove the builds' folder")
    }

    /// The executor.
    pub fn executor(&self) -> &Path {
        &self.executor
    }

    /// Flags by which an executor on this host's network finds the base images.
    pub fn pull_flags(&self) -> [String; 3] {
        [
            format!("--registry-map=index.docker.io={}", self.registry.address()),
            "--insecure".into(),
            "--insecure-pull".into(),
        ]
    }

    /// The executor's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The base images, as a registry stores them.
    pub fn data(&self) -> &Path {
        &self.bases.data
    }

    /// The base images' digests.
    pub fn digests(&self) -> &Digests {
        &self.bases.digests
    }

    /// A new folder that goes with this.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn folder(&self) -> Result<TempDir> {
        TempDir::new_in(self.scratch.path()).context("cannot make a temporary folder")
    }

    /// Makes a container for one build that may do nothing but `capabilities`, and starts nothing.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn prepare(&self, recipe: &Recipe, capabilities: Set) -> Result<Prepared> {
        let folder = self.folder()?;
        let number = self.builds.fetch_add(1, Ordering::Relaxed);
        let name = format!("kcap-lab-{}-{number}", std::process::id());
        let (bundle, output) = (folder.path().join("bundle"), folder.path().join("out"));
        lay_out_around(&bundle)
            .and_then(|()| Ok(fs::hard_link(&self.executor, bundle.join(PLACE))?))
            .context("cannot lay out Kaniko's container")?;
        fs::create_dir(&output)?;
        let network = Namespace::new(self.registry.address())?;
        let flags = flags(&recipe.flags);
        let config = Bundle {
            name: &name,
            folder: &bundle,
            dockerfile: &recipe.dockerfile,
            context: &recipe.context,
            output: Some(&output),
            flags: &flags,
            variables: &recipe.variables,
            capabilities,
            network: Some(&network.path()),
        }
        .config();
        fs::write(bundle.join("config.json"), config.to_string())
            .context("cannot write the container's configuration")?;
        let container = Container {
            state: folder.path().join("runc"),
            name,
        };
        Ok(Prepared {
            container,
            bundle,
            _network: network,
            folder,
        })
    }

    /// Builds once, in a container that may do nothing but `capabilities`.
    ///
    /// # Errors
    /// Where the container cannot be made, or this process was asked to end; not where the build
    /// fails.
    pub fn build(&self, recipe: &Recipe, capabilities: Set) -> Result<Built> {
        let prepared = self.prepare(recipe, capabilities)?;
        let path = prepared.folder.path().join("log");
        let log = File::create(&path).context("cannot make the build's log")?;
        let mut run = prepared.command();
        run.stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // An interrupt at the terminal is for this process, which ends the build in order.
            .process_group(0);
        let mut child = run.spawn().context("cannot run `runc`")?;
        let ended = wait(&mut child, &prepared.container, recipe.timeout)?;
        let Prepared {
            container,
            bundle,
            folder,
            ..
        } = prepared;
        drop(container);
        let log = tail(&path)?;
        if stamp(&self.executor)? != self.state {
            bail!("the build changed the executor itself, and with it all builds after it");
        }
        // It is of no use any more, and large.
        fs::remove_dir_all(&bundle)
            .with_context(|| format!("cannot remove {}", bundle.display()))?;
        Ok(Built { ended, log, folder })
    }
}

/// A container that is ready to be run; all of it is removed when this is dropped.
#[derive(Debug)]
pub struct Prepared {
    container: Container,
    bundle: PathBuf,
    _network: Namespace,
    folder: TempDir,
}

impl Prepared {
    /// Runs the build in the foreground.
    pub fn command(&self) -> Command {
        let mut run = self.container.runc();
        run.args(["run", "--bundle"])
            .arg(&self.bundle)
            .arg(&self.container.name);
        run
    }

    /// A folder for what belongs to this build.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The executor's flags for a build in a [`Bundle`], with those of its own.
pub fn flags(own: &[String]) -> Vec<String> {
    let mut flags: Vec<String> = [
        "--dockerfile=/Dockerfile",
        "--context=dir:///context",
        "--no-push",
        "--destination=corpus.local/image:latest",
        "--tar-path=/out/image.tar",
        "--log-format=text",
        "--insecure",
        "--insecure-pull",
    ]
    .map(str::to_owned)
    .into();
    flags.push(format!(
        "--registry-map=index.docker.io={}",
        netns::REGISTRY
    ));
    flags.extend_from_slice(own);
    flags
}

fn wait(child: &mut Child, container: &Container, timeout: Duration) -> Result<Ended> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for `runc`")? {
            return Ok(Ended::Exited(code(status)));
        }
        let interrupted = sh::interrupted();
        if interrupted || start.elapsed() > timeout {
            sh::output(
                container
                    .runc()
                    .args(["delete", "--force", &container.name]),
            )?;
            child.wait().context("cannot wait for `runc`")?;
            if interrupted {
                return Err(sh::Exit(130).into());
            }
            return Ok(Ended::TimedOut);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| Some(128 + status.signal()?))
        .unwrap_or(1)
}

fn tail(path: &Path) -> Result<String> {
    let mut file = File::open(path).context("cannot read the build's log")?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG)))?;
    let mut bytes = Vec::new();
    file.take(LOG).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether programs below `folder` get the rights that their files give them.
fn honours_bits(folder: &Path) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: all zeroes is a valid value: numbers only.
    let mut facts: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in a zero, and `facts` is ours to write to.
    if unsafe { libc::statvfs(path.as_ptr(), &mut facts) } != 0 {
        return Err(std::io::Error::last_os_error())
            .with_context(|| format!("cannot look at {}", folder.display()));
    }
    if facts.f_flag & (libc::ST_NOSUID | libc::ST_NODEV | libc::ST_NOEXEC) != 0 {
        bail!(
            "{} is mounted nosuid, nodev or noexec, which changes what builds need: set TMPDIR \
             to a folder that is not",
            folder.display()
        );
    }
    Ok(())
}
