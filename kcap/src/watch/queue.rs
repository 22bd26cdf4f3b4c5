//! Reports on their way to their destination. Where that cannot be written, they wait in memory up to a
//! bound and are tried again; beyond it the oldest are given up, and that is told.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    Destination,
    events::Line,
    retention::{Keep, Pruned},
    worker::Worker,
};

/// The first wait after a failure; each next is twice as long.
const FIRST: Duration = Duration::from_millis(250);
/// The longest.
const LONGEST: Duration = Duration::from_secs(60);
/// Failures after which a report lets others go first: it may be the one that cannot be written.
const TRIES: u32 = 3;
/// How long a destination may take for the last attempt.
const LAST: Duration = Duration::from_secs(2);
/// How often old reports are looked for.
const PRUNE: Duration = Duration::from_secs(300);

/// A report to write.
#[derive(Debug)]
pub struct Item {
    /// Its name at the destination.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What to say once it is there.
    pub line: Option<Line>,
    /// Number of its session.
    pub session: u64,
    /// How often it could not be written.
    pub tries: u32,
}

/// What became of it.
#[derive(Debug)]
pub enum Fate {
    /// It is there.
    Written(Item),
    /// It could not be kept: why.
    Lost(Item, String),
    /// It could not be written, and waits: why.
    Delayed(String),
    /// Old reports were removed.
    Pruned(Pruned),
    /// They could not be.
    NotPruned(String),
}

/// Hears what becomes of reports, on the queue's thread.
pub type Hear = Box<dyn FnMut(Fate) + Send>;

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    /// Nothing more comes; what is there may be tried until then.
    until: Option<Instant>,
    keep: Keep,
    prune: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    most: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue, with the thread that empties it.
pub struct Queue {
    shared: Arc<Shared>,
    thread: Worker,
}

impl Queue {
    /// Starts one that holds `most` bytes.
    ///
    /// # Errors
    /// The system's, where it has no thread left.
    pub fn start(to: Box<dyn Destination>, most: usize, keep: Keep, hear: Hear) -> Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                keep,
                prune: true,
                ..State::default()
            }),
            changed: Condvar::new(),
            most,
        });
        let theirs = shared.clone();
        let thread = thread::Builder::new()
            .name("kcap-write".into())
            .spawn(move || empty(&theirs, to, hear))?;
        Ok(Self {
            shared,
            thread: Worker::new(thread),
        })
    }

    /// Adds a report. Gives those that had to make room for it: the oldest, or itself.
    pub fn push(&self, item: Item) -> Vec<Item> {
        let mut state = self.shared.lock();
        let mut out = vec![];
        if item.bytes.len() > self.shared.most {
            return vec![item];
        }
        while state.bytes + item.bytes.len() > self.shared.most {
            let Some(oldest) = state.items.pop_front() else {
                break;
            };
            state.bytes -= oldest.bytes.len();
            out.push(oldest);
        }
        state.bytes += item.bytes.len();
        state.items.push_back(item);
        self.shared.changed.notify_one();
        out
    }

    /// Reports that wait, and their bytes.
    pub fn waiting(&self) -> (usize, usize) {
        let state = self.shared.lock();
        (state.items.len(), state.bytes)
    }

    /// Other bounds for what is kept.
    pub fn keep(&self, keep: Keep) {
        let mut state = self.shared.lock();
        state.keep = keep;
        state.prune = true;
        self.shared.changed.notify_one();
    }

    /// Waits until all is written, at most so long; then what is left is lost. A destination that answers
    /// nothing is not waited for much longer.
    pub fn finish(&self, patience: Duration) {
        let until = Instant::now() + patience;
        self.thread.end(until + LAST, || {
            self.shared.lock().until = Some(until);
            self.shared.changed.notify_one();
        });
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.finish(Duration::ZERO);
    }
}

fn empty(shared: &Shared, mut to: Box<dyn Destination>, mut hear: Hear) {
    let mut wait = FIRST;
    let mut pruned = Instant::now();
    loop {
        let mut state = shared.lock();
        let prunes = state.keep != Keep::default();
        if prunes && (std::mem::take(&mut state.prune) || pruned.elapsed() >= PRUNE) {
            let keep = state.keep.clone();
            drop(state);
            pruned = Instant::now();
            match to.prune(&keep, now()) {
                Ok(none) if none == Pruned::default() => {}
                Ok(some) => hear(Fate::Pruned(some)),
                Err(why) => hear(Fate::NotPruned(format!("{why:#}"))),
            }
            continue;
        }
        let Some(mut item) = state.items.pop_front() else {
            if state.until.is_some() {
                return;
            }
            let sleep = if prunes { PRUNE } else { Duration::MAX };
            drop(wait_for(shared, state, sleep));
            continue;
        };
        // It stays counted: it is still in memory.
        drop(state);
        let tried = to.put(&item.name, &item.bytes);
        let mut state = shared.lock();
        match tried {
            Ok(()) => {
                state.bytes -= item.bytes.len();
                drop(state);
                wait = FIRST;
                hear(Fate::Written(item));
            }
            Err(why) => {
                let why = format!("{why:#}");
                let over = state
                    .until
                    .is_some_and(|until| Instant::now() + wait >= until);
                if over {
                    state.bytes -= item.bytes.len();
                    drop(state);
                    hear(Fate::Lost(item, why));
                    continue;
                }
                item.tries += 1;
                let alone = state.items.is_empty();
                if item.tries.is_multiple_of(TRIES) && !alone {
                    // Others may fare better.
                    state.items.push_back(item);
                    wait = FIRST;
                } else {
                    // Before those that came later: order is kept.
                    state.items.push_front(item);
                }
                drop(state);
                hear(Fate::Delayed(why));
                let started = Instant::now();
                let mut state = shared.lock();
                while let Some(left) = wait.checked_sub(started.elapsed()) {
                    let ends = state.until;
                    let left = match ends {
                        Some(until) => left.min(until.saturating_duration_since(Instant::now())),
                        None => left,
                    };
                    if left.is_zero() {
                        break;
                    }
                    state = wait_for(shared, state, left);
                    if ends.is_none() && state.until.is_some() {
                        // Once more at once.
                        break;
                    }
                }
                wait = (wait * 2).min(LONGEST);
            }
        }
    }
}

fn wait_for<'a>(
    shared: &Shared,
    state: MutexGuard<'a, State>,
    most: Duration,
) -> MutexGuard<'a, State> {
    if most == Duration::MAX {
        return shared
            .changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner);
    }
    let waited = shared.changed.wait_timeout(state, most);
    waited.unwrap_or_else(PoisonError::into_inner).0
}

/// Seconds since the epoch.
fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use anyhow::bail;

    use super::*;

    /// Whether it is mended, and what was written.
    type Written = Arc<Mutex<(bool, Vec<String>)>>;

    /// Fails until it is mended.
    struct Broken(Written);

    impl Destination for Broken {
        fn put(&mut self, name: &str, _: &[u8]) -> Result<()> {
            let mut state = self.0.lock().unwrap();
            if !state.0 {
                bail!("no space left");
            }
            state.1.push(name.to_owned());
            Ok(())
        }

        fn prune(&mut self, _: &Keep, _: u64) -> Result<Pruned> {
            Ok(Pruned::default())
        }

        fn shown(&self) -> String {
            "broken".into()
        }
    }

    fn item(name: &str, size: usize) -> Item {
        Item {
            name: name.into(),
            bytes: vec![0; size],
            line: None,
            session: 0,
            tries: 0,
        }
    }

    fn queue(most: usize) -> (Queue, Written, mpsc::Receiver<Fate>) {
        let state = Arc::new(Mutex::new((false, vec![])));
        let (tell, told) = mpsc::channel();
        let hear = Box::new(move |fate| _ = tell.send(fate));
        let to = Box::new(Broken(state.clone()));
        let queue = Queue::start(to, most, Keep::default(), hear).unwrap();
        (queue, state, told)
    }

    #[test]
    fn what_cannot_be_written_is_written_later_in_order() {
        let (queue, state, told) = queue(1000);
        for name in ["a", "b", "c"] {
            assert!(queue.push(item(name, 10)).is_empty());
        }
        assert!(matches!(told.recv().unwrap(), Fate::Delayed(why) if why == "no space left"));
        assert_eq!(queue.waiting(), (3, 30));
        state.lock().unwrap().0 = true;
        queue.finish(Duration::from_secs(20));
        assert_eq!(state.lock().unwrap().1, ["a", "b", "c"]);
        assert_eq!(
            told.iter()
                .filter(|fate| matches!(fate, Fate::Written(_)))
                .count(),
            3
        );
    }

    #[test]
    fn the_oldest_make_room_and_are_told() {
        let (queue, state, told) = queue(25);
        assert!(queue.push(item("a", 10)).is_empty());
        // It has been tried, and waits again.
        assert!(matches!(told.recv().unwrap(), Fate::Delayed(_)));
        assert!(queue.push(item("b", 10)).is_empty());
        let out: Vec<String> = queue
            .push(item("c", 10))
            .into_iter()
            .map(|i| i.name)
            .collect();
        assert_eq!(out, ["a"]);
        assert_eq!(queue.push(item("huge", 26))[0].name, "huge");
        state.lock().unwrap().0 = true;
        queue.finish(Duration::from_secs(20));
        assert_eq!(state.lock().unwrap().1, ["b", "c"]);
    }

    #[test]
    fn what_is_left_at_the_end_is_lost_and_told() {
        let (queue, _state, told) = queue(100);
        queue.push(item("a", 10));
        queue.push(item("b", 10));
        queue.finish(Duration::ZERO);
        let lost = told
            .iter()
            .filter(|fate| matches!(fate, Fate::Lost(..)))
            .count();
        assert_eq!(lost, 2);
    }
}
