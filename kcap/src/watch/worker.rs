//! Threads that are asked to end, and are waited for until then and not longer: what they wait for
//! themselves may never answer.

use std::{
    sync::{Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Between two looks at a thread that is to end.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits for a thread until then; false where it goes on.
pub fn join_by(thread: JoinHandle<()>, until: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(PAUSE);
    }
    // It has said what there is to say.
    let _ = thread.join();
    true
}

/// A thread that is ended once, by whoever comes first.
pub struct Worker(Mutex<Option<JoinHandle<()>>>);

impl Worker {
    /// Of a thread.
    pub fn new(thread: JoinHandle<()>) -> Self {
        Self(Mutex::new(Some(thread)))
    }

    /// Has it asked to end, and waits until then; does nothing where that was done before.
    pub fn end(&self, until: Instant, ask: impl FnOnce()) {
        let thread = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            ask();
            join_by(thread, until);
        }
    }
}
