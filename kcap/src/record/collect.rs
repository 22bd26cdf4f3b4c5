//! Empties the ring buffer while builds run, on a thread of its own: however fast records come,
//! signals and the end of a build are noticed, and while those are dealt with nothing overflows.

use std::{
    io::{self, Read as _, Write as _},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    kernel::{Raw, Ring},
    opened::Opened,
    route::{Router, Seen},
    share::Session,
};
use crate::host::privileges;

/// How often the ring buffer is looked at where nothing wakes kcap.
const TICK_MS: i32 = 20;
/// The same where no process is followed: what opens a session wakes kcap.
const IDLE_MS: i32 = 1000;
/// How often it is told how many checks were counted.
const PROGRESS: Duration = Duration::from_millis(500);

/// Picks sessions, by id and by how they were opened.
pub type Pick = Box<dyn FnMut(u64, Option<&Opened>) -> bool + Send>;

enum Ask {
    /// Take these sessions out, once all that is in the ring buffer has been taken.
    Take(Pick, mpsc::Sender<Option<Session>>),
    /// Keep nothing of a session, now and later.
    Forget(u64),
    /// Take these records as if they had come from the kernel.
    Put(Vec<Raw>, mpsc::Sender<()>),
    /// Say which sessions executors opened, and whether this one, of this command, had them started.
    Opened(u64, Vec<String>, mpsc::Sender<Vec<(u64, Opened, bool)>>),
    /// Forget what nothing more can come of; say how many sessions are left of which nothing is kept.
    Sweep(mpsc::Sender<usize>),
    /// Look which processes are no more.
    Bury,
    /// Give everything.
    Stop,
}

/// The running thread. Dropped, it ends, and what it gathered is gone.
pub struct Collector {
    asks: mpsc::Sender<Ask>,
    bell: io::PipeWriter,
    thread: Option<JoinHandle<Result<Router>>>,
}

impl Collector {
    /// Starts it; `tell` hears what happens. Of its capabilities the thread keeps those of `keep`.
    ///
    /// # Errors
    /// The system's, where it has no thread or descriptor left, or takes no capabilities back.
    pub fn start(
        ring: Ring,
        router: Router,
        tell: UnboundedSender<Seen>,
        keep: Option<u64>,
    ) -> Result<Self> {
        let (rung, bell) = io::pipe().context("cannot make a pipe")?;
        let (asks, asked) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("kcap-collect".into())
            .spawn(move || {
                // That takes SYS_NICE, which is not needed later.
                run_at_once();
                let limited = keep.map_or(Ok(()), privileges::limit);
                let failed = limited.is_err();
                // Who started it waits for this.
                let _ = ready.send(limited);
                match failed {
                    true => Ok(router),
                    false => collect(ring, router, &asked, rung, &tell),
                }
            })
            .context("cannot start a thread")?;
        started
            .recv()
            .map_err(|_| ended())?
            .context("cannot give up capabilities that are not needed")?;
        Ok(Self {
            asks,
            bell,
            thread: Some(thread),
        })
    }

    /// Takes out the sessions that `pick` picks, put together to one, with all that is in the ring
    /// buffer; `None` where there is none.
    ///
    /// # Errors
    /// Where the thread has ended.
    pub fn take(&self, pick: Pick) -> Result<Option<Session>> {
        let (give, given) = mpsc::channel();
        self.ask(Ask::Take(pick, give))?;
        given.recv().map_err(|_| ended())
    }

    /// Keeps nothing of a session, now and later.
    ///
    /// # Errors
    /// Where the thread has ended.
    pub fn forget(&self, session: u64) -> Result<()> {
        self.ask(Ask::Forget(session))
    }

    /// Has records taken as if they had come from the kernel; they are by the time this returns.
    ///
    /// # Errors
    /// Where the thread has ended.
    pub fn put(&self, records: Vec<Raw>) -> Result<()> {
        let (give, given) = mpsc::channel();
        self.ask(Ask::Put(records, give))?;
        given.recv().map_err(|_| ended())
    }

    /// The sessions that executors opened until now, each with whether `session`, of this command,
    /// had it started.
    ///
    /// # Errors
    /// Where the thread has ended.
    pub fn opened(&self, session: u64, command: Vec<String>) -> Result<Vec<(u64, Opened, bool)>> {
        let (give, given) = mpsc::channel();
        self.ask(Ask::Opened(session, command, give))?;
        given.recv().map_err(|_| ended())
    }

    /// Forgets what nothing more can come of: see [`Router::sweep`].
    ///
    /// # Errors
    /// Where the thread has ended.
    pub fn sweep(&self) -> Result<usize> {
        let (give, given) = mpsc::channel();
        self.ask(Ask::Sweep(give))?;
        given.recv().map_err(|_| ended())
    }

    /// Has it looked which processes are no more, where records of their ends were lost.
    ///
    /// # Errors
    /// Where the thread has ended.
    pub fn bury(&self) -> Result<()> {
        self.ask(Ask::Bury)
    }

    /// Takes what is left in the ring buffer, and gives all that was gathered.
    ///
    /// # Errors
    /// Where waiting for the ring buffer failed.
    pub fn stop(mut self) -> Result<Router> {
        self.ask(Ask::Stop)?;
        let thread = self.thread.take().context("the collector has ended")?;
        thread.join().map_err(|_| ended())?
    }

    fn ask(&self, ask: Ask) -> Result<()> {
        self.asks.send(ask).map_err(|_| ended())?;
        (&self.bell).write_all(b"!").map_err(|_| ended())
    }
}

fn ended() -> anyhow::Error {
    anyhow!("the thread that collects what the kernel says has ended: please report it")
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Whatever it says, nobody wants it any more.
            let _ = self.ask(Ask::Stop);
            let _ = thread.join();
        }
    }
}

/// Lets this thread run as soon as it is woken: an executed file is read while its program, which may
/// end within a millisecond, is still there to lead to it. Where that is refused, more may be lost,
/// and is counted.
fn run_at_once() {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: this thread, and a live struct.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &priority) };
}

fn collect(
    mut ring: Ring,
    mut router: Router,
    asked: &mpsc::Receiver<Ask>,
    rung: io::PipeReader,
    tell: &UnboundedSender<Seen>,
) -> Result<Router> {
    // Nobody listens any more where kcap is ending.
    let mut tell = |seen| _ = tell.send(seen);
    let rung = OwnedFd::from(rung);
    let wait = |fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut fds = [wait(ring.as_raw_fd()), wait(rung.as_raw_fd())];
    let mut rung = io::PipeReader::from(rung);
    let mut told = Instant::now();
    loop {
        let tick = if router.is_idle() { IDLE_MS } else { TICK_MS };
        // SAFETY: the array is live and of that length.
        if unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, tick) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error).context("cannot wait for the ring buffer");
            }
        }
        // Looked at before the round, so that it takes all that was there when it was asked.
        let ask = if fds[1].revents != 0 {
            let _ = rung.read(&mut [0]);
            asked.try_recv().ok()
        } else {
            None
        };
        let unknown = ring.drain(|raw| router.take(raw, &mut tell));
        router.unknown(unknown);
        match ask {
            None => {}
            Some(Ask::Take(pick, give)) => {
                // Who asked may have been dropped meanwhile.
                let _ = give.send(router.split_off(pick));
            }
            Some(Ask::Forget(session)) => router.forget(session),
            Some(Ask::Put(records, give)) => {
                for raw in records {
                    router.take(raw, &mut tell);
                }
                let _ = give.send(());
            }
            Some(Ask::Opened(session, command, give)) => {
                let _ = give.send(router.opened(session, &command));
            }
            Some(Ask::Sweep(give)) => _ = give.send(router.sweep()),
            Some(Ask::Bury) => router.bury(&mut tell),
            Some(Ask::Stop) => return Ok(router),
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            router.progress(&mut tell);
        }
    }
}
