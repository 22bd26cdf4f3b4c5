//! A registry of kept images: read only, over plain HTTP, for the builds of one run of kcap.
//!
//! It answers what Kaniko asks of a registry (OCI distribution: `/v2/`, manifests by tag and digest,
//! blobs; GET and HEAD) for the names that it serves and for nothing else, and only below a path with a
//! secret in it, which Kaniko's `--registry-map` carries: `index.docker.io=HOST:PORT/SECRET/0`. Who may
//! connect at all is `place`'s matter.
//!
//! A thread of its own runs it. It reads files where it writes to sockets: nobody waits but other
//! builds, and pages that one build has read are in memory for the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    net::SocketAddrV4,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot},
};

use super::{
    Base,
    manifest::media_type,
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
/// How much of a blob is read at a time.
const PIECE: usize = 128 << 10;
/// Most names that were asked for in vain and are kept.
const MOST_MISSED: usize = 100;

/// A registry that answers until this is dropped.
#[derive(Debug)]
pub struct Served {
    site: Arc<Site>,
    address: SocketAddrV4,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What is served.
#[derive(Debug)]
struct Site {
    /// 128 bits at random, in hexadecimal: a dot would make Kaniko take it for a registry.
    secret: String,
    /// Registries, in the order of their numbers in paths.
    registries: Vec<String>,
    /// Images by number of the registry and repository, as in paths.
    images: BTreeMap<(usize, String), Vec<Arc<Base>>>,
    requests: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
    missed: Mutex<BTreeSet<String>>,
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
        let (stop, stopped) = oneshot::channel();
        let served = site.clone();
        let thread = thread::Builder::new()
            .name("bases".into())
            .spawn(move || {
                // Connections end with it.
                runtime.block_on(async move {
                    tokio::select! {
                        _ = stopped => {}
                        () = accept(listener, served, admits, address) => {}
                    }
                });
            })
            .context("cannot serve base images")?;
        Ok(Self {
            site,
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Flags of Kaniko that send it here. They go before those that a user gave: Kaniko asks the places
    /// of a registry in the order of its flags, so that this one comes first, and goes on to the next,
    /// and to the registry itself, for what is not served.
    pub fn flags(&self) -> Vec<OsString> {
        let (address, secret) = (self.address, &self.site.secret);
        let maps = (self.site.registries.iter().enumerate()).map(|(number, registry)| {
            format!("--registry-map={registry}={address}/{secret}/{number}")
        });
        // Not --insecure-pull, which would take TLS from all other registries as well.
        let http = format!("--insecure-registry={address}");
        maps.chain([http]).map(OsString::from).collect()
    }

    /// What of the flags is different in every run and of use to nobody: to be masked in reports.
    pub fn secret(&self) -> &str {
        &self.site.secret
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// How many requests below the secret path were answered with a manifest or blob.
    pub fn requests(&self) -> u64 {
        self.site.requests.load(Ordering::Relaxed)
    }

    /// How many bytes of manifests and blobs were sent.
    pub fn bytes(&self) -> u64 {
        self.site.bytes.load(Ordering::Relaxed)
    }

    /// How many connections were refused for where they came from or because there were too many.
    pub fn refused(&self) -> u64 {
        self.site.refused.load(Ordering::Relaxed)
    }

    /// What builds asked for that is not here, and then fetched elsewhere: `registry/repository:tag`.
    /// At most some; what stands in them is of a build's making.
    pub fn missed(&self) -> Vec<String> {
        let missed = self.site.missed.lock();
        let missed = missed.unwrap_or_else(PoisonError::into_inner);
        missed.iter().cloned().collect()
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

async fn accept(listener: TcpListener, site: Arc<Site>, admits: Admits, ours: SocketAddrV4) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            // Too many open files, or a connection that is gone already.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let place = room.clone().try_acquire_owned();
        let (Ok(place), true) = (place, admits.admits(from, ours)) else {
            site.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let site = site.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request: Request<Incoming>| {
                let answer = site.answer(request.method(), request.uri().path());
                async { Ok::<_, Infallible>(answer.response(&site)) }
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

/// What is answered.
#[derive(Debug)]
enum Answer {
    /// There is a registry.
    Here,
    /// A manifest, or only what it is.
    Manifest {
        digest: String,
        bytes: Vec<u8>,
        whole: bool,
    },
    /// A blob, or only what it is.
    Blob {
        digest: String,
        file: File,
        size: u64,
        whole: bool,
    },
    /// Nothing, with this code of the specification.
    No(StatusCode, &'static str),
}

impl Site {
    fn new(images: &[Arc<Base>]) -> Result<Self> {
        let registries: BTreeSet<_> = images
            .iter()
            .map(|i| i.reference.registry.clone())
            .collect();
        let registries: Vec<_> = registries.into_iter().collect();
        let mut by_path = BTreeMap::<_, Vec<_>>::new();
        for image in images {
            let reference = &image.reference;
            let number = registries.binary_search(&reference.registry);
            let number = number.unwrap_or_default();
            let path = (number, reference.repository.clone());
            by_path.entry(path).or_default().push(image.clone());
        }
        Ok(Self {
            secret: secret()?,
            registries,
            images: by_path,
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            missed: Mutex::default(),
        })
    }

    /// What is answered to a request.
    fn answer(&self, method: &Method, path: &str) -> Answer {
        const UNKNOWN: Answer = Answer::No(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
        let whole = match *method {
            Method::GET => true,
            Method::HEAD => false,
            _ => return Answer::No(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        };
        let Some(path) = path.strip_prefix("/v2") else {
            return UNKNOWN;
        };
        if matches!(path, "" | "/") {
            return Answer::Here;
        }
        let known = path.strip_prefix('/').and_then(|path| {
            let (secret, path) = path.split_once('/')?;
            same(secret, &self.secret).then_some(path)
        });
        let asked = known.and_then(|path| {
            let (number, path) = path.split_once('/')?;
            let (path, identifier) = path.rsplit_once('/')?;
            let (repository, kind) = path.rsplit_once('/')?;
            let number: usize = number.parse().ok()?;
            let registry = self.registries.get(number)?;
            Some((number, registry, repository, kind, identifier))
        });
        let Some((number, registry, repository, kind, identifier)) = asked else {
            return UNKNOWN;
        };
        let images = self.images.get(&(number, repository.to_owned()));
        let mut images = images.into_iter().flatten();
        let found = match kind {
            "manifests" => images.find_map(|image| image.manifest(identifier, whole)),
            "blobs" => images.find_map(|image| image.blob(identifier, whole)),
            _ => return UNKNOWN,
        };
        if found.is_none() && kind == "manifests" {
            let sign = if identifier.contains(':') { '@' } else { ':' };
            let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
            if missed.len() < MOST_MISSED {
                missed.insert(format!("{registry}/{repository}{sign}{identifier}"));
            }
        }
        let no = match kind {
            "manifests" => "MANIFEST_UNKNOWN",
            _ => "BLOB_UNKNOWN",
        };
        found.unwrap_or(Answer::No(StatusCode::NOT_FOUND, no))
    }
}

impl Base {
    fn manifest(&self, identifier: &str, whole: bool) -> Option<Answer> {
        let digest = match identifier {
            tag if tag == self.reference.identifier => &self.top,
            digest if digest == self.top || digest == self.kept.image => digest,
            _ => return None,
        };
        Some(Answer::Manifest {
            digest: digest.to_owned(),
            // What was damaged meanwhile is fetched elsewhere.
            bytes: self.kept.manifest(digest).ok()?,
            whole,
        })
    }

    fn blob(&self, digest: &str, whole: bool) -> Option<Answer> {
        let blob = self.kept.blobs.iter().find(|blob| blob.digest == digest)?;
        let file = File::open(self.kept.path(digest)?).ok()?;
        let size = file.metadata().ok()?.len();
        // Half a layer is worse than none.
        (size == blob.size).then(|| Answer::Blob {
            digest: digest.to_owned(),
            file,
            size,
            whole,
        })
    }
}

/// Whether two texts are the same, in a time that does not tell where they differ.
fn same(a: &str, b: &str) -> bool {
    let differences = a
        .bytes()
        .zip(b.bytes())
        .fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && differences == 0
}

/// 128 bits at random, in hexadecimal.
fn secret() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Answer {
    fn response(self, site: &Arc<Site>) -> Response<Content> {
        let response =
            Response::builder().header("Docker-Distribution-Api-Version", "registry/2.0");
        let (response, content) = match self {
            Self::Here => (
                response
                    .header(CONTENT_TYPE, "application/json")
                    .header(CONTENT_LENGTH, 2),
                Content::text("{}".into()),
            ),
            Self::No(status, code) => {
                let text = format!(r#"{{"errors":[{{"code":"{code}","message":"not served"}}]}}"#);
                let response = match status {
                    StatusCode::METHOD_NOT_ALLOWED => response.header(ALLOW, "GET, HEAD"),
                    _ => response,
                };
                (
                    response
                        .status(status)
                        .header(CONTENT_TYPE, "application/json")
                        .header(CONTENT_LENGTH, text.len()),
                    Content::text(text.into()),
                )
            }
            Self::Manifest {
                digest,
                bytes,
                whole,
            } => {
                site.requests.fetch_add(1, Ordering::Relaxed);
                let kind = media_type(&bytes).unwrap_or("application/json");
                let response = response
                    .header(CONTENT_TYPE, kind)
                    .header(CONTENT_LENGTH, bytes.len())
                    .header("Docker-Content-Digest", digest);
                let content = match whole {
                    true => Content::of(bytes.into(), None, site),
                    false => Content::default(),
                };
                (response, content)
            }
            Self::Blob {
                digest,
                file,
                size,
                whole,
            } => {
                site.requests.fetch_add(1, Ordering::Relaxed);
                let response = response
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .header(CONTENT_LENGTH, size)
                    .header("Docker-Content-Digest", digest);
                let content = match whole {
                    true => Content::of(Bytes::new(), Some((file, size)), site),
                    false => Content::default(),
                };
                (response, content)
            }
        };
        // All of it is text of ours, or a digest that was compared with one.
        response.body(content).unwrap_or_default()
    }
}

/// What follows the head of an answer: some bytes, then some of a file.
#[derive(Debug, Default)]
struct Content {
    bytes: Bytes,
    file: Option<(File, u64)>,
    /// Where it is counted.
    site: Option<Arc<Site>>,
}

impl Content {
    fn text(bytes: Bytes) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }

    fn of(bytes: Bytes, file: Option<(File, u64)>, site: &Arc<Site>) -> Self {
        Self {
            bytes,
            file,
            site: Some(site.clone()),
        }
    }

    fn left(&self) -> u64 {
        self.bytes.len() as u64 + self.file.as_ref().map_or(0, |(_, left)| *left)
    }

    fn next(&mut self) -> Option<io::Result<Bytes>> {
        if !self.bytes.is_empty() {
            return Some(Ok(std::mem::take(&mut self.bytes)));
        }
        let (file, left) = self.file.as_mut().filter(|(_, left)| *left > 0)?;
        let mut piece = vec![0; PIECE.min(usize::try_from(*left).unwrap_or(PIECE))];
        match file.read_exact(&mut piece) {
            Ok(()) => {
                *left -= piece.len() as u64;
                Some(Ok(piece.into()))
            }
            // The connection is cut, so that nobody takes a part for the whole.
            Err(error) => {
                *left = 0;
                Some(Err(error))
            }
        }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let content = self.get_mut();
        let next = content.next();
        if let (Some(Ok(bytes)), Some(site)) = (&next, &content.site) {
            site.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(next.map(|next| next.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
