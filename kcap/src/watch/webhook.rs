//! Refusals and lost reports, posted to whoever is to act on them: each line of JSON as it is on standard
//! output. On a thread of its own with a bounded queue, so that a listener that is slow, or gone, holds up
//! nothing.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use ureq::Agent;
use url::Url;

use super::{
    events::{Line, What},
    metrics::{self, with},
    worker::Worker,
};
use crate::remote::http;

/// Most lines that wait.
const MOST: usize = 256;
/// How long one attempt may take.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a listener may take for the last one.
const LAST: Duration = Duration::from_secs(4);
/// Attempts at a line.
const ATTEMPTS: u32 = 4;
/// The wait before the second; each next is three times as long.
const WAIT: Duration = Duration::from_millis(500);

/// Where lines are posted to. Shown without what may be secret: a path often is.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Url);

impl Address {
    /// Reads `http://…` or `https://…`.
    ///
    /// # Errors
    /// Where it is no such URL; the text is not in it.
    pub fn parse(text: &str) -> Result<Self> {
        let url = Url::parse(text).context("the webhook is no URL: write https://HOST/PATH")?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            bail!("the webhook is no URL of HTTP: write https://HOST/PATH");
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}",
            self.0.scheme(),
            self.0.host_str().unwrap_or_default()
        )?;
        match self.0.port() {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Default)]
struct State {
    address: Option<Address>,
    lines: VecDeque<String>,
    /// Nothing more comes; what is there may be tried until then.
    until: Option<Instant>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps, unless the end is near: says whether there is time for another attempt.
    fn sleep(&self, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        let mut state = self.lock();
        loop {
            if state.until.is_some_and(|until| until < end) {
                return false;
            }
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                return true;
            };
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The poster.
pub struct Webhook {
    shared: Arc<Shared>,
    metrics: metrics::Shared,
    thread: Worker,
}

impl Webhook {
    /// Starts one that posts to an address, and to none yet where there is none.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub fn start(
        address: Option<Address>,
        metrics: metrics::Shared,
        say: fn(&str),
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.lock().address = address;
        let (theirs, counted) = (shared.clone(), metrics.clone());
        let thread = thread::Builder::new()
            .name("kcap-webhook".into())
            .spawn(move || post(&theirs, &counted, say))
            .context("cannot start a thread")?;
        Ok(Self {
            shared,
            metrics,
            thread: Worker::new(thread),
        })
    }

    /// Takes a line, where it is one of those that are posted. Never waits.
    pub fn tell(&self, line: &Line) {
        if !matches!(
            line.what,
            What::Refused { .. } | What::Denied { .. } | What::Lost { .. }
        ) {
            return;
        }
        let mut state = self.shared.lock();
        if state.address.is_none() {
            return;
        }
        if state.lines.len() >= MOST {
            state.lines.pop_front();
            with(&self.metrics, |metrics| metrics.webhook[DROPPED] += 1);
        }
        state.lines.push_back(line.to_json());
        self.shared.changed.notify_one();
    }

    /// Posts elsewhere from now on, or no more.
    pub fn set(&self, address: Option<Address>) {
        let mut state = self.shared.lock();
        if address.is_none() {
            state.lines.clear();
        }
        state.address = address;
    }

    /// Posts what waits, for at most so long; what is left is dropped, and counted.
    pub fn finish(&self, patience: Duration) {
        let until = Instant::now() + patience;
        self.thread.end(until + LAST, || {
            self.shared.lock().until = Some(until);
            self.shared.changed.notify_one();
        });
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.finish(Duration::ZERO);
    }
}

/// Positions of [`metrics::Metrics::webhook`].
const DELIVERED: usize = 0;
const FAILED: usize = 1;
const DROPPED: usize = 2;

fn post(shared: &Shared, metrics: &metrics::Shared, say: fn(&str)) {
    // Made when it is needed: most services have no webhook.
    let mut agent = None;
    let mut failing = false;
    loop {
        let mut state = shared.lock();
        let line = loop {
            if state.until.is_some_and(|until| until <= Instant::now()) {
                let left = std::mem::take(&mut state.lines).len() as u64;
                with(metrics, |metrics| metrics.webhook[DROPPED] += left);
                return;
            }
            match state.lines.pop_front() {
                Some(line) => break line,
                None if state.until.is_some() => return,
                None => {}
            }
            state = (shared.changed.wait(state)).unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        match deliver(shared, &mut agent, &line) {
            None => {}
            Some(Ok(())) => {
                with(metrics, |metrics| metrics.webhook[DELIVERED] += 1);
                if std::mem::take(&mut failing) {
                    say("the webhook takes events again");
                }
            }
            Some(Err(why)) => {
                with(metrics, |metrics| metrics.webhook[FAILED] += 1);
                if !std::mem::replace(&mut failing, true) {
                    say(&why);
                }
            }
        }
    }
}

/// Posts a line, with a few attempts; `None` where nobody wants it any more.
fn deliver(shared: &Shared, agent: &mut Option<Agent>, line: &str) -> Option<Result<(), String>> {
    let agent = match agent {
        Some(agent) => agent,
        None => match http::agent(LONGEST, false) {
            Ok(made) => agent.insert(made),
            Err(why) => return Some(Err(format!("{why:#}; the webhook takes no events"))),
        },
    };
    let mut wait = WAIT;
    for attempt in 1.. {
        // It may have been changed meanwhile.
        let address = shared.lock().address.clone()?;
        let sent = (agent.post(address.0.as_str()))
            .header("content-type", "application/json")
            .send(line);
        let (again, why) = match sent.map(|response| response.status().as_u16()) {
            Ok(200..=299) => return Some(Ok(())),
            Ok(status) => (
                status >= 500 || matches!(status, 408 | 429),
                format!("it answers {status}"),
            ),
            Err(error) => (true, http::why(&error)),
        };
        if !again || attempt == ATTEMPTS || !shared.sleep(wait) {
            return Some(Err(format!(
                "the webhook at {address} does not take events ({why}): check its URL; they are still \
                 on standard output"
            )));
        }
        wait *= 3;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        let address =
            Address::parse("https://user:secret@hooks.example:8443/T0/B0/secret?k=secret");
        let address = address.unwrap();
        assert_eq!(address.to_string(), "https://hooks.example:8443");
        assert!(!format!("{address:?}").contains("secret"));
        for wrong in [
            "",
            "hooks.example/secret",
            "ftp://h/secret",
            "file:///secret",
            "https://",
        ] {
            let error = format!("{:#}", Address::parse(wrong).unwrap_err());
            assert!(
                error.contains("webhook") && !error.contains("secret"),
                "{error}"
            );
        }
    }
}
