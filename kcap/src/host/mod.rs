//! The machine that kcap runs on: what it is, its control groups, and what its kernel and files
//! tell when asked. Everything here reads or makes host state for the other stages and decides
//! nothing about capabilities.

pub mod cgroup;
mod detached;
pub mod facts;
pub mod filecaps;
mod preemption;
pub mod privileges;
pub mod symbols;

pub use facts::Facts;
pub use preemption::{Mode, Preemption};
