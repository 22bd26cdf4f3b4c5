//! kcap's kernel side. One file a hook under `hooks`, each of which reads, calls a decision of
//! `kcap_common::decide`, and stores.
//!
//! | hook | sees |
//! |---|---|
//! | `cap_capable` | every check: by its tracepoint, at its exit, or at its entry |
//! | `inlined` | checks that some kernels inline into their callers |
//! | `sys_exit` | what became of the system calls that checks were made in, and needs that ask nothing |
//! | `newtask`, `exec`, `exit`, `attach` | which programs are in scope |
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(
    missing_docs,
    reason = "programs and maps are named for the loader; their files say what they are for"
)]

mod evidence;
mod flush;
mod globals;
mod hooks;
mod mem;
mod scope;
mod slots;
mod syscall;
mod tally;

/// The functions that only GPL-compatible programs may call are called here.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
