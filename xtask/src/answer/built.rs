//! Real builds with a set, of Dockerfiles that were not asked about that set before: whether what
//! replays found of each, one capability at a time, tells what a whole set comes to.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::SETS;
use super::needs::{Answer, Needs};
use crate::corpus::Subject;
use crate::lab::capabilities::{self, Set};
use crate::lab::kaniko::{self, Kaniko};
use crate::setup::{self, Need};
use crate::sh;
use crate::truth::judge::Judge;
use crate::truth::record::{Consequence, Outcome};
use crate::truth::search::Verdict;

/// One build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The Dockerfile's folder.
    pub name: String,
    /// What was allowed.
    pub set: Vec<String>,
    /// The Dockerfile's and its context's digest, as in its truth.
    pub inputs: String,
    /// What became of it, where that is not the image of the starting set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without: Option<Consequence>,
}

impl Row {
    /// What was allowed.
    ///
    /// # Errors
    /// Where it names what is no capability.
    pub fn allowed(&self) -> Result<Set> {
        let number = |name: &String| capabilities::number(name).context("no capability");
        self.set.iter().map(number).collect()
    }

    /// What the build came to.
    pub fn answer(&self) -> Answer {
        match self.without {
            None => Answer::Builds,
            Some(_) => Answer::Fails,
        }
    }
}

/// Builds each Dockerfile with each set, and compares as the truth does. Rows are written as they
/// come; those that are known are not built again.
///
/// # Errors
/// Where a build cannot be made, or something cannot be written.
pub fn build(subjects: &[Subject], sets: &[Set]) -> Result<()> {
    if !sh::is_root() {
        bail!("containers need root: run `sudo -E env \"PATH=$PATH\" cargo xtask answer --build`");
    }
    ensure!(
        kaniko::executor().is_some(),
        "no Kaniko executor: set KCAP_KANIKO_EXECUTOR to its path"
    );
    let path = sh::workspace().join(SETS);
    let mut rows = read(&path)?;
    setup::ensure(&[Need::Corpus])?;
    sh::outlive_signals();
    let lab = Kaniko::open()?;
    for subject in subjects {
        let inputs = subject.inputs()?;
        rows.retain(|row| row.name != subject.name || row.inputs == inputs);
        let mut asked = vec![];
        for set in sets {
            let names = set.names();
            let known = |row: &Row| row.name == subject.name && row.set == names;
            if !rows.iter().any(known) {
                asked.push(*set);
            }
        }
        if asked.is_empty() {
            continue;
        }
        let scratch = lab.folder()?;
        let recipe = subject.recipe(&scratch.path().join("context"))?;
        let mut judge = Judge::new(&lab, recipe, subject.expect, subject.start)?;
        for set in asked {
            if sh::interrupted() {
                break;
            }
            let without = match judge.judge(set)? {
                Verdict::Same => None,
                Verdict::Differs(consequence) => Some(consequence),
            };
            let said = if without.is_none() {
                "builds"
            } else {
                "does not build"
            };
            eprintln!("answer: {} with {set}: {said}", subject.name);
            rows.push(Row {
                name: subject.name.clone(),
                set: set.names().into_iter().map(str::to_owned).collect(),
                inputs: inputs.clone(),
                without,
            });
        }
        rows.sort_by(|a, b| (&a.name, &a.set).cmp(&(&b.name, &b.set)));
        write(&path, &rows)?;
        if sh::interrupted() {
            break;
        }
    }
    lab.close()
}

/// The rows that were written, if there are any.
///
/// # Errors
/// Where they cannot be read.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    text.lines()
        .map(|line| serde_json::from_str(line).context("a line of corpus/sets.jsonl is no row"))
        .collect()
}

fn write(path: &Path, rows: &[Row]) -> Result<()> {
    let mut text = vec![];
    for row in rows {
        serde_json::to_writer(&mut text, row)?;
        writeln!(text)?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// What was built with a set, and whether it came to what was expected.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checked {
    /// How many were built with it.
    pub built: usize,
    /// Of them those that gave the same image.
    pub same: usize,
    /// Of them those that came to an end with another image.
    pub changed: usize,
    /// Of them those that should give the same image by replays of their own.
    pub reckoned: usize,
    /// Those that came to something else than replays of their own say, or that replays say nothing
    /// about: name, and what became of it.
    pub apart: Vec<(String, String)>,
}

/// Holds what was built with `set` against what replays of single capabilities say.
///
/// # Errors
/// Where a row names what is no capability.
pub fn checked(rows: &[Row], needs: &[&Needs], set: Set) -> Result<Checked> {
    let mut checked = Checked::default();
    for row in rows {
        let Some(one) = needs.iter().find(|one| one.name == row.name) else {
            continue;
        };
        if row.allowed()? != set {
            continue;
        }
        checked.built += 1;
        checked.reckoned += usize::from(one.answer(set) == Answer::Builds);
        checked.same += usize::from(row.answer() == Answer::Builds);
        let outcome = row.without.as_ref().map(|without| without.outcome);
        checked.changed += usize::from(outcome == Some(Outcome::Changed));
        if one.answer(set) != row.answer() {
            let mut what = match &row.without {
                None => "builds".to_owned(),
                Some(without) if without.witness.error.is_empty() => "gives another image".into(),
                Some(without) => without.witness.error.clone(),
            };
            if let Some(rest) = what.strip_prefix("error building image: ") {
                what = rest.to_owned();
            }
            if one.answer(set) == Answer::Untold {
                what += " (its truth did not tell)";
            }
            checked.apart.push((row.name.clone(), what));
        }
    }
    Ok(checked)
}
