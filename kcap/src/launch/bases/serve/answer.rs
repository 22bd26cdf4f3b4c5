//! An answer of the registry, and how it is sent: a blob piece by piece, and all of it counted.

use std::{
    fs::File,
    io::{self, Read as _},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    body::{Body, Frame, SizeHint},
    header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE},
};

use crate::launch::bases::manifest::media_type;

/// How much of a blob is read at a time.
pub(super) const PIECE: usize = 128 << 10;

/// What was answered, and what was not.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Answers that were a manifest or blob.
    pub(super) requests: AtomicU64,
    /// Bytes of these.
    pub(super) bytes: AtomicU64,
    /// Connections that were refused.
    pub(super) refused: AtomicU64,
}

/// What is answered.
#[derive(Debug)]
pub(super) enum Answer {
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

impl Answer {
    /// As it is sent, and counted.
    pub(super) fn response(self, counts: &Arc<Counts>) -> Response<Content> {
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
                counts.requests.fetch_add(1, Ordering::Relaxed);
                let kind = media_type(&bytes).unwrap_or("application/json");
                let response = response
                    .header(CONTENT_TYPE, kind)
                    .header(CONTENT_LENGTH, bytes.len())
                    .header("Docker-Content-Digest", digest);
                let content = match whole {
                    true => Content::of(bytes.into(), None, counts),
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
                counts.requests.fetch_add(1, Ordering::Relaxed);
                let response = response
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .header(CONTENT_LENGTH, size)
                    .header("Docker-Content-Digest", digest);
                let content = match whole {
                    true => Content::of(Bytes::new(), Some((file, size)), counts),
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
pub(super) struct Content {
    bytes: Bytes,
    file: Option<(File, u64)>,
    /// Where it is counted.
    counts: Option<Arc<Counts>>,
}

impl Content {
    fn text(bytes: Bytes) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }

    fn of(bytes: Bytes, file: Option<(File, u64)>, counts: &Arc<Counts>) -> Self {
        Self {
            bytes,
            file,
            counts: Some(counts.clone()),
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
        if let (Some(Ok(bytes)), Some(counts)) = (&next, &content.counts) {
            counts
                .bytes
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
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
