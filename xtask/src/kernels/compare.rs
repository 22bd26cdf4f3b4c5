//! What the builds come to, set beside each other: pure counting.

use std::collections::{BTreeMap, BTreeSet};

use kcap::report::Verdict;

use super::plan;
use super::row::{Row, Rows, Said, Stopped};

/// A capability that one run's report requires and another's does not.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The run that is held against [`plan::BASE`].
    pub run: String,
    /// The Dockerfile.
    pub name: String,
    /// The capability.
    pub capability: String,
    /// The run has it, and the base has not; otherwise the other way round.
    pub more: bool,
    /// What the base says of it, where it was asked for.
    pub base: Option<Said>,
    /// What the run says of it, where it was asked for.
    pub here: Option<Said>,
}

impl Difference {
    /// It is only in the run, or only in the base, as one that is unsure.
    pub fn unsure(&self) -> bool {
        let said = if self.more { &self.here } else { &self.base };
        said.as_ref()
            .is_some_and(|said| said.verdict == Verdict::Unsure)
    }
}

/// A run held against the base.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Builds of both.
    pub builds: usize,
    /// With the same `required`.
    pub same: usize,
    /// And the same `unsure` in it.
    pub same_unsure: usize,
    /// Of which nothing was lost.
    pub complete: usize,
    /// Kernels, hooks and preemption modes met.
    pub hosts: BTreeSet<(String, String, String)>,
    /// What differs.
    pub differences: Vec<Difference>,
}

/// The rows of a run, by Dockerfile.
pub fn of<'a>(rows: &'a Rows, run: &str) -> BTreeMap<&'a str, &'a Row> {
    (rows.values().filter(|row| row.run == run))
        .map(|row| (row.name.as_str(), row))
        .collect()
}

/// Holds a run against the base.
pub fn against_base(rows: &Rows, run: &str) -> Held {
    let mut held = Held::default();
    let base = of(rows, plan::BASE.name);
    for (name, row) in of(rows, run) {
        let host = (&row.kernel, &row.hook, &row.preemption);
        held.hosts
            .insert((host.0.clone(), host.1.clone(), host.2.clone()));
        let Some(base) = base.get(name) else { continue };
        held.builds += 1;
        held.complete += usize::from(row.complete);
        held.same += usize::from(row.required == base.required);
        held.same_unsure += usize::from(row.required == base.required && row.unsure == base.unsure);
        let (ours, theirs): (BTreeSet<_>, BTreeSet<_>) = (
            row.required.iter().collect(),
            base.required.iter().collect(),
        );
        for cap in ours.symmetric_difference(&theirs) {
            held.differences.push(Difference {
                run: run.to_owned(),
                name: name.to_owned(),
                capability: (*cap).clone(),
                more: ours.contains(cap),
                base: base.said.get(*cap).cloned(),
                here: row.said.get(*cap).cloned(),
            });
        }
    }
    held
}

/// What a Dockerfile is known to need: capabilities, or groups of which any one does.
pub type Needs = BTreeMap<String, Vec<Vec<String>>>;

/// A build that was stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct End<'a> {
    /// What was built.
    pub row: &'a Row,
    /// What the report names as what stopped it, and replays know as a need; of the rest of what it
    /// names nothing is known.
    pub named: Vec<&'a Stopped>,
}

/// Builds with less than they need, that succeed under the base's set.
#[derive(Clone, Debug, Default)]
pub struct Lacking<'a> {
    /// All.
    pub builds: usize,
    /// Those that went through: with the needs that their reports leave out.
    pub through: Vec<(&'a Row, Vec<String>)>,
    /// Those that did not.
    pub stopped: Vec<End<'a>>,
}

/// Counts a run with less.
pub fn lacking<'a>(rows: &'a Rows, run: &str, needs: &Needs) -> Lacking<'a> {
    let mut all = Lacking::default();
    let base = of(rows, plan::BASE.name);
    for (name, row) in of(rows, run) {
        let needs = match (base.get(name), needs.get(name)) {
            (Some(base), Some(needs)) if base.exit == Some(0) => needs,
            _ => continue,
        };
        all.builds += 1;
        if row.exit == Some(0) {
            let missing = (needs.iter())
                .filter(|any_of| any_of.iter().all(|cap| !row.required.contains(cap)))
                .map(|any_of| any_of.join(" or "));
            all.through.push((row, missing.collect()));
        } else {
            let known = |s: &&Stopped| needs.iter().flatten().any(|cap| *cap == s.capability);
            all.stopped.push(End {
                row,
                named: row.stopped.iter().filter(known).collect(),
            });
        }
    }
    all
}

#[cfg(test)]
pub mod tests {
    use kcap::report::Because;

    use super::*;

    /// A row with these capabilities required, all of them needed and used.
    pub fn row(run: &str, name: &str, exit: i32, required: &[&str]) -> Row {
        let said = |cap: &&str| {
            let said = Said {
                verdict: Verdict::Needed,
                because: Because::Used,
                rules: BTreeSet::from(["used (line 2, RUN)".to_owned()]),
            };
            ((*cap).to_owned(), said)
        };
        Row {
            run: run.to_owned(),
            name: name.to_owned(),
            kernel: "6.18".to_owned(),
            hook: "tp_btf".to_owned(),
            preemption: "full".to_owned(),
            exit: Some(exit),
            ended: (exit != 0).then(|| "line 2, RUN".to_owned()),
            complete: true,
            lost: None,
            required: required.iter().map(|cap| (*cap).to_owned()).collect(),
            unsure: Vec::new(),
            said: required.iter().map(said).collect(),
            stopped: Vec::new(),
        }
    }

    pub fn rows(list: Vec<Row>) -> Rows {
        list.into_iter()
            .map(|row| ((row.run.clone(), row.name.clone()), row))
            .collect()
    }

    pub fn stopped(capability: &str) -> Stopped {
        Stopped {
            capability: capability.to_owned(),
            because: Because::Refused,
            program: "/bin/chown".to_owned(),
            syscall: Some("fchownat".to_owned()),
            outcome: Some("EPERM".to_owned()),
        }
    }

    #[test]
    fn differences_go_both_ways() {
        let mut unsure = row("all", "b", 0, &["KILL"]);
        unsure.said.get_mut("KILL").unwrap().verdict = Verdict::Unsure;
        let rows = rows(vec![
            row("default", "a", 0, &["CHOWN", "KILL"]),
            row("default", "b", 0, &[]),
            row("default", "c", 0, &["CHOWN"]),
            row("all", "a", 0, &["CHOWN", "SETUID"]),
            unsure,
            row("all", "c", 0, &["CHOWN"]),
            row("all", "not-in-base", 0, &["CHOWN"]),
        ]);
        let held = against_base(&rows, "all");
        assert_eq!((held.builds, held.same, held.complete), (3, 1, 3));
        let short = |d: &Difference| (d.name.clone(), d.capability.clone(), d.more, d.unsure());
        let found: Vec<_> = held.differences.iter().map(short).collect();
        let of =
            |name: &str, cap: &str, more, unsure| (name.to_owned(), cap.to_owned(), more, unsure);
        assert_eq!(
            found,
            [
                of("a", "KILL", false, false),
                of("a", "SETUID", true, false),
                of("b", "KILL", true, true)
            ]
        );
    }

    #[test]
    fn a_stopped_build_is_named_only_by_what_replays_know() {
        let (mut right, mut wrong) = (row("none", "a", 1, &["CHOWN"]), row("none", "b", 1, &[]));
        right.stopped = vec![stopped("CHOWN"), stopped("MKNOD")];
        wrong.stopped = vec![stopped("MKNOD")];
        let rows = rows(vec![
            row("default", "a", 0, &[]),
            row("default", "b", 0, &[]),
            row("default", "fails", 1, &[]),
            row("default", "through", 0, &[]),
            right,
            wrong,
            row("none", "fails", 1, &[]),
            row("none", "through", 0, &["FOWNER"]),
        ]);
        let needs = ["a", "b", "fails", "through"].map(|name| {
            let needs = ["CHOWN", "FOWNER"].map(|cap| vec![cap.to_owned()]);
            (name.to_owned(), needs.to_vec())
        });
        let all = lacking(&rows, "none", &Needs::from(needs));
        assert_eq!(all.builds, 3, "one fails anyway");
        let named: Vec<usize> = all.stopped.iter().map(|end| end.named.len()).collect();
        assert_eq!(named, [1, 0]);
        assert_eq!(all.through[0].1, ["CHOWN"]);
    }
}
