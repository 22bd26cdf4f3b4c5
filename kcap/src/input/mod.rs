//! Files that hold results, read within bounds: captures, reports, matrices, and folders of them.
//! They can be anybody's: cut, hostile, or of any size. Paths that begin with `s3://` are in an object
//! store.

mod many;
mod objects;
#[cfg(test)]
mod older;

pub use many::{Many, builds, each};

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail};

use crate::combine::{Brief, Build, Matrix};
use crate::report::{self, ParseError, Report};
use crate::{capture, combine, interpret};

/// The first bytes of a gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Largest report read, in bytes.
const LIMIT: u64 = 256 << 20;
/// Most commas in one: about what its values are, each of which takes more memory than its text can
/// tell. Thirty thousand Dockerfiles in one matrix come to fewer.
const VALUES: usize = 4 << 20;
/// What kcap writes, for whoever gave something else.
const GIVE: &str = "give a file that kcap wrote with --capture or --report";

/// How much of reports is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// What they need and where: enough for most, and small.
    Briefs,
    /// All of each, evidence included.
    Reports,
    /// All of the first so many, as long as they are of a bounded size together; of the others what
    /// they need.
    Some(usize),
}

/// A path as a line can show it.
pub fn shown(path: &Path) -> String {
    if path.as_os_str() == "-" {
        return "standard input".to_owned();
    }
    let text = path.to_string_lossy();
    text.chars().flat_map(char::escape_debug).collect()
}

/// It can hold many files: a folder, of this host or of an object store.
pub fn is_folder(path: &Path) -> bool {
    path.is_dir() || objects::is_folder(path)
}

/// Reads one report, or interprets a capture; `-` is standard input.
///
/// # Errors
/// Where the file cannot be read, is neither, or is too large: one line with its name.
pub fn report(path: &Path) -> anyhow::Result<Report> {
    let name = shown(path);
    let read = || {
        let (mut input, length) = open(path)?;
        if is_capture(&mut input)? {
            return Ok(interpret::interpret(&capture::read(input)?));
        }
        let mut text = Vec::new();
        take(input, length, &mut text)?;
        Ok(report::from_json(&text)?)
    };
    read().map_err(|error| named(error, &name))
}

/// What a file holds.
pub enum Content {
    /// A report, or a capture.
    One(Box<Build>),
    /// A matrix.
    Matrix(Vec<Build>),
    /// Something well-formed that kcap did not write.
    Foreign,
}

/// Reads one file for the builds in it: one of a capture or report, all of a matrix. Builds whose
/// Dockerfile is not known are called after the file. `buffer` is for the file's text.
///
/// # Errors
/// Where the file cannot be read, or is damaged or too large: one line with its name.
pub fn content(path: &Path, keep: Keep, buffer: &mut Vec<u8>) -> anyhow::Result<Content> {
    let name = shown(path);
    let mut read = || {
        let (input, length) = open(path)?;
        held(&name, input, length, keep, buffer)
    };
    read().map_err(|error| named(error, &name))
}

fn held(
    name: &str,
    mut input: impl BufRead,
    length: u64,
    keep: Keep,
    buffer: &mut Vec<u8>,
) -> anyhow::Result<Content> {
    if is_capture(&mut input)? {
        let report = interpret::interpret(&capture::read(input)?);
        return Ok(Content::One(Box::new(build(name, report, keep))));
    }
    buffer.clear();
    take(input, length, buffer)?;
    parse(buffer, name, keep)
}

fn parse(text: &[u8], name: &str, keep: Keep) -> anyhow::Result<Content> {
    let build = match keep {
        Keep::Briefs => Brief::from_json(text).map(|brief| {
            let dockerfile = brief.dockerfile.clone();
            Build::reduced(dockerfile.unwrap_or_else(|| name.to_owned()), vec![brief])
        }),
        Keep::Reports | Keep::Some(_) => report::from_json(text).and_then(|report| {
            let build = build(name, report, keep);
            combine::are_few(&build.runs)?;
            Ok(build)
        }),
    };
    match build {
        Ok(build) => Ok(Content::One(Box::new(build))),
        Err(ParseError::NotAReport) => match combine::from_json(text, keep != Keep::Briefs) {
            Ok(Some(Matrix { builds, .. })) => Ok(Content::Matrix(builds)),
            Ok(None) => Ok(Content::Foreign),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

fn build(name: &str, report: Report, keep: Keep) -> Build {
    let dockerfile = report.subject.dockerfile.clone();
    let dockerfile = dockerfile.unwrap_or_else(|| name.to_owned());
    match keep {
        Keep::Briefs => Build::reduced(dockerfile, vec![Brief::of(&report)]),
        Keep::Reports | Keep::Some(_) => Build::traced(dockerfile, report),
    }
}

/// Standard input, or a file with its length: 0 where it is not known.
fn open(path: &Path) -> anyhow::Result<(BufReader<Box<dyn Read>>, u64)> {
    let mut length = 0;
    let input: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else if let Some(bytes) = objects::one(path) {
        let bytes = bytes?;
        length = bytes.len() as u64;
        Box::new(io::Cursor::new(bytes))
    } else {
        let file = File::open(path).map_err(CannotOpen)?;
        let found = file.metadata().map_err(CannotOpen)?;
        if found.is_dir() {
            return Err(CannotOpen(io::ErrorKind::IsADirectory.into()).into());
        }
        length = found.len();
        Box::new(file)
    };
    Ok((BufReader::new(input), length))
}

/// It is a capture; says so where it can be nothing else that kcap wrote either.
fn is_capture(input: &mut impl BufRead) -> anyhow::Result<bool> {
    let start = input.fill_buf()?;
    if start.starts_with(&GZIP) {
        return Ok(true);
    }
    if start.is_empty() {
        bail!("it is empty; {GIVE}");
    }
    // Blanks may fill the first buffer: then the JSON parser has the last word.
    let text = start.trim_ascii_start();
    if !text.is_empty() && !text.starts_with(b"{") {
        bail!("neither a capture nor a report; {GIVE}");
    }
    Ok(false)
}

/// Reads it whole, unless it is larger than any report.
fn take(input: impl Read, length: u64, text: &mut Vec<u8>) -> anyhow::Result<()> {
    if length <= LIMIT {
        input.take(LIMIT + 1).read_to_end(text)?;
    }
    if length > LIMIT || text.len() as u64 > LIMIT {
        bail!("it is larger than {} MiB, which no report is", LIMIT >> 20);
    }
    are_few(text)
}

/// Whether a JSON text has no more values than a report can have.
///
/// # Errors
/// Where it has.
pub fn are_few(text: &[u8]) -> anyhow::Result<()> {
    // Where it is short, so are they.
    if text.len() > VALUES && text.iter().filter(|b| **b == b',').count() > VALUES {
        bail!("it has more than {VALUES} values, which no report has");
    }
    Ok(())
}

/// A file that cannot be opened, for another first word of the line.
#[derive(Debug)]
struct CannotOpen(io::Error);

impl std::fmt::Display for CannotOpen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for CannotOpen {}

fn named(error: anyhow::Error, name: &str) -> anyhow::Error {
    match error.downcast::<CannotOpen>() {
        Ok(CannotOpen(io)) => anyhow::Error::from(io).context(format!("cannot open {name}")),
        Err(error) => error.context(format!("cannot read {name}")),
    }
}

/// Context for whoever lists a folder.
fn unlisted<T>(listed: io::Result<T>, path: &Path) -> anyhow::Result<T> {
    listed.with_context(|| format!("cannot list the folder {}", shown(path)))
}
