//! From what was taken to a capture: counts of one key are put together, all is sorted, addresses get
//! names, and secrets are masked.

use std::collections::{BTreeMap, HashMap, btree_map::Entry};

use kcap_common::abi::{
    Key,
    key::{NO_CAP, NO_SYSCALL},
    loss, record,
};

use super::{Assembler, text};
use crate::{
    capture::{Capture, Evidence, FileCaps, Frame, Loss, Origin, Tally, Unasked},
    record::{kernel::Finish, mask::Mask},
};

/// Names addresses of kernel functions.
type Symbolize<'a> = dyn FnMut(&[u64]) -> HashMap<u64, (String, u64)> + 'a;

impl Assembler {
    /// Gives the programs, tallies, samples, log and losses, sorted, without what `mask` hides; the
    /// caller fills in the rest. Counts left in the kernel were taken before.
    pub fn finish(mut self, end: &Finish, mask: &Mask, symbolize: &mut Symbolize<'_>) -> Capture {
        let named: Vec<u32> = self.tallies.keys().map(|k| k.program).collect();
        for id in named {
            self.known(id);
        }
        self.inherit_paths();

        let mut merged: BTreeMap<Key, Tally> = BTreeMap::new();
        for (key, n) in &self.tallies {
            let bare = Key { outcome: 0, ..*key };
            let tally = match merged.entry(bare) {
                Entry::Occupied(o) => o.into_mut(),
                Entry::Vacant(v) => v.insert(tally(&bare)),
            };
            if key.outcome == 0 {
                tally.count += n;
            } else {
                *tally.failed.entry(key.outcome).or_default() += n;
            }
        }
        let index: HashMap<Key, u32> = merged
            .keys()
            .enumerate()
            .map(|(i, k)| (*k, i as u32))
            .collect();

        let evidence = self.samples(&index, symbolize);
        let unasked = self.needs(&index);
        for (id, mut argv) in std::mem::take(&mut self.arguments) {
            for arg in &mut argv.args {
                mask.hide(arg);
            }
            self.known(id).argv = Some(argv);
        }
        for line in &mut self.log {
            mask.hide(&mut line.text);
            mask.hide_assignment(&mut line.text);
        }
        self.log.sort_by_key(|line| (line.time_ns, line.program));
        let loss = self.loss(end);
        Capture {
            programs: self.programs.into_values().collect(),
            tallies: merged.into_values().collect(),
            evidence,
            unasked,
            log: self.log,
            loss,
            ..Capture::default()
        }
    }

    /// Samples with their call paths, by time. `index`: places of tallies, by keys without an outcome.
    fn samples(&self, index: &HashMap<Key, u32>, symbolize: &mut Symbolize<'_>) -> Vec<Evidence> {
        let mut wanted: Vec<u64> = self
            .evidence
            .iter()
            .flat_map(|e| {
                e.stack[..(e.depth as usize).min(e.stack.len())]
                    .iter()
                    .copied()
            })
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        let symbols = symbolize(&wanted);

        let mut evidence: Vec<Evidence> = self
            .evidence
            .iter()
            .filter_map(|e| {
                Some(Evidence {
                    tally: *index.get(&Key {
                        outcome: 0,
                        ..e.key
                    })?,
                    time_ns: self.since(e.time),
                    tid: e.tid,
                    comm: text(&e.comm),
                    args: e.args,
                    target_ns: e.target_ns.into(),
                    path: frames(e, &symbols),
                })
            })
            .collect();
        evidence.sort_by_key(|e| (e.time_ns, e.tally));
        evidence
    }

    /// Needs that nothing asked for, by time.
    fn needs(&self, index: &HashMap<Key, u32>) -> Vec<Unasked> {
        let mut needs: Vec<Unasked> = self
            .unasked
            .iter()
            .filter_map(|(u, file)| {
                let mut lacking = u.lacking;
                if let Some(FileCaps::Has { permitted, .. }) = file {
                    lacking |= permitted & !u.bounding;
                }
                let len = (u.len as usize).min(u.detail.len());
                Some(Unasked {
                    tally: *index.get(&Key {
                        outcome: 0,
                        ..u.key
                    })?,
                    time_ns: self.since(u.time),
                    pid: u.tgid,
                    args: u.args,
                    lacking,
                    bounding: u.bounding,
                    detail: text(&u.detail[..len]),
                    file: file.clone(),
                })
            })
            .collect();
        needs.sort_by_key(|u| (u.time_ns, u.tally));
        needs
    }

    /// A forked child runs its parent's program until it executes another.
    fn inherit_paths(&mut self) {
        let ids: Vec<u32> = self.programs.keys().copied().collect();
        for id in ids {
            let mut at = id;
            // Bounded: parents could name each other in a hostile or damaged trace.
            for _ in 0..self.programs.len() {
                let p = &self.programs[&at];
                if !matches!(p.origin, Origin::Fork | Origin::Phase) || !p.path.is_empty() {
                    break;
                }
                match p.parent.filter(|parent| self.programs.contains_key(parent)) {
                    Some(parent) => at = parent,
                    None => break,
                }
            }
            if at != id {
                let from = &self.programs[&at];
                let (path, cut, comm, executor) = (
                    from.path.clone(),
                    from.path_cut,
                    from.comm.clone(),
                    from.executor,
                );
                let p = self.known(id);
                p.path = path;
                p.path_cut = cut;
                p.executor = executor;
                if p.comm.is_empty() {
                    p.comm = comm;
                }
            }
        }
    }

    fn loss(&self, end: &Finish) -> Loss {
        let counter = |what: u32| end.loss.get(what as usize).copied().unwrap_or(0);
        let lost_programs = self
            .programs
            .values()
            .filter(|p| p.origin == Origin::Lost)
            .count() as u64;
        Loss {
            checks: counter(loss::CHECKS) + self.strays,
            outcomes: counter(loss::OUTCOMES) + self.lost_outcomes,
            evidence: counter(loss::EVIDENCE) + self.dropped + self.unknown,
            execs: (counter(loss::EXECS) + counter(loss::SCOPE)).max(lost_programs + self.strayed),
            skipped: end.skipped.clone(),
            file_caps: self.unread,
            unasked: counter(loss::UNASKED),
            unproven: end.unproven.clone(),
        }
    }
}

fn tally(key: &Key) -> Tally {
    Tally {
        program: key.program,
        slice: key.slice,
        cap: (key.cap != NO_CAP).then_some(key.cap),
        result: key.result,
        syscall: (key.syscall != NO_SYSCALL).then_some(key.syscall),
        abi: key.abi,
        class: key.class,
        flags: key.flags,
        creds: key.creds,
        target_level: key.target_level,
        creds_level: key.creds_level,
        site: key.site,
        unasked: key.unasked,
        count: 0,
        failed: BTreeMap::new(),
    }
}

/// The call path without the frames of BPF itself.
fn frames(e: &record::Evidence, symbols: &HashMap<u64, (String, u64)>) -> Vec<Frame> {
    let depth = (e.depth as usize).min(e.stack.len());
    let all = e.stack[..depth].iter().map(|&address| {
        let (symbol, offset) = match symbols.get(&address) {
            Some((s, o)) => (Some(s.clone()), *o),
            None => (None, 0),
        };
        Frame {
            address,
            symbol,
            offset,
        }
    });
    all.skip_while(|f| {
        f.symbol.as_deref().is_some_and(|s| {
            s.starts_with("bpf_") || s.starts_with("__bpf_") || s.contains("_bpf_trace_run")
        })
    })
    .collect()
}
