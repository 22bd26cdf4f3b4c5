//! What kcap ships beside itself, and what it writes: man pages, completions and schemas are those of
//! its own definitions, and hold for real reports; what it renders of real builds stays as it is.

#[path = "documents/completions.rs"]
mod completions;
#[path = "documents/corpus.rs"]
mod corpus;
#[path = "documents/help.rs"]
mod help;
#[path = "documents/man.rs"]
mod man;
#[path = "documents/schemas.rs"]
mod schemas;
#[path = "documents/shipped.rs"]
mod shipped;
#[path = "documents/snapshots.rs"]
mod snapshots;
