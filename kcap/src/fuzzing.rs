//! What fuzz targets want of the inside. Built with `--cfg fuzzing` alone, as `cargo xtask fuzz` does.

use crate::launch::arguments;
use crate::record::executor_option as option;

/// Flags of a program, and what of them may be shown.
#[derive(Debug)]
pub struct Arguments {
    /// As the program gets them.
    pub given: Vec<String>,
    /// Without the values that must not be shown.
    pub shown: Vec<String>,
    /// Those values.
    pub secrets: Vec<String>,
}

/// Flags with values behind `carriers` hidden.
pub fn masked(flags: &[&str], carriers: &[&str]) -> Arguments {
    let arguments::Arguments {
        given,
        shown,
        secrets,
    } = arguments::masked(flags, carriers);
    Arguments {
        given,
        shown,
        secrets,
    }
}

/// The Dockerfile that an executor's command line names.
pub fn executor_option(command: &[String]) -> Option<String> {
    option(command, "--dockerfile", "-f")
}
