//! Several builds traced at once, by one tracer: each in a cgroup of its own, each to a capture of
//! its own.

use std::path::PathBuf;

use anyhow::Result;

use super::Failure;
use crate::{capture::Capture, launch::Launch};

/// A build to trace.
pub struct Job {
    /// The Dockerfile's path as given, and its bytes.
    pub dockerfile: (PathBuf, Vec<u8>),
    /// The build context as given.
    pub context: Option<String>,
    /// Makes its container, when its turn has come.
    pub launch: Box<dyn FnOnce() -> Result<Launch> + Send>,
}

/// What happens while builds run. Jobs are known by their position.
#[derive(Debug)]
pub enum Event {
    /// Its container is being started.
    Started,
    /// The executor wrote a line to its log; secrets are masked.
    Log(String),
    /// A line of the command's output: the executor's and that of what it runs; secrets are masked.
    Output(String),
    /// So many checks were counted until now, at least.
    Checks(u64),
    /// It ended: what was seen, or why there is nothing.
    Ended(Box<Result<Capture, Failure>>),
}
