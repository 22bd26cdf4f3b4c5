//! What the executor has to know of a Dockerfile: its stages, instructions and what its comments say
//! of phases that no instruction names. No heredocs, no build arguments.

use crate::{
    ops::{self, Op},
    sys::Res,
};

/// A Dockerfile.
#[derive(Debug)]
pub struct Dockerfile {
    /// Write no log.
    pub silent: bool,
    /// At least one.
    pub stages: Vec<Stage>,
}

/// From one FROM to the next.
#[derive(Debug)]
pub struct Stage {
    /// What it is built from.
    pub base: String,
    /// Performed while that is unpacked.
    pub unpack: Vec<Op>,
    /// Performed in the first snapshot.
    pub initial: Vec<Op>,
    /// In order.
    pub instructions: Vec<Instruction>,
}

/// One instruction.
#[derive(Debug)]
pub struct Instruction {
    /// The keyword, in capitals.
    pub keyword: String,
    /// As Kaniko names it: the whole text, with continued lines joined.
    pub text: String,
    /// The text behind the keyword.
    pub rest: String,
    /// Performed in the snapshot after it.
    pub snapshot: Vec<Op>,
}

impl Instruction {
    /// It changes files, so that the base has to be there.
    pub fn requires_files(&self) -> bool {
        matches!(self.keyword.as_str(), "RUN" | "COPY" | "ADD" | "WORKDIR")
    }
}

/// Reads one.
///
/// # Errors
/// What cannot be used.
pub fn parse(text: &str) -> Res<Dockerfile> {
    let mut dockerfile = Dockerfile {
        silent: false,
        stages: vec![],
    };
    let (mut unpack, mut initial, mut snapshot) = (vec![], vec![], vec![]);
    let mut before = String::new();
    for line in text.lines() {
        if let Some(comment) = line.trim_start().strip_prefix('#') {
            let mut words = comment.split_whitespace();
            match words.next() {
                Some("silent") => dockerfile.silent = true,
                Some("unpack:") => unpack = ops::parse(words)?,
                Some("initial:") => initial = ops::parse(words)?,
                Some("snapshot:") => snapshot = ops::parse(words)?,
                _ => {}
            }
            continue;
        }
        if let Some(part) = line.strip_suffix('\\') {
            before.push_str(part);
            continue;
        }
        let line = std::mem::take(&mut before) + line;
        let text = line.trim();
        if text.is_empty() {
            continue;
        }
        let (keyword, rest) = text
            .split_once(char::is_whitespace)
            .ok_or(format!("unknown instruction: {text}"))?;
        let keyword = keyword.to_uppercase();
        if keyword == "FROM" {
            dockerfile.stages.push(Stage {
                base: rest
                    .split_whitespace()
                    .find(|word| !word.starts_with("--"))
                    .ok_or("FROM requires a name")?
                    .to_owned(),
                unpack: std::mem::take(&mut unpack),
                initial: std::mem::take(&mut initial),
                instructions: vec![],
            });
        } else if let Some(stage) = dockerfile.stages.last_mut() {
            stage.instructions.push(Instruction {
                text: text.to_owned(),
                rest: rest.trim().to_owned(),
                keyword,
                snapshot: std::mem::take(&mut snapshot),
            });
        } else if keyword != "ARG" {
            return Err(format!("no build stage in current context: {text}"));
        }
    }
    if dockerfile.stages.is_empty() {
        return Err("file with no instructions".to_owned());
    }
    Ok(dockerfile)
}
