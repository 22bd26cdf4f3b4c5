//! A running build to a capture: the one stage that is asynchronous, and that needs root.

mod assemble;
mod builds;
mod collect;
mod command;
mod container;
mod filecaps;
mod inside;
pub mod kernel;
mod late;
mod living;
mod mask;
mod opened;
mod reading;
mod room;
mod route;
mod session;
mod share;
mod signals;
mod strays;
mod subject;
mod trace;
mod watch;

#[cfg(fuzzing)]
pub(crate) use inside::option as executor_option;

pub use builds::{Builds, Event, Job, build};
pub use late::{Running, attach};
pub use opened::Opened;
pub use session::{Failure, Options, Run, run};
pub use share::Denied;
pub use signals::Signals;
pub(crate) use subject::{masked, rfc3339};
pub use trace::config;
pub use watch::{Event as Watched, Figures, Over, Scope, watch};

use crate::host::{Facts, cgroup::Layout};

/// Tries every hook on this host, attaching and detaching it: name, and what it failed with.
pub fn probe_hooks() -> Vec<(&'static str, Result<(), String>)> {
    let facts = Facts::read();
    let config = match Layout::detect() {
        Ok(layout) => config(&facts, &layout),
        Err(_) => kernel::Config::default(),
    };
    kernel::probe(&config)
        .into_iter()
        .map(|(hook, result)| (hook.name(), result.map_err(|e| format!("{e:#}"))))
        .collect()
}
