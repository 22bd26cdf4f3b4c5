//! The command line as its users meet it: bad input, exit codes, signals, untrusted names, outputs.
//! Every test runs the real `kcap` and looks at what it left behind. Most need root and BPF, and say
//! so where they cannot run.

#[path = "cli/bad_input.rs"]
mod bad_input;
#[path = "cli/build.rs"]
mod build;
#[path = "cli/check.rs"]
mod check;
#[path = "cli/commands.rs"]
mod commands;
#[path = "cli/compare.rs"]
mod compare;
#[path = "cli/conventions.rs"]
mod conventions;
#[path = "cli/harness.rs"]
mod harness;
#[path = "cli/hostile.rs"]
mod hostile;
#[path = "cli/interrupts.rs"]
mod interrupts;
#[path = "cli/many.rs"]
mod many;
#[path = "cli/names.rs"]
mod names;
#[path = "cli/outputs.rs"]
mod outputs;
#[path = "cli/pages.rs"]
mod pages;
