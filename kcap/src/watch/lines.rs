//! Lines of what happens, on their way out: whoever tells something shares one way, and standard output is
//! written by a thread of its own.

use std::{
    io::Write as _,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};

use super::{
    events::{Line, SCHEMA, What},
    worker::join_by,
};
use crate::record::rfc3339;

/// Lines that wait for whoever reads them; what is beyond is left out, and that is said.
const LINES: usize = 4096;
/// How long they are waited for at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Where lines of events go.
pub type Lines = Box<dyn FnMut(&Line) + Send>;

/// Begins to write lines, with somewhere to say what goes wrong.
pub type Print = fn(fn(&str)) -> Result<(Lines, Printer)>;

/// Tells what happens, by whichever thread it does, a line at a time.
#[derive(Clone)]
pub struct Teller(Arc<Mutex<Lines>>);

impl Teller {
    /// One whose lines go there.
    pub fn new(lines: Lines) -> Self {
        Self(Arc::new(Mutex::new(lines)))
    }

    /// Tells what happens now.
    pub fn tell(&self, what: What) {
        self.write(&line(what));
    }

    /// Tells what happened when its line was made.
    pub fn write(&self, line: &Line) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines(line);
    }
}

/// The line of what happens now.
pub fn line(what: What) -> Line {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Line {
        schema: SCHEMA,
        time: rfc3339(now.map_or(0, |now| now.as_nanos() as u64)),
        what,
    }
}

/// The number of a session, as lines give it.
pub fn number(session: u64) -> String {
    format!("{session:x}")
}

/// Lines to standard output, by a thread of its own: who reads them may be slow, or have stopped. Gives
/// the thread, which ends once all that has the lines is gone.
///
/// # Errors
/// The system's, where it has no thread left.
pub fn to_stdout(say: fn(&str)) -> Result<(Lines, Printer)> {
    let (give, given) = mpsc::sync_channel::<String>(LINES);
    let thread = thread::Builder::new()
        .name("kcap-lines".into())
        .spawn(move || {
            for line in given {
                // A reader that went away ends nothing.
                let mut out = std::io::stdout().lock();
                let _ = out.write_all(line.as_bytes());
                let _ = out.flush();
            }
        })
        .context("cannot start a thread")?;
    let mut missed = false;
    let lines: Lines = Box::new(move |line| match give.try_send(line.to_json()) {
        Ok(()) => missed = false,
        Err(_) => {
            if !std::mem::replace(&mut missed, true) {
                say("standard output is not read: lines are left out");
            }
        }
    });
    Ok((lines, Printer(thread)))
}

/// Writes lines.
pub struct Printer(JoinHandle<()>);

impl Printer {
    /// Waits until all is written, for a while.
    pub fn finish(self) {
        join_by(self.0, Instant::now() + LAST_LINES);
    }
}
