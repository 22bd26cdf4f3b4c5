//! `cargo xtask answer`: which set of capabilities builds how many Dockerfiles of the corpus, by the
//! truths that replays found. Asked of Kaniko since 2019, and answered with guesses.
//!
//! Writes docs/question.md and the part of the README between its marks. Needs neither root nor
//! Kaniko, but for `--build`.

mod built;
mod needs;
mod page;

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use kcap::combine::check::NAMED;
use kcap::combine::{Matrix, Profile, merge};
use kcap::input::{self, Keep};

use crate::corpus::{self, Expect, Subject};
use crate::lab::capabilities::{self, Set};
use crate::sh;
use crate::truth::record::{Consequence, Truth};
use built::Row;
use needs::{Best, Needs};

/// What builds with whole sets came to.
const SETS: &str = "corpus/sets.jsonl";
/// The page.
const PAGE: &str = "docs/question.md";
/// Dockerfiles whose names begin so are written as ordinary projects write theirs.
const ORDINARY: &str = "x-";
/// Where the short answer stands in the README.
const MARKS: [&str; 2] = [
    "<!-- made by `cargo xtask answer --write` -->\n",
    "<!-- end -->\n",
];
/// Most sets for groups of Dockerfiles.
const PROFILES: NonZeroUsize = NonZeroUsize::new(3).unwrap();

/// What `cargo xtask answer` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write docs/question.md and the answer in README.md
    #[arg(long)]
    write: bool,
    /// Build every Dockerfile with the article's set, Shipwright's and the best six, and compare the
    /// images; written to corpus/sets.jsonl. Needs root and a Kaniko executor
    #[arg(long)]
    build: bool,
    /// With --build: folders of the corpus, in place of all
    #[arg(value_name = "NAME", requires = "build")]
    names: Vec<String>,
}

/// Everything the answer is made of.
struct Data {
    /// Dockerfiles that build, all of them.
    all: Vec<Needs>,
    /// Names of those that do not build with Docker's default set, as they should.
    failing: Vec<String>,
    /// What became of builds without one capability that they need: its number, the Dockerfile's name.
    without: Vec<(usize, String, Consequence)>,
    /// Builds with whole sets.
    rows: Vec<Row>,
    /// Profiles of one traced run each: of the ordinary ones, and of all.
    profiles: [Vec<Profile>; 2],
}

/// Answers.
///
/// # Errors
/// Where something cannot be read, written or built.
pub fn run(args: &Args) -> Result<()> {
    let root = sh::workspace();
    if args.build {
        let mut subjects = subjects(&root, &args.names)?;
        // Those that matter most first, should somebody not have the time.
        subjects.sort_by_key(|subject| !is_ordinary(&subject.name));
        let data = data(&root)?;
        built::build(&subjects, &sets(&data.best()?))?;
    }
    let data = data(&root)?;
    let (text, short) = (page::page(&data)?, page::short(&data)?);
    if !args.write {
        print!("{text}");
        return Ok(());
    }
    let readme = root.join("README.md");
    let whole = fs::read_to_string(&readme).context("cannot read README.md")?;
    let (before, _, after) = split(&whole)?;
    fs::write(&readme, format!("{before}{short}{after}")).context("cannot write README.md")?;
    fs::write(root.join(PAGE), text).with_context(|| format!("cannot write {PAGE}"))?;
    eprintln!("answer: wrote {PAGE} and the answer in README.md");
    Ok(())
}

/// The sets that are built with: the article's, Shipwright's, and the best of six.
fn sets(best: &[Best]) -> Vec<Set> {
    let named = NAMED
        .iter()
        .filter(|named| ["article", "shipwright"].contains(&named.name))
        .map(|named| Set(named.allowed));
    named.chain(best.get(6).map(|best| best.set)).collect()
}

/// Those that build, of those named or of all.
fn subjects(root: &Path, names: &[String]) -> Result<Vec<Subject>> {
    let mut subjects = corpus::subjects(&root.join("corpus"), names)?;
    subjects.retain(|subject| subject.expect == Expect::Success);
    Ok(subjects)
}

fn data(root: &Path) -> Result<Data> {
    let (mut all, mut failing, mut without) = (vec![], vec![], vec![]);
    let mut captures = vec![];
    for subject in corpus::subjects(&root.join("corpus"), &[])? {
        if subject.expect == Expect::Fail {
            failing.push(subject.name);
            continue;
        }
        let name = &subject.name;
        let truth = fs::read(subject.truth())
            .with_context(|| format!("{name}: no truth: run `cargo xtask truth {name}`"))?;
        let truth: Truth = serde_json::from_slice(&truth).with_context(|| name.clone())?;
        all.push(Needs::of(name, &truth).with_context(|| name.clone())?);
        for need in truth.needed {
            let number = capabilities::number(&need.capability).context("no capability")?;
            without.push((number, name.clone(), need.without));
        }
        captures.push((name.clone(), subject.capture()));
    }
    ensure!(!all.is_empty(), "the corpus has no Dockerfile that builds");
    let profiles = |ordinary: bool| -> Result<Vec<Profile>> {
        let wanted = captures
            .iter()
            .filter(|(name, _)| !ordinary || is_ordinary(name));
        let paths: Vec<_> = wanted.map(|(_, path)| path.clone()).collect();
        let builds = input::builds(&paths, Keep::Briefs)?.builds;
        Ok(Matrix::of(merge(builds)).with_profiles(PROFILES).profiles)
    };
    Ok(Data {
        profiles: [profiles(true)?, profiles(false)?],
        rows: built::read(&root.join(SETS))?,
        all,
        failing,
        without,
    })
}

fn is_ordinary(name: &str) -> bool {
    name.starts_with(ORDINARY)
}

impl Data {
    /// All.
    fn every(&self) -> Vec<&Needs> {
        self.all.iter().collect()
    }

    /// Those as ordinary projects write them.
    fn ordinary(&self) -> Vec<&Needs> {
        let all = self.all.iter();
        all.filter(|one| is_ordinary(&one.name)).collect()
    }

    /// Those made to provoke.
    fn provoking(&self) -> Vec<&Needs> {
        let all = self.all.iter();
        all.filter(|one| !is_ordinary(&one.name)).collect()
    }

    /// The best sets over all.
    fn best(&self) -> Result<Vec<Best>> {
        needs::best(&self.every())
    }
}

/// What stands before the answer in a README, the answer, and what stands after it.
fn split(readme: &str) -> Result<(&str, &str, &str)> {
    let [open, close] = MARKS;
    let begin = readme
        .find(open)
        .context("README.md has no mark for the answer")?
        + open.len();
    let end = readme[begin..]
        .find(close)
        .context("README.md has no mark after the answer")?;
    let (before, rest) = readme.split_at(begin);
    let (answer, after) = rest.split_at(end);
    Ok((before, answer, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_and_readme_say_what_the_truths_say() {
        let root = sh::workspace();
        let data = data(&root).unwrap();
        let told = "is old: run `cargo xtask answer --write`";
        let written = fs::read_to_string(root.join(PAGE)).unwrap();
        assert!(written == page::page(&data).unwrap(), "{PAGE} {told}");
        let readme = fs::read_to_string(root.join("README.md")).unwrap();
        let (_, answer, _) = split(&readme).unwrap();
        assert!(answer == page::short(&data).unwrap(), "README.md {told}");
    }

    #[test]
    fn builds_with_whole_sets_are_of_what_is_there_now() {
        let root = sh::workspace();
        let rows = built::read(&root.join(SETS)).unwrap();
        for subject in subjects(&root, &[]).unwrap() {
            let inputs = subject.inputs().unwrap();
            for row in rows.iter().filter(|row| row.name == subject.name) {
                assert_eq!(
                    row.inputs, inputs,
                    "{}: run `cargo xtask answer --build`",
                    row.name
                );
            }
        }
    }
}
