//! Arguments to exit code.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    ExitCode::from(kcap::cli::Cli::parse().run())
}
