//! Images compared for what a program in them could tell apart.
//!
//! [`read`] gives an [`Image`]: its layers applied to one another ([`tree`]), what a container of it
//! starts with and how it came about (`config`). [`differences`] says how two differ, place by
//! place; [`judge`] which of that decides, given what is known to differ between equal builds
//! ([`noise`]). How files are spread over layers, times and compression are no part of it.
//!
//! Images are strangers' archives. They are read in one pass and never unpacked to the disk, in
//! bounded memory; a name that is no text stays as it is, and is shown escaped.

pub mod comparison;
mod config;
mod difference;
mod inventory;
mod judge;
mod layer;
#[cfg(test)]
pub(crate) mod made;
pub mod noise;
mod read;
pub mod tree;
mod values;

pub use config::{Config, Step};
pub use difference::{ConfigValue, Content, Difference, Place, What, differences};
pub use inventory::{read_inventory, write_inventory};
pub use judge::{Judged, judge, sort_out};
pub use noise::{Noise, Rule};
pub use read::{Layers, read, read_both, read_with};
pub use tree::{Entry, Kind, Node, Tree};
pub use values::{ByteString, Digest, Malformed, Mode, Pair};

/// An image: its files, and what a container of it starts with.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Digest of its configuration, `sha256:` and 64 digits: what docker calls its id.
    pub id: String,
    /// Digest of its manifest, where it came with one: what registries know it by.
    pub manifest: Option<String>,
    /// What a container starts with.
    pub config: Config,
    /// How it came about, oldest first.
    pub history: Vec<Step>,
    /// Its files.
    pub tree: Tree,
}
