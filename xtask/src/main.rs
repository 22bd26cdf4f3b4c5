//! kcap's own tasks, run as `cargo xtask TASK`.

mod answer;
mod bench;
mod bpf;
mod captures;
mod corpus;
mod demo;
mod docs;
mod fuzz;
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

#[cfg(test)]
#[allow(dead_code, reason = "shared with kcap's tests, which use the rest")]
#[path = "../../kcap/tests/support/pages.rs"]
mod pages;

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
    /// Hold man pages, completions and schemas against what kcap generates, or write them
    Docs(docs::Args),
    /// Run every tier of tests that this machine can run
    Test(test::Args),
    /// Feed kcap what nobody meant to write, and hold what it makes of it against what must be so
    Fuzz(fuzz::Args),
    /// Measure what tracing costs, beside bpftrace and programs that do nothing
    Bench(bench::Args),
    /// Find by replays which capabilities each Dockerfile of the corpus needs
    Truth(truth::Args),
    /// Record with kcap a build of each Dockerfile of the corpus
    Captures(captures::Args),
    /// Hold what kcap says of the corpus' captures against what replays found
    Verdicts(verdicts::Args),
    /// Say which set of capabilities builds how many Dockerfiles of the corpus
    Answer(answer::Args),
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
        Task::Docs(args) => docs::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Truth(args) => truth::run(&args),
        Task::Captures(args) => captures::run(&args),
        Task::Verdicts(args) => verdicts::run(&args),
        Task::Answer(args) => answer::run(&args),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_that_pages_name_are_tasks() {
        let (mut wrong, mut count) = (vec![], 0);
        for page in pages::pages(&sh::workspace()) {
            let text = std::fs::read_to_string(&page).unwrap();
            let (blocks, spans) = pages::split(&text);
            let blocks = blocks.iter().flat_map(|block| block.commands("cargo"));
            let spans = spans.into_iter();
            let spans = spans.filter(|(_, span)| span.starts_with("cargo xtask "));
            for (line, command) in blocks.chain(spans) {
                let words = pages::words(&command);
                let Some(["cargo", "xtask"]) = words.get(..2).map(|two| [&*two[0], &*two[1]])
                else {
                    continue;
                };
                count += 1;
                // With the comment that a shell leaves out.
                let words = words.iter().skip(1).take_while(|word| *word != "#");
                if let Err(error) = Cli::try_parse_from(words) {
                    wrong.push(format!("{}:{line}: {command}: {error}", page.display()));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(count > 5, "only {count} were found");
    }
}
