//! `--help`: examples for each command, in 80 columns.

use clap::{Command, CommandFactory as _};
use kcap::cli::Cli;

/// Columns of a terminal.
const COLUMNS: usize = 80;

fn each(command: &mut Command, path: &str, see: &mut impl FnMut(&str, &mut Command)) {
    see(path, command);
    for below in command.get_subcommands_mut() {
        let path = format!("{path} {}", below.get_name());
        each(below, &path, see);
    }
}

#[test]
fn every_command_has_examples_that_it_takes() {
    let mut root = Cli::command().disable_help_subcommand(true);
    let mut examples = vec![];
    each(&mut root, "kcap", &mut |path, command| {
        let after = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        // What is below `generate` is shown there.
        if path.split(' ').count() > 2 {
            return;
        }
        let list = after
            .split_once("Examples:\n")
            .unwrap_or_else(|| panic!("{path}: no examples"));
        let list = list.1.split("\n\n").next().unwrap_or_default();
        assert!(after.contains("Exit code: "), "{path}");
        for line in list.lines() {
            let line = line.trim().trim_start_matches("sudo ").to_owned();
            assert!(line.starts_with(path), "{path}: {line}");
            examples.push(line);
        }
    });
    assert!(examples.len() > 25, "{examples:?}");
    for example in examples {
        // Up to what a shell would take.
        let own = example.split([';', '|', '>']).next().unwrap_or_default();
        let words = shlex::split(own).unwrap_or_else(|| panic!("{example}"));
        if let Err(error) = Cli::command().try_get_matches_from(words) {
            panic!("{example}: {error}");
        }
    }
}

#[test]
fn help_fits_a_terminal() {
    let mut root = Cli::command();
    root.build();
    each(&mut root, "kcap", &mut |path, command| {
        for help in [command.render_long_help(), command.render_help()] {
            let text = help.to_string();
            let wide: Vec<&str> = text
                .lines()
                .filter(|l| l.chars().count() > COLUMNS)
                .collect();
            assert_eq!(wide, [""; 0], "{path}");
        }
    });
}
