//! Options that all commands that trace have in common.

use std::time::Duration;

use crate::record::{Options, kernel::Choice};

/// Where Kaniko's images have the executor.
const EXECUTOR: &str = "/kaniko/executor";

/// How to trace.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Tracing")]
pub struct Tracing {
    /// How checks are seen: auto, tp_btf, fexit or kprobe
    #[arg(long, value_name = "HOOK", default_value = "auto")]
    hook: Choice,
    /// Path of the executor inside its container; several can be given
    #[arg(long = "match", value_name = "PATH", default_value = EXECUTOR)]
    matches: Vec<String>,
    /// Record arguments of executed programs: they can hold secrets
    #[arg(long)]
    argv: bool,
    /// Do not follow system calls to their end: cheaper for the host, and more is unsure
    #[arg(long)]
    no_outcome: bool,
    /// Seconds that a build may take to end after a signal, before it is killed
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds, hide_short_help = true)]
    grace: Duration,
    /// Bytes of the ring buffer, a power of two of at least 4096
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20, value_parser = ring_size)]
    ring_size: u32,
    /// Buckets of each CPU's tally table, a power of two of at least 2
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = buckets, hide_short_help = true)]
    table_size: u32,
    /// System calls whose outcome can be open at once, a power of two
    #[arg(long, value_name = "N", default_value_t = 16384, value_parser = power_of_two, hide_short_help = true)]
    slots: u32,
    /// Compute every result as well, and fail where it is not the kernel's
    #[arg(long, hide_short_help = true)]
    verify: bool,
}

impl Tracing {
    /// Paths that make a program an executor.
    pub fn matches(&self) -> &[String] {
        &self.matches
    }

    /// What the recorder is told.
    pub fn options(&self, verbosity: u8) -> Options {
        Options {
            hook: self.hook,
            matches: self.matches.clone(),
            argv: self.argv,
            outcomes: !self.no_outcome,
            verify: self.verify,
            ring_bytes: self.ring_size,
            tally_buckets: self.table_size,
            slots: self.slots,
            grace: self.grace,
            keep: None,
            verbosity,
        }
    }
}

fn power_of_two(text: &str) -> Result<u32, String> {
    let n: u32 = text.parse().map_err(|e| format!("{e}"))?;
    if n.is_power_of_two() {
        Ok(n)
    } else {
        Err("it is no power of two".into())
    }
}

fn buckets(text: &str) -> Result<u32, String> {
    match power_of_two(text)? {
        0..2 => Err("at least 2 are needed".into()),
        n => Ok(n),
    }
}

fn ring_size(text: &str) -> Result<u32, String> {
    match power_of_two(text)? {
        0..4096 => Err("at least a page is needed".into()),
        n => Ok(n),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|e| format!("{e}"))?;
    // A year is enough, and no time in the event loop overflows.
    if (0.0..=31_536_000.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("it is no number of seconds".into())
    }
}
