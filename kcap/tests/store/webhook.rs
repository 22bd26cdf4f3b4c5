//! Events at a listener of the test's: what arrives, what is tried again, and what a listener that is slow
//! holds up.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use kcap::watch::{
    events::{Line, SCHEMA, What},
    metrics::{self, with},
    webhook::{Address, Webhook},
};
use serde_json::Value;

/// Lines for people.
static SAID: Mutex<Vec<String>> = Mutex::new(vec![]);
/// One test at a time says something.
static ONE: Mutex<()> = Mutex::new(());

fn say(line: &str) {
    SAID.lock().expect("nobody failed").push(line.to_owned());
}

/// A listener that answers each request with what `answer` gives for its number, and hands on the bodies.
pub struct Listener {
    pub url: String,
    pub bodies: mpsc::Receiver<Value>,
    requests: Arc<AtomicUsize>,
}

impl Listener {
    pub fn start(answer: impl Fn(usize) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (tell, bodies) = mpsc::channel();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
                let mut head = vec![];
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).expect("a line");
                    if line.trim().is_empty() {
                        break;
                    }
                    head.push(line.to_ascii_lowercase());
                }
                let length = head.iter().find_map(|l| l.strip_prefix("content-length:"));
                let length = length.map_or(0, |l| l.trim().parse().expect("a length"));
                let mut body = vec![0; length];
                reader.read_exact(&mut body).expect("a body");
                assert!(head[0].starts_with("post /hook/secret "), "{head:?}");
                assert!(
                    head.iter()
                        .any(|l| l.trim() == "content-type: application/json")
                );
                let n = counted.fetch_add(1, Ordering::SeqCst);
                let answer = answer(n);
                if answer.starts_with("200") {
                    let body = serde_json::from_slice(&body).expect("JSON");
                    let _ = tell.send(body);
                }
                let _ = write!(
                    stream,
                    "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
            }
        });
        Self {
            url: format!("http://{address}/hook/secret"),
            bodies,
            requests,
        }
    }

    fn next(&self) -> Value {
        (self.bodies.recv_timeout(Duration::from_secs(30))).expect("an event")
    }
}

fn lost(n: usize) -> Line {
    Line {
        schema: SCHEMA,
        time: "2026-11-28T06:37:31.123Z".into(),
        what: What::Lost {
            session: n.to_string(),
            name: "a/b.json".into(),
            why: "no \"room\"".into(),
        },
    }
}

fn webhook(listener: &Listener) -> (Webhook, metrics::Shared) {
    let shared = metrics::Shared::default();
    let address = Address::parse(&listener.url).expect("a URL");
    let webhook = Webhook::start(Some(address), shared.clone(), say).expect("it starts");
    (webhook, shared)
}

#[test]
fn refusals_are_posted_in_order_and_other_events_are_not() {
    let _one = ONE.lock();
    // The second is not taken at first.
    let listener = Listener::start(|n| if n == 1 { "503 busy" } else { "200 OK" }.into());
    let (webhook, shared) = webhook(&listener);
    for n in 0..3 {
        webhook.tell(&lost(n));
        webhook.tell(&Line {
            what: What::Stopped {
                reports: 1,
                lost: 0,
            },
            ..lost(n)
        });
    }
    for n in 0..3 {
        let body = listener.next();
        assert_eq!(
            (&body["event"], &body["session"]),
            (&"lost".into(), &n.to_string().into())
        );
        assert_eq!(
            (&body["schema"], &body["why"]),
            (&SCHEMA.into(), &"no \"room\"".into())
        );
    }
    webhook.finish(Duration::from_secs(5));
    assert_eq!(with(&shared, |m| m.webhook), [3, 0, 0]);
    assert_eq!(listener.requests.load(Ordering::SeqCst), 4);
}

#[test]
fn what_is_refused_is_told_once_and_it_can_be_changed() {
    let _one = ONE.lock();
    SAID.lock().expect("nobody failed").clear();
    // Redirects lead nowhere: what is told is for one listener.
    let elsewhere = Listener::start(|_| "200 OK".into());
    let to = elsewhere.url.clone();
    let wrong = Listener::start(move |_| format!("307 Elsewhere\r\nLocation: {to}"));
    let (webhook, shared) = webhook(&wrong);
    for n in 0..3 {
        webhook.tell(&lost(n));
    }
    let end = Instant::now() + Duration::from_secs(30);
    while with(&shared, |m| m.webhook) != [0, 3, 0] {
        assert!(Instant::now() < end, "{:?}", with(&shared, |m| m.webhook));
        thread::sleep(Duration::from_millis(20));
    }
    assert!(elsewhere.bodies.try_recv().is_err());
    webhook.set(Some(Address::parse(&elsewhere.url).expect("a URL")));
    webhook.tell(&lost(3));
    assert_eq!(elsewhere.next()["session"], "3");
    webhook.set(None);
    webhook.tell(&lost(4));
    webhook.finish(Duration::from_secs(5));
    assert_eq!(with(&shared, |m| m.webhook), [1, 3, 0]);
    let said = SAID.lock().expect("nobody failed").clone();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].contains("it answers 307") && !said[0].contains("secret"),
        "{said:?}"
    );
    assert_eq!(said[1], "the webhook takes events again");
}

#[test]
fn a_slow_listener_holds_up_nothing_and_memory_is_bounded() {
    let _one = ONE.lock();
    let listener = Listener::start(|_| {
        thread::sleep(Duration::from_secs(3));
        "200 OK".into()
    });
    let (webhook, shared) = webhook(&listener);
    let started = Instant::now();
    for n in 0..2_000 {
        webhook.tell(&lost(n));
    }
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    // One may be on its way, and 256 wait.
    let dropped = with(&shared, |m| m.webhook[2]);
    assert!((1743..=1744).contains(&dropped), "{dropped}");
    // The end does not wait for all of them.
    webhook.finish(Duration::from_secs(1));
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
    let all: u64 = with(&shared, |m| m.webhook.iter().sum());
    assert_eq!(all, 2_000, "each is counted once");
}
