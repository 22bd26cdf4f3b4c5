//! From sessions to reports at their destination, with lines of what happened. The recorder's loop only
//! hands over: who a build is asked of, and interpreting and writing it, happen on threads of their own.

use std::{
    collections::HashMap,
    io::Write as _,
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
};
use crate::{
    capture,
    interpret::{interpret, syscall_name},
    record::{Denied, Opened, Over, Watched, rfc3339},
    render::{self, Format, Style},
    report::{Cap, Identity, Report},
};

/// How long a report waits for whose it is.
const WHOSE: Duration = Duration::from_secs(10);
/// How long the end waits for the webhook.
const GOODBYE: Duration = Duration::from_secs(5);
/// Threads that ask whose builds are, and threads that interpret.
const THREADS: usize = 2;
/// Identities of sessions that are kept, once known.
const MOST: usize = 1 << 14;

/// Asks whoever runs containers about one. Called on a thread that may wait.
pub trait Ask: Send + Sync {
    /// Adds what it knows; `wanted` are labels and annotations to bring.
    ///
    /// # Errors
    /// Why it cannot be asked.
    fn ask(&self, identity: &mut Identity, wanted: &[String]) -> Result<()>;
}

/// Where lines of events go.
pub type Lines = Box<dyn FnMut(&Line) + Send>;

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
    /// Where events are told.
    pub lines: Lines,
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

struct Inner {
    settings: RwLock<Settings>,
    /// Whose sessions are, once known.
    known: Mutex<HashMap<u64, Option<Identity>>>,
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
            Watched::Refused(opened) => running.refuse(&opened),
            Watched::Reload => {
                self.notify.say("RELOADING=1");
                running.reload();
                self.notify.say("READY=1");
            }
            Watched::Figures(figures) => {
                let waiting = running.inner.queue.as_ref().map(Queue::waiting);
                with(&running.inner.metrics, |metrics| {
                    metrics.figures = figures;
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
        let (posted, mut lines) = (webhook.clone(), setup.lines);
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
            grace: setup.grace,
        })
    }

    fn open(&self, id: u64, opened: Opened) {
        with(&self.inner.metrics, |metrics| {
            metrics.opened += 1;
            metrics.late += u64::from(opened.late);
        });
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

    fn refuse(&self, opened: &Opened) {
        with(&self.inner.metrics, |metrics| metrics.refused += 1);
        self.inner.tell(What::LeftOut {
            identity: identity::of_cgroups(&opened.cgroups),
            why: "as many builds as there is room for are being traced (--max-sessions)".into(),
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
        for thread in self.askers.drain(..).chain(self.makers.drain(..)) {
            let _ = thread.join();
        }
        let Some(mut inner) = Arc::into_inner(self.inner) else {
            return;
        };
        if let Some(queue) = inner.queue.take() {
            queue.finish(self.grace);
        }
        self.webhook.finish(self.grace.min(GOODBYE));
        let (reports, lost) = with(&inner.metrics, |metrics| (metrics.written, metrics.lost));
        inner.tell(What::Stopped { reports, lost });
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
                match next {
                    Ok(next) => work(&inner, next),
                    Err(_) => return,
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
        if identity.container.is_some() {
            for engine in &self.engines {
                if let Err(why) = engine.ask(&mut identity, &settings.wanted()) {
                    (self.say)(&format!("{why:#}"));
                }
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
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(id, wanted);
        self.told.notify_all();
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
            Some(None) => return,
            known => known.cloned().flatten().unwrap_or_default(),
        };
        drop(known);
        self.tell(What::Denied {
            session: number(id),
            identity,
            capability,
            program: denied.comm,
            syscall: denied.syscall.and_then(syscall_name),
            line: denied.line,
        });
    }

    /// Whose it is; `None` where nobody wants it.
    fn whose(&self, id: u64) -> Option<Identity> {
        let until = Instant::now() + WHOSE;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(known) = known.remove(&id) {
                return known;
            }
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                // An engine that does not answer costs the names, not the report.
                return Some(Identity::default());
            };
            let waited = self.told.wait_timeout(known, left);
            known = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Interprets a session, and sends its report on its way.
    fn report(&self, id: u64, over: Box<Over>) {
        let size = over.size();
        let made = self.made(id, over);
        self.waiting.fetch_sub(size, Ordering::Relaxed);
        let Some((report, capture, over_bounds)) = made else {
            return;
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

/// Lines to standard output.
pub fn to_stdout() -> Lines {
    Box::new(|line| {
        // A reader that went away ends nothing.
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(line.to_json().as_bytes());
        let _ = out.flush();
    })
}
