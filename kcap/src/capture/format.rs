//! `kcap.capture/v1` as bytes: gzip over JSON lines. The first line is a header that says what
//! follows, then comes one line per item, then an end marker with counts, so that a cut file is
//! known as such. Written and read as a stream; a reader is bounded by [`Limits`].

use std::fmt;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::{
    Capture, Clock, Evidence, Frame, Host, LogLine, Loss, Program, Subject, Tally, Tool, Unasked,
};

/// The schema that this version writes, and the only one that it reads.
pub const SCHEMA: &str = "kcap.capture/v1";
const FAMILY: &str = "kcap.capture/";

/// What reading a capture may cost. Bounds a hostile file, not an honest one.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest line, in bytes. The longest honest one is a header with a command of `ARG_MAX`
    /// bytes (2 MiB), each of which JSON may write as six.
    pub line: u64,
    /// Longest line after the header: paths, arguments and lines of a log are cut long before.
    pub item: u64,
    /// Most items.
    pub items: u64,
    /// Most bytes: those of the text, and those that its items take in memory. A million programs
    /// take less.
    pub bytes: u64,
    /// How many times its packed size `bytes` may come to, beyond [`SMALL`]: an honest one has less
    /// than a hundred, a bomb a thousand.
    pub ratio: u64,
}

/// Bytes, as in [`Limits::bytes`], up to which a capture may be packed as well as can be.
const SMALL: u64 = 16 << 20;

impl Limits {
    /// What [`read`] applies.
    pub const DEFAULT: Self = Self {
        line: 16 << 20,
        item: 4 << 20,
        items: 20_000_000,
        bytes: 1 << 30,
        ratio: 200,
    };
}

/// Why a capture cannot be read. Lines count from 1.
#[derive(Debug)]
pub enum ReadError {
    /// The source failed.
    Io(io::Error),
    /// It is something else.
    NotACapture,
    /// It is a capture of a version that this kcap does not know.
    Version(String),
    /// It ends early, or its checksum is wrong.
    Truncated,
    /// A line is not of the shape.
    Malformed {
        /// Which.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// It is larger than what is read.
    TooLarge {
        /// Where it went beyond.
        line: u64,
        /// Beyond what.
        limit: &'static str,
    },
    /// Its parts contradict each other.
    Inconsistent(String),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot read the capture: {error}"),
            Self::NotACapture => {
                write!(f, "not a kcap capture: no gzip with schema {SCHEMA} in it")
            }
            Self::Version(found) => write!(
                f,
                "capture of schema {found}, but this kcap reads {SCHEMA}; use the kcap that made it"
            ),
            Self::Truncated => {
                write!(
                    f,
                    "the capture is cut or damaged: its end is missing; record it again"
                )
            }
            Self::Malformed { line, why } => write!(f, "malformed capture, line {line}: {why}"),
            Self::TooLarge { line, limit } => {
                write!(
                    f,
                    "the capture is too large, line {line}: more than {limit}"
                )
            }
            Self::Inconsistent(why) => write!(f, "inconsistent capture: {why}"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// How many of each there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Counts {
    programs: u64,
    tallies: u64,
    evidence: u64,
    unasked: u64,
    log: u64,
}

#[derive(Serialize)]
struct HeaderRef<'a> {
    schema: &'a str,
    tool: &'a Tool,
    host: &'a Host,
    subject: &'a Subject,
    clock: &'a Clock,
    loss: &'a Loss,
    interrupted: bool,
    counts: Counts,
}

#[derive(Deserialize)]
struct Header {
    tool: Tool,
    host: Host,
    subject: Subject,
    clock: Clock,
    loss: Loss,
    interrupted: bool,
    counts: Counts,
}

#[derive(Deserialize)]
struct Head {
    schema: String,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum ItemRef<'a> {
    Program(&'a Program),
    Tally(&'a Tally),
    Evidence(&'a Evidence),
    Unasked(&'a Unasked),
    Log(&'a LogLine),
    End(Counts),
}

/// A line after the header. One that holds none of these is of a kind that a later version added.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Item {
    program: Option<Program>,
    tally: Option<Tally>,
    evidence: Option<Evidence>,
    unasked: Option<Unasked>,
    log: Option<LogLine>,
    end: Option<Counts>,
}

impl Capture {
    fn counts(&self) -> Counts {
        Counts {
            programs: self.programs.len() as u64,
            tallies: self.tallies.len() as u64,
            evidence: self.evidence.len() as u64,
            unasked: self.unasked.len() as u64,
            log: self.log.len() as u64,
        }
    }

    /// What the types alone do not hold: every index points into the capture, capability
    /// numbers fit a set, and sums of counts fit their type.
    fn check(&self) -> Result<(), ReadError> {
        let tallies = self.tallies.len();
        let indices = self
            .evidence
            .iter()
            .map(|e| e.tally)
            .chain(self.unasked.iter().map(|u| u.tally));
        for index in indices {
            if index as usize >= tallies {
                return Err(ReadError::Inconsistent(format!(
                    "a sample names tally {index} of {tallies}"
                )));
            }
        }
        if self
            .programs
            .windows(2)
            .any(|pair| pair[0].id >= pair[1].id)
        {
            return Err(ReadError::Inconsistent(
                "its programs are not ascending by id".to_owned(),
            ));
        }
        if let Some(cap) = self
            .tallies
            .iter()
            .filter_map(|t| t.cap)
            .find(|cap| *cap >= 64)
        {
            return Err(ReadError::Inconsistent(format!(
                "{cap} is no capability number"
            )));
        }
        let sum = self
            .tallies
            .iter()
            .try_fold(0u64, |sum, tally| sum.checked_add(tally.count));
        let failed = self.tallies.iter().all(|tally| {
            tally
                .failed
                .values()
                .try_fold(0u64, |sum, n| sum.checked_add(*n))
                .is_some()
        });
        let skipped = self
            .loss
            .skipped
            .values()
            .try_fold(0u64, |sum, n| sum.checked_add(*n))
            .is_some();
        match sum {
            Some(_) if failed && skipped => Ok(()),
            _ => Err(ReadError::Inconsistent("its counts overflow".to_owned())),
        }
    }
}

/// Writes a capture.
///
/// # Errors
/// Those of `to`; `InvalidData` where a line is longer than [`read`] accepts.
pub fn write(capture: &Capture, to: impl Write) -> io::Result<()> {
    fn line(
        to: &mut impl Write,
        buffer: &mut Vec<u8>,
        item: &impl Serialize,
        most: u64,
    ) -> io::Result<()> {
        buffer.clear();
        serde_json::to_writer(&mut *buffer, item)?;
        buffer.push(b'\n');
        if buffer.len() as u64 > most {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "a line of the capture has {} bytes, more than can be read",
                    buffer.len()
                ),
            ));
        }
        to.write_all(buffer)
    }
    let mut to = GzEncoder::new(BufWriter::new(to), Compression::default());
    let mut buffer = Vec::new();
    let counts = capture.counts();
    let header = HeaderRef {
        schema: SCHEMA,
        tool: &capture.tool,
        host: &capture.host,
        subject: &capture.subject,
        clock: &capture.clock,
        loss: &capture.loss,
        interrupted: capture.interrupted,
        counts,
    };
    line(&mut to, &mut buffer, &header, Limits::DEFAULT.line)?;
    let items = (capture.programs.iter().map(ItemRef::Program))
        .chain(capture.tallies.iter().map(ItemRef::Tally))
        .chain(capture.evidence.iter().map(ItemRef::Evidence))
        .chain(capture.unasked.iter().map(ItemRef::Unasked))
        .chain(capture.log.iter().map(ItemRef::Log))
        .chain([ItemRef::End(counts)]);
    for item in items {
        line(&mut to, &mut buffer, &item, Limits::DEFAULT.item)?;
    }
    to.finish()?.flush()
}

/// Reads a capture within the default limits.
///
/// # Errors
/// See [`ReadError`]. No input makes it panic.
pub fn read(from: impl Read) -> Result<Capture, ReadError> {
    read_within(from, Limits::DEFAULT)
}

fn read_within(from: impl Read, limits: Limits) -> Result<Capture, ReadError> {
    let mut lines = Lines {
        from: BufReader::new(GzDecoder::new(Counting {
            from: BufReader::new(from),
            read: 0,
        })),
        buffer: Vec::new(),
        number: 0,
        used: 0,
        limits,
    };
    let header = lines.next()?.ok_or(ReadError::NotACapture)?;
    let head: Head = serde_json::from_slice(header).map_err(|_| ReadError::NotACapture)?;
    if head.schema != SCHEMA {
        return Err(if head.schema.starts_with(FAMILY) {
            ReadError::Version(
                head.schema
                    .chars()
                    .take(64)
                    .flat_map(char::escape_default)
                    .collect(),
            )
        } else {
            ReadError::NotACapture
        });
    }
    let Header {
        tool,
        host,
        subject,
        clock,
        loss,
        interrupted,
        counts,
    } = lines.parse()?;
    let mut capture = Capture {
        tool,
        host,
        subject,
        clock,
        loss,
        interrupted,
        ..Capture::default()
    };
    let mut items = 0;
    loop {
        if lines.next()?.is_none() {
            return Err(ReadError::Truncated);
        }
        let item: Item = lines.parse()?;
        if let Some(end) = item.end {
            if end != counts || end != capture.counts() {
                return Err(ReadError::Inconsistent(
                    "it does not hold as many items as it says".to_owned(),
                ));
            }
            break;
        }
        items += 1;
        if items > limits.items {
            return Err(ReadError::TooLarge {
                line: lines.number,
                limit: "the items that are read",
            });
        }
        lines.keep(item.program, &mut capture.programs)?;
        lines.keep(item.tally, &mut capture.tallies)?;
        lines.keep(item.evidence, &mut capture.evidence)?;
        lines.keep(item.unasked, &mut capture.unasked)?;
        lines.keep(item.log, &mut capture.log)?;
    }
    // Reading to the end has the checksum verified.
    if lines.next()?.is_some() {
        return Err(ReadError::Malformed {
            line: lines.number,
            why: "text after the end marker".to_owned(),
        });
    }
    capture.check()?;
    Ok(capture)
}

/// What an item takes in memory beside its text, which is counted as it is read.
trait Held {
    fn held(&self) -> usize;
}

impl Held for Program {
    fn held(&self) -> usize {
        let args = self.argv.as_ref().map_or(0, |argv| argv.args.capacity());
        size_of::<Self>() + args * size_of::<String>()
    }
}

impl Held for Tally {
    fn held(&self) -> usize {
        size_of::<Self>() + self.failed.len() * size_of::<(u8, u64)>()
    }
}

impl Held for Evidence {
    fn held(&self) -> usize {
        size_of::<Self>() + self.path.capacity() * size_of::<Frame>()
    }
}

impl Held for Unasked {
    fn held(&self) -> usize {
        size_of::<Self>()
    }
}

impl Held for LogLine {
    fn held(&self) -> usize {
        size_of::<Self>()
    }
}

/// Counts the packed bytes.
struct Counting<R> {
    from: R,
    read: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(to)?;
        self.read += read as u64;
        Ok(read)
    }
}

/// Lines of bounded length, of bounded sum.
struct Lines<R> {
    from: BufReader<GzDecoder<Counting<R>>>,
    buffer: Vec<u8>,
    number: u64,
    /// Of [`Limits::bytes`].
    used: u64,
    limits: Limits,
}

impl<R: Read> Lines<R> {
    /// The next line, `None` at the end.
    fn next(&mut self) -> Result<Option<&[u8]>, ReadError> {
        self.buffer.clear();
        let first = self.number == 0;
        self.number += 1;
        let most = if first {
            self.limits.line
        } else {
            self.limits.item
        };
        (&mut self.from)
            .take(most + 1)
            .read_until(b'\n', &mut self.buffer)
            .map_err(|error| match error.kind() {
                // What is no gzip at all fails at its header; what is cut has a good one.
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData if first => {
                    ReadError::NotACapture
                }
                io::ErrorKind::UnexpectedEof if first && self.buffer.is_empty() => {
                    ReadError::NotACapture
                }
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::InvalidData => ReadError::Truncated,
                _ => ReadError::Io(error),
            })?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        if self.buffer.len() as u64 > most {
            return Err(ReadError::TooLarge {
                line: self.number,
                limit: "the longest line read",
            });
        }
        self.charge(self.buffer.len())?;
        if self.buffer.last() != Some(&b'\n') {
            return Err(if first {
                ReadError::NotACapture
            } else {
                ReadError::Truncated
            });
        }
        Ok(Some(&self.buffer))
    }

    /// The line that [`Self::next`] gave, as `T`.
    fn parse<T: for<'de> Deserialize<'de>>(&self) -> Result<T, ReadError> {
        serde_json::from_slice(&self.buffer).map_err(|error| ReadError::Malformed {
            line: self.number,
            // Control characters of the input may be quoted in it.
            why: error
                .to_string()
                .chars()
                .take(200)
                .flat_map(char::escape_debug)
                .collect(),
        })
    }

    fn keep<T: Held>(&mut self, item: Option<T>, to: &mut Vec<T>) -> Result<(), ReadError> {
        if let Some(item) = item {
            self.charge(item.held())?;
            to.push(item);
        }
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.used = self.used.saturating_add(bytes as u64);
        let packed = self.from.get_ref().get_ref().read;
        let limit = if self.used > self.limits.bytes {
            "the bytes that are read"
        } else if self.used > SMALL.max(packed.saturating_mul(self.limits.ratio)) {
            "a capture of so few packed bytes unpacks to"
        } else {
            return Ok(());
        };
        Err(ReadError::TooLarge {
            line: self.number,
            limit,
        })
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
