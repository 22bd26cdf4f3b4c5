//! The Dockerfile of a build, read while it runs, on a thread of its own: a disk, or a file system that a
//! tenant serves, may keep that waiting, and whoever sorts what the kernel sends must not wait with it.

use std::{
    path::PathBuf,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, TryRecvError},
    },
    thread,
    time::Duration,
};

use super::inside::{self, Site};

/// Most files being read at once: what is beyond is not.
const MOST: usize = 32;
/// How long a build that is over is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Files being read.
static READERS: AtomicUsize = AtomicUsize::new(0);

/// A Dockerfile's name, as the executor was given it, and its bytes.
pub type Dockerfile = (PathBuf, Vec<u8>);

/// A Dockerfile that is being read, or was.
#[derive(Debug, Default)]
pub struct Reading {
    pending: Option<Receiver<Option<Dockerfile>>>,
    read: Option<Dockerfile>,
}

impl Reading {
    /// Begins to read what an executor with this command line builds. What leads to it is taken hold of
    /// before this returns, so that the process may end.
    pub fn begin(pid: u32, command: Vec<String>) -> Self {
        Self {
            pending: Site::of(pid).and_then(|site| spawn(site, command)),
            read: None,
        }
    }

    /// Takes what has been read by now; its length where that is news.
    pub fn poll(&mut self) -> Option<usize> {
        let pending = self.pending.as_ref()?;
        match pending.try_recv() {
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => {}
            Ok(read) => self.read = read,
        }
        self.pending = None;
        self.read.as_ref().map(|(_, text)| text.len())
    }

    /// What was read, waited for a while; none where it could not be.
    pub fn end(&mut self) -> Option<&Dockerfile> {
        if let Some(pending) = self.pending.take() {
            self.read = pending.recv_timeout(PATIENCE).ok().flatten();
        }
        self.read.as_ref()
    }
}

/// Has a thread read it; none where there are as many as may be, or the system has none left.
fn spawn(site: Site, command: Vec<String>) -> Option<Receiver<Option<Dockerfile>>> {
    /// One of [`MOST`].
    struct Place;

    impl Drop for Place {
        fn drop(&mut self) {
            READERS.fetch_sub(1, Ordering::Relaxed);
        }
    }

    if READERS.fetch_add(1, Ordering::Relaxed) >= MOST {
        drop(Place);
        return None;
    }
    let place = Place;
    let (give, given) = mpsc::channel();
    thread::Builder::new()
        .name("kcap-read".into())
        .spawn(move || {
            let _place = place;
            // The build may be over, and nobody ask any more.
            let _ = give.send(inside::dockerfile(&site, &command));
        })
        .ok()?;
    Some(given)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(reading.end(), Some(&expected));
        assert_eq!(reading.end(), Some(&expected), "it stays");
        assert_eq!(reading.poll(), None, "and is no news");
    }

    #[test]
    fn nothing_is_read_of_what_is_not_there() {
        let command = words("/kaniko/executor -f /nonexistent/file");
        assert_eq!(Reading::begin(std::process::id(), command).end(), None);
        assert_eq!(Reading::begin(u32::MAX, vec![]).end(), None);
    }
}
