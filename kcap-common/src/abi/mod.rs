//! The shapes that the BPF programs write and userspace reads.
//!
//! Every struct is `repr(C)` with no implicit padding: padding is part of a BPF map key, and an
//! uninitialised byte in a record is refused by the verifier. The sizes are asserted here, on
//! whichever side compiles this file.

pub mod fields;
pub mod key;
pub mod loss;
pub mod record;
pub mod settings;

pub use fields::Fields;
pub use key::Key;
pub use settings::Settings;

/// Raised whenever a shape in this module changes; the capture carries it, so that a capture made
/// by an older object is known as such.
pub const ABI_VERSION: u32 = 2;
