//! A node's worth of builds: what `kcap watch` does with the sessions that the recorder gives it.
//! Each is told whose it is, made a report, and written where its owner can read it, whatever happens
//! to the others.

pub mod bucket;
pub mod events;
pub mod folder;
pub mod identity;
mod lines;
pub mod metrics;
pub mod notify;
mod owners;
pub mod place;
pub mod queue;
pub mod refusals;
mod reports;
pub mod retention;
pub mod service;
pub mod settings;
pub mod webhook;
pub mod whose;
mod worker;

use std::path::Path;

use anyhow::Result;

use crate::remote::Location;

/// Where reports go.
pub trait Destination: Send {
    /// Writes one under a name, `a/b/c.json`: whole or not at all.
    ///
    /// # Errors
    /// Why it could not be written; it may be tried again.
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<()>;

    /// Removes what is older than it may be, or too much. `now`: seconds since the epoch.
    ///
    /// # Errors
    /// Why it could not.
    fn prune(&mut self, keep: &retention::Keep, now: u64) -> Result<retention::Pruned>;

    /// For people.
    fn shown(&self) -> String;
}

/// The destination of that name: a folder, or `s3://BUCKET/PREFIX`. `say`: lines for people.
///
/// # Errors
/// Where it cannot be written.
pub fn destination(name: &Path, say: fn(&str)) -> Result<Box<dyn Destination>> {
    match name.to_str().filter(|text| Location::is(text)) {
        Some(text) => Ok(Box::new(bucket::Prefix::open(text, say)?)),
        None => Ok(Box::new(folder::Folder::open(name)?)),
    }
}
