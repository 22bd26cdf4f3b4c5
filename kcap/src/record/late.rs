//! Attaching to what already runs: a container, a process's cgroup, a cgroup. What happened before is
//! not seen, and the capture says so.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use kcap_common::abi::record::{self, exec_flag, how, kind};
use procfs::process::{Process, Status};
use tokio::time::sleep;

use super::{
    Failure,
    kernel::{Open, Raw},
    mask::Mask,
    session::Options,
    signals::Signals,
    subject::{self, monotonic_ns, wall_ns},
    trace::{Ended, Trace},
};
use crate::{
    capture::{Capture, Subject},
    host::cgroup::{Layout, Target, pids},
};

/// How often it is looked whether anything is left to trace.
const PAUSE: Duration = Duration::from_millis(50);
/// Shortest part of a container's id that is looked for among cgroups.
const SHORTEST_ID: usize = 12;
/// Engines that are asked for a container by name.
const ENGINES: [&str; 3] = ["docker", "podman", "nerdctl"];

/// What to attach to.
#[derive(Clone, Debug)]
pub enum Running {
    /// A container, by its id or name.
    Container(String),
    /// The cgroup of a process.
    Pid(u32),
    /// A cgroup, by its folder or its path within the hierarchy.
    Cgroup(PathBuf),
}

impl Running {
    /// The cgroup meant.
    fn resolve(&self, layout: &Layout) -> Result<Target> {
        match self {
            Self::Cgroup(path) => layout.resolve(path),
            Self::Pid(pid) => of_process(*pid, layout),
            Self::Container(name) => match by_id(name, layout) {
                Some(path) => layout.resolve(&path),
                None => of_process(asked(name)?, layout),
            },
        }
    }

    fn shown(&self) -> Vec<String> {
        let (option, value) = match self {
            Self::Container(name) => ("--container", name.clone()),
            Self::Pid(pid) => ("--pid", pid.to_string()),
            Self::Cgroup(path) => ("--cgroup", path.display().to_string()),
        };
        vec![option.into(), value]
    }
}

/// Traces what runs until none of it is left, or to a signal, which ends the trace and nothing else.
///
/// # Errors
/// Where there is no such container, process or cgroup, or it cannot be traced.
pub fn attach(
    running: &Running,
    dockerfile: Option<(PathBuf, Vec<u8>)>,
    options: &Options,
    signals: &Signals,
    note: &mut dyn FnMut(String),
) -> Result<Capture, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(follow(running, dockerfile, options, signals, note))
}

async fn follow(
    running: &Running,
    dockerfile: Option<(PathBuf, Vec<u8>)>,
    options: &Options,
    signals: &Signals,
    note: &mut dyn FnMut(String),
) -> Result<Capture, Failure> {
    // Before anything is loaded: whether there is anything to attach to.
    let target = running.resolve(&Layout::detect()?)?;
    let (mut trace, told) = Trace::start(options, Open::Found, note)?;
    drop(told);
    let (started, started_ns) = (Instant::now(), wall_ns());
    trace.scope(target.id)?;
    let mut number = 0;
    for pid in pids(&target.path).unwrap_or_default() {
        if let Some(records) = look(pid, &target, &options.matches, &mut || {
            number += 1;
            trace.generation(number)
        }) {
            trace.seed(pid as u32, records)?;
        }
    }
    if options.verbosity > 0 {
        note(format!("scope: {}", target.path.display()));
    }
    let listener = signals.listen().context("cannot listen for signals")?;
    let interrupted = loop {
        tokio::select! {
            caught = listener.next() => {
                caught.context("cannot listen for signals")?;
                break true;
            }
            () = sleep(PAUSE) => {
                // An error: the folder is gone, hence everything in it.
                if pids(&target.path).map_or(true, |pids| pids.is_empty()) {
                    break false;
                }
            }
        }
    };
    let ended = Ended {
        timed_out: false,
        status: None,
        interrupted,
        started_ns,
        duration: started.elapsed(),
    };
    let session = target.id;
    let mut finished = trace.finish()?;
    let dockerfile = dockerfile.or_else(|| finished.router.dockerfile(|id| id == session));
    let subject = Subject {
        late: true,
        ..subject::subject(running.shown(), dockerfile.as_ref(), None, &ended)
    };
    let mut capture = finished.take(
        Box::new(move |id, _| id == session),
        subject,
        interrupted,
        &Mask::default(),
        note,
    );
    capture.subject.exit_status = status(&capture);
    Ok(capture)
}

/// The exit status of the executor, or where none was recognised, of the last program to end: nobody
/// waited for it here.
fn status(capture: &Capture) -> Option<i32> {
    let ended = |executor: bool| {
        (capture.programs.iter())
            .filter(|p| p.wait_status.is_some() && (p.executor || !executor))
            .max_by_key(|p| p.end_ns)
    };
    let status = ended(true).or_else(|| ended(false))?.wait_status? as i32;
    Some(if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    })
}

/// What the kernel side would have said of a process, had it been there when it began.
fn look(
    pid: i32,
    target: &Target,
    matches: &[String],
    generation: &mut dyn FnMut() -> u32,
) -> Option<[Raw; 2]> {
    let process = Process::new(pid).ok()?;
    let status = process.status().ok()?;
    // A kernel thread, or one that is over.
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let inode =
        |ns: &str| fs::metadata(format!("/proc/{pid}/ns/{ns}")).map_or(0, |ns| ns.ino() as u32);
    let (entered, program) = (generation(), generation());
    let text = path.to_string_lossy().into_owned();
    let mut flags = 0;
    if matches.contains(&text) {
        flags |= exec_flag::EXECUTOR;
    }
    if seccomp(&status) {
        flags |= exec_flag::SECCOMP;
    }
    let time = monotonic_ns();
    let user_ns = inode("user");
    let enter = record::Enter {
        kind: kind::ENTER,
        program: entered,
        tgid: pid as u32,
        how: how::CGROUP,
        session: target.id,
        time,
        comm: bytes(&status.name),
    };
    let exec = record::Exec {
        kind: kind::EXEC,
        program,
        previous: entered,
        tgid: pid as u32,
        time,
        // Unknown: its file is found by its path.
        inode: 0,
        dev: 0,
        cgroup: target.id,
        caps: [
            status.capinh,
            status.capprm,
            status.capeff,
            status.capbnd.unwrap_or(0),
            status.capamb.unwrap_or(0),
        ],
        euid: status.euid,
        user_ns,
        mnt_ns: inode("mnt"),
        ns_level: u32::from(u64::from(user_ns) != crate::host::Facts::initial_user_ns_inode()),
        flags,
        path: bytes(&text),
        interp: [0; 64],
    };
    Some([Raw::Enter(enter), Raw::Exec(Box::new(exec))])
}

fn seccomp(status: &Status) -> bool {
    status.seccomp == Some(2)
}

/// A text as the kernel side carries it: cut, with a NUL behind it.
fn bytes<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes.iter_mut().take(N - 1).zip(text.bytes()) {
        *to = from;
    }
    bytes
}

fn of_process(pid: u32, layout: &Layout) -> Result<Target> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => anyhow!("there is no process {pid}: see ps"),
        _ => anyhow!("cannot read the cgroups of process {pid}: {e}"),
    })?;
    let Some(path) = layout.place(&groups) else {
        bail!("process {pid} is in no cgroup of the hierarchy that defines the scope");
    };
    layout
        .resolve(&path)
        .with_context(|| format!("process {pid} is in no cgroup of its own: attach to a container"))
}

/// The cgroup whose name holds a container's id, as those of all engines do.
fn by_id(name: &str, layout: &Layout) -> Option<PathBuf> {
    let is_id = name.len() >= SHORTEST_ID && name.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_id {
        return None;
    }
    let mut folders = vec![layout.mount.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if names(&entry.file_name().to_string_lossy(), name) {
                return Some(entry.path());
            }
            folders.push(entry.path());
        }
    }
    None
}

/// Whether a cgroup is called after a container: `ID`, `docker-ID.scope`, `libpod-ID.scope`.
fn names(folder: &str, id: &str) -> bool {
    // The monitor of podman has a cgroup of its own beside the container's.
    !folder.contains("conmon")
        && (folder.split(['-', '.', ':'])).any(|part| part.starts_with(id) && part.len() == 64)
}

/// Asks the engines that are there for the first process of a container.
fn asked(name: &str) -> Result<u32> {
    if name.starts_with('-') {
        bail!("{name:?} is no name of a container");
    }
    let mut there = vec![];
    for engine in ENGINES {
        let output = Command::new(engine)
            .args([
                "inspect",
                "--type",
                "container",
                "--format",
                "{{.State.Pid}}",
                name,
            ])
            .stdin(Stdio::null())
            .output();
        let Ok(output) = output else { continue };
        there.push(engine);
        let pid = String::from_utf8_lossy(&output.stdout).trim().parse();
        match pid {
            Ok(0) => {
                bail!("the container {name} does not run: start it, or trace it with kcap run")
            }
            Ok(pid) if output.status.success() => return Ok(pid),
            _ => {}
        }
    }
    if there.is_empty() {
        bail!(
            "no cgroup is called after a container {name}, and there is no engine to ask: give its full id, or --pid"
        );
    }
    bail!(
        "no container {name}: neither a cgroup is called so, nor does {} know it; see `{} ps`",
        there.join(" or "),
        there[0]
    )
}

/// Whether any process is left in the cgroup that these lines of `/proc/PID/cgroup` name.
pub fn is_populated(lines: &str, layout: &Layout) -> bool {
    let Some(path) = layout.place(lines) else {
        return false;
    };
    let path = layout.mount.join(path.strip_prefix("/").unwrap_or(&path));
    pids(&path).is_ok_and(|pids| !pids.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_found_by_the_names_of_their_cgroups() {
        let id = "ab".repeat(32);
        let short = &id[..12];
        for folder in [
            id.clone(),
            format!("docker-{id}.scope"),
            format!("libpod-{id}.scope"),
            format!("cri-containerd-{id}.scope"),
            format!("system.slice:docker:{id}"),
        ] {
            assert!(names(&folder, short), "{folder}");
            assert!(names(&folder, &id), "{folder}");
        }
        for folder in [
            "libpod-conmon-abababababab.scope".to_owned(),
            format!("libpod-conmon-{id}.scope"),
            "docker".into(),
            short.to_owned(),
        ] {
            assert!(!names(&folder, short), "{folder}");
        }
        assert!(!names(&format!("docker-{}.scope", "cd".repeat(32)), short));
    }

    #[test]
    fn texts_are_cut_and_end_with_nul() {
        assert_eq!(&bytes::<4>("abcdef"), b"abc\0");
        assert_eq!(&bytes::<4>("a"), b"a\0\0\0");
    }

    #[test]
    fn paths_of_cgroups_are_not_followed_by_name() {
        assert!(asked("-v").is_err());
        assert!(of_process(u32::MAX, &Layout::detect().unwrap()).is_err());
    }
}
