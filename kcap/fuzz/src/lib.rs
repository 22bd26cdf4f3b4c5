//! What is asserted of each kind of untrusted input, beyond that nothing panics. One function a fuzz
//! target; `cargo xtask fuzz` builds and runs them.
//!
//! Inputs are the text within an envelope, where a format has one: a fuzzer cannot guess a checksum or
//! a digest. The envelope is made here, and read by kcap as any other.

mod arguments;
mod capture;
mod dockerfile;
mod image;
mod policy;
mod rendered;
mod report;
mod scratch;

pub use arguments::arguments;
pub use capture::capture;
pub use dockerfile::dockerfile;
pub use image::image;
pub use policy::policy;
pub use report::report;
