//! Figures in Prometheus' text format, for whoever asks.

use std::{
    convert::Infallible,
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header::CONTENT_TYPE,
    server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

use crate::record::Figures;

/// How long figures may stay the same before it is taken for hung.
const SILENCE: Duration = Duration::from_secs(60);
/// Most connections at once.
const CONNECTIONS: usize = 16;
/// How long one may last.
const LONGEST: Duration = Duration::from_secs(30);

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// As the recorder gave them last.
    pub figures: Figures,
    /// When it did.
    pub seen: Option<Instant>,
    /// Sessions that began.
    pub opened: u64,
    /// Of these, those that ran before kcap did.
    pub late: u64,
    /// Builds that are not traced, for want of room.
    pub refused: u64,
    /// Builds that are not traced, since nobody wants it.
    pub unwanted: u64,
    /// Reports written.
    pub written: u64,
    /// Reports lost.
    pub lost: u64,
    /// Failed attempts at writing.
    pub delayed: u64,
    /// Reports in which something was lost.
    pub incomplete: u64,
    /// Sessions that took more than they may.
    pub over_bounds: u64,
    /// Checks in ended sessions.
    pub checks: u64,
    /// Builds by what became of them: succeeded, failed, unknown.
    pub builds: [u64; 3],
    /// Capabilities that builds were refused: those that failed one, and others.
    pub refusals: [u64; 2],
    /// Reports that wait, and their bytes.
    pub waiting: (usize, usize),
    /// Events for the webhook: delivered, failed, and dropped since too many waited.
    pub webhook: [u64; 3],
}

/// Names of loss counters, by `kcap_common::abi::loss`.
const LOSS: [(usize, &str); 6] = [
    (0, "checks"),
    (1, "evidence"),
    (2, "programs"),
    (3, "outcomes"),
    (4, "scope"),
    (8, "unasked"),
];

impl Metrics {
    /// As Prometheus reads it.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP kcap_{name} {help}\n# TYPE kcap_{name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "kcap_{name}{labels} {value}");
            }
        };
        let plain = |value: u64| vec![(String::new(), value as f64)];
        let labelled = |label: &str, values: &[(&str, u64)]| -> Vec<(String, f64)> {
            let of =
                |(name, value): &(&str, u64)| (format!("{{{label}=\"{name}\"}}"), *value as f64);
            values.iter().map(of).collect()
        };
        family(
            "sessions_open",
            "gauge",
            "Builds that are being traced.",
            &plain(self.figures.open as u64),
        );
        family(
            "sessions_total",
            "counter",
            "Builds that were traced.",
            &plain(self.opened),
        );
        family(
            "sessions_late_total",
            "counter",
            "Of these, those that ran before kcap did.",
            &plain(self.late),
        );
        family(
            "sessions_left_out_total",
            "counter",
            "Builds that were not traced.",
            &labelled(
                "why",
                &[("room", self.refused), ("unwanted", self.unwanted)],
            ),
        );
        family(
            "sessions_over_bounds_total",
            "counter",
            "Builds that took more memory than they may.",
            &plain(self.over_bounds),
        );
        family(
            "builds_total",
            "counter",
            "Traced builds by what became of them.",
            &labelled(
                "result",
                &[
                    ("succeeded", self.builds[0]),
                    ("failed", self.builds[1]),
                    ("unknown", self.builds[2]),
                ],
            ),
        );
        family(
            "checks_total",
            "counter",
            "Capability checks in builds that ended.",
            &plain(self.checks),
        );
        family(
            "refusals_total",
            "counter",
            "Capabilities that builds asked for and their container did not hold.",
            &labelled(
                "failed",
                &[("yes", self.refusals[0]), ("no", self.refusals[1])],
            ),
        );
        family(
            "reports_written_total",
            "counter",
            "Reports written.",
            &plain(self.written),
        );
        family(
            "reports_lost_total",
            "counter",
            "Reports that could not be kept.",
            &plain(self.lost),
        );
        family(
            "reports_delayed_total",
            "counter",
            "Failed attempts at writing a report.",
            &plain(self.delayed),
        );
        family(
            "reports_incomplete_total",
            "counter",
            "Reports in which something was lost.",
            &plain(self.incomplete),
        );
        family(
            "reports_waiting",
            "gauge",
            "Reports that wait to be written.",
            &plain(self.waiting.0 as u64),
        );
        family(
            "reports_waiting_bytes",
            "gauge",
            "Their bytes.",
            &plain(self.waiting.1 as u64),
        );
        family(
            "webhook_total",
            "counter",
            "Events for the webhook by what became of them.",
            &labelled(
                "result",
                &[
                    ("delivered", self.webhook[0]),
                    ("failed", self.webhook[1]),
                    ("dropped", self.webhook[2]),
                ],
            ),
        );
        let loss: Vec<(&str, u64)> = (LOSS.iter())
            .map(|(at, name)| (*name, self.figures.loss.get(*at).copied().unwrap_or(0)))
            .chain([("skipped", self.figures.skipped)])
            .collect();
        family(
            "loss_total",
            "counter",
            "What was lost in the kernel.",
            &labelled("what", &loss),
        );
        let programs = |value: &dyn Fn(u64, u64) -> f64| -> Vec<(String, f64)> {
            let programs = self.figures.programs.iter();
            programs
                .map(|(name, ns, runs)| (format!("{{program=\"{name}\"}}"), value(*ns, *runs)))
                .collect()
        };
        family(
            "bpf_seconds_total",
            "counter",
            "Time spent in BPF programs.",
            &programs(&|ns, _| ns as f64 / 1e9),
        );
        family(
            "bpf_runs_total",
            "counter",
            "Runs of BPF programs.",
            &programs(&|_, runs| runs as f64),
        );
        text
    }
}

/// The same, shared.
pub type Shared = Arc<Mutex<Metrics>>;

/// Changes something.
pub fn with<T>(shared: &Shared, change: impl FnOnce(&mut Metrics) -> T) -> T {
    change(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A place to answer `GET /metrics` at.
#[derive(Debug)]
pub struct Bound {
    listener: std::net::TcpListener,
    /// The address, whose port may have been left open.
    pub address: SocketAddr,
}

/// Takes the address.
///
/// # Errors
/// Where it cannot listen there.
pub fn bind(address: SocketAddr) -> Result<Bound> {
    let cannot = || format!("cannot listen on {address} for --metrics: choose another address");
    let listener = std::net::TcpListener::bind(address).with_context(cannot)?;
    listener.set_nonblocking(true).with_context(cannot)?;
    let address = listener.local_addr().with_context(cannot)?;
    Ok(Bound { listener, address })
}

impl Bound {
    /// Answers until kcap ends, on a thread of its own.
    ///
    /// # Errors
    /// Where the system has none left.
    pub fn serve(self, shared: Shared) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot answer for --metrics")?;
        let listener = self.listener;
        thread::Builder::new()
            .name("kcap-metrics".into())
            .spawn(move || {
                runtime.block_on(async move {
                    if let Ok(listener) = TcpListener::from_std(listener) {
                        accept(listener, shared).await;
                    }
                });
            })
            .context("cannot start a thread")?;
        Ok(())
    }
}

async fn accept(listener: TcpListener, shared: Shared) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Too many open files, or a connection that is gone already.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let _place = place;
            let answer = service_fn(move |request: Request<Incoming>| {
                let answer = answer(&request, &shared);
                async move { Ok::<_, Infallible>(answer) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(LONGEST)
                .serve_connection(TokioIo::new(stream), answer);
            // Who went away, or took too long, is not told.
            let _ = timeout(LONGEST, served).await;
        });
    }
}

fn answer(request: &Request<Incoming>, shared: &Shared) -> Response<String> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, with(shared, |metrics| metrics.to_text())),
        (&Method::GET, "/healthz") => {
            let seen = with(shared, |metrics| metrics.seen);
            match seen {
                Some(seen) if seen.elapsed() > SILENCE => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "it has not looked at builds for a minute\n".to_owned(),
                ),
                _ => (StatusCode::OK, "ok\n".to_owned()),
            }
        }
        _ => (
            StatusCode::NOT_FOUND,
            "there is /metrics and /healthz\n".to_owned(),
        ),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn figures_are_had_over_http() {
        let shared = Shared::default();
        with(&shared, |metrics| {
            metrics.opened = 3;
            metrics.figures.programs = vec![("kcap_tp", 1_500_000_000, 7)];
            metrics.figures.loss = vec![0, 2];
        });
        let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = bound.address;
        bound.serve(shared).unwrap();
        let get = |path: &str| {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )
            .unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        let text = get("/metrics");
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        for line in [
            "kcap_sessions_total 3",
            "kcap_loss_total{what=\"evidence\"} 2",
            "kcap_bpf_seconds_total{program=\"kcap_tp\"} 1.5",
            "# TYPE kcap_sessions_open gauge",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        assert!(get("/x").starts_with("HTTP/1.1 404"));
    }
}
