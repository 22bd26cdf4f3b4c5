//! What people see while replays run, on standard error; and what becomes of proofs that have ended.

use std::{
    io::{self, IsTerminal as _, Write},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    cli::{
        LONGEST_LINE,
        build::{log::message, progress::Show, results::Results},
        is_broken_pipe,
    },
    combine::{Build, Status},
    interpret::steps::line::without_ansi,
    launch::Request,
    prove::{
        account::names,
        driver::{Subject, Watch},
        judge::Came,
        planner::{Purpose, Set, Trial},
        proof::Proof,
    },
    record::Event,
    render::{
        duration,
        escape::{head, tail},
    },
    report::{Proven, Report},
};

/// Most columns of a Dockerfile's path in front of a line.
const NAME: usize = 40;
/// Most columns of what a replay came to.
const DETAIL: usize = 200;
/// How often a live line's time moves on.
const TICK: Duration = Duration::from_secs(1);

/// Where lines go.
pub struct Progress {
    show: Show,
    live: Option<MultiProgress>,
    bars: Vec<Option<ProgressBar>>,
}

impl Progress {
    /// On standard error.
    pub fn new(show: Show) -> Self {
        let live = (show != Show::Errors && io::stderr().is_terminal())
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        Self {
            show,
            live,
            bars: vec![],
        }
    }

    /// A line where progress is shown.
    pub fn note(&mut self, what: &str) {
        if self.show != Show::Errors {
            self.say(what);
        }
    }

    /// A line that is always shown, escaped and bounded.
    pub fn say(&mut self, what: &str) {
        self.line(&format!("kcap: {what}"));
    }

    fn line(&mut self, line: &str) {
        let line = head(&line.replace('\n', " "), LONGEST_LINE);
        // Nothing can be done where standard error is closed.
        let _ = match &self.live {
            None => writeln!(io::stderr(), "{line}"),
            Some(live) => live.println(line),
        };
    }

    /// What a subject does now, on its live line.
    fn doing(&mut self, subject: usize, text: &str) {
        let Some(live) = &self.live else {
            return;
        };
        if self.bars.len() <= subject {
            self.bars.resize(subject + 1, None);
        }
        let bar = self.bars[subject].get_or_insert_with(|| {
            let template = ProgressStyle::with_template("{elapsed:>5} {wide_msg}");
            let style = template.expect("the template is one");
            let bar = live.add(ProgressBar::new_spinner().with_style(style));
            bar.enable_steady_tick(TICK);
            bar
        });
        bar.set_message(head(text, LONGEST_LINE));
    }

    fn done(&mut self, subject: usize) {
        if let (Some(live), Some(Some(bar))) = (&self.live, self.bars.get_mut(subject)) {
            bar.finish_and_clear();
            live.remove(bar);
        }
    }
}

/// Proofs while they run, and what became of them.
pub struct Outcomes<'a> {
    /// Where lines go.
    pub progress: Progress,
    /// By subject: the position of its Dockerfile among all, and its path as shown.
    pub shown: Vec<(usize, String)>,
    /// By position; `None` as long as a proof has not ended.
    pub builds: Vec<Option<Build>>,
    /// Where reports go.
    pub results: Results,
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Something was wrong that is no build's fault.
    pub trouble: bool,
    /// Keeps what was proved.
    pub keep_hint: &'a dyn Fn(&Request, Set),
}

impl Outcomes<'_> {
    /// Says what is to come.
    pub fn begin(&mut self, subjects: &[Subject]) {
        for (at, subject) in subjects.iter().enumerate() {
            let name = self.name(at);
            let (_, left) = subject.proof.progress();
            let line = if subject.proof.is_begun() {
                format!(
                    "{name}: goes on from {} builds kept; about {left} to make",
                    subject.proof.kept()
                )
            } else {
                let members = subject.request.capabilities.count_ones() as usize;
                format!(
                    "{name}: 4 to {} builds, the first of which says how many, and more where nothing explains a failure",
                    members + 4
                )
            };
            self.progress.note(&line);
        }
    }

    fn name(&self, subject: usize) -> String {
        tail(&self.shown[subject].1, NAME)
    }
}

impl Watch for Outcomes<'_> {
    fn started(&mut self, subject: usize, trial: &Trial) {
        let line = format!("{}: {}", self.name(subject), what(trial));
        self.progress.doing(subject, &line);
        if self.progress.show == Show::Output {
            self.progress.note(&format!("{line}: started"));
        }
    }

    fn ended(&mut self, subject: usize, trial: &Trial, came: &Came, detail: &str, proof: &Proof) {
        let (made, left) = proof.progress();
        let mut line = format!("{}: build {made}", self.name(subject));
        if left > 0 {
            line += &format!(" of about {}", made + left);
        }
        line += &format!(", {}: ", what(trial));
        line += match came {
            Came::Same => "same image",
            Came::Changed(_) => "another image: ",
            Came::Undecided => "the same but for content, which is looked into",
            Came::Failed | Came::Endless | Came::Void => "",
        };
        if matches!(trial.purpose, Purpose::Reference) && *came == Came::Same {
            line = line.replace("same image", "built");
        }
        if !matches!(came, Came::Same | Came::Undecided) {
            line += &head(detail, DETAIL);
        }
        if let Some(left) = proof.time_left().filter(|_| left > 0) {
            line += &format!("; about {} left", duration(left.as_millis() as u64));
        }
        self.progress.note(&line);
    }

    fn event(&mut self, subject: usize, trial: &Trial, event: &Event) {
        match event {
            Event::Log(line) if self.progress.live.is_some() => {
                let line = format!("{}: {}: {}", self.name(subject), what(trial), message(line));
                self.progress.doing(subject, &line);
            }
            Event::Output(line) if self.progress.show == Show::Output => {
                let line = head(&without_ansi(line.trim_end()), LONGEST_LINE);
                let line = format!("{} | {line}", self.name(subject));
                self.progress.line(&line);
            }
            _ => {}
        }
    }

    fn over(&mut self, subject: usize, request: &Request, proof: &mut Proof) {
        self.progress.done(subject);
        let (at, name) = self.shown[subject].clone();
        let Some(report) = proof.report() else {
            let why = proof.why_nothing();
            self.trouble = true;
            self.progress.say(&format!("{}: {why}", tail(&name, NAME)));
            self.builds[at] = Some(Build::unseen(name, Status::Error, why));
            return;
        };
        if let Some(set) = proof.proved() {
            (self.keep_hint)(request, set);
        }
        let written = (self.results).write(at, proof.capture.as_ref(), &report, self.out);
        for error in written.into_iter().filter_map(Result::err) {
            if !is_broken_pipe(&error) {
                self.trouble = true;
                self.progress.say(&format!("{error:#}"));
            }
        }
        let line = format!("{}: {}", tail(&name, NAME), summary(&report));
        match report.proof.as_ref().map(|proof| proof.state) {
            Some(Proven::Proved | Proven::Sufficient) => self.progress.note(&line),
            _ => self.progress.say(&line),
        }
        self.builds[at] = Some(Build::traced(name, report));
    }

    fn note(&mut self, line: &str) {
        self.progress.say(line);
    }
}

/// What a build is for, in words.
fn what(trial: &Trial) -> String {
    match trial.purpose {
        Purpose::Reference => "with the starting set".into(),
        Purpose::Sure => format!("with {}", names(trial.set)),
        Purpose::Grow => format!("with {} for what is missing", names(trial.set)),
        Purpose::Without(cap) => format!("without {cap}"),
        Purpose::Last => format!("with {} once more", names(trial.set)),
    }
}

/// What a proof came to, in a line.
fn summary(report: &Report) -> String {
    let Some(proof) = &report.proof else {
        return "nothing was proved".into();
    };
    let required = report.required.iter().fold(0, |all, cap| all | cap.bit());
    let took = duration((proof.seconds * 1000.0) as u64);
    let kept = match proof.kept {
        0 => String::new(),
        n => format!(", {n} more kept"),
    };
    let builds = format!("{} builds in {took}{kept}", proof.builds);
    let why = proof.reason.as_deref().unwrap_or_default();
    match proof.state {
        Proven::Proved => format!("proved: needs {}; {builds}", names(required)),
        Proven::Sufficient => format!(
            "{} is enough, and may be more than is needed: {why}; {builds}",
            names(required)
        ),
        Proven::Unfinished | Proven::Failed | Proven::Unstable => {
            format!("not proved: {why}; {builds}")
        }
    }
}
