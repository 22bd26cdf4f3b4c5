//! Builds made again with less, until the smallest set is found that gives the same image.
//!
//! [`planner`] says which sets to build with, knowing only what came of those before.

pub mod account;
pub mod judge;
pub mod planner;

#[cfg(feature = "trace")]
pub mod context;
#[cfg(feature = "trace")]
pub mod driver;
#[cfg(feature = "trace")]
pub mod proof;
#[cfg(feature = "trace")]
pub mod store;
