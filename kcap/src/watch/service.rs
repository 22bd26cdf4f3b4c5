//! Starts what takes sessions to reports at their destination, has settings read again, and ends it. The
//! recorder's loop only hands over: asking whose a build is, and interpreting and writing it, happen on
//! threads of their own.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    Destination,
    events::What,
    lines::Teller,
    metrics,
    metrics::with,
    notify::Notify,
    owners::Owners,
    queue::Queue,
    reports::{Reports, hear},
    settings::Settings,
    webhook::Webhook,
    worker::join_by,
};
pub use super::{
    lines::{Lines, Print, Printer, to_stdout},
    owners::Ask,
};
use crate::record::{Opened, Over, Watched};

/// How long the end waits for the webhook.
const GOODBYE: Duration = Duration::from_secs(5);
/// Threads that ask whose builds are, and threads that interpret.
const THREADS: usize = 2;

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

/// The service.
pub struct Service {
    setup: Option<Setup>,
    running: Option<Running>,
    notify: Notify,
}

struct Running {
    owners: Arc<Owners>,
    reports: Arc<Reports>,
    lines: Teller,
    metrics: metrics::Shared,
    ask: Option<mpsc::Sender<(u64, Opened)>>,
    make: Option<mpsc::Sender<(u64, Box<Over>)>>,
    askers: Vec<JoinHandle<()>>,
    makers: Vec<JoinHandle<()>>,
    reread: Option<Box<dyn Fn() -> Result<Settings> + Send>>,
    webhook: Arc<Webhook>,
    printer: Printer,
    grace: Duration,
    say: fn(&str),
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
            Watched::Denied(id, denied) => running.owners.denied(id, denied),
            Watched::Ended(id, over) => running.end(id, over),
            Watched::Refused(opened, why) => running.owners.refuse(&opened, why),
            Watched::Reload => {
                self.notify.say("RELOADING=1");
                running.reload();
                self.notify.say("READY=1");
            }
            Watched::Figures(figures) => {
                let waiting = running.reports.queue().map(Queue::waiting);
                with(&running.metrics, |metrics| {
                    metrics.figures = figures;
                    metrics.seen = Some(Instant::now());
                    metrics.waiting = waiting.unwrap_or_default();
                });
                self.notify.say("WATCHDOG=1");
            }
            Watched::Note(line) => (running.say)(&line),
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
        let lines = Teller::new(lines);
        let heard = hear(lines.clone(), setup.metrics.clone(), setup.say);
        let queue = (setup.to)
            .map(|to| Queue::start(to, setup.most, setup.settings.keep(), heard))
            .transpose()
            .context("cannot start a thread")?;
        let owners = Arc::new(Owners::new(
            setup.settings,
            setup.engines,
            lines.clone(),
            setup.metrics.clone(),
            setup.leave,
            setup.say,
        ));
        let reports = Arc::new(Reports::new(
            owners.clone(),
            queue,
            setup.captures,
            setup.most,
            lines.clone(),
            setup.metrics.clone(),
            setup.say,
        ));
        lines.tell(What::Watching {
            matches: setup.matches,
            out,
            pid: std::process::id(),
        });
        let (ask, asked) = mpsc::channel();
        let (make, made) = mpsc::channel();
        let (identifies, interprets) = (owners.clone(), reports.clone());
        Ok(Self {
            askers: workers("kcap-ask", asked, setup.say, move |(id, opened)| {
                identifies.identify(id, &opened);
            })?,
            makers: workers("kcap-report", made, setup.say, move |(id, over)| {
                interprets.report(id, over);
            })?,
            owners,
            reports,
            lines,
            metrics: setup.metrics,
            ask: Some(ask),
            make: Some(make),
            reread: setup.reread,
            webhook,
            printer,
            grace: setup.grace,
            say: setup.say,
        })
    }

    fn open(&self, id: u64, opened: Opened) {
        self.owners.open(id, &opened);
        if let Some(ask) = &self.ask {
            // Its threads live as long as this.
            let _ = ask.send((id, opened));
        }
    }

    fn end(&self, id: u64, over: Box<Over>) {
        if let Some(make) = &self.make
            && self.reports.admit(id, &over)
        {
            let _ = make.send((id, over));
        }
    }

    fn reload(&self) {
        let Some(reread) = &self.reread else {
            (self.say)("SIGHUP: there is no --config to read again");
            return;
        };
        match reread() {
            Ok(settings) => {
                if let Some(queue) = self.reports.queue() {
                    queue.keep(settings.keep());
                }
                self.webhook.set(settings.webhook.clone());
                self.owners.set(settings);
                (self.say)("settings read again");
            }
            // Those from before stay.
            Err(why) => (self.say)(&format!("{why:#}; nothing is changed")),
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
        if let Some(queue) = self.reports.queue() {
            queue.finish(until.saturating_duration_since(Instant::now()));
        }
        self.webhook.finish(self.grace.min(GOODBYE));
        let (reports, lost) = with(&self.metrics, |metrics| (metrics.written, metrics.lost));
        self.lines.tell(What::Stopped { reports, lost });
        // The printer ends with the last that has the lines.
        drop((self.owners, self.reports, self.lines));
        self.printer.finish();
    }
}

/// Threads that share a channel.
fn workers<T: Send + 'static>(
    name: &str,
    from: mpsc::Receiver<T>,
    say: fn(&str),
    work: impl Fn(T) + Clone + Send + 'static,
) -> Result<Vec<JoinHandle<()>>> {
    let from = Arc::new(Mutex::new(from));
    let start = |_| {
        let (from, work) = (from.clone(), work.clone());
        thread::Builder::new().name(name.into()).spawn(move || {
            loop {
                let next = from.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(next) = next else { return };
                // What one build makes of it costs that build alone.
                let done = panic::catch_unwind(AssertUnwindSafe(|| work(next)));
                if done.is_err() {
                    say("a build cannot be dealt with: please report it");
                }
            }
        })
    };
    let threads: std::io::Result<Vec<_>> = (0..THREADS).map(start).collect();
    threads.context("cannot start a thread")
}
