//! From sessions to reports at their destination, with lines of what happened. The recorder's loop only
//! hands over: who a build is asked of, and interpreting and writing it, happen on threads of their own.

use std::{
    collections::HashMap,
    io::Write as _,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Condvar, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    Destination,
    events::{Line, SCHEMA, What},
    identity, metrics,
    metrics::with,
    notify::Notify,
    place,
    queue::{Fate, Hear, Item, Queue},
    refusals::refusals,
    settings::Settings,
    webhook::Webhook,
    worker::join_by,
};
use crate::{
    capture,
    interpret::{interpret, steps::line::without_ansi, syscall_name},
    record::{Denied, Opened, Over, Watched, rfc3339},
    render::{self, Format, Style},
    report::{Cap, Identity, Report},
};

/// Lines that wait for whoever reads them; what is beyond is left out, and that is said.
const LINES: usize = 4096;
/// How long they are waited for at the end.
const LAST_LINES: Duration = Duration::from_secs(2);
/// How long a report waits for whose it is.
const WHOSE: Duration = Duration::from_secs(10);
/// How long the end waits for the webhook.
const GOODBYE: Duration = Duration::from_secs(5);
/// Threads that ask whose builds are, and threads that interpret.
const THREADS: usize = 2;
/// Identities of sessions that are kept.
const MOST: usize = 1 << 14;

/// Asks whoever runs containers about one. Called on a thread that may wait.
pub trait Ask: Send + Sync {
    /// Adds what it knows, and says whether that is anything. `containers`: ids, the outermost first,
    /// whose word counts before that of what runs in it; `wanted`: labels and annotations to bring.
    ///
    /// # Errors
    /// Why it cannot be asked; once, and not for each build.
    fn ask(
        &self,
        containers: &[String],
        identity: &mut Identity,
        wanted: &[String],
    ) -> Result<bool>;
}

/// Where lines of events go.
pub type Lines = Box<dyn FnMut(&Line) + Send>;

/// Begins to write lines, with somewhere to say what goes wrong.
pub type Print = fn(fn(&str)) -> Result<(Lines, Printer)>;

/// How the service is run.
pub struct Setup {
    /// Where reports go; only lines where `None`.
    pub to: Option<Box<dyn Destination>>,
    /// Captures go there as well.
    pub captures: bool,
    /// Bytes of reports that may wait.
    pub most: usize,
    /// How long the end may take.
    pub grace: Duration,
    /// Asked whose a container is, in this order.
    pub engines: Vec<Box<dyn Ask>>,
    /// What may change.
    pub settings: Settings,
    /// Reads them anew; none where there is no file.
    pub reread: Option<Box<dyn Fn() -> Result<Settings> + Send>>,
    /// Where events are told. Made once kcap has given up what it need not have.
    pub lines: Print,
    /// Paths of executors, for the first line.
    pub matches: Vec<String>,
    /// Figures.
    pub metrics: metrics::Shared,
    /// Where they can be asked for.
    pub figures: Option<metrics::Bound>,
    /// Sessions that nobody wants.
    pub leave: UnboundedSender<u64>,
    /// Lines for people.
    pub say: fn(&str),
}

/// Whose a session is.
enum Whose {
    /// It is being asked; what its control group and its environment say.
    Asked(Identity),
    /// What is known; `None` where nobody wants it.
    Known(Option<Identity>),
}

struct Inner {
    settings: RwLock<Settings>,
    /// Whose sessions are.
    known: Mutex<HashMap<u64, Whose>>,
    told: Condvar,
    lines: Mutex<Lines>,
    metrics: metrics::Shared,
    queue: Option<Queue>,
    captures: bool,
    /// Bytes of sessions that wait to be interpreted.
    waiting: AtomicUsize,
    most: usize,
    engines: Vec<Box<dyn Ask>>,
    leave: UnboundedSender<u64>,
    say: fn(&str),
}

/// The service.
pub struct Service {
    setup: Option<Setup>,
    running: Option<Running>,
    notify: Notify,
}

struct Running {
    inner: Arc<Inner>,
    ask: Option<mpsc::Sender<(u64, Opened)>>,
    make: Option<mpsc::Sender<(u64, Box<Over>)>>,
    askers: Vec<JoinHandle<()>>,
    makers: Vec<JoinHandle<()>>,
    reread: Option<Box<dyn Fn() -> Result<Settings> + Send>>,
    webhook: Arc<Webhook>,
    printer: Printer,
    grace: Duration,
}

impl Service {
    /// One that begins with the first event.
    pub fn new(setup: Setup) -> Self {
        Self {
            setup: Some(setup),
            running: None,
            notify: Notify::from_env(),
        }
    }

    /// Takes what the recorder says.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub fn on(&mut self, what: Watched) -> Result<()> {
        if let Some(setup) = self.setup.take() {
            // Not before: by now this thread has given up what it need not have, and its threads with
            // it.
            if !matches!(what, Watched::Note(_)) {
                self.running = Some(Running::start(setup)?);
            } else {
                let Watched::Note(line) = what else {
                    return Ok(());
                };
                (setup.say)(&line);
                self.setup = Some(setup);
                return Ok(());
            }
        }
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        match what {
            Watched::Watching => self.notify.say("READY=1\nSTATUS=watching"),
            Watched::Opened(id, opened) => running.open(id, opened),
            Watched::Denied(id, denied) => running.inner.denied(id, denied),
            Watched::Ended(id, over) => running.end(id, over),
            Watched::Refused(opened, why) => running.refuse(&opened, why),
            Watched::Reload => {
                self.notify.say("RELOADING=1");
                running.reload();
                self.notify.say("READY=1");
            }
            Watched::Figures(figures) => {
                let waiting = running.inner.queue.as_ref().map(Queue::waiting);
                with(&running.inner.metrics, |metrics| {
                    metrics.figures = figures;
                    metrics.seen = Some(Instant::now());
                    metrics.waiting = waiting.unwrap_or_default();
                });
                self.notify.say("WATCHDOG=1");
            }
            Watched::Note(line) => (running.inner.say)(&line),
        }
        Ok(())
    }

    /// Interprets and writes what is left, and says that it ends.
    pub fn finish(mut self) {
        self.notify.say("STOPPING=1");
        if let Some(running) = self.running.take() {
            running.finish();
        }
    }
}

impl Running {
    fn start(setup: Setup) -> Result<Self> {
        if let Some(bound) = setup.figures {
            bound.serve(setup.metrics.clone())?;
        }
        let out = setup.to.as_ref().map(|to| to.shown());
        let webhook = setup.settings.webhook.clone();
        let webhook = Arc::new(Webhook::start(webhook, setup.metrics.clone(), setup.say)?);
        let (mut lines, printer) = (setup.lines)(setup.say)?;
        let posted = webhook.clone();
        let lines: Lines = Box::new(move |line| {
            posted.tell(line);
            lines(line);
        });
        let lines = Arc::new(Mutex::new(lines));
        let heard = hear(lines.clone(), setup.metrics.clone(), setup.say);
        let queue = (setup.to)
            .map(|to| Queue::start(to, setup.most, setup.settings.keep(), heard))
            .transpose()
            .context("cannot start a thread")?;
        let lines: Lines = Box::new(move |line| tell(&lines, line));
        let inner = Arc::new(Inner {
            settings: RwLock::new(setup.settings),
            known: Mutex::default(),
            told: Condvar::new(),
            lines: Mutex::new(lines),
            metrics: setup.metrics,
            queue,
            captures: setup.captures,
            waiting: AtomicUsize::new(0),
            most: setup.most,
            engines: setup.engines,
            leave: setup.leave,
            say: setup.say,
        });
        inner.tell(What::Watching {
            matches: setup.matches,
            out,
            pid: std::process::id(),
        });
        let (ask, asked) = mpsc::channel();
        let (make, made) = mpsc::channel();
        Ok(Self {
            askers: workers("kcap-ask", asked, &inner, |inner, (id, opened)| {
                inner.identify(id, &opened);
            })?,
            makers: workers("kcap-report", made, &inner, |inner, (id, over)| {
                inner.report(id, over);
            })?,
            inner,
            ask: Some(ask),
            make: Some(make),
            reread: setup.reread,
            webhook,
            printer,
            grace: setup.grace,
        })
    }

    fn open(&self, id: u64, opened: Opened) {
        with(&self.inner.metrics, |metrics| {
            metrics.opened += 1;
            metrics.late += u64::from(opened.late);
        });
        let mut identity = identity::of_cgroups(&opened.cgroups);
        identity::claim(&mut identity, &opened.variables);
        self.inner.note(id, Whose::Asked(identity));
        if let Some(ask) = &self.ask {
            // Its threads live as long as this.
            let _ = ask.send((id, opened));
        }
    }

    fn end(&self, id: u64, over: Box<Over>) {
        let size = over.size();
        let waiting = self.inner.waiting.fetch_add(size, Ordering::Relaxed);
        if waiting > 0 && waiting + size > self.inner.most {
            self.inner.waiting.fetch_sub(size, Ordering::Relaxed);
            self.inner
                .lose(id, String::new(), "too many sessions end at once".into());
            return;
        }
        if let Some(make) = &self.make {
            let _ = make.send((id, over));
        }
    }

    fn refuse(&self, opened: &Opened, why: &str) {
        with(&self.inner.metrics, |metrics| metrics.refused += 1);
        self.inner.tell(What::LeftOut {
            identity: identity::of_cgroups(&opened.cgroups),
            why: why.to_owned(),
        });
    }

    fn reload(&self) {
        let Some(reread) = &self.reread else {
            (self.inner.say)("SIGHUP: there is no --config to read again");
            return;
        };
        match reread() {
            Ok(settings) => {
                if let Some(queue) = &self.inner.queue {
                    queue.keep(settings.keep());
                }
                self.webhook.set(settings.webhook.clone());
                *self
                    .inner
                    .settings
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = settings;
                (self.inner.say)("settings read again");
            }
            // Those from before stay.
            Err(why) => (self.inner.say)(&format!("{why:#}; nothing is changed")),
        }
    }

    fn finish(mut self) {
        // No more comes; what was sent is done first.
        drop(self.ask.take());
        drop(self.make.take());
        let until = Instant::now() + self.grace;
        for thread in self.askers.drain(..).chain(self.makers.drain(..)) {
            // One that asks somebody who does not answer ends with kcap.
            join_by(thread, until);
        }
        let inner = self.inner;
        if let Some(queue) = &inner.queue {
            queue.finish(until.saturating_duration_since(Instant::now()));
        }
        self.webhook.finish(self.grace.min(GOODBYE));
        let (reports, lost) = with(&inner.metrics, |metrics| (metrics.written, metrics.lost));
        inner.tell(What::Stopped { reports, lost });
        drop(inner);
        self.printer.finish();
    }
}

/// Threads that share a channel.
fn workers<T: Send + 'static>(
    name: &str,
    from: mpsc::Receiver<T>,
    inner: &Arc<Inner>,
    work: fn(&Inner, T),
) -> Result<Vec<JoinHandle<()>>> {
    let from = Arc::new(Mutex::new(from));
    let start = |_| {
        let (from, inner) = (from.clone(), inner.clone());
        thread::Builder::new().name(name.into()).spawn(move || {
            loop {
                let next = from.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(next) = next else { return };
                // What one build makes of it costs that build alone.
                let done = panic::catch_unwind(AssertUnwindSafe(|| work(&inner, next)));
                if done.is_err() {
                    (inner.say)("a build cannot be dealt with: please report it");
                }
            }
        })
    };
    let threads: std::io::Result<Vec<_>> = (0..THREADS).map(start).collect();
    threads.context("cannot start a thread")
}

/// What is said of reports on their way.
fn hear(lines: Arc<Mutex<Lines>>, metrics: metrics::Shared, say: fn(&str)) -> Hear {
    let mut delayed = false;
    Box::new(move |fate| match fate {
        Fate::Written(item) => {
            if std::mem::take(&mut delayed) {
                say("reports are written again");
            }
            if let Some(line) = item.line {
                with(&metrics, |metrics| metrics.written += 1);
                tell(&lines, &line);
            }
        }
        Fate::Lost(item, why) => {
            with(&metrics, |metrics| metrics.lost += 1);
            tell(&lines, &lost(item.session, item.name, why));
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

fn tell(lines: &Mutex<Lines>, line: &Line) {
    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    lines(line);
}

fn lost(session: u64, name: String, why: String) -> Line {
    line(What::Lost {
        session: number(session),
        name,
        why,
    })
}

fn line(what: What) -> Line {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Line {
        schema: SCHEMA,
        time: rfc3339(now.map_or(0, |now| now.as_nanos() as u64)),
        what,
    }
}

fn number(session: u64) -> String {
    format!("{session:x}")
}

impl Inner {
    fn tell(&self, what: What) {
        tell(&self.lines, &line(what));
    }

    fn lose(&self, id: u64, name: String, why: String) {
        with(&self.metrics, |metrics| metrics.lost += 1);
        tell(&self.lines, &lost(id, name, why));
    }

    fn settings(&self) -> Settings {
        (self.settings.read().unwrap_or_else(PoisonError::into_inner)).clone()
    }

    /// Finds out whose a build is, and leaves it alone where nobody wants it.
    fn identify(&self, id: u64, opened: &Opened) {
        let settings = self.settings();
        let mut identity = identity::of_cgroups(&opened.cgroups);
        let containers = identity::containers(&opened.cgroups);
        for engine in &self.engines {
            match engine.ask(&containers, &mut identity, &settings.wanted()) {
                Ok(true) => break,
                Ok(false) => {}
                Err(why) => (self.say)(&format!("{why:#}")),
            }
        }
        identity::claim(&mut identity, &opened.variables);
        let refused = settings.refuses(&identity);
        let wanted = match refused {
            None => {
                self.tell(What::Opened {
                    session: number(id),
                    identity: identity.clone(),
                    late: opened.late,
                });
                Some(identity)
            }
            Some(why) => {
                with(&self.metrics, |metrics| metrics.unwanted += 1);
                self.tell(What::LeftOut { identity, why });
                // Where it is over by now, its report is left out.
                let _ = self.leave.send(id);
                None
            }
        };
        self.note(id, Whose::Known(wanted));
        self.told.notify_all();
    }

    fn note(&self, id: u64, whose: Whose) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            // Sessions that nobody wants may never be asked for.
            known.retain(|_, whose| !matches!(whose, Whose::Known(None)));
        }
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(id, whose);
    }

    /// Tells of a refusal as it happens.
    fn denied(&self, id: u64, denied: Denied) {
        let capability = Cap(denied.cap);
        if capability.mask() & Cap::DOCKER_DEFAULT == 0 {
            // What no engine grants, every build does without.
            return;
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = match known.get(&id) {
            // Nobody wants to hear it.
            Some(Whose::Known(None)) => return,
            Some(Whose::Known(Some(identity)) | Whose::Asked(identity)) => identity.clone(),
            None => Identity::default(),
        };
        drop(known);
        self.tell(What::Denied {
            session: number(id),
            identity,
            capability,
            program: denied.comm,
            syscall: denied.syscall.and_then(syscall_name),
            line: without_ansi(denied.line.trim_end()),
        });
    }

    /// Whose it is; `None` where nobody wants it.
    fn whose(&self, id: u64) -> Option<Identity> {
        let until = Instant::now() + WHOSE;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let said = match known.remove(&id) {
                Some(Whose::Known(whose)) => return whose,
                Some(Whose::Asked(identity)) => identity,
                None => Identity::default(),
            };
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                // An engine that does not answer costs what it knows, not the report, unless that is
                // whether the report is wanted.
                return (self.settings().refuses(&said).is_none()).then_some(said);
            };
            known.insert(id, Whose::Asked(said));
            let waited = self.told.wait_timeout(known, left);
            known = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Interprets a session, and sends its report on its way.
    fn report(&self, id: u64, over: Box<Over>) {
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
            self.tell(What::Refused {
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
            self.tell(said);
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
        let identity = self.whose(id)?;
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
}

/// Lines to standard output, by a thread of its own: who reads them may be slow, or have stopped. Gives
/// the thread, which ends once all that has the lines is gone.
///
/// # Errors
/// The system's, where it has no thread left.
pub fn to_stdout(say: fn(&str)) -> Result<(Lines, Printer)> {
    let (give, given) = mpsc::sync_channel::<String>(LINES);
    let thread = thread::Builder::new()
        .name("kcap-lines".into())
        .spawn(move || {
            for line in given {
                // A reader that went away ends nothing.
                let mut out = std::io::stdout().lock();
                let _ = out.write_all(line.as_bytes());
                let _ = out.flush();
            }
        })
        .context("cannot start a thread")?;
    let mut missed = false;
    let lines: Lines = Box::new(move |line| match give.try_send(line.to_json()) {
        Ok(()) => missed = false,
        Err(_) => {
            if !std::mem::replace(&mut missed, true) {
                say("standard output is not read: lines are left out");
            }
        }
    });
    Ok((lines, Printer(thread)))
}

/// Writes lines.
pub struct Printer(JoinHandle<()>);

impl Printer {
    /// Waits until all is written, for a while.
    pub fn finish(self) {
        join_by(self.0, Instant::now() + LAST_LINES);
    }
}
