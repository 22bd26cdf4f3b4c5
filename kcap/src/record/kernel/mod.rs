//! All that knows aya: loading the BPF object, choosing a hook, reading what the programs wrote.

pub mod btf;
mod calibrate;
mod flush;
mod hook;
mod load;
mod raw;
pub mod sys;

pub use hook::{Choice, Hook};
pub use load::{Config, Finish, Open, Ring, Tracer, object_sha256, probe};
pub use raw::{Raw, decode};
