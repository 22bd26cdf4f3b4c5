//! Decisions taken in the kernel, as plain functions over plain values: the BPF programs read,
//! call one of these, and store. Tested on the host.

pub mod argclass;
pub mod outcome;
pub mod relation;
pub mod unasked;
