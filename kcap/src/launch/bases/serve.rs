//! A registry of kept images: read only, over plain HTTP, for the builds of one run of kcap.
//!
//! It answers what Kaniko asks of a registry (OCI distribution: `/v2/`, manifests by tag and digest,
//! blobs; GET and HEAD) for the names that it serves and for nothing else, and only below a path with a
//! secret in it, which Kaniko's `--registry-map` carries: `index.docker.io=HOST:PORT/SECRET/0`. Who may
//! connect at all is `place`'s matter.
//!
//! A thread of its own runs it. It reads files where it writes to sockets: nobody waits but other
//! builds, and pages that one build has read are in memory for the next.

mod answer;
mod site;

use std::{
    convert::Infallible,
    ffi::OsString,
    net::SocketAddrV4,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot},
};

use self::{answer::Counts, site::Site};
use super::{
    Base,
    place::{Admits, Place},
};

/// Most connections at once. Each build opens a few.
const CONNECTIONS: usize = 64;
/// How long a connection may be without a request, or take to send one.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one may last.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// Largest head of a request in bytes.
const HEAD: usize = 16 << 10;

/// A registry that answers until this is dropped.
#[derive(Debug)]
pub struct Served {
    site: Arc<Site>,
    counts: Arc<Counts>,
    address: SocketAddrV4,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Starts it.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn start(images: &[Arc<Base>], place: Place) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .context("cannot serve base images")?;
        let Place {
            socket,
            address,
            admits,
        } = place;
        let listener = {
            let _within = runtime.enter();
            let backlog = CONNECTIONS as u32;
            let listening = socket.listen(backlog);
            listening.with_context(|| format!("cannot listen on {address}"))?
        };
        let site = Arc::new(Site::new(images)?);
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = oneshot::channel();
        let (served, counted) = (site.clone(), counts.clone());
        let thread = thread::Builder::new()
            .name("bases".into())
            .spawn(move || {
                // Connections end with it.
                runtime.block_on(async move {
                    tokio::select! {
                        _ = stopped => {}
                        () = accept(listener, served, counted, admits, address) => {}
                    }
                });
            })
            .context("cannot serve base images")?;
        Ok(Self {
            site,
            counts,
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Flags of Kaniko that send it here. They go before those that a user gave: Kaniko asks the places
    /// of a registry in the order of its flags, so that this one comes first, and goes on to the next,
    /// and to the registry itself, for what is not served.
    pub fn flags(&self) -> Vec<OsString> {
        let (address, secret) = (self.address, self.site.secret());
        let maps = (self.site.registries().iter().enumerate()).map(|(number, registry)| {
            format!("--registry-map={registry}={address}/{secret}/{number}")
        });
        // Not --insecure-pull, which would take TLS from all other registries as well.
        let http = format!("--insecure-registry={address}");
        maps.chain([http]).map(OsString::from).collect()
    }

    /// What of the flags is different in every run and of use to nobody: to be masked in reports.
    pub fn secret(&self) -> &str {
        self.site.secret()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// How many requests below the secret path were answered with a manifest or blob.
    pub fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// How many bytes of manifests and blobs were sent.
    pub fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Relaxed)
    }

    /// How many connections were refused for where they came from or because there were too many.
    pub fn refused(&self) -> u64 {
        self.counts.refused.load(Ordering::Relaxed)
    }

    /// What builds asked for that is not here, and then fetched elsewhere: `registry/repository:tag`.
    /// At most some; what stands in them is of a build's making.
    pub fn missed(&self) -> Vec<String> {
        self.site.missed()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(
    listener: TcpListener,
    site: Arc<Site>,
    counts: Arc<Counts>,
    admits: Admits,
    ours: SocketAddrV4,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            // Too many open files, or a connection that is gone already.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let place = room.clone().try_acquire_owned();
        let (Ok(place), true) = (place, admits.admits(from, ours)) else {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let (site, counts) = (site.clone(), counts.clone());
        tokio::spawn(async move {
            let answer = service_fn(|request: Request<Incoming>| {
                let answer = site.answer(request.method(), request.uri().path());
                async { Ok::<_, Infallible>(answer.response(&counts)) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .max_buf_size(HEAD)
                .serve_connection(TokioIo::new(stream), answer);
            // A client that goes away, or speaks something else, is no concern of ours.
            let _ = tokio::time::timeout(LONGEST, serving).await;
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests;
