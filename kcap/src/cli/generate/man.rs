//! Man pages: what clap_mangen makes of the options, and of the text below them the sections that
//! readers of man pages look for.

use std::io::{self, Write as _};

use clap::Command;
use clap_mangen::Man;
use roff::{Inline, Roff, bold, roman};

/// The section of programs.
const SECTION: &str = "1";

/// The page of each command, by its file's name.
pub fn pages(root: Command) -> io::Result<Vec<(String, String)>> {
    // Each command's own name is `kcap-report` once it is built. `kcap help` says what pages say.
    let mut root = root.disable_help_subcommand(true);
    root.build();
    let mut commands = Vec::new();
    gather(&root, &mut commands);
    let names: Vec<String> = commands.iter().map(|command| name(command)).collect();
    let pages = commands.iter().map(|command| {
        let text = page(command, &names)?;
        Ok((format!("{}.{SECTION}", name(command)), text))
    });
    pages.collect()
}

/// A command and those below it.
fn gather<'a>(command: &'a Command, all: &mut Vec<&'a Command>) {
    all.push(command);
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        gather(below, all);
    }
}

fn name(command: &Command) -> String {
    let name = command.get_display_name().unwrap_or(command.get_name());
    name.to_owned()
}

fn page(command: &Command, names: &[String]) -> io::Result<String> {
    let man = Man::new(command.clone());
    let mut out = Vec::new();
    // No date: the same kcap gives the same page on every day.
    writeln!(
        out,
        ".TH \"{}\" \"{SECTION}\" \"\" \"kcap {}\" \"kcap manual\"",
        name(command).to_uppercase(),
        env!("CARGO_PKG_VERSION")
    )?;
    man.render_name_section(&mut out)?;
    synopsis(command).to_writer(&mut out)?;
    man.render_description_section(&mut out)?;
    if command
        .get_arguments()
        .any(|argument| !argument.is_hide_set())
    {
        man.render_options_section(&mut out)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    let after = command.get_after_help().map(ToString::to_string);
    let mut roff = Roff::new();
    below(&mut roff, after.as_deref().unwrap_or_default());
    environment(&mut roff, command);
    see_also(&mut roff, &name(command), names);
    roff.to_writer(&mut out)?;
    Ok(tidy(&String::from_utf8_lossy(&out)))
}

/// The usage, a line for each way.
fn synopsis(command: &Command) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    for (at, way) in usage.trim_start_matches("Usage: ").lines().enumerate() {
        if at > 0 {
            roff.control("br", []);
        }
        roff.text([roman(way.trim())]);
    }
    roff
}

/// Without what linters of man pages find fault with: sections are rendered one by one, each with what
/// begins a page, and a break is written twice.
fn tidy(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim_end) {
        let begins = line.starts_with(".ie \\n(.g") || line.starts_with(".el .ds Aq");
        let again = lines.last() == Some(&line) && line == ".br" || begins && lines.contains(&line);
        if !line.is_empty() && !again {
            lines.push(line);
        }
    }
    lines.join("\n") + "\n"
}

/// The paragraphs below the options: examples and exit codes have sections of their own.
fn below(roff: &mut Roff, text: &str) {
    let paragraphs: Vec<&str> = text.split("\n\n").map(str::trim_end).collect();
    let with = |start: &'static str| paragraphs.iter().filter_map(move |p| p.strip_prefix(start));
    let starts = ["Examples:\n", "Exit code: "];
    let notes: Vec<&str> = (paragraphs.iter())
        .filter(|p| !p.is_empty() && !starts.iter().any(|start| p.starts_with(start)))
        .copied()
        .collect();
    if !notes.is_empty() {
        roff.control("SH", ["NOTES"]);
        for (at, note) in notes.iter().enumerate() {
            if at > 0 {
                roff.control("PP", []);
            }
            roff.text([roman(*note)]);
        }
    }
    for examples in with("Examples:\n") {
        roff.control("SH", ["EXAMPLES"]);
        for (at, example) in examples.lines().enumerate() {
            if at > 0 {
                roff.control("PP", []);
            }
            roff.text([bold(example.trim())]);
        }
    }
    for codes in with("Exit code: ") {
        roff.control("SH", ["EXIT STATUS"]);
        roff.text([roman(codes)]);
    }
}

fn environment(roff: &mut Roff, command: &Command) {
    let colours = |command: &Command| command.get_arguments().any(|a| a.get_id() == "color");
    if !colours(command) && !command.get_subcommands().any(colours) {
        return;
    }
    roff.control("SH", ["ENVIRONMENT"]);
    roff.control("TP", []);
    roff.text([bold("NO_COLOR")]);
    roff.text([roman(
        "Where it is set and not empty, nothing is coloured, unless --color always is given.",
    )]);
}

fn see_also(roff: &mut Roff, own: &str, names: &[String]) {
    // The commands, and what is below this one.
    let others: Vec<&String> = (names.iter())
        .filter(|name| *name != own)
        .filter(|name| name.matches('-').count() < 2 || name.starts_with(own))
        .collect();
    let mut line: Vec<Inline> = Vec::new();
    for (at, other) in others.iter().enumerate() {
        if at > 0 {
            line.push(roman(", "));
        }
        line.push(bold(other.as_str()));
        line.push(roman(format!("({SECTION})")));
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text(line);
}
