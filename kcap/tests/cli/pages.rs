//! What the README and the pages of `docs/` show: every command is one that kcap takes, and every
//! `console` block is what it says, byte for byte.
//!
//! `KCAP_WRITE_PAGES=1 cargo test --test cli pages` writes what the commands say now into the pages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{CommandFactory as _, Parser as _};
use kcap::cli::Cli;

#[path = "../support/pages.rs"]
mod found;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn each_page() -> Vec<(PathBuf, String)> {
    let read = |page: PathBuf| {
        let text = fs::read_to_string(&page).expect("a page can be read");
        (page, text)
    };
    found::pages(&root()).into_iter().map(read).collect()
}

#[test]
fn every_command_in_a_block_is_one() {
    let (mut wrong, mut count) = (vec![], 0);
    for (page, text) in each_page() {
        for block in found::split(&text).0 {
            for (line, command) in block.commands("kcap") {
                count += 1;
                let place = format!("{}:{line}", page.display());
                match Cli::try_parse_from(found::words(&command)) {
                    Ok(_) => {}
                    Err(error) => wrong.push(format!("{place}: {command}: {error}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 20, "only {count} commands were found");
}

#[test]
fn every_command_in_a_sentence_is_of_kcap() {
    let cli = Cli::command();
    let (mut wrong, mut count) = (vec![], 0);
    for (page, text) in each_page() {
        for (line, span) in found::split(&text).1 {
            let Some(rest) = span.strip_prefix("kcap ") else {
                continue;
            };
            let words = found::words(rest);
            let place = format!("{}:{line}: `{span}`", page.display());
            count += 1;
            if words[0].starts_with('-') {
                continue;
            }
            let Some(subcommand) = cli.find_subcommand(&words[0]) else {
                wrong.push(format!("{place}: no such subcommand"));
                continue;
            };
            let flags = words.iter().take_while(|word| *word != "--");
            for flag in flags.filter_map(|word| word.strip_prefix("--")) {
                let name = flag.split('=').next().unwrap_or(flag);
                if !subcommand
                    .get_arguments()
                    .any(|arg| arg.get_long() == Some(name))
                {
                    wrong.push(format!("{place}: no such option: --{name}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 20, "only {count} commands were found");
}

/// What a block's commands say, each after its own line.
fn said(block: &found::Block) -> Vec<String> {
    let mut lines = vec![];
    for shown in block
        .lines
        .iter()
        .filter_map(|line| line.strip_prefix("$ "))
    {
        let binary = Path::new(env!("CARGO_BIN_EXE_kcap"));
        let folder = binary.parent().expect("it is in a folder").display();
        let path = std::env::var("PATH").expect("there is a PATH");
        let output = Command::new("sh")
            .args(["-c", &format!("({shown}) 2>&1")])
            .current_dir(root())
            .env("PATH", format!("{folder}:{path}"))
            .env("NO_COLOR", "1")
            .output()
            .expect("a shell");
        lines.push(format!("$ {shown}"));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

#[test]
fn consoles_show_what_is_said() {
    let write = std::env::var_os("KCAP_WRITE_PAGES").is_some();
    let (mut wrong, mut count) = (vec![], 0);
    for (page, text) in each_page() {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        // From the end, so that lines before keep their numbers.
        for block in found::split(&text).0.into_iter().rev() {
            if block.language != "console" {
                continue;
            }
            count += 1;
            let said = said(&block);
            if said != block.lines {
                wrong.push(format!(
                    "{}:{}: it says\n{}",
                    page.display(),
                    block.line,
                    said.join("\n")
                ));
                lines.splice(block.line..block.line + block.lines.len(), said);
            }
        }
        if write && lines.join("\n") != text.trim_end() {
            fs::write(&page, lines.join("\n") + "\n").expect("a page can be written");
        }
    }
    assert!(
        wrong.is_empty() || write,
        "run `KCAP_WRITE_PAGES=1 cargo test --test cli pages` and commit:\n{}",
        wrong.join("\n")
    );
    assert!(count >= 5, "only {count} console blocks were found");
}

/// Every page that another page or the README names is there, and what is quoted of a generated page
/// stands there.
#[test]
fn links_lead_somewhere() {
    let mut wrong = vec![];
    for (page, text) in each_page() {
        let folder = page.parent().expect("a folder");
        for part in text.split("](").skip(1) {
            let target = part.split([')', '#']).next().unwrap_or("");
            // Another page's picture is made by a browser, and not in every copy.
            let is_ours = !target.is_empty() && !target.contains("://");
            if is_ours && !target.ends_with(".png") && !folder.join(target).exists() {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
        for (line, span) in found::split(&text).1 {
            let is_page = span.starts_with("docs/") && span.ends_with(".md");
            if is_page && !root().join(&span).exists() {
                wrong.push(format!("{}:{line}: {span}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Pages that are made from data; what others quote of them must stand there.
const MADE: [&str; 5] = [
    "verdicts.md",
    "proofs.md",
    "question.md",
    "kernels.md",
    "benchmarks.md",
];

/// `309 of 398 (77.6 %)`, `309 of 398`, `16.5 %`: every share that a paragraph names.
fn shares(paragraph: &str) -> Vec<String> {
    let is_number = |word: &str| {
        let digits = word.strip_prefix('(').unwrap_or(word);
        digits.starts_with(|c: char| c.is_ascii_digit())
            && digits.ends_with(|c: char| c.is_ascii_digit())
            && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
    };
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    let mut found = vec![];
    for (at, word) in words.iter().enumerate() {
        let next = |more: usize| words.get(at + more).copied().unwrap_or_default();
        let last = next(2).trim_end_matches([',', '.', ';', ':', ')']);
        if is_number(word) && next(1) == "of" && is_number(last) {
            found.push(format!("{} of {last}", word.trim_start_matches('(')));
        }
        if is_number(word) && next(1).starts_with('%') {
            found.push(format!("{} %", word.trim_start_matches('(')));
        }
    }
    found
}

#[test]
fn figures_stand_in_the_pages_that_they_are_of() {
    let (mut wrong, mut count) = (vec![], 0);
    for (page, text) in each_page() {
        let name = page
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("");
        if MADE.contains(&name) {
            continue;
        }
        for paragraph in text.split("\n\n") {
            let named = MADE.iter().filter(|made| paragraph.contains(**made));
            let source: String = named
                .map(|made| fs::read_to_string(root().join("docs").join(made)).expect("a page"))
                .collect();
            if source.is_empty() {
                continue;
            }
            for share in shares(paragraph) {
                count += 1;
                if !source.contains(&share) {
                    wrong.push(format!("{}: {share}: in\n{paragraph}", page.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 5, "only {count} figures were found");
}
