//! The signals that end a trace. They are blocked and read from a descriptor: none is lost, none
//! kills kcap while a result is being written, and it is known whether a terminal sent them.

use std::{
    io, mem,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    ptr,
};

use tokio::io::unix::AsyncFd;

/// Ctrl-C, an orderly end, and the end of the terminal.
const WANTED: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caught {
    /// Its number.
    pub number: i32,
    /// The kernel sent it, as it does for a key or a hang-up of the terminal: then every process of
    /// the foreground group got it.
    pub from_terminal: bool,
}

/// Holds back the signals as long as it lives. Those that arrived and were not read by then are
/// forgotten.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
    before: libc::sigset_t,
}

impl Signals {
    /// Starts holding them back, for this thread and those that it starts: to be called while there
    /// is no other. A signal that whoever started kcap ignores (`nohup`, a script's background job)
    /// stays ignored.
    ///
    /// # Errors
    /// The system's, where it has no descriptor left.
    pub fn block() -> io::Result<Self> {
        // SAFETY: a sigset_t of zeros is a value, which sigemptyset then makes the empty set.
        let (mut wanted, mut before): (libc::sigset_t, libc::sigset_t) =
            unsafe { (mem::zeroed(), mem::zeroed()) };
        // SAFETY: both sets are live, and the numbers are signals'.
        unsafe {
            libc::sigemptyset(&raw mut wanted);
            for number in WANTED.into_iter().filter(|&number| !is_ignored(number)) {
                libc::sigaddset(&raw mut wanted, number);
            }
        }
        // SAFETY: -1 asks for a new descriptor; the set is live.
        let fd = unsafe {
            libc::signalfd(
                -1,
                &raw const wanted,
                libc::SFD_NONBLOCK | libc::SFD_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: both sets are live.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const wanted, &raw mut before) }
        {
            0 => Ok(Self { fd, before }),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// The signals that were blocked before: what a program started meanwhile has to begin with.
    pub fn before(&self) -> libc::sigset_t {
        self.before
    }

    /// One that has arrived.
    pub fn pending(&self) -> Option<Caught> {
        // SAFETY: integers only.
        let mut info: libc::signalfd_siginfo = unsafe { mem::zeroed() };
        let size = size_of_val(&info);
        // SAFETY: the buffer is live and of that size.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut info).cast(), size) };
        (read == size as isize).then_some(Caught {
            number: info.ssi_signo as i32,
            from_terminal: info.ssi_code == libc::SI_KERNEL,
        })
    }

    /// Makes them something to wait for.
    ///
    /// # Errors
    /// Those of the event loop.
    pub fn listen(&self) -> io::Result<Listener<'_>> {
        // SAFETY: the borrow keeps the descriptor open, and it is always the same.
        let ready = unsafe { AsyncFd::register(self.fd.as_fd()) }?;
        Ok(Listener {
            signals: self,
            ready,
        })
    }
}

/// Waits for signals.
pub struct Listener<'a> {
    signals: &'a Signals,
    ready: AsyncFd<BorrowedFd<'a>>,
}

impl Listener<'_> {
    /// The next one. Can be dropped at any time without losing one.
    ///
    /// # Errors
    /// Those of the event loop.
    pub async fn next(&self) -> io::Result<Caught> {
        loop {
            let mut ready = self.ready.readable().await?;
            match self.signals.pending() {
                Some(caught) => return Ok(caught),
                None => ready.clear_ready(),
            }
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        while self.pending().is_some() {}
        // SAFETY: the set is the one that was in force before; there is no use for it now.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut())
        };
    }
}

fn is_ignored(number: i32) -> bool {
    // SAFETY: integers and pointers, for which zeros are values; a null action only asks.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        libc::sigaction(number, ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_wait_until_they_are_read_and_are_forgotten_with_their_keeper() {
        let signals = Signals::block().unwrap();
        assert_eq!(signals.pending(), None);
        // SAFETY: to this thread alone, which holds them back.
        unsafe { libc::raise(libc::SIGTERM) };
        let caught = signals.pending().unwrap();
        assert_eq!(
            (caught.number, caught.from_terminal),
            (libc::SIGTERM, false)
        );
        assert_eq!(signals.pending(), None);
        // SAFETY: as above. Delivered at the drop, it would end the test.
        unsafe { libc::raise(libc::SIGHUP) };
        drop(signals);
    }
}
