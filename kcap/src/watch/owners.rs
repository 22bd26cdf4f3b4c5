//! Sessions that are open: whose they are, as far as that is known by now, which of them nobody wants, and
//! what is told of them meanwhile. Who runs containers is asked on threads that may wait; their reports
//! wait for the answer, and not for ever.

use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, PoisonError, RwLock},
    time::Instant,
};

use anyhow::Result;
use tokio::sync::mpsc::UnboundedSender;

use super::{
    events::What,
    identity,
    lines::{Teller, number},
    metrics,
    metrics::with,
    settings::Settings,
};
use crate::{
    interpret::{steps::line::without_ansi, syscall_name},
    record::{Denied, Opened},
    report::{Cap, Identity},
};

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

/// Whose a session is.
enum Whose {
    /// It is being asked; what its control group and its environment say.
    Asked(Identity),
    /// What is known; `None` where nobody wants it.
    Known(Option<Identity>),
}

/// Whose sessions are.
pub struct Owners {
    settings: RwLock<Settings>,
    /// Asked whose a container is, in this order.
    engines: Vec<Box<dyn Ask>>,
    known: Mutex<HashMap<u64, Whose>>,
    told: Condvar,
    lines: Teller,
    metrics: metrics::Shared,
    leave: UnboundedSender<u64>,
    say: fn(&str),
}

impl Owners {
    /// Of none yet. `leave` takes sessions that nobody wants, `say` lines for people.
    pub fn new(
        settings: Settings,
        engines: Vec<Box<dyn Ask>>,
        lines: Teller,
        metrics: metrics::Shared,
        leave: UnboundedSender<u64>,
        say: fn(&str),
    ) -> Self {
        Self {
            settings: RwLock::new(settings),
            engines,
            known: Mutex::default(),
            told: Condvar::new(),
            lines,
            metrics,
            leave,
            say,
        }
    }

    /// Goes by other settings from now on.
    pub fn set(&self, settings: Settings) {
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = settings;
    }

    fn settings(&self) -> Settings {
        (self.settings.read().unwrap_or_else(PoisonError::into_inner)).clone()
    }

    /// A session began: until more is known, it is whose its control group and its environment say.
    pub fn open(&self, id: u64, opened: &Opened) {
        with(&self.metrics, |metrics| {
            metrics.opened += 1;
            metrics.late += u64::from(opened.late);
        });
        let mut identity = identity::of_cgroups(&opened.cgroups);
        identity::claim(&mut identity, &opened.variables);
        self.note(id, Whose::Asked(identity));
    }

    /// There is no room for a session: why.
    pub fn refuse(&self, opened: &Opened, why: &str) {
        with(&self.metrics, |metrics| metrics.refused += 1);
        self.lines.tell(What::LeftOut {
            identity: identity::of_cgroups(&opened.cgroups),
            why: why.to_owned(),
        });
    }

    /// Finds out whose a build is, and leaves it alone where nobody wants it.
    pub fn identify(&self, id: u64, opened: &Opened) {
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
                self.lines.tell(What::Opened {
                    session: number(id),
                    identity: identity.clone(),
                    late: opened.late,
                });
                Some(identity)
            }
            Some(why) => {
                with(&self.metrics, |metrics| metrics.unwanted += 1);
                self.lines.tell(What::LeftOut { identity, why });
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
    pub fn denied(&self, id: u64, denied: Denied) {
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
        self.lines.tell(What::Denied {
            session: number(id),
            identity,
            capability,
            program: denied.comm,
            syscall: denied.syscall.and_then(syscall_name),
            line: without_ansi(denied.line.trim_end()),
        });
    }

    /// Whose a session is that is over, waited for until then; `None` where nobody wants it. It is not kept
    /// any longer.
    pub fn take(&self, id: u64, until: Instant) -> Option<Identity> {
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
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc, thread, time::Duration};

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::watch::events::Line;

    /// Says that a container's name is `web`, once it may.
    struct Engine(Mutex<std::sync::mpsc::Receiver<()>>);

    impl Ask for Engine {
        fn ask(&self, _: &[String], identity: &mut Identity, _: &[String]) -> Result<bool> {
            let _ = self.0.lock().unwrap().recv();
            identity.name = Some("web".into());
            Ok(true)
        }
    }

    struct Given {
        owners: Arc<Owners>,
        told: Arc<Mutex<Vec<What>>>,
        left: UnboundedReceiver<u64>,
        /// Dropped, it lets the engine answer.
        held: Option<std::sync::mpsc::Sender<()>>,
    }

    impl Given {
        fn new(only: &[(&str, &str)]) -> Self {
            let only = only.iter().map(|(k, v)| ((*k).into(), (*v).into()));
            let settings = Settings {
                only: only.collect(),
                ..Settings::default()
            };
            let told = Arc::new(Mutex::new(vec![]));
            let hears = told.clone();
            let lines = Teller::new(Box::new(move |line: &Line| {
                hears.lock().unwrap().push(line.what.clone());
            }));
            let (held, hold) = std::sync::mpsc::channel();
            let (leave, left) = unbounded_channel();
            let engines: Vec<Box<dyn Ask>> = vec![Box::new(Engine(Mutex::new(hold)))];
            let metrics = metrics::Shared::default();
            Self {
                owners: Arc::new(Owners::new(
                    settings,
                    engines,
                    lines,
                    metrics,
                    leave,
                    |_| (),
                )),
                told,
                left,
                held: Some(held),
            }
        }

        fn told(&self) -> Vec<What> {
            std::mem::take(&mut self.told.lock().unwrap())
        }

        fn answer(&mut self) {
            self.held = None;
        }
    }

    fn opened() -> Opened {
        Opened {
            variables: BTreeMap::from([("CI_PROJECT_PATH".into(), "shop/web".into())]),
            ..Opened::default()
        }
    }

    fn denied(cap: Cap) -> Denied {
        Denied {
            cap: cap.0,
            comm: "chown".into(),
            syscall: None,
            line: String::new(),
        }
    }

    #[test]
    fn a_refusal_is_told_with_what_is_known_of_its_session_by_then() {
        let mut given = Given::new(&[]);
        given.owners.open(1, &opened());
        given.owners.denied(1, denied(Cap::SYS_ADMIN));
        assert!(given.told().is_empty(), "no engine grants it");
        given.owners.denied(1, denied(Cap::CHOWN));
        given.answer();
        given.owners.identify(1, &opened());
        given.owners.denied(1, denied(Cap::CHOWN));
        let told = given.told();
        let [
            What::Denied { identity: at, .. },
            What::Opened { .. },
            What::Denied { identity: then, .. },
        ] = &told[..]
        else {
            panic!("{told:?}");
        };
        assert_eq!((&at.project, &at.name), (&Some("shop/web".into()), &None));
        assert_eq!(then.name.as_deref(), Some("web"));
    }

    #[test]
    fn a_session_that_nobody_wants_is_left_and_told_of_once() {
        let mut given = Given::new(&[("kcap/trace", "yes")]);
        let owners = given.owners.clone();
        owners.open(1, &opened());
        given.answer();
        owners.identify(1, &opened());
        owners.denied(1, denied(Cap::CHOWN));
        let told = given.told();
        assert!(matches!(told[..], [What::LeftOut { .. }]), "{told:?}");
        assert_eq!(given.left.try_recv(), Ok(1));
        assert_eq!(owners.take(1, Instant::now()), None);
    }

    #[test]
    fn a_report_waits_for_whose_it_is_and_not_for_ever() {
        let mut given = Given::new(&[]);
        let owners = given.owners.clone();
        owners.open(1, &opened());
        // Nobody answers: it is whose its environment says, and that is not kept.
        let said = owners.take(1, Instant::now()).unwrap();
        assert_eq!(said.project.as_deref(), Some("shop/web"));
        assert_eq!(owners.take(1, Instant::now()), Some(Identity::default()));

        owners.open(2, &opened());
        let (asks, takes) = (owners.clone(), owners.clone());
        let asking = thread::spawn(move || asks.identify(2, &opened()));
        let far = Instant::now() + Duration::from_secs(30);
        let taking = thread::spawn(move || takes.take(2, far));
        thread::sleep(Duration::from_millis(20));
        assert!(!taking.is_finished());
        given.answer();
        let known = taking.join().unwrap().unwrap();
        assert_eq!(known.name.as_deref(), Some("web"));
        assert!(Instant::now() < far, "it was not woken");
        asking.join().unwrap();

        // Whether it is wanted cannot be told.
        let given = Given::new(&[("kcap/trace", "yes")]);
        given.owners.open(3, &opened());
        assert_eq!(given.owners.take(3, Instant::now()), None);
    }

    #[test]
    fn sessions_that_are_never_asked_for_make_room_for_others() {
        let given = Given::new(&[]);
        for id in 0..MOST as u64 {
            given.owners.note(id, Whose::Known(None));
        }
        given.owners.open(MOST as u64, &opened());
        assert_eq!(given.owners.known.lock().unwrap().len(), 1);
    }
}
