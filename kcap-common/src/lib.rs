//! What crosses kcap's kernel boundary (`abi`), and the decisions taken in the kernel as plain
//! functions over plain values (`decide`), so that they are tested on the host.
//!
//! Everything here is `no_std`, free of allocation and of `unsafe`: the BPF programs and the
//! userspace loader compile the same source.
#![no_std]
#![forbid(unsafe_code)]

pub mod abi;
pub mod decide;
