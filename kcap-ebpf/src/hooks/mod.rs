//! One file a hook.

mod attach;
mod cap_capable;
mod check;
mod exec;
mod exit;
mod inlined;
mod misses;
mod newtask;
mod sys_exit;
