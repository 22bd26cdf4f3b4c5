//! Kaniko's log: logrus' coloured text form, one `write(2)` a line, by whichever thread is at it.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Instant,
};

use crate::sys;

static START: OnceLock<Instant> = OnceLock::new();
static LINES: AtomicU32 = AtomicU32::new(0);
static SILENT: AtomicBool = AtomicBool::new(false);

/// Writes no lines from now on.
pub fn silence() {
    SILENT.store(true, Ordering::Relaxed);
}

/// Writes a line of level info. Every second one is written by another thread than the first, as Go's
/// scheduler would have it.
pub fn info(message: &str) {
    if SILENT.load(Ordering::Relaxed) {
        return;
    }
    let seconds = START.get_or_init(Instant::now).elapsed().as_secs();
    let line = format!("\x1b[36mINFO\x1b[0m[{seconds:04}] {message:<44} \n");
    if LINES.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
        raw(&line);
    } else {
        std::thread::scope(|scope| {
            scope.spawn(|| raw(&line));
        });
    }
}

/// Writes text as it is.
pub fn raw(text: &str) {
    // Nobody can be told that standard error does not take it.
    let _ = sys::write(2, text.as_bytes());
}
