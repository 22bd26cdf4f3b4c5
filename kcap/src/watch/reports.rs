//! Sessions that are over: each is interpreted, and its report sent on its way; what becomes of that is
//! told.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    events::What,
    lines::{Teller, line, number},
    metrics,
    metrics::with,
    owners::Owners,
    place,
    queue::{Fate, Hear, Item, Queue},
    refusals::refusals,
};
use crate::{
    capture,
    interpret::interpret,
    record::Over,
    render::{self, Format, Style},
    report::Report,
};

/// How long a report waits for whose it is.
const WHOSE: Duration = Duration::from_secs(10);

/// From sessions to reports on their way.
pub struct Reports {
    owners: Arc<Owners>,
    queue: Option<Queue>,
    captures: bool,
    /// Bytes of sessions that wait to be interpreted.
    waiting: AtomicUsize,
    most: usize,
    lines: Teller,
    metrics: metrics::Shared,
    say: fn(&str),
}

impl Reports {
    /// Of none yet. They go to `queue`, where there is one, with their `captures` where these are wanted;
    /// sessions of `most` bytes may wait to be interpreted.
    pub fn new(
        owners: Arc<Owners>,
        queue: Option<Queue>,
        captures: bool,
        most: usize,
        lines: Teller,
        metrics: metrics::Shared,
        say: fn(&str),
    ) -> Self {
        Self {
            owners,
            queue,
            captures,
            waiting: AtomicUsize::new(0),
            most,
            lines,
            metrics,
            say,
        }
    }

    /// Where they wait to be written.
    pub fn queue(&self) -> Option<&Queue> {
        self.queue.as_ref()
    }

    /// Makes room for a session until [`Reports::report`] has it; where there is none, it is lost.
    pub fn admit(&self, id: u64, over: &Over) -> bool {
        let size = over.size();
        let waiting = self.waiting.fetch_add(size, Ordering::Relaxed);
        if waiting > 0 && waiting + size > self.most {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
            self.lose(id, String::new(), "too many sessions end at once".into());
            return false;
        }
        true
    }

    /// Interprets a session that was admitted, and sends its report on its way.
    pub fn report(&self, id: u64, over: Box<Over>) {
        let size = over.size();
        let made = panic::catch_unwind(AssertUnwindSafe(|| self.made(id, over)));
        self.waiting.fetch_sub(size, Ordering::Relaxed);
        let (report, capture, over_bounds) = match made {
            Ok(Some(made)) => made,
            Ok(None) => return,
            Err(_) => {
                let why = "it cannot be interpreted: please report it";
                return self.lose(id, String::new(), why.into());
            }
        };
        self.count(&report, over_bounds);
        let identity = report.subject.identity.clone().unwrap_or_default();
        for refusal in refusals(&report) {
            with(&self.metrics, |metrics| {
                metrics.refusals[usize::from(!refusal.failed)] += 1;
            });
            self.lines.tell(What::Refused {
                session: number(id),
                identity: identity.clone(),
                dockerfile: report.subject.dockerfile.clone(),
                refusal,
            });
        }
        let name = place::name(&report, id);
        let said = What::Report {
            session: number(id),
            name: self.queue.is_some().then(|| name.clone()),
            identity,
            dockerfile: report.subject.dockerfile.clone(),
            exit_status: report.subject.exit_status,
            complete: report.complete,
            loss: report.loss.clone(),
            required: report.required.clone(),
            unsure: report.unsure.clone(),
            checks: report.checks,
            late: report.subject.late,
            interrupted: report.interrupted,
            over_bounds,
        };
        let Some(queue) = &self.queue else {
            self.lines.tell(said);
            return;
        };
        let mut items = vec![];
        if let Some(bytes) = capture {
            let name = match name.strip_suffix(".json") {
                Some(name) => format!("{name}.kcap"),
                None => name.clone(),
            };
            items.push(Item {
                name,
                bytes,
                line: None,
                session: id,
                tries: 0,
            });
        }
        let mut bytes = vec![];
        if let Err(why) = render::write(&report, Format::Json, Style::default(), &mut bytes) {
            return self.lose(id, name, why.to_string());
        }
        items.push(Item {
            name,
            bytes,
            line: Some(line(said)),
            session: id,
            tries: 0,
        });
        for item in items {
            for out in queue.push(item) {
                self.lose(
                    out.session,
                    out.name,
                    "reports wait, and there is no room for more".into(),
                );
            }
        }
    }

    /// The report of a session, and its capture where that is wanted.
    fn made(&self, id: u64, over: Box<Over>) -> Option<(Report, Option<Vec<u8>>, bool)> {
        let identity = self.owners.take(id, Instant::now() + WHOSE)?;
        let over_bounds = over.is_over_bounds();
        let mut capture = over.capture(&mut |line| (self.say)(&line));
        capture.subject.identity = Some(identity);
        let report = interpret(&capture);
        let mut bytes = self.captures.then(Vec::new);
        if let Some(bytes) = &mut bytes
            && let Err(why) = capture::write(&capture, bytes)
        {
            (self.say)(&format!("a capture cannot be written: {why:#}"));
        }
        Some((report, bytes, over_bounds))
    }

    fn count(&self, report: &Report, over_bounds: bool) {
        with(&self.metrics, |metrics| {
            let result = match report.subject.exit_status {
                Some(0) => 0,
                Some(_) => 1,
                None => 2,
            };
            metrics.builds[result] += 1;
            metrics.checks += report.checks;
            metrics.incomplete += u64::from(!report.complete);
            metrics.over_bounds += u64::from(over_bounds);
        });
    }

    fn lose(&self, id: u64, name: String, why: String) {
        with(&self.metrics, |metrics| metrics.lost += 1);
        self.lines.tell(lost(id, name, why));
    }
}

/// What is said of reports on their way.
pub fn hear(lines: Teller, metrics: metrics::Shared, say: fn(&str)) -> Hear {
    let mut delayed = false;
    Box::new(move |fate| match fate {
        Fate::Written(item) => {
            if std::mem::take(&mut delayed) {
                say("reports are written again");
            }
            if let Some(line) = item.line {
                with(&metrics, |metrics| metrics.written += 1);
                lines.write(&line);
            }
        }
        Fate::Lost(item, why) => {
            with(&metrics, |metrics| metrics.lost += 1);
            lines.tell(lost(item.session, item.name, why));
        }
        Fate::Delayed(why) => {
            with(&metrics, |metrics| metrics.delayed += 1);
            if !std::mem::replace(&mut delayed, true) {
                say(&format!("{why}; reports wait, and are tried again"));
            }
        }
        Fate::Pruned(pruned) => say(&format!(
            "removed {} old reports of {} bytes",
            pruned.reports, pruned.bytes
        )),
        Fate::NotPruned(why) => say(&format!("{why}; old reports stay")),
    })
}

fn lost(session: u64, name: String, why: String) -> What {
    What::Lost {
        session: number(session),
        name,
        why,
    }
}
