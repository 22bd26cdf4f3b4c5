//! What is not on this host: object stores that speak S3, and HTTP beneath them. Requests block; whoever
//! makes them has a thread for that. Each has bounds in time and size, and none shows a secret.

mod credentials;
pub mod http;
mod location;
mod store;

pub use credentials::NotLent;
pub use location::Location;
pub use store::{Object, Refused, Store};
