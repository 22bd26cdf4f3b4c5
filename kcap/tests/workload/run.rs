//! From a plan to the lives that carry it out.

use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::ops::{Op, Worker};
use crate::sys::{self, Res};
use crate::truth;

/// What the command line asks for.
pub struct Plan {
    pub op: &'static Op,
    pub refused: bool,
    pub count: u64,
    pub seconds: Option<u64>,
    pub threads: usize,
    pub processes: usize,
    pub exec: bool,
    pub pin: bool,
    pub dir: Option<PathBuf>,
    /// This is the short-lived child of the worker with this index.
    pub only: Option<usize>,
}

/// Counts of all workers, shared by all processes.
struct Board {
    ready: &'static AtomicU64,
    operations: &'static AtomicU64,
}

/// Carries out the plan and prints the truth.
pub fn run(plan: &Plan) -> Res {
    let exe = std::env::current_exe().map_err(|e| format!("this program's own path: {e}"))?;
    let exe = sys::c_path(&exe)?;
    if let Some(index) = plan.only {
        let dir = plan.dir.clone().ok_or("--only needs --dir")?;
        let worker = Worker {
            index,
            dir,
            exe,
            refused: plan.refused,
        };
        return perform(plan, &worker, None, &mut || 1).map(drop);
    }
    let expects = match (plan.op.truth)(plan.refused) {
        Ok(expects) => expects,
        Err(why) => {
            println!("{{\"skip\":{why:?}}}");
            return Ok(());
        }
    };
    let dir = Folder::make(plan.dir.as_deref())?;
    let board = Board {
        ready: shared()?,
        operations: shared()?,
    };
    let start = Instant::now();
    let children: Vec<i32> = (0..plan.processes)
        .map(|process| sys::fork(|| one_process(plan, process, &dir.0, &exe, &board)))
        .collect::<Res<_>>()?;
    for child in children {
        sys::wait_ok(child)?;
    }
    let operations = board.operations.load(Ordering::SeqCst);
    eprintln!(
        "workload: {} {operations} times in {:?}",
        plan.op.name,
        start.elapsed()
    );
    print!("{}", truth::lines(&expects, operations));
    Ok(())
}

fn one_process(plan: &Plan, process: usize, dir: &Path, exe: &CString, board: &Board) -> Res {
    let worker = |thread: usize| Worker {
        index: process * plan.threads + thread,
        dir: dir.to_owned(),
        exe: exe.clone(),
        refused: plan.refused,
    };
    if plan.threads == 1 {
        return one_worker(plan, &worker(0), board);
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|thread| {
                let worker = worker(thread);
                scope.spawn(move || one_worker(plan, &worker, board))
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
    })
}

fn one_worker(plan: &Plan, worker: &Worker, board: &Board) -> Res {
    if plan.pin {
        sys::pin(worker.index)?;
    }
    let total = (plan.threads * plan.processes) as u64;
    let mut waited = false;
    let mut wait = || {
        if !waited {
            board.ready.fetch_add(1, Ordering::SeqCst);
            waited = true;
        }
        while board.ready.load(Ordering::SeqCst) < total {
            std::thread::yield_now();
        }
        plan.count
    };
    let done = if plan.exec {
        wait();
        in_children(plan, worker)
    } else {
        perform(plan, worker, plan.seconds, &mut wait)
    };
    if done.is_err() && !waited {
        // The others must not wait for one that failed.
        board.ready.fetch_add(1, Ordering::SeqCst);
    }
    board.operations.fetch_add(done?, Ordering::SeqCst);
    Ok(())
}

/// Makes ready, waits for the word how often, gives up what is to be refused, and performs.
fn perform(
    plan: &Plan,
    worker: &Worker,
    seconds: Option<u64>,
    go: &mut dyn FnMut() -> u64,
) -> Res<u64> {
    let mut step = (plan.op.prepare)(worker)?;
    let count = go();
    if worker.refused {
        sys::give_up(plan.op.caps)?;
    }
    let mut done = 0;
    match seconds {
        Some(seconds) => {
            let end = Instant::now() + Duration::from_secs(seconds);
            while Instant::now() < end {
                for _ in 0..64 {
                    step()?;
                }
                done += 64;
            }
        }
        None => {
            while done < count {
                step()?;
                done += 1;
            }
        }
    }
    Ok(done)
}

/// Performs each operation in a child that executes this program.
fn in_children(plan: &Plan, worker: &Worker) -> Res<u64> {
    let dir = sys::c_path(&worker.dir)?;
    let name = sys::c_path(Path::new(plan.op.name))?;
    let index = sys::c_path(Path::new(&worker.index.to_string()))?;
    let mut args = vec![c"workload", &name, c"--only", &index, c"--dir", &dir];
    if plan.refused {
        args.push(c"--refused");
    }
    for _ in 0..plan.count {
        let child = sys::fork(|| {
            let errno = sys::exec(&worker.exe, &args);
            sys::must("execve", Err(errno))
        })?;
        sys::wait_ok(child)?;
    }
    Ok(plan.count)
}

/// A number that all forked processes see.
fn shared() -> Res<&'static AtomicU64> {
    // SAFETY: a fresh shared mapping of zeroes, page-aligned, never unmapped: a valid `AtomicU64`
    // for as long as the process lives.
    unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            size_of::<AtomicU64>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if at == libc::MAP_FAILED {
            return Err(format!("mmap: errno {}", sys::errno()));
        }
        Ok(&*at.cast())
    }
}

/// The run's own folder, removed at the end.
struct Folder(PathBuf);

/// `OVERLAYFS_SUPER_MAGIC`: asks about files with credentials and counts of its own.
const OVERLAY: i64 = 0x794c_7630;
/// `ST_NOSUID`: file capabilities are not honoured.
const NOSUID: u64 = 2;

impl Folder {
    fn make(within: Option<&Path>) -> Res<Self> {
        let fits = |path: &Path| {
            sys::file_system(path).is_ok_and(|(kind, flags)| kind != OVERLAY && flags & NOSUID == 0)
        };
        let within = match within {
            Some(path) => path.to_owned(),
            None => ["/tmp", "/dev/shm", "/run", "/var/tmp", "/"]
                .map(PathBuf::from)
                .into_iter()
                .find(|path| fits(path))
                .ok_or("no folder that is neither overlay nor nosuid; name one with --dir")?,
        };
        let path = within.join(format!("workload-{}", std::process::id()));
        let told = |e: std::io::Error| format!("{}: {e}", path.display());
        std::fs::create_dir(&path).map_err(told)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(told)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is a temporary file too many, nothing that a count depends on.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
