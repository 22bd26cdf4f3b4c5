//! The `oci` engine: a bundle of kcap's own, run by runc or crun. No daemon is needed.
//!
//! [`Oci::prepare`] finds the executor's files (`executor`, `pull`, `image`, `layer`, `cache`), lays
//! them into a bundle (`bundle`), writes its `config.json` (`spec`, `seccomp`, `environment`), and
//! gives the command that runs it (`runtime`). From then on the container is `container`'s.

mod bundle;
pub(crate) mod cache;
mod container;
mod environment;
mod executor;
pub(super) mod image;
mod layer;
pub(super) mod pull;
mod root;
pub(super) mod runtime;
mod seccomp;
mod spec;

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail, ensure};

use self::{
    bundle::{Bundle, Remover},
    cache::{Cache, Unpacked},
    container::Bundled,
    root::Root,
    runtime::Runtime,
    spec::{Bind, Network},
};
use super::{
    Engine, Executor, Launch, Request,
    arguments::{self, path_text},
    identity,
    oom::Log,
};
use crate::{
    host::cgroup::{Kind, Layout},
    render::escape,
};

/// Most columns of a flag or name in an error.
const SHOWN: usize = 100;

/// Makes bundles and runs them. Dropped, it waits until those of its containers are removed.
#[derive(Debug)]
pub struct Oci {
    runtime: Runtime,
    cache: Cache,
    remover: Arc<Remover>,
    cgroup_namespace: bool,
    /// Images by name. Held while one is pulled, so that all builds have the same.
    pulled: Mutex<Vec<(String, Unpacked)>>,
}

impl Oci {
    /// Finds a runtime (the one named, by name or path, or runc, or crun) and a place for files, and
    /// removes what a kcap that was killed left there.
    ///
    /// # Errors
    /// Where this is not root; where there is no runtime or no place.
    pub fn new(runtime: Option<&OsStr>) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the oci engine makes containers, which needs root: sudo kcap …"
        );
        let runtime = Runtime::find(runtime)?;
        let layout = Layout::detect()?;
        // It refuses every container there; runc does not.
        ensure!(
            runtime.name() != "crun" || layout.kind != Kind::Hybrid || no_controllers(&layout),
            "crun runs nothing where control groups of both versions have controllers: install runc"
        );
        let cache = Cache::find()?;
        bundle::remove_stale(&cache.builds(), &runtime)?;
        Ok(Self {
            runtime,
            cache,
            remover: Arc::default(),
            // As docker: where only version 2 is mounted.
            cgroup_namespace: layout.kind == Kind::V2,
            pulled: Mutex::default(),
        })
    }

    /// The executor's files, and what is to be said about them.
    fn executor(
        &self,
        executor: &Executor,
        scratch: &Path,
    ) -> Result<(executor::Executor, Option<String>)> {
        let name = match executor {
            Executor::Path(path) => {
                let opened = executor::Executor::open(path, &self.cache, scratch)?;
                return Ok((opened, None));
            }
            Executor::Image(name) => name,
        };
        // A thread that panicked while it pulled has added nothing.
        let mut pulled = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, unpacked)) = pulled.iter().find(|(known, _)| known == name) {
            return Ok((executor::Executor::Unpacked(unpacked.clone()), None));
        }
        let (unpacked, note) = pull::pull(name, &self.cache, scratch)?;
        pulled.push((name.clone(), unpacked.clone()));
        Ok((executor::Executor::Unpacked(unpacked), note))
    }
}

impl Engine for Oci {
    fn identify(&self, executor: &Executor) -> Result<String> {
        match executor {
            Executor::Path(path) => identity::of(path),
            Executor::Image(name) => {
                let scratch = Bundle::create(&self.cache.builds(), &self.remover)?;
                self.executor(executor, &scratch.path)?;
                let known = self.cache.known(name);
                let known = known.with_context(|| format!("the image {name} is gone again"))?;
                Ok(known.image)
            }
        }
    }

    fn prepare(&self, request: &Request) -> Result<Launch> {
        let network = network(request)?;
        let kaniko = arguments::kaniko(request)?;
        let inputs = inputs(request)?;
        let bundle = Bundle::create(&self.cache.builds(), &self.remover)?;
        let (executor, note) = self.executor(&request.executor, &bundle.path)?;
        let process = executor.process()?;
        executor.lay(&bundle.rootfs())?;

        let entrypoint = process.entrypoint.filter(|args| !args.is_empty());
        let entrypoint = entrypoint.unwrap_or_else(|| vec!["/kaniko/executor".into()]);
        let cwd = match process.working_dir.as_str() {
            dir if dir.starts_with('/') => dir,
            _ => "/",
        };
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname")?;
        let hostname = hostname.trim_end();
        furnish(&bundle, cwd).context("cannot furnish the root file system")?;

        let mut binds = host_files(&bundle, hostname)?;
        binds.extend(inputs);
        // Made last of all that can fail: nothing is left behind then.
        let archive = request
            .archive
            .as_deref()
            .map(|path| archive(path, &mut binds))
            .transpose()?;
        let shown = [entrypoint.as_slice(), &kaniko.shown].concat();
        let args = [entrypoint, kaniko.given].concat();
        let env = environment::environment(process.env.unwrap_or_default(), hostname, request)?;
        let mut container = Bundled {
            runtime: self.runtime.clone(),
            log: Log::now(),
            archive,
            bundle,
        };
        let bundle = &mut container.bundle;
        let config = spec::config(&spec::Container {
            args: &args,
            env: &env,
            cwd,
            capabilities: request.capabilities,
            seccomp: request.seccomp,
            hostname,
            cgroup: &bundle.cgroup(),
            cgroup_namespace: self.cgroup_namespace,
            network,
            binds: &binds,
        })?;
        let path = bundle.path.join("config.json");
        fs::write(&path, serde_json::to_vec(&config)?)
            .with_context(|| format!("cannot write {}", path.display()))?;

        let command = self.runtime.run(&bundle.state(), &bundle.path, &bundle.id);
        let runs = command.iter().map(|arg| arg.to_string_lossy().into_owned());
        Ok(Launch {
            directory: None,
            shown: runs.chain(["--".into()]).chain(shown).collect(),
            command,
            secrets: kaniko.secrets,
            engine: format!("oci/{}", self.runtime.name()),
            executor: match &request.executor {
                Executor::Image(name) => name.clone(),
                Executor::Path(path) => path.to_string_lossy().into_owned(),
            },
            notes: note.into_iter().collect(),
            container: Box::new(container),
        })
    }
}

/// The network that is asked for.
///
/// # Errors
/// Where there is none such; where flags are given that nothing here takes.
fn network(request: &Request) -> Result<Network> {
    if let Some(flag) = request.engine_flags.first() {
        let flag = flag.to_string_lossy();
        // What follows may be a secret.
        let name = flag.split(['=', ' ']).next().unwrap_or_default();
        bail!(
            "the oci engine takes no flags, {} neither: drop --engine-flag, or use --engine docker \
             or podman",
            escape::head(name, SHOWN)
        );
    }
    match request.network.as_deref() {
        None | Some("host") => Ok(Network::Host),
        Some("none") => Ok(Network::None),
        Some(other) => bail!(
            "the oci engine has no network {}: give host, its default, or none; for others use \
             --engine docker or podman",
            escape::head(other, SHOWN)
        ),
    }
}

/// The unified hierarchy has no controllers, as where systemd alone uses it.
fn no_controllers(layout: &Layout) -> bool {
    let controllers = fs::read_to_string(layout.mount.join("cgroup.controllers"));
    controllers.is_ok_and(|names| names.trim().is_empty())
}

/// The Dockerfile and the context, read only: Kaniko writes to neither. Their places are no paths
/// that a Dockerfile fills, as `/Dockerfile` is by `COPY . /`.
fn inputs(request: &Request) -> Result<Vec<Bind>> {
    let dockerfile = &request.dockerfile;
    let meta = fs::metadata(dockerfile)
        .with_context(|| format!("cannot read the Dockerfile {}", dockerfile.display()))?;
    ensure!(
        meta.is_file(),
        "the Dockerfile {} is not a file",
        dockerfile.display()
    );
    let context = &request.context;
    let meta = fs::metadata(context)
        .with_context(|| format!("cannot read the context {}", context.display()))?;
    ensure!(
        meta.is_dir(),
        "the context {} is not a folder",
        context.display()
    );

    let mut binds = vec![
        bind(dockerfile, arguments::DOCKERFILE, true)?,
        bind(context, arguments::CONTEXT, true)?,
    ];
    // Beside the Dockerfile as it was named: Kaniko takes it in place of the context's.
    let mut ignore = dockerfile.clone().into_os_string();
    ignore.push(".dockerignore");
    let ignore = Path::new(&ignore);
    if ignore.is_file() {
        binds.push(bind(ignore, arguments::DOCKERIGNORE, true)?);
    }
    Ok(binds)
}

fn bind(source: &Path, destination: &'static str, read_only: bool) -> Result<Bind> {
    let source = source
        .canonicalize()
        .with_context(|| format!("cannot resolve {}", source.display()))?;
    Ok(Bind {
        source: path_text(&source)?.into(),
        destination,
        read_only,
    })
}

/// Makes the archive's file, empty, so that the container sees this file of its folder and no other.
fn archive(path: &Path, binds: &mut Vec<Bind>) -> Result<std::path::PathBuf> {
    File::create(path).with_context(|| {
        format!(
            "cannot make the archive {}: give a file in a folder that exists",
            path.display()
        )
    })?;
    binds.push(bind(path, arguments::ARCHIVE, false)?);
    Ok(path.canonicalize()?)
}

/// What docker adds to every root file system, and the working directory.
fn furnish(bundle: &Bundle, cwd: &str) -> Result<()> {
    let root = Root::open(&bundle.rootfs())?;
    for dir in ["dev", "etc", "proc", "sys", cwd] {
        if Path::new(dir) != Path::new("/") {
            root.ensure_folder(Path::new(dir))?;
        }
    }
    // By this one Kaniko knows that it is in a container.
    for file in [".dockerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf"] {
        root.touch(Path::new(file), 0o755)?;
    }
    let mtab = root.place(Path::new("etc/mtab"))?;
    if !mtab.exists()? {
        mtab.symlink(OsStr::new("/proc/mounts"), 0, 0)?;
    }
    Ok(())
}

/// Copies of the host's files for its network, as docker makes with `--network host`: the container
/// may write to them.
fn host_files(bundle: &Bundle, hostname: &str) -> Result<Vec<Bind>> {
    let read = |path| fs::read(path).unwrap_or_default();
    let files = [
        ("/etc/hostname", format!("{hostname}\n").into_bytes()),
        ("/etc/hosts", read("/etc/hosts")),
        ("/etc/resolv.conf", read("/etc/resolv.conf")),
    ];
    files
        .into_iter()
        .map(|(destination, content)| {
            let name = Path::new(destination).file_name().unwrap_or_default();
            let path = bundle.path.join("etc").join(name);
            fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))?;
            bind(&path, destination, false)
        })
        .collect()
}

#[cfg(test)]
mod tests;
