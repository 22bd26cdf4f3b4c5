//! Builds made again with less, until the smallest set is found that gives the same image.
//!
//! [`planner`] says which sets to build with, knowing only what came of those before.

pub mod planner;
