//! docker and podman through their command-line clients, whose flags are the same where it matters.
//!
//! A container is made by `create` before the build, and [`Launch::command`] is `start --attach`: what
//! a `run` would do in one. So whatever is wrong with image, paths or flags is an error of
//! [`Engine::prepare`], the container's id is known before its first program runs, and values of
//! variables and build arguments are on no command line that lives as long as the build.

mod bare;
mod container;
mod docker;
mod image;
mod podman;
mod remains;
mod stale;
mod variables;

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};

use self::{
    container::{Folder, Made},
    image::Image,
};
use super::{
    Engine, Executor, Launch, Request, Seccomp,
    arguments::{self, path_text},
    call::{self, Answer, Call},
    identity as digest,
};
use crate::report::Cap;

/// The option of mounts that a build only reads.
const READ_ONLY: &str = ",readonly";

/// docker, with a daemon on this machine.
///
/// # Errors
/// Why it cannot be used, and what to do.
pub fn docker() -> Result<Box<dyn Engine>> {
    Client::open(&docker::DOCKER)
}

/// podman, on this machine.
///
/// # Errors
/// Why it cannot be used, and what to do.
pub fn podman() -> Result<Box<dyn Engine>> {
    Client::open(&podman::PODMAN)
}

/// Runtimes whose containers have a kernel of their own, in whatever way they are named.
const SANDBOXES: [&str; 4] = ["runsc", "gvisor", "kata", "krun"];

/// What differs between the clients.
struct Dialect {
    /// The program, and the engine's name.
    name: &'static str,
    /// Asks whether it can be used.
    probe: fn(&Dialect) -> Result<Facts>,
    /// Flags of `create` that only this one needs.
    create: &'static [&'static str],
    /// Removes a container now, running or not, with its anonymous volumes.
    remove: &'static [&'static str],
    /// Programs other than the container's that work for one, and end with it; where the client was
    /// killed while it started a container, the engine may not know of them.
    helpers: &'static [&'static str],
    /// What is said where an image cannot be pulled.
    image_remedy: &'static str,
}

/// What an engine says of itself.
struct Facts {
    /// Files of the host are labelled, and bind mounts unreadable without a flag.
    selinux: bool,
    /// The runtime that it uses where it is not told another.
    runtime: String,
}

/// An engine that was found to work.
struct Client {
    dialect: &'static Dialect,
    facts: Facts,
    /// Executors found so far. Held while one is looked for, so that it is pulled or loaded once.
    images: Mutex<Vec<(Executor, Image)>>,
}

/// Numbers the containers of this process.
static CONTAINERS: AtomicU64 = AtomicU64::new(0);

impl Client {
    fn open(dialect: &'static Dialect) -> Result<Box<dyn Engine>> {
        let facts = (dialect.probe)(dialect)?;
        stale::remove(dialect);
        Ok(Box::new(Self {
            dialect,
            facts,
            images: Mutex::default(),
        }))
    }

    /// Some runtimes run containers on a kernel of their own.
    fn uses_this_kernel(&self, flags: &[String]) -> Result<()> {
        let runtime = &self.facts.runtime;
        let is_sandbox = SANDBOXES.iter().any(|name| runtime.contains(name));
        ensure!(
            !is_sandbox || flags.iter().any(|flag| flag.starts_with("--runtime")),
            "{} runs containers by {}, on a kernel that cannot be traced: give it the flag --runtime=runc",
            self.dialect.name,
            call::bounded(runtime)
        );
        Ok(())
    }

    /// The image of this executor; pulled or loaded at first use.
    fn image(&self, executor: &Executor) -> Result<Image> {
        // A thread that panicked while it looked has added nothing.
        let mut images = self
            .images
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, image)) = images.iter().find(|(known, _)| known == executor) {
            return Ok(image.clone());
        }
        let image = match executor {
            Executor::Image(name) => image::by_name(self.dialect, name)?,
            Executor::Path(path) => image::by_path(self.dialect, path)?,
        };
        images.push((executor.clone(), image.clone()));
        Ok(image)
    }

    /// The flags of `create`, before the image.
    fn flags(
        &self,
        request: &Request,
        image: &Image,
        archive: Option<&Archive>,
    ) -> Result<Vec<String>> {
        let mut flags = vec!["--cap-drop=all".to_owned()];
        for cap in Cap::of_mask(request.capabilities) {
            let name = cap.name().with_context(|| {
                format!("{} knows no capability number {}", self.dialect.name, cap.0)
            })?;
            flags.push(format!("--cap-add={name}"));
        }
        if request.seccomp == Seccomp::None {
            flags.push("--security-opt=seccomp=unconfined".into());
        }
        if self.facts.selinux {
            flags.push("--security-opt=label=disable".into());
        }
        if let Some(network) = &request.network {
            flags.push(format!("--network={network}"));
        }
        let dockerfile = found(&request.dockerfile, "Dockerfile", Path::is_file, "file")?;
        let context = found(&request.context, "build context", Path::is_dir, "folder")?;
        flags.push(bind(&dockerfile, arguments::DOCKERFILE, READ_ONLY)?);
        // Kaniko looks for it beside the Dockerfile, under the name by which the Dockerfile was given.
        let mut ignored = request.dockerfile.clone().into_os_string();
        ignored.push(".dockerignore");
        if let Ok(ignored) = fs::canonicalize(ignored) {
            flags.push(bind(&ignored, arguments::DOCKERIGNORE, READ_ONLY)?);
        }
        flags.push(bind(&context, arguments::CONTEXT, READ_ONLY)?);
        if let Some(archive) = archive {
            flags.push(bind(&archive.0, arguments::ARCHIVE, "")?);
        }
        if let Some(program) = image.entry_point {
            flags.push(format!("--entrypoint={program}"));
        }
        Ok(flags)
    }
}

impl Engine for Client {
    fn identify(&self, executor: &Executor) -> Result<String> {
        match executor {
            Executor::Path(path) => digest::of(path),
            Executor::Image(_) => Ok(self.image(executor)?.id),
        }
    }

    fn prepare(&self, request: &Request) -> Result<Launch> {
        let name = self.dialect.name;
        let kaniko = arguments::kaniko(request)?;
        let variables = variables::split(name, &request.environment)?;
        let own = arguments::texts(&request.engine_flags)
            .with_context(|| format!("a flag cannot be passed on to {name}"))?;
        let own = arguments::masked(&own, &["--env", "-e"]);
        self.uses_this_kernel(&own.given)?;
        let image = self.image(&request.executor)?;
        let archive = request.archive.as_deref().map(Archive::new).transpose()?;
        let flags = self.flags(request, &image, archive.as_ref())?;

        let container = container_name();
        let mut words = vec![
            "create".to_owned(),
            format!("--name={container}"),
            format!("--label={}={}", stale::LABEL, stale::owner()?),
            // The executor's output is recorded, and may hold secrets: it is not kept a second time.
            "--log-driver=none".into(),
        ];
        words.extend(self.dialect.create.iter().map(|&flag| flag.to_owned()));
        words.extend(flags.iter().cloned());
        words.extend(variables.flags());
        words.extend(own.given);
        words.push(image.id.clone());
        words.extend(kaniko.given);
        // conmon writes into its working folder that memory ran out.
        let folder = Folder::new(&container)?;
        let created = variables.create(Call::new(name, &words));
        let id = match identity(name, created) {
            Ok(id) => id,
            Err(e) => {
                // It may have been made although the client failed.
                let _ = container::remove(self.dialect, &container);
                return Err(e);
            }
        };

        let mut shown = vec![name.to_owned(), "run".into(), "--rm".into()];
        shown.extend(flags);
        shown.extend(variables.shown());
        shown.extend(own.shown);
        shown.push(image.name.clone());
        shown.extend(kaniko.shown);
        let mut secrets = kaniko.secrets;
        secrets.extend(own.secrets);
        Ok(Launch {
            command: [name, "start", "--attach", &id].map(OsString::from).into(),
            shown,
            secrets,
            engine: name.to_owned(),
            executor: match &request.executor {
                Executor::Image(name) => name.clone(),
                Executor::Path(path) => path.display().to_string(),
            },
            notes: Vec::new(),
            directory: Some(folder.path().to_owned()),
            container: Box::new(Made::new(self.dialect, id, archive, folder)),
        })
    }
}

/// A name that no other container has.
fn container_name() -> String {
    let number = CONTAINERS.fetch_add(1, Ordering::Relaxed);
    // Process ids come back, and other machines' kcap may use the same daemon.
    let salt = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos());
    format!("kcap-{}-{number}-{salt:08x}", process::id())
}

/// The id that `create` printed.
fn identity(engine: &str, created: Result<Answer>) -> Result<String> {
    let created = created?;
    if !created.success {
        bail!("{engine} cannot make the container: {}", created.complaint);
    }
    created
        .output
        .lines()
        .map(str::trim)
        .rfind(|line| line.len() == 64 && line.bytes().all(|b| b.is_ascii_hexdigit()))
        .map(str::to_owned)
        .with_context(|| format!("{engine} made a container and did not say which"))
}

/// The path without symbolic links, where the right thing is there.
fn found(path: &Path, what: &str, is: fn(&Path) -> bool, kind: &str) -> Result<PathBuf> {
    let absolute = fs::canonicalize(path)
        .with_context(|| format!("cannot find the {what} {}", path.display()))?;
    ensure!(is(&absolute), "the {what} {} is no {kind}", path.display());
    Ok(absolute)
}

/// The flag that shows `source` to the container: CSV, since paths may hold what separates fields.
fn bind(source: &Path, target: &str, options: &str) -> Result<String> {
    let source = path_text(source)?;
    ensure!(
        !source.contains(['\n', '\r']),
        "{source:?} has a line break in its name, and cannot be mounted: rename it"
    );
    let field = format!("source={source}");
    let field = if field.contains([',', '"']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field
    };
    Ok(format!(
        "--mount=type=bind,{field},target={target}{options}"
    ))
}

/// The file that the executor writes the image to. Made before, so that nothing but this file is in
/// the container's reach; removed where nothing was written to it.
struct Archive(PathBuf);

impl Archive {
    fn new(path: &Path) -> Result<Self> {
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .and_then(|_| fs::canonicalize(path));
        opened
            .map(Self)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        if fs::metadata(&self.0).is_ok_and(|entry| entry.is_file() && entry.len() == 0) {
            // An empty file that stays does no harm.
            let _ = fs::remove_file(&self.0);
        }
    }
}

/// The text at this path of what an engine printed; empty where there is none.
fn pointer<'a>(value: &'a serde_json::Value, path: &str) -> &'a str {
    value
        .pointer(path)
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default()
}

/// Fails for an engine on another kernel, whose containers cannot be traced from here.
fn same_kernel(engine: &str, kernel: &str) -> Result<()> {
    let own = fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("cannot read this kernel's release")?;
    ensure!(
        kernel == own.trim(),
        "{engine} runs its containers on another kernel ({}), in a virtual machine or on another \
         machine, and they cannot be traced from this one ({}): run kcap there",
        call::bounded(kernel),
        own.trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_with_a_kernel_of_their_own_are_refused() {
        let client = |runtime: &str| Client {
            dialect: &docker::DOCKER,
            facts: Facts {
                selinux: false,
                runtime: runtime.into(),
            },
            images: Mutex::default(),
        };
        for runtime in ["runc", "crun", "", "nvidia"] {
            client(runtime).uses_this_kernel(&[]).unwrap();
        }
        for runtime in ["runsc", "io.containerd.kata.v2"] {
            let refused = client(runtime).uses_this_kernel(&["--memory=1g".into()]);
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("--runtime=runc"), "{error}");
            let flag = "--runtime=runc".to_owned();
            client(runtime).uses_this_kernel(&[flag]).unwrap();
        }
    }

    #[test]
    fn mounts_are_csv() {
        for (path, flag) in [
            (
                "/a:b c",
                "--mount=type=bind,source=/a:b c,target=/t,readonly",
            ),
            (
                "/a,b\"c",
                "--mount=type=bind,\"source=/a,b\"\"c\",target=/t,readonly",
            ),
        ] {
            assert_eq!(bind(Path::new(path), "/t", READ_ONLY).unwrap(), flag);
        }
        assert!(bind(Path::new("/a\nb"), "/t", READ_ONLY).is_err());
    }

    #[test]
    fn the_id_is_found_among_warnings() {
        let id = "0123456789abcdef".repeat(4);
        let answer = |output: String, success| {
            let complaint = "no such network".to_owned();
            Ok(Answer {
                success,
                output,
                complaint,
            })
        };
        let found = identity("docker", answer(format!("WARNING: x\n{id}\n"), true));
        assert_eq!(found.unwrap(), id);
        assert!(identity("docker", answer(String::new(), true)).is_err());
        let error = identity("docker", answer(id, false))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "docker cannot make the container: no such network");
    }
}
