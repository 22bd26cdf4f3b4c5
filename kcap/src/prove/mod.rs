//! Builds made again with less, until the smallest set is found that gives the same image.
//!
//! [`planner`] says which sets to build with, knowing only what came of those before; [`judge`] what a
//! replay came to, from its trace and its image; [`account`] makes the report of it all. These are pure.
//! `proof` is one Dockerfile's as it goes on, `untraced` what is known of builds without a trace of their
//! own, `driver` carries out several side by side, `jobs` does so in a cluster, `store` keeps replays,
//! `context` tells one build context from another.

pub mod account;
pub mod judge;
pub mod planner;

#[cfg(feature = "trace")]
pub mod context;
#[cfg(feature = "trace")]
pub mod driver;
#[cfg(feature = "trace")]
pub mod jobs;
#[cfg(feature = "trace")]
pub mod proof;
#[cfg(feature = "trace")]
pub mod store;
#[cfg(feature = "trace")]
mod untraced;
