//! From options to a command that runs the executor in a container: by docker, by podman, or in a
//! bundle of kcap's own.

pub(crate) mod arguments;
pub mod bases;
mod call;
pub mod choose;
pub mod client;
mod identity;
pub mod kubernetes;
pub mod oci;
mod oom;

use std::{ffi::OsString, path::PathBuf};

use anyhow::Result;

/// A build to start.
#[derive(Clone, Debug)]
pub struct Request {
    /// The Dockerfile, a path on this host.
    pub dockerfile: PathBuf,
    /// The build context: a folder on this host.
    pub context: PathBuf,
    /// What runs in the container.
    pub executor: Executor,
    /// Capabilities that the container gets, as a mask.
    pub capabilities: u64,
    /// Which system calls its seccomp profile lets through.
    pub seccomp: Seccomp,
    /// Flags for Kaniko, as given; they come after those that kcap sets, so that they win.
    pub flags: Vec<OsString>,
    /// Flags for Kaniko of kcap's own, before those: of use to this run alone, and shown nowhere.
    pub unshown: Vec<OsString>,
    /// What in them must not be shown either where Kaniko says it.
    pub secrets: Vec<String>,
    /// The result may be pushed: without it, `--no-push` is set.
    pub push: bool,
    /// Write the image here as a docker archive (`--tar-path`).
    pub archive: Option<PathBuf>,
    /// Variables of the executor: name and value. The values are secrets.
    pub environment: Vec<(String, OsString)>,
    /// The container's network, as the engine calls it (`--network`); without it, the engine's default:
    /// the host's for `oci`, which has no others than `host` and `none`.
    pub network: Option<String>,
    /// Flags for docker or podman that kcap has none for (`--memory=4g`, `--volume=…`), as given; they
    /// come after those that kcap sets. An engine that has no flags refuses them.
    pub engine_flags: Vec<OsString>,
}

impl Request {
    /// Nothing beyond an executor and its capabilities, a mask: no Dockerfile and no context yet, no flag,
    /// no variable, no image kept, and the engine's own network.
    pub fn new(executor: Executor, capabilities: u64) -> Self {
        Self {
            dockerfile: PathBuf::new(),
            context: PathBuf::new(),
            executor,
            capabilities,
            seccomp: Seccomp::default(),
            flags: vec![],
            unshown: vec![],
            secrets: vec![],
            push: false,
            archive: None,
            environment: vec![],
            network: None,
            engine_flags: vec![],
        }
    }
}

/// What runs in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Executor {
    /// An image that the engine finds by name; it pulls it where it does not have it.
    Image(String),
    /// An OCI layout or a docker archive on this host, or a bare executor binary.
    Path(PathBuf),
}

/// The seccomp profile of the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// As docker's default: system calls are let through by the capabilities held.
    #[default]
    Docker,
    /// None, as Kubernetes' `Unconfined`.
    None,
}

/// A container that is ready to be started. Dropped, it is stopped, and all that was made for it is
/// removed.
pub struct Launch {
    /// Runs the container in the foreground, and exits with its status. What it writes to standard
    /// output and error is the executor's. A signal to it is passed on to the executor; it may then
    /// end at once, with any status, while the container still runs.
    pub command: Vec<OsString>,
    /// Where it runs, if not where kcap does: engines may leave files in their working folder.
    pub directory: Option<PathBuf>,
    /// The command as a report may show it: without values of variables and build arguments.
    pub shown: Vec<String>,
    /// Texts that must never be written to a capture or report.
    pub secrets: Vec<String>,
    /// The engine, with its runtime where kcap chose it: `docker`, `podman`, `oci/runc`.
    pub engine: String,
    /// The executor as a report names it: an image's name or a path.
    pub executor: String,
    /// Lines for people, about how it was made.
    pub notes: Vec<String>,
    /// The container.
    pub container: Box<dyn Container>,
}

/// What can be asked of a container while its [`Launch::command`] runs, and after.
pub trait Container: Send {
    /// The id by which the path of its cgroup names it; `None` as long as it is not known, and for
    /// containers whose processes descend from the command.
    fn id(&self) -> Option<String>;

    /// Kills it now, whether it runs or not.
    ///
    /// # Errors
    /// Where it may still be running.
    fn kill(&self) -> Result<()>;

    /// An interrupt is to kill it, rather than to be passed on to [`Launch::command`]: a client that a
    /// signal ends while it starts a container can leave things behind that nobody can tell are its own.
    fn killed_on_interrupt(&self) -> bool {
        false
    }

    /// It was killed for want of memory. Asked once the command has ended.
    fn out_of_memory(&self) -> bool;

    /// Why the engine did not start the executor; `None` where it did. Asked once the command has
    /// ended.
    fn not_started(&self) -> Option<String> {
        None
    }
}

/// Makes containers. One for all builds of a run, shared between threads.
pub trait Engine: Send + Sync {
    /// Makes all that the build needs, and starts nothing.
    ///
    /// # Errors
    /// What is missing, and what to do. Nothing is left behind then.
    fn prepare(&self, request: &Request) -> Result<Launch>;

    /// A digest that says which executor this is; an image is pulled where it is not there.
    ///
    /// # Errors
    /// Where there is none such.
    fn identify(&self, executor: &Executor) -> Result<String>;
}
