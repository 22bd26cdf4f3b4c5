//! What the page's script is given: the model of the page, as JSON. It holds no more than the page
//! shows, every text is safe to show, and what repeats is there once.

use std::collections::HashMap;
use std::hash::Hash;

use serde::Serialize;

/// Place of a text in [`Page::strings`].
pub type Text = u32;

/// The whole page.
#[derive(Debug, Serialize)]
pub struct Page {
    /// It is about one report, whose answer is in the page already.
    pub one: bool,
    /// Capabilities that the page names.
    pub caps: Vec<CapText>,
    /// Capabilities of the matrix's columns, as places in `caps`.
    pub columns: Vec<usize>,
    /// Dockerfiles, in the order of the rows.
    pub rows: Vec<Row>,
    /// Texts that others name by their place.
    pub strings: Vec<String>,
    /// Call paths in the kernel, innermost first, of texts.
    pub paths: Vec<Vec<Text>>,
}

/// What holds for a capability whatever the build.
#[derive(Debug, Serialize)]
pub struct CapText {
    /// Its name.
    pub name: String,
    /// What the kernel lets its holder do.
    pub allows: &'static str,
    /// What is known to break without an error.
    pub silent: Option<&'static str>,
}

/// One Dockerfile.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its path.
    pub name: String,
    /// What became of its build, in a few words.
    pub status: String,
    /// It succeeded, and nothing was lost.
    pub good: bool,
    /// A letter for each column: [`letter`].
    pub cells: String,
    /// What is known of it beyond the row; null where the page has no more.
    pub detail: Option<Detail>,
    /// Why there is no more, or not all.
    pub left: Option<String>,
}

/// A report, as far as the page has it.
#[derive(Debug, Serialize)]
pub struct Detail {
    /// What to read first; null where there is no room for it.
    pub answer: Option<Answer>,
    /// Parts of the build, in their order.
    pub steps: Vec<Step>,
    /// Capabilities that were asked for, or needed unasked.
    pub caps: Vec<Capability>,
    /// Replays.
    pub trials: Vec<Trial>,
}

/// What to read first of a report.
#[derive(Debug, Default, Serialize)]
pub struct Answer {
    /// How the build ended, and how well it was seen.
    pub status: String,
    /// What is needed for sure.
    pub sure: Vec<String>,
    /// What is unsure, and counted as needed.
    pub unsure: Vec<String>,
    /// `at least` where something was lost, else empty.
    pub at_least: &'static str,
    /// What of today's set would go.
    pub drops: Option<String>,
    /// What stands out: loss, failures.
    pub warnings: Vec<Fact>,
    /// The line to paste; null where something was lost.
    pub apply: Option<String>,
    /// Where each is needed.
    pub needs: Vec<Need>,
    /// Capabilities that a small change would avoid, and what.
    pub short: Vec<(String, String)>,
    /// What else is to be said.
    pub facts: Vec<Fact>,
    /// Last lines of the executor's log, where the build did not succeed.
    pub log: Vec<String>,
}

/// A sentence under a heading.
#[derive(Debug, Serialize)]
pub struct Fact {
    /// `bad`, `unsure`, `good`, or empty.
    pub tone: &'static str,
    /// The heading, a word or two.
    pub label: &'static str,
    /// The sentence.
    pub text: String,
}

/// Capabilities that are needed in the same place for the same reason.
#[derive(Debug, Serialize)]
pub struct Need {
    /// Their names.
    pub caps: Vec<String>,
    /// One run cannot settle it.
    pub unsure: bool,
    /// Lines of the Dockerfile, the one that weighs most first.
    pub lines: Vec<u32>,
    /// Lines left out.
    pub more: usize,
    /// What asks.
    pub why: String,
    /// What a build without them would come to.
    pub without: String,
    /// As of [`Fact`].
    pub tone: &'static str,
    /// What would avoid them.
    pub avoid: Vec<String>,
}

/// A part of the build.
#[derive(Debug, Serialize)]
pub struct Step {
    /// Its index in the report.
    pub index: u32,
    /// Line of the Dockerfile.
    pub line: Option<u32>,
    /// Build stage.
    pub stage: Option<u32>,
    /// Lower-case instruction, or phase.
    pub kind: Text,
    /// It is an instruction of the Dockerfile, not the executor's work around one.
    pub instruction: bool,
    /// Its text; of the executor's work, without the instruction that it is about.
    pub text: Text,
    /// `ran`, `cached`, `skipped`, `unreached`.
    pub state: Text,
    /// What its checks hold beside it, where nothing tells them apart.
    pub holds: Option<Text>,
    /// Checks in it.
    pub checks: u64,
    /// What it requires, as places in [`Page::caps`].
    pub required: Vec<usize>,
}

/// A capability in a build.
#[derive(Debug, Serialize)]
pub struct Capability {
    /// Its place in [`Page::caps`].
    pub cap: usize,
    /// [`letter`] of its verdict.
    pub verdict: char,
    /// It is in the set to allow.
    pub required: bool,
    /// Checks, and of these refused.
    pub checks: u64,
    /// Of the checks, refused.
    pub denied: u64,
    /// Decisions without a check.
    pub unasked: u64,
    /// Steps that asked, and how often each.
    pub steps: Vec<(u32, u64)>,
    /// The verdict in a sentence.
    pub summary: Text,
    /// What a build without it would come to, in a few words and in a sentence.
    pub without: (Text, Text),
    /// As of [`Fact`].
    pub tone: &'static str,
    /// What would avoid it.
    pub avoid: Vec<Text>,
    /// Capabilities that would do in its place.
    pub alternatives: Vec<usize>,
    /// How a replay without it ended.
    pub proof: Option<Proof>,
    /// What building again would settle.
    pub replay: Text,
    /// In a pod with `hostUsers: false`.
    pub userns: Text,
    /// Public cases of the same: source and what.
    pub known: Vec<(Text, Text)>,
    /// What limits all this.
    pub notes: Vec<Text>,
    /// Checks by where they were made, weightiest first.
    pub evidence: Vec<Evidence>,
    /// Kinds of checks that are not in the page.
    pub more: usize,
}

/// How a replay without a capability ended.
#[derive(Debug, Serialize)]
pub struct Proof {
    /// `failed`, `changed`, `same`.
    pub outcome: String,
    /// What was different.
    pub detail: String,
    /// Index of the step where it shows.
    pub step: Option<u32>,
    /// What the build shrugged off.
    pub tolerated: Vec<String>,
}

/// A replay.
#[derive(Debug, Serialize)]
pub struct Trial {
    /// What it was for.
    pub purpose: Text,
    /// The set it ran with.
    pub set: String,
    /// What came of it.
    pub outcome: Text,
    /// What differed.
    pub differs: Vec<Text>,
}

/// Checks of one kind: step (null where it is not known), count, `true` granted (null without a
/// check), [`letter`], system call, outcome, program, call path, reason. A list, since a page has
/// many.
pub type Evidence = (
    Option<u32>,
    u64,
    Option<bool>,
    char,
    Option<Text>,
    Option<Text>,
    Text,
    Option<u32>,
    Text,
);

/// What each letter is: the page explains them.
pub fn letter(verdict: Option<crate::report::Verdict>) -> char {
    use crate::report::Verdict;
    match verdict {
        Some(Verdict::Needed) => 'N',
        Some(Verdict::Unsure) => '?',
        Some(Verdict::Unneeded) => '.',
        None => ' ',
    }
}

/// A list in which each value is once, and what was added last can be taken back.
#[derive(Debug)]
pub struct Once<T> {
    list: Vec<T>,
    places: HashMap<T, u32>,
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            places: HashMap::new(),
        }
    }
}

impl<T: Clone + Eq + Hash> Once<T> {
    /// The place of a value, which is added where it is new.
    pub fn place(&mut self, value: T) -> u32 {
        if let Some(place) = self.places.get(&value) {
            return *place;
        }
        let place = u32::try_from(self.list.len()).expect("a page is far smaller");
        self.list.push(value.clone());
        self.places.insert(value, place);
        place
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Those from that place on.
    pub fn since(&self, place: usize) -> &[T] {
        &self.list[place..]
    }

    /// Takes back all from that place on.
    pub fn cut(&mut self, place: usize) {
        for value in self.list.drain(place..) {
            self.places.remove(&value);
        }
    }

    /// The values, by place.
    pub fn into_list(self) -> Vec<T> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_once_and_what_was_last_can_go() {
        let mut once = Once::default();
        assert_eq!(
            [once.place("a"), once.place("b"), once.place("a")],
            [0, 1, 0]
        );
        let mark = once.len();
        assert_eq!([once.place("c"), once.place("b")], [2, 1]);
        assert_eq!(once.since(mark), ["c"]);
        once.cut(mark);
        assert_eq!(once.place("d"), 2);
        assert_eq!(once.into_list(), ["a", "b", "d"]);
    }
}
