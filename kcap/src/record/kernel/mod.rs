//! All that knows aya: loading the BPF object, choosing a hook, reading what the programs wrote.

mod attach;
pub mod btf;
mod calibrate;
mod config;
mod flush;
mod hook;
mod load;
mod raw;
mod ring;
pub mod sys;
mod target;

pub use config::{Config, Open};
pub use hook::{Choice, Hook};
pub use load::{Finish, Tracer, object_sha256, probe};
pub use raw::{Raw, Starting, decode};
pub use ring::Ring;
