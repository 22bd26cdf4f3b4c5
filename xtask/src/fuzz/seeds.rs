//! Inputs to start from, made of the corpus: small ones, since a fuzzer changes a byte here and there.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use kcap::capture::{self, Capture};
use kcap::combine::{Build, Matrix, merge};
use kcap::interpret::interpret;
use kcap::render::{self, Format, Style, Wrap};
use kcap::report::Report;
use tar::{Builder, EntryType, Header};

use super::Target;
use crate::corpus::{self, Subject};
use crate::sh;

/// Most items of each kind that a capture keeps.
const ITEMS: usize = 24;
/// Every how many-th capture is a seed: they are much alike.
const CAPTURES: usize = 4;
/// Reports that a matrix is made of.
const BUILDS: usize = 3;
/// Formats that are policies.
const PASTED: [Format; 4] = [
    Format::Kubernetes,
    Format::Tekton,
    Format::Openshift,
    Format::Docker,
];
/// What stands between two layers of an input, as `kcap/fuzz/src/image.rs` has it.
const BETWEEN: &[u8] = b"\0--layer--\0";

/// Writes those of every target into a folder of its name.
pub fn write(to: &Path) -> Result<()> {
    let corpus = sh::workspace().join("corpus");
    let subjects = corpus::subjects(&corpus, &[])?;
    let put = |target: Target, name: &str, bytes: &[u8]| -> Result<()> {
        let folder = to.join(target.name());
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes).context("cannot write a seed")
    };
    let mut reports = Vec::new();
    for (at, subject) in subjects.iter().enumerate() {
        let name = &subject.name;
        put(Target::Dockerfile, name, &dockerfile(&corpus, subject)?)?;
        if at % CAPTURES != 0 {
            continue;
        }
        let file = File::open(subject.capture()).with_context(|| format!("{name}: no capture"))?;
        let capture = small(capture::read(file)?);
        put(Target::Capture, name, &lines(&capture)?)?;
        let report = interpret(&capture);
        put(Target::Report, name, &rendered(&report, Format::Json)?)?;
        reports.push((name.clone(), report));
    }
    let few = reports.iter().take(BUILDS).cloned();
    let matrix = Matrix::of(merge(few.map(|(name, report)| Build::traced(name, report))));
    let mut json = Vec::new();
    render::write_matrix(&matrix, Format::Json, Style::default(), &mut json)?;
    put(Target::Report, "matrix", &json)?;
    if let Some((_, report)) = reports
        .iter()
        .max_by_key(|(_, report)| report.required.len())
    {
        let pod = Format::Kubernetes.wrapped(Some(Wrap::Pod));
        for format in PASTED.into_iter().chain(pod) {
            let text = rendered(report, format)?;
            put(Target::Policy, &format!("{format:?}"), &text)?;
        }
    }
    let cases = sh::workspace().join("kcap/tests/dockerfiles");
    for entry in fs::read_dir(&cases).with_context(|| format!("no {}", cases.display()))? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|ending| ending == "Dockerfile")
        {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            put(Target::Dockerfile, &name, &fs::read(&path)?)?;
        }
    }
    for (name, layers) in images() {
        put(Target::Image, name, &layers)?;
    }
    Ok(())
}

fn dockerfile(corpus: &Path, subject: &Subject) -> Result<Vec<u8>> {
    let path = corpus.join(&subject.name).join("Dockerfile");
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// A capture with the first of each kind of item.
fn small(mut capture: Capture) -> Capture {
    capture.programs.truncate(ITEMS);
    capture.tallies.truncate(ITEMS);
    let tallies = capture.tallies.len() as u32;
    capture.evidence.retain(|e| e.tally < tallies);
    capture.evidence.truncate(ITEMS);
    capture.unasked.retain(|u| u.tally < tallies);
    capture.log.truncate(ITEMS);
    capture
}

/// A capture as the lines that are compressed in its file.
fn lines(capture: &Capture) -> Result<Vec<u8>> {
    let mut packed = Vec::new();
    capture::write(capture, &mut packed)?;
    let mut text = Vec::new();
    GzDecoder::new(&packed[..]).read_to_end(&mut text)?;
    Ok(text)
}

fn rendered(report: &Report, format: Format) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    render::write(report, format, Style::default(), &mut text)?;
    Ok(text)
}

/// Layers of one member or few, each kind of member in one of them.
fn images() -> Vec<(&'static str, Vec<u8>)> {
    let files = layer(&[
        ("etc/passwd", EntryType::Regular, "root"),
        ("bin", EntryType::Directory, ""),
    ]);
    let links = layer(&[
        ("a", EntryType::Regular, "content"),
        ("b", EntryType::Link, "a"),
        ("c", EntryType::Symlink, "b"),
        ("c/d", EntryType::Regular, ""),
    ]);
    let gone = layer(&[
        (".wh.bin", EntryType::Regular, ""),
        ("etc/.wh..wh..opq", EntryType::Regular, ""),
        ("etc/group", EntryType::Regular, "x"),
        ("dev/null", EntryType::Char, ""),
        ("run/pipe", EntryType::Fifo, ""),
    ]);
    let extended = {
        let mut tar = Builder::new(Vec::new());
        let long = format!("long/{}", "x".repeat(200));
        let records = [
            (
                "SCHILY.xattr.security.capability",
                &b"\x01\0\0\x02\n\x04\0\0"[..],
            ),
            ("mtime", b"1.5"),
            ("uid", b"4000000"),
        ];
        // Writing to memory cannot fail.
        let _ = tar.append_pax_extensions(records);
        let _ = tar.append_data(&mut header(EntryType::Regular, 1), &long, &b"y"[..]);
        tar.into_inner().unwrap_or_default()
    };
    vec![
        ("files", files.clone()),
        ("links", links),
        ("gone", [&files[..], BETWEEN, &gone].concat()),
        ("extended", extended),
        // What is no docker archive either, as such.
        ("archive", [b"A", &files[..]].concat()),
    ]
}

fn header(kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(size as u64);
    header
}

/// A layer of members: path, kind, and what is in it or where it leads.
fn layer(members: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (path, kind, text) in members {
        // Writing to memory cannot fail, and these paths fit.
        let _ = match kind {
            EntryType::Regular => {
                tar.append_data(&mut header(*kind, text.len()), path, text.as_bytes())
            }
            _ => tar.append_link(&mut header(*kind, 0), path, text),
        };
    }
    tar.into_inner().unwrap_or_default()
}
