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
    route::Sorting,
    session::Options,
    signals::Signals,
    subject::{self, monotonic_ns, wall_ns},
    trace::{Ended, Trace},
};
use crate::{
    capture::{Capture, Subject},
    host::{
        Facts,
        cgroup::{Layout, Target, pids},
    },
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
    let (mut trace, told) = Trace::start(options, Open::Found, Sorting::default(), note)?;
    drop(told);
    let (started, started_ns) = (Instant::now(), wall_ns());
    trace.scope(target.id)?;
    let mut number = 0;
    for pid in pids(&target.path).unwrap_or_default() {
        if let Some(records) = look(pid, target.id, how::CGROUP, &options.matches, &mut || {
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

/// The exit status of the executor that ran first, or where none was recognised, of the last program
/// to end: nobody waited for it here.
pub fn status(capture: &Capture) -> Option<i32> {
    let first = (capture.programs.iter())
        .filter(|p| p.executor && p.exec.is_some())
        .min_by_key(|p| p.start_ns);
    let ended = match first {
        // Whatever it was last: it has a generation for each line of its log.
        Some(first) => (capture.programs.iter())
            .find(|p| p.pid == first.pid && p.wait_status.is_some() && p.end_ns >= first.end_ns),
        None => (capture.programs.iter())
            .filter(|p| p.wait_status.is_some())
            .max_by_key(|p| p.end_ns),
    };
    let status = ended?.wait_status? as i32;
    Some(if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    })
}

/// An executor that runs already, and what is to be traced with it.
#[derive(Debug)]
pub struct Found {
    /// The session: its cgroup's id, or one of its own where others share that cgroup.
    pub session: u64,
    /// Processes, the executor first.
    pub pids: Vec<u32>,
}

/// Executors that run already, by the path of their program in its own root.
pub fn executors(matches: &[String], layout: &Layout) -> Vec<Found> {
    let mut found: Vec<Found> = vec![];
    let processes: Vec<Process> = procfs::process::all_processes()
        .map(|all| all.filter_map(Result::ok).collect())
        .unwrap_or_default();
    let host = Facts::host_mount_ns_inode();
    for process in &processes {
        let pid = process.pid;
        let is_one = fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|path| matches.iter().any(|m| path.as_os_str() == m.as_str()));
        if !is_one || found.iter().any(|f| f.pids.contains(&(pid as u32))) {
            continue;
        }
        let apart = fs::metadata(format!("/proc/{pid}/ns/mnt"))
            .is_ok_and(|ns| ns.ino() as u32 != host && host != 0);
        let target = (apart)
            .then(|| of_process(pid as u32, layout).ok())
            .flatten();
        let mut pids = vec![pid as u32];
        let session = match target {
            Some(target) => {
                let all = pids_of(&target.path);
                pids.extend(all.into_iter().filter(|&other| other != pid as u32));
                target.id
            }
            // Its descendants alone.
            None => {
                let mut at = 0;
                while let Some(&parent) = pids.get(at) {
                    let children = processes
                        .iter()
                        .filter(|p| p.stat().is_ok_and(|stat| stat.ppid == parent as i32));
                    pids.extend(children.map(|p| p.pid as u32));
                    at += 1;
                }
                record::TREE | 1 << 62 | u64::from(pid as u32)
            }
        };
        found.push(Found { session, pids });
    }
    found
}

fn pids_of(path: &std::path::Path) -> Vec<u32> {
    let pids = pids(path).unwrap_or_default().into_iter();
    pids.filter(|&pid| pid > 0).map(|pid| pid as u32).collect()
}

/// What the kernel side would have said of a process, had it been there when it began.
pub fn look(
    pid: i32,
    session: u64,
    how: u32,
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
        how,
        session,
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
        cgroup: if session & record::TREE == 0 {
            session
        } else {
            0
        },
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
        ns_level: u32::from(u64::from(user_ns) != Facts::initial_user_ns_inode()),
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
