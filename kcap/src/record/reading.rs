//! The Dockerfile of a build, read while it runs, on threads of their own: a disk, or a file system that a
//! tenant serves, may keep that waiting, and whoever sorts what the kernel sends must not wait with it.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender, TryRecvError},
    },
    thread,
    time::{Duration, Instant},
};

use super::inside::{self, Site};

/// Most files being read at once.
const MOST: usize = 32;
/// Most that wait for their turn, each with an open descriptor: what is beyond is not read.
const WAITING: usize = 256;
/// Most bytes that were read and that nobody has taken yet: what is beyond counts as not read.
const UNTAKEN: usize = 64 << 20;
/// How long a build that is over is waited for.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// A Dockerfile's name, as the executor was given it, and its bytes.
pub type Dockerfile = (PathBuf, Vec<u8>);

/// A Dockerfile that is being read, or was.
#[derive(Debug, Default)]
pub struct Reading {
    pending: Option<Pending>,
    read: Option<Dockerfile>,
}

/// One that is being read.
#[derive(Debug)]
struct Pending {
    given: Receiver<Option<Untaken>>,
    /// Gone where nobody wants it any more.
    wanted: Arc<()>,
}

/// What was read, until it is taken: its bytes count.
#[derive(Debug)]
struct Untaken(Option<Dockerfile>, usize);

/// Bytes of all [`Untaken`].
static BYTES: AtomicUsize = AtomicUsize::new(0);

impl Untaken {
    /// `None` where too much waits.
    fn new(read: Dockerfile) -> Option<Self> {
        let bytes = read.1.len();
        let more = |all: usize| all.checked_add(bytes).filter(|all| *all <= UNTAKEN);
        BYTES
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Self(Some(read), bytes))
    }

    fn take(mut self) -> Option<Dockerfile> {
        self.0.take()
    }
}

impl Drop for Untaken {
    fn drop(&mut self) {
        BYTES.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Reading {
    /// Begins to read what an executor with this command line builds. What leads to it is taken hold of
    /// before this returns, so that the process may end.
    pub fn begin(pid: u32, command: Vec<String>) -> Self {
        let pending = Site::of(pid).and_then(|site| {
            let (give, given) = mpsc::channel();
            let pending = Pending {
                given,
                wanted: Arc::new(()),
            };
            let wanted = Wanted {
                site,
                command,
                give,
                wanted: Arc::downgrade(&pending.wanted),
            };
            QUEUE.put(wanted).then_some(pending)
        });
        Self {
            pending,
            read: None,
        }
    }

    /// Takes what has been read by now; its length where that is news.
    pub fn poll(&mut self) -> Option<usize> {
        let pending = self.pending.as_ref()?;
        match pending.given.try_recv() {
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => {}
            Ok(read) => self.read = read.and_then(Untaken::take),
        }
        self.pending = None;
        self.read.as_ref().map(|_| self.size())
    }

    /// What was read, waited for until then; none where it could not be.
    pub fn end(&mut self, until: Instant) -> Option<&Dockerfile> {
        if let Some(pending) = self.pending.take() {
            let left = until.saturating_duration_since(Instant::now());
            let read = pending.given.recv_timeout(left).ok().flatten();
            self.read = read.and_then(Untaken::take);
        }
        self.read.as_ref()
    }

    /// Bytes that were read.
    pub fn size(&self) -> usize {
        self.read.as_ref().map_or(0, |(_, text)| text.len())
    }
}

/// One that is to be read.
struct Wanted {
    site: Site,
    command: Vec<String>,
    give: Sender<Option<Untaken>>,
    wanted: Weak<()>,
}

/// All that are to be read.
static QUEUE: Queue = Queue(Mutex::new(State {
    waiting: VecDeque::new(),
    readers: 0,
}));

struct Queue(Mutex<State>);

struct State {
    waiting: VecDeque<Wanted>,
    /// Threads that read.
    readers: usize,
}

impl Queue {
    /// Adds one, with a thread where there may be one more; false where too many wait, or nobody reads.
    fn put(&'static self, wanted: Wanted) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.waiting.len() >= WAITING {
            state.waiting.retain(|one| one.wanted.strong_count() > 0);
        }
        if state.waiting.len() >= WAITING {
            return false;
        }
        state.waiting.push_back(wanted);
        if state.readers < MOST {
            let reader = thread::Builder::new().name("kcap-read".into());
            if reader.spawn(|| self.read()).is_ok() {
                state.readers += 1;
            } else if state.readers == 0 {
                // The system has no thread left.
                state.waiting.clear();
                return false;
            }
        }
        true
    }

    /// Reads until none waits any more.
    fn read(&self) {
        loop {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(wanted) = state.waiting.pop_front() else {
                state.readers -= 1;
                return;
            };
            drop(state);
            if wanted.wanted.strong_count() == 0 {
                continue;
            }
            let read = inside::dockerfile(&wanted.site, &wanted.command);
            // The build may be over, and nobody ask any more.
            let _ = wanted.give.send(read.and_then(Untaken::new));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn words(command: &str) -> Vec<String> {
        command.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn what_a_process_builds_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Dockerfile");
        std::fs::write(&path, "FROM scratch\n").unwrap();
        let command = words(&format!("/kaniko/executor -f {}", path.display()));
        let mut reading = Reading::begin(std::process::id(), command);
        let expected = (path, b"FROM scratch\n".to_vec());
        assert_eq!(reading.end(soon()), Some(&expected));
        assert_eq!(reading.end(soon()), Some(&expected), "it stays");
        assert_eq!(reading.poll(), None, "and is no news");
    }

    #[test]
    fn nothing_is_read_of_what_is_not_there() {
        let command = words("/kaniko/executor -f /nonexistent/file");
        let nothing = |mut reading: Reading| assert_eq!(reading.end(soon()), None);
        nothing(Reading::begin(std::process::id(), command));
        nothing(Reading::begin(u32::MAX, vec![]));
    }

    #[test]
    fn all_are_read_however_many_begin_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut readings: Vec<(PathBuf, Reading)> = (0..3 * MOST)
            .map(|n| {
                let path = dir.path().join(n.to_string());
                std::fs::write(&path, n.to_string()).unwrap();
                let command = words(&format!("/kaniko/executor -f {}", path.display()));
                (path, Reading::begin(std::process::id(), command))
            })
            .collect();
        for (n, (path, reading)) in readings.iter_mut().enumerate() {
            let expected = (path.clone(), n.to_string().into_bytes());
            assert_eq!(reading.end(soon()), Some(&expected));
        }
    }

    #[test]
    fn a_reader_that_hangs_keeps_nobody_else_waiting() {
        let (give, given) = mpsc::channel();
        let wanted = Arc::new(());
        let asked = Arc::downgrade(&wanted);
        let mut reading = Reading {
            pending: Some(Pending { given, wanted }),
            read: None,
        };
        assert_eq!(reading.poll(), None);
        let until = Instant::now() + Duration::from_millis(20);
        assert_eq!(reading.end(until), None);
        assert!(Instant::now() >= until);
        assert!(give.send(None).is_err(), "nobody asks any more");
        assert_eq!(asked.strong_count(), 0, "nor is it begun");
    }

    #[test]
    fn what_nobody_has_taken_is_bounded() {
        // Other tests read some at the same time: little.
        let text = || (PathBuf::new(), vec![0; UNTAKEN / 3 * 2]);
        let one = Untaken::new(text());
        assert!(one.is_some() && Untaken::new(text()).is_none());
        let taken = one.and_then(Untaken::take).expect("it is there");
        assert_eq!(taken.1.len(), UNTAKEN / 3 * 2);
        assert!(Untaken::new(text()).is_some());
    }
}
