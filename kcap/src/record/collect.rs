//! Empties the ring buffer while the command runs, on a thread of its own: however fast records
//! come, signals and the command's end are noticed, and while those are dealt with nothing overflows.

use std::{
    io,
    os::fd::AsRawFd as _,
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow};

use super::{assemble::Assembler, filecaps::Reader, kernel::Ring};

/// How often the ring buffer is looked at where nothing wakes kcap.
const TICK_MS: i32 = 20;

/// The running thread. Dropped, it ends, and what it gathered is gone.
pub struct Collector {
    /// Closing it ends the thread.
    stop: Option<io::PipeWriter>,
    thread: Option<JoinHandle<Result<Assembler>>>,
}

impl Collector {
    /// Starts it.
    ///
    /// # Errors
    /// The system's, where it has no thread or descriptor left.
    pub fn start(ring: Ring, assembler: Assembler) -> Result<Self> {
        let (stopped, stop) = io::pipe().context("cannot make a pipe")?;
        let thread = thread::Builder::new()
            .name("kcap-collect".into())
            .spawn(move || collect(ring, assembler, &stopped))
            .context("cannot start a thread")?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Takes what is left in the ring buffer, and gives all that was gathered.
    ///
    /// # Errors
    /// Where waiting for the ring buffer failed.
    pub fn stop(mut self) -> Result<Assembler> {
        self.stop = None;
        let thread = self.thread.take().context("the collector has ended")?;
        thread
            .join()
            .map_err(|_| anyhow!("the collector panicked: please report it"))?
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Whatever it says, nobody wants it any more.
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

fn collect(mut ring: Ring, mut assembler: Assembler, stop: &io::PipeReader) -> Result<Assembler> {
    run_at_once();
    let mut files = Reader::default();
    let wait = |fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut fds = [wait(ring.as_raw_fd()), wait(stop.as_raw_fd())];
    loop {
        // SAFETY: the array is live and of that length.
        if unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, TICK_MS) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error).context("cannot wait for the ring buffer");
            }
        }
        // Looked at before the last round, so that it takes all that was there when asked to stop.
        let last = fds[1].revents != 0;
        let unknown = ring.drain(|raw| assembler.take(raw, &mut |file| files.read(file)));
        assembler.unknown(unknown);
        if last {
            return Ok(assembler);
        }
    }
}
