//! gRPC over a Unix socket, as far as single questions with single answers need it: a message with five
//! bytes before it, in a request of HTTP/2, and the status in the answer's trailers.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::Full;
use hyper::{HeaderMap, Request, StatusCode, client::conn::http2};
use hyper_util::rt::TokioExecutor;
use prost::Message;

use super::http;

/// Longest complaint that is passed on, in characters.
const COMPLAINT: usize = 200;
/// The status of a method that is not there.
const UNIMPLEMENTED: &str = "12";

/// A connection.
pub struct Channel(http2::SendRequest<Full<Bytes>>);

impl Channel {
    /// Connects; within a runtime that goes on running while it is used.
    ///
    /// # Errors
    /// Where nobody listens there.
    pub async fn open(socket: &Path) -> Result<Self> {
        let io = http::connect(socket).await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        // How it ends is told where it is used.
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Asks; `method` is `/SERVICE/METHOD`.
    ///
    /// # Errors
    /// Where the answer is a status other than 0, or none.
    pub async fn ask<A: Message + Default>(
        &mut self,
        method: &str,
        question: &impl Message,
    ) -> Result<A> {
        let request = Request::post(format!("http://localhost{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(framed(question)?))
            .context("no method")?;
        self.0.ready().await?;
        let response = self.0.send_request(request).await?;
        if response.status() != StatusCode::OK {
            bail!("HTTP status {}: no gRPC is spoken there", response.status());
        }
        if response.headers().contains_key("grpc-status") {
            // There is nothing behind the head.
            succeeded(response.headers())?;
        }
        let body = http::whole(response.into_body()).await?;
        succeeded(body.trailers().context("an answer without a status")?)?;
        unframed(&body.to_bytes())
    }
}

/// A message as it is sent.
fn framed(message: &impl Message) -> Result<Bytes> {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(length + 5);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).context("too long a question")?);
    message.encode(&mut bytes)?;
    Ok(bytes.freeze())
}

/// The message in an answer.
fn unframed<A: Message + Default>(bytes: &[u8]) -> Result<A> {
    let Some((&[compressed, a, b, c, d], message)) = bytes.split_first_chunk::<5>() else {
        bail!("an answer without a message");
    };
    let length = u32::from_be_bytes([a, b, c, d]);
    if compressed != 0 || message.len() != length as usize {
        bail!("an answer that is compressed, or no single message");
    }
    A::decode(message).context("an answer that is no message of its kind")
}

/// Whether it went well.
fn succeeded(headers: &HeaderMap) -> Result<()> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        Some("0") => Ok(()),
        Some(status) => {
            let said = text("grpc-message").unwrap_or_default();
            let said: String = said.chars().take(COMPLAINT).collect();
            match status {
                UNIMPLEMENTED => bail!("there is no such service ({said})"),
                _ => bail!("gRPC status {status}: {said}"),
            }
        }
        None => bail!("an answer without a status"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Text {
        #[prost(string, tag = "1")]
        text: String,
    }

    #[test]
    fn messages_are_framed() {
        let text = Text { text: "hi".into() };
        let bytes = framed(&text).unwrap();
        assert_eq!(&bytes[..], b"\0\0\0\0\x04\x0a\x02hi");
        assert_eq!(unframed::<Text>(&bytes).unwrap(), text);
        for wrong in [
            &b""[..],
            b"\0\0\0\0",
            b"\x01\0\0\0\x04\x0a\x02hi",
            b"\0\0\0\0\x05\x0a\x02hi",
            b"\0\0\0\0\x04\x0a\x02h",
            b"\0\0\0\0\x03\x0a\x02h",
        ] {
            assert!(unframed::<Text>(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_status_is_told_with_its_message() {
        let told = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, hyper::header::HeaderValue::from_static(value));
            }
            succeeded(&headers).map_err(|why| why.to_string())
        };
        assert_eq!(told(&[("grpc-status", "0")]), Ok(()));
        assert!(told(&[]).unwrap_err().contains("without a status"));
        let told = told(&[("grpc-status", "5"), ("grpc-message", "not found")]);
        assert_eq!(told.unwrap_err(), "gRPC status 5: not found");
    }
}
