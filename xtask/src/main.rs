//! kcap's own tasks, run as `cargo xtask TASK`.

mod bench;
mod bpf;
mod captures;
mod corpus;
mod demo;
mod kernels;
mod lab;
mod picture;
mod proofs;
mod setup;
mod sh;
mod test;
mod truth;
mod verdicts;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "kcap's own tasks", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what is missing for the other tasks (Debian, Ubuntu)
    Setup(setup::Args),
    /// Build the BPF object that is committed as kcap/bpf/kcap.bpf.o
    Bpf(bpf::Args),
    /// Trace a real build of an example Dockerfile, or of your own, to its report
    Demo(demo::Args),
    /// Run every tier of tests that this machine can run
    Test(test::Args),
    /// Measure what tracing costs, beside bpftrace and programs that do nothing
    Bench(bench::Args),
    /// Find by replays which capabilities each Dockerfile of the corpus needs
    Truth(truth::Args),
    /// Record with kcap a build of each Dockerfile of the corpus
    Captures(captures::Args),
    /// Hold what kcap says of the corpus' captures against what replays found
    Verdicts(verdicts::Args),
    /// Prove the corpus with the real Kaniko, and hold the proofs against what other replays found
    Proofs(proofs::Args),
    /// Hold what kcap says of the corpus on other kernels, and with more or less allowed, against that
    Kernels(kernels::Args),
    /// Take a picture of the HTML page of the corpus
    Picture(picture::Args),
    /// Run one program in a virtual machine with a chosen kernel
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Setup(args) => setup::run(&args),
        Task::Bpf(args) => bpf::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Truth(args) => truth::run(&args),
        Task::Captures(args) => captures::run(&args),
        Task::Verdicts(args) => verdicts::run(&args),
        Task::Proofs(args) => proofs::run(&args),
        Task::Kernels(args) => kernels::run(&args),
        Task::Picture(args) => picture::run(&args),
        Task::Vm(args) => vm::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<sh::Exit>() {
            Some(sh::Exit(status)) => ExitCode::from(*status),
            None => {
                eprintln!("xtask: {error:#}");
                ExitCode::from(2)
            }
        },
    }
}
