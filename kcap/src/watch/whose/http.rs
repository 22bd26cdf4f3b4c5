//! Requests over a Unix socket, to who is local and yet may answer anything, or nothing.

use std::path::Path;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Largest answer that is read, in bytes.
pub const LARGEST: usize = 4 << 20;

/// Connects.
///
/// # Errors
/// Where nobody listens there.
pub async fn connect(socket: &Path) -> Result<TokioIo<UnixStream>> {
    Ok(TokioIo::new(UnixStream::connect(socket).await?))
}

/// A connection that is spoken to in HTTP/1.1.
pub struct Connection(http1::SendRequest<Empty<Bytes>>);

/// What came back.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Who says so.
    pub server: String,
    /// The whole of it.
    pub body: Bytes,
}

impl Connection {
    /// Connects; within a runtime that goes on running while it is used.
    ///
    /// # Errors
    /// Where nobody listens there.
    pub async fn open(socket: &Path) -> Result<Self> {
        let (sender, connection) = http1::handshake(connect(socket).await?).await?;
        // How it ends is told where it is used.
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// Where it is no answer of at most [`LARGEST`] bytes.
    pub async fn get(&mut self, path: &str) -> Result<Answer> {
        let request = Request::get(path)
            .header(header::HOST, "localhost")
            .body(Empty::new())
            .context("no path of a request")?;
        self.0.ready().await?;
        let response = self.0.send_request(request).await?;
        let status = response.status();
        let server = response.headers().get(header::SERVER);
        let server = server.and_then(|s| s.to_str().ok()).unwrap_or_default();
        let server = server.to_owned();
        Ok(Answer {
            status,
            server,
            body: whole(response.into_body()).await?.to_bytes(),
        })
    }
}

/// A body as a whole, with its trailers.
///
/// # Errors
/// Where it breaks off, or is larger than [`LARGEST`].
pub async fn whole(body: Incoming) -> Result<http_body_util::Collected<Bytes>> {
    let collected = Limited::new(body, LARGEST).collect().await;
    collected.map_err(|why| anyhow::anyhow!("the answer cannot be read: {why}"))
}
