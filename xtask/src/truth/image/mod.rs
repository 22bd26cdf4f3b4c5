//! Images compared for what a program in them could tell apart: written for the corpus' truth
//! alone, so that a mistake in kcap's own comparison cannot hide there.
//!
//! [`archive`] reads a docker archive, [`tree`] applies its layers to one another, [`diff`] says
//! how two results differ. Layers' order and number, times, compression and history are no part
//! of it.

#[cfg(test)]
mod against;
pub mod archive;
pub mod diff;
mod extended;
pub mod tree;

use serde_json::{Map, Value};

pub use archive::Reader;
pub use diff::{Difference, How, diff};
use tree::Tree;

/// An image: its files, and what a container of it starts with.
#[derive(Debug)]
pub struct Image {
    /// All layers applied.
    pub tree: Tree,
    /// The configuration, without what is empty.
    pub config: Map<String, Value>,
}
