//! Commands that pages of the documentation show: found in Markdown, so that tests can hold them
//! against the programs.

use std::fs;
use std::path::{Path, PathBuf};

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// What is written after its fence, such as `sh`.
    pub language: String,
    /// Number of its fence's line, from 1.
    pub line: usize,
    /// Its lines.
    pub lines: Vec<String>,
}

/// README.md and every page of `docs/` of the repository at `root`.
///
/// # Panics
/// Where they cannot be listed.
pub fn pages(root: &Path) -> Vec<PathBuf> {
    let docs = fs::read_dir(root.join("docs")).expect("docs/ can be listed");
    let mut pages: Vec<PathBuf> = docs.map(|entry| entry.expect("an entry").path()).collect();
    pages.retain(|page| page.extension().is_some_and(|ending| ending == "md"));
    pages.push(root.join("README.md"));
    pages.sort();
    pages
}

/// The fenced blocks of a page, and the spans of code outside of them with the number of their line.
pub fn split(text: &str) -> (Vec<Block>, Vec<(usize, String)>) {
    let (mut blocks, mut spans): (Vec<Block>, Vec<_>) = (vec![], vec![]);
    let mut open = false;
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        if let Some(language) = line.trim_start().strip_prefix("```") {
            if !open {
                blocks.push(Block {
                    language: language.trim().to_owned(),
                    line: number,
                    lines: vec![],
                });
            }
            open = !open;
        } else if let (true, Some(block)) = (open, blocks.last_mut()) {
            block.lines.push(line.to_owned());
        } else {
            let code = line.split('`').skip(1).step_by(2);
            spans.extend(code.map(|span| (number, span.to_owned())));
        }
    }
    (blocks, spans)
}

impl Block {
    /// The commands in it that run `program`, as a shell would take them apart, each to the first
    /// word that is the shell's own, with the number of its line. Those of CI files are found behind
    /// their keys.
    pub fn commands(&self, program: &str) -> Vec<(usize, String)> {
        let mut found = vec![];
        let mut lines = self.lines.iter().enumerate();
        while let Some((at, line)) = lines.next() {
            let mut line = line.trim().to_owned();
            while let Some(part) = line.strip_suffix('\\') {
                let next = lines.next().map_or("", |(_, line)| line.trim());
                line = format!("{} {next}", part.trim_end());
            }
            let mut rest = line.as_str();
            while let Some(inner) = ["$ ", "- ", "run: ", "sudo ", "script: "]
                .iter()
                .find_map(|key| rest.strip_prefix(key))
            {
                rest = inner.trim_start();
            }
            if rest
                .strip_prefix(program)
                .is_some_and(|rest| rest.starts_with(' '))
            {
                found.push((self.line + 1 + at, rest.to_owned()));
            }
        }
        found
    }
}

/// The words of a command, to the first that is the shell's own.
pub fn words(command: &str) -> Vec<String> {
    let own = ["|", "||", "&&", ";", ">", "2>", "&", "<"];
    let words = shlex::split(command).unwrap_or_else(|| panic!("unbalanced quotes: {command}"));
    words
        .into_iter()
        .take_while(|word| !own.contains(&word.as_str()))
        .collect()
}
