//! From checks to verdicts: one row a rule, the first that applies decides. The order is part of
//! the rules: where a question was asked, then what its answer changes, then what became of it.
//! Recall comes first: a rule answers `unneeded` only where nothing can depend on the answer.
//!
//! `table` is the table, `asks` what its rows ask of some checks, `stated` the rows for what the
//! kernel decides without a check.

mod asks;
pub mod stated;
mod table;
#[cfg(test)]
mod tests;

use kcap_common::abi::key::site;

use super::facts::Facts;
use crate::report::Because;
use crate::report::Verdict;
pub use table::RULES;

/// A row of the table.
pub struct Rule {
    /// How documentation, reports and tests name it.
    pub name: &'static str,
    /// What the checks are to the build.
    pub verdict: Verdict,
    /// The mechanism.
    pub because: Because,
    /// One sentence for people.
    pub reason: &'static str,
    /// What of the kernel or of a program makes it true.
    pub relies: &'static str,
    /// An example of what it decides.
    pub decides: &'static str,
    /// A like example that it does not decide.
    pub leaves: &'static str,
    /// Where it can be wrong.
    pub wrong: &'static str,
    /// Kernel functions whose behaviour makes it true. Where a sampled call path passes none of
    /// them the rule does not hold for all checks of its key, and the answer is
    /// [`OUTSIDE`].
    pub functions: &'static [&'static str],
    applies: fn(&Facts<'_>) -> bool,
}

/// What a rule becomes where a sample contradicts it.
pub static OUTSIDE: Rule = Rule {
    name: "outside",
    verdict: Verdict::Unsure,
    because: Because::Unseen,
    reason: "a sampled call path is not one that this question is known from",
    relies: "the rule that would have decided names its functions; none is in the sample",
    decides: "a mapping that asks for SYS_ADMIN in `vfio_mmap`",
    leaves: "one that asks in `cap_vm_enough_memory`",
    wrong: "samples are few: a path that was not sampled is not missed here",
    functions: &[],
    applies: |_| true,
};

/// The rule that decides: the first that applies.
pub fn decide(facts: &Facts<'_>) -> &'static Rule {
    let rule = RULES
        .iter()
        .find(|rule| (rule.applies)(facts))
        .unwrap_or(&OUTSIDE);
    // A check inlined into its caller was accounted there: its call path starts above it.
    let inlined = facts.tally.site != site::CAPABLE;
    if !rule.functions.is_empty() && !inlined && facts.sampled_outside(rule.functions) {
        return &OUTSIDE;
    }
    rule
}

/// Every rule, in the order in which they are tried; those for what asks nothing come last.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    RULES.iter().chain([&OUTSIDE]).chain(stated::RULES)
}
