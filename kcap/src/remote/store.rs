//! An object store that speaks S3: put, get, list and delete, signed by rusty-s3, sent by ureq.

use std::{env, fmt, thread, time::Duration};

use anyhow::{Context as _, Error, Result, anyhow, bail};
use rusty_s3::{Bucket, S3Action as _, UrlStyle, actions::ListObjectsV2};
use ureq::{Agent, Body, http::Response};
use url::Url;

use super::{credentials::Source, http, location::is_addressable};

/// How long a signature holds.
const SIGNED: Duration = Duration::from_secs(300);
/// How long a request may take, and more for each mebibyte.
const LONGEST: Duration = Duration::from_secs(60);
const EACH_MIB: Duration = Duration::from_secs(4);
/// Attempts at a request that only reads, or that can be made twice.
const ATTEMPTS: u32 = 3;
/// The wait before the second; each next is twice as long.
const WAIT: Duration = Duration::from_millis(300);
/// Largest listing of a page: 1000 keys of 1 KiB, each byte of which can be written as three.
const PAGE: u64 = 8 << 20;
/// Most pages of a listing: 20 million keys.
const PAGES: usize = 20_000;
/// Largest text of an error that is read.
const ERROR: u64 = 64 << 10;
/// Longest part of it that is shown.
const SHOWN: usize = 200;

/// An object, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// When it was written, seconds since the epoch.
    pub modified: u64,
}

/// A store said no, which it will say again.
#[derive(Debug)]
pub struct Refused {
    status: u16,
    text: String,
}

impl Refused {
    /// There is no such object.
    fn is_absent(&self) -> bool {
        self.status == 404 && !self.text.starts_with("NoSuchBucket")
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, text } = self;
        let advice = match (*status, text.split([':', ' ']).next().unwrap_or_default()) {
            (_, "RequestTimeTooSkewed") => "set this host's clock",
            (
                _,
                "PermanentRedirect"
                | "AuthorizationHeaderMalformed"
                | "IllegalLocationConstraintException",
            )
            | (300..=399, _) => {
                "set AWS_REGION to the bucket's, and AWS_ENDPOINT_URL where it is not AWS's"
            }
            (_, "NoSuchBucket") => "make the bucket, or check AWS_ENDPOINT_URL and AWS_REGION",
            (401 | 403, _) | (_, "InvalidAccessKeyId" | "ExpiredToken" | "InvalidToken") => {
                "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and what they may \
                 do in the bucket"
            }
            (404, _) => "check the name, and AWS_ENDPOINT_URL",
            _ => "check AWS_ENDPOINT_URL and the store's log",
        };
        write!(f, "the store answers {status}, {text}: {advice}")
    }
}

impl std::error::Error for Refused {}

/// A bucket, and how it is reached.
pub struct Store {
    bucket: Bucket,
    agent: Agent,
    credentials: Source,
}

impl Store {
    /// By the variables that the AWS tools take: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION or
    /// AWS_DEFAULT_REGION, and the credentials.
    ///
    /// # Errors
    /// Where they make no sense, or there are no credentials.
    pub fn from_env(bucket: &str) -> Result<Self> {
        let first = |names: [&str; 2]| {
            (names.into_iter())
                .find_map(|name| env::var(name).ok().filter(|value| !value.trim().is_empty()))
        };
        let region = first(["AWS_REGION", "AWS_DEFAULT_REGION"]);
        let endpoint = first(["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]);
        let region = region.unwrap_or_else(|| "us-east-1".into());
        let agent = http::agent(LONGEST, false)?;
        let credentials = Source::from_vars(&|name| env::var(name).ok(), &region)?;
        Self::new(bucket, endpoint.as_deref(), &region, agent, credentials)
    }

    /// One with these credentials, at an endpoint: AWS's where there is none.
    ///
    /// # Errors
    /// Where the endpoint is no URL of HTTP, or the bucket's name cannot be in it.
    pub fn with(
        bucket: &str,
        endpoint: Option<&str>,
        region: &str,
        (key, secret): (&str, &str),
    ) -> Result<Self> {
        let credentials = Source::fixed(key, secret);
        Self::new(
            bucket,
            endpoint,
            region,
            http::agent(LONGEST, false)?,
            credentials,
        )
    }

    fn new(
        bucket: &str,
        endpoint: Option<&str>,
        region: &str,
        agent: Agent,
        credentials: Source,
    ) -> Result<Self> {
        let (url, style) = match endpoint {
            // Others' are reached by an address or a name that takes no further part.
            Some(endpoint) => (endpoint.to_owned(), UrlStyle::Path),
            // A dot in the name is more than a certificate covers.
            None if bucket.contains('.') => (aws(region), UrlStyle::Path),
            None => (aws(region), UrlStyle::VirtualHost),
        };
        let url = Url::parse(&url)
            .ok()
            .filter(|url| url.username().is_empty() && url.password().is_none())
            .context(
                "AWS_ENDPOINT_URL is no URL: write https://HOST:PORT, and give credentials by \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )?;
        let bucket = Bucket::new(url, style, bucket.to_owned(), region.to_owned()).map_err(|e| {
            anyhow!("no bucket at AWS_ENDPOINT_URL and AWS_REGION as they are: {e}; write https://HOST:PORT")
        })?;
        Ok(Self {
            bucket,
            agent,
            credentials,
        })
    }

    /// Writes an object: whole or not at all. One attempt.
    ///
    /// # Errors
    /// [`Refused`] where the store said no; another where it may be tried again. It names the object.
    pub fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let put = || -> Result<()> {
            let key = addressable(key)?;
            let credentials = self.credentials.get()?;
            let url = self.bucket.put_object(Some(&credentials), key).sign(SIGNED);
            let longest = LONGEST + EACH_MIB * u32::try_from(bytes.len() >> 20).unwrap_or(u32::MAX);
            let kind = if key.ends_with(".json") {
                "application/json"
            } else {
                "application/octet-stream"
            };
            let request = (self.agent.put(url.as_str()))
                .header("content-type", kind)
                .config()
                .timeout_global(Some(longest))
                .build();
            answer(request.send(bytes))?;
            Ok(())
        };
        put().with_context(|| format!("cannot write {}", self.shown(key)))
    }

    /// Reads an object of at most so many bytes.
    ///
    /// # Errors
    /// Where there is none, or it is larger, or cannot be had in a few attempts. It does not name the object.
    pub fn get(&self, key: &str, most: u64) -> Result<Vec<u8>> {
        let get = || -> Result<Vec<u8>> {
            let credentials = self.credentials.get()?;
            let url = (self.bucket)
                .get_object(Some(&credentials), addressable(key)?)
                .sign(SIGNED);
            // As many bytes as it may have, at 256 KiB a second.
            let longest = LONGEST + EACH_MIB * u32::try_from(most >> 20).unwrap_or(u32::MAX);
            let request = self.agent.get(url.as_str()).config();
            let mut response = answer(request.timeout_global(Some(longest)).build().call())?;
            let body = response.body_mut();
            if body.content_length().is_some_and(|length| length > most) {
                bail!(TooLarge);
            }
            let read = body.with_config().limit(most).read_to_vec();
            read.map_err(|error| match error {
                ureq::Error::BodyExceedsLimit(_) => TooLarge.into(),
                error => unreachable_store(&error),
            })
        };
        attempts(get)
    }

    /// Removes an object; one that is not there is no error.
    ///
    /// # Errors
    /// Where it cannot be removed in a few attempts. It names the object.
    pub fn delete(&self, key: &str) -> Result<()> {
        let delete = || -> Result<()> {
            let credentials = self.credentials.get()?;
            let url = (self.bucket)
                .delete_object(Some(&credentials), addressable(key)?)
                .sign(SIGNED);
            answer(self.agent.delete(url.as_str()).call())?;
            Ok(())
        };
        match attempts(delete) {
            Err(error) if error.downcast_ref().is_some_and(Refused::is_absent) => Ok(()),
            done => done.with_context(|| format!("cannot remove {}", self.shown(key))),
        }
    }

    /// Gives `found` each object whose key begins with `prefix`, in the order of keys, until it says no.
    ///
    /// # Errors
    /// Where they cannot be listed in a few attempts a page. It names the place.
    pub fn list(&self, prefix: &str, found: &mut dyn FnMut(Object) -> bool) -> Result<()> {
        let mut after: Option<String> = None;
        for _ in 0..PAGES {
            let page = || -> Result<_> {
                let credentials = self.credentials.get()?;
                let mut list = self.bucket.list_objects_v2(Some(&credentials));
                list.with_prefix(prefix);
                if let Some(after) = &after {
                    list.with_continuation_token(after);
                }
                let mut response = answer(self.agent.get(list.sign(SIGNED).as_str()).call())?;
                let text = response.body_mut().with_config().limit(PAGE);
                let text = text.read_to_string().map_err(|e| unreachable_store(&e))?;
                ListObjectsV2::parse_response(&text)
                    .map_err(|_| anyhow!("it answers what is no listing: check AWS_ENDPOINT_URL"))
            };
            let page =
                attempts(page).with_context(|| format!("cannot list {}", self.shown(prefix)))?;
            for object in page.contents {
                let modified = (object.last_modified)
                    .and_then(|time| time.parse::<jiff::Timestamp>().ok())
                    .and_then(|time| u64::try_from(time.as_second()).ok());
                let object = Object {
                    key: object.key,
                    size: object.size.unwrap_or(0),
                    // What has no time is new: it is not removed for its age.
                    modified: modified.unwrap_or(u64::MAX),
                };
                if !found(object) {
                    return Ok(());
                }
            }
            let next = page.next_continuation_token;
            if next.is_none() {
                return Ok(());
            }
            if next == after {
                bail!(
                    "cannot list {}: the same page comes again",
                    self.shown(prefix)
                );
            }
            after = next;
        }
        bail!(
            "cannot list {}: there are more than {PAGES} pages; give a longer prefix",
            self.shown(prefix)
        )
    }

    /// An object for people.
    pub fn shown(&self, key: &str) -> String {
        let key: String = key.chars().flat_map(char::escape_debug).collect();
        format!("s3://{}/{key}", self.bucket.name())
    }
}

fn aws(region: &str) -> String {
    format!("https://s3.{region}.amazonaws.com")
}

/// What is there is larger than it may be.
#[derive(Debug)]
struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is larger than any report is")
    }
}

impl std::error::Error for TooLarge {}

/// The store could not be asked.
#[derive(Debug)]
struct Unreachable(String);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the store cannot be reached ({}): check AWS_ENDPOINT_URL and the way there",
            self.0
        )
    }
}

impl std::error::Error for Unreachable {}

fn unreachable_store(error: &ureq::Error) -> Error {
    Unreachable(http::why(error)).into()
}

fn addressable(key: &str) -> Result<&str> {
    if !is_addressable(key) {
        bail!("a URL cannot name it: rename the object");
    }
    Ok(key)
}

/// A good answer; else why it is none.
fn answer(sent: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>> {
    let mut response = sent.map_err(|error| unreachable_store(&error))?;
    let status = response.status().as_u16();
    if (200..300).contains(&status) {
        return Ok(response);
    }
    let text = response
        .body_mut()
        .with_config()
        .limit(ERROR)
        .lossy_utf8(true);
    let text = said(&text.read_to_string().unwrap_or_default());
    // It may go better later.
    if status >= 500 || matches!(status, 408 | 429) || text.starts_with("RequestTimeout") {
        return Err(Unreachable(format!("{status}, {text}")).into());
    }
    Err(Refused { status, text }.into())
}

/// The code and message of an error in XML, in one line.
fn said(xml: &str) -> String {
    let of = |name: &str| {
        let (_, rest) = xml.split_once(&format!("<{name}>"))?;
        let (text, _) = rest.split_once(&format!("</{name}>"))?;
        let text: String = text.chars().take(SHOWN).collect();
        Some(
            text.chars()
                .flat_map(char::escape_debug)
                .collect::<String>(),
        )
    };
    match (of("Code"), of("Message")) {
        (Some(code), Some(message)) => format!("{code} ({})", message.trim_end_matches('.')),
        (Some(code), None) => code,
        _ => "and does not say why".into(),
    }
}

/// Tries a few times, where that can help.
fn attempts<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let mut wait = WAIT;
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(error) if error.is::<Unreachable>() => {}
            done => return done,
        }
        thread::sleep(wait);
        wait *= 2;
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_says_is_one_line_with_what_to_do() {
        let denied = "<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code><Message>No.\x1b[2J\n\
                      Never.</Message></Error>";
        let refused = |status, xml: &str| {
            Refused {
                status,
                text: said(xml),
            }
            .to_string()
        };
        let text = refused(403, denied);
        assert!(
            text.starts_with("the store answers 403, AccessDenied (No."),
            "{text}"
        );
        assert!(
            text.contains("AWS_ACCESS_KEY_ID") && !text.contains(char::is_control),
            "{text}"
        );
        assert!(refused(404, "<Code>NoSuchBucket</Code>").contains("make the bucket"));
        assert!(refused(301, "").contains("AWS_REGION"));
        assert!(refused(400, &"<Code>".repeat(9999)).contains("does not say why"));
        let absent = |text: &str| {
            Refused {
                status: 404,
                text: text.into(),
            }
            .is_absent()
        };
        assert!(absent("NoSuchKey (x)") && !absent("NoSuchBucket (x)"));
    }

    #[test]
    fn addresses_are_of_the_style_that_the_endpoint_takes() {
        let base = |bucket: &str, endpoint: Option<&str>| {
            Store::with(bucket, endpoint, "eu-west-1", ("k", "s"))
                .map(|store| store.bucket.base_url().to_string())
        };
        let aws = base("builds", None).unwrap();
        assert_eq!(aws, "https://builds.s3.eu-west-1.amazonaws.com/");
        let dotted = base("my.builds", None).unwrap();
        assert_eq!(dotted, "https://s3.eu-west-1.amazonaws.com/my.builds/");
        let own = base("builds", Some("http://127.0.0.1:9000")).unwrap();
        assert_eq!(own, "http://127.0.0.1:9000/builds/");
        for wrong in [
            "minio:9000",
            "ftp://host",
            "http://user:secret@host",
            "",
            "http://",
        ] {
            let error = format!("{:#}", base("builds", Some(wrong)).unwrap_err());
            assert!(
                error.contains("AWS_ENDPOINT_URL") && !error.contains("secret"),
                "{wrong}: {error}"
            );
        }
    }
}
