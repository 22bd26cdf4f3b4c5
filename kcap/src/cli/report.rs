//! `kcap report`: renders a capture or a report. Needs no root and no kernel.

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::bail;

use super::say;
use crate::combine::{Brief, Build, Matrix, merge};
use crate::explain::{self, Kept};
use crate::input::{self, Content, Keep};
use crate::render::{self, Format, PlainFormat, Style, Wrap};
use crate::report::{Cap, Report};

/// Exit code of success.
const OK: u8 = 0;
/// Exit code where the result is incomplete.
const INCOMPLETE: u8 = 3;

/// Arguments of `kcap report`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kcap report capture.kcap
  kcap report --why SETFCAP report.json
  kcap report --why SETUID reports/
  kcap report --format markdown report.json > comment.md
  kcap report reports/ --profiles 3
  kcap report s3://builds/kcap/team-a/ --profiles 3
  kcap report --format kubernetes report.json
  kcap report --format html reports/ > page.html

Several reports become one set that is enough for all of them, with which line of which Dockerfile \
forces what. Runs of the same Dockerfile (same path, same bytes) are one row. Reports in which \
something was lost are refused, unless --allow-incomplete is given.

Exit code: 0 success, 2 bad usage or input, 3 a report is incomplete.")]
pub struct Args {
    /// Captures, reports, matrices, or folders of them, as s3://BUCKET/PREFIX/ in an object store; - is
    /// standard input
    #[arg(value_name = "CAPTURE|REPORT", required = true)]
    pub files: Vec<PathBuf>,
    /// Explain one capability: what it allows, why the builds asked for it, what would avoid it
    #[arg(long, value_name = "NAME")]
    pub why: Option<String>,
    /// Take reports in which something was lost
    #[arg(long)]
    pub allow_incomplete: bool,
    /// Group the Dockerfiles of several reports into at most N sets
    #[arg(long, value_name = "N", conflicts_with = "why")]
    pub profiles: Option<NonZeroUsize>,
    /// What goes to standard output
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// With --format kubernetes: what to put the securityContext into
    #[arg(long, value_enum, value_name = "WHAT")]
    pub wrap: Option<Wrap>,
    /// When to use colours
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    /// The style for standard output.
    pub fn style(self) -> Style {
        let color = match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                    && io::stdout().is_terminal()
            }
        };
        Style { color }
    }
}

/// Renders what the files hold, or explains one capability of one, to `out`; returns the exit code:
/// 0, or 3 where a report is incomplete and that was not allowed.
///
/// # Errors
/// Where the name is no capability's, a file cannot be read or is something else, or `out` cannot be
/// written: exit code 2. A closed pipe is no error.
pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<u8> {
    let style = args.color.style();
    let Some(format) = args.format.wrapped(args.wrap) else {
        bail!("--wrap is for --format kubernetes");
    };
    // Before anything is read, which may be slow or standard input.
    let why = args.why.as_deref().map(explain::named).transpose()?;
    if let Some(cap) = why {
        let Some(format) = format.plain() else {
            bail!("--why has the formats table, json and markdown");
        };
        return explained(args, cap, format, out);
    }
    let builds = match read(args)? {
        Read::One(report) => {
            if args.profiles.is_some() {
                bail!("--profiles is for several reports, and there is one");
            }
            written(render::write(&report, format, style, out), out)?;
            return Ok(code(report.complete || args.allow_incomplete));
        }
        Read::Many(builds) => merge(builds),
    };
    if is_refused(&builds, args) {
        return Ok(INCOMPLETE);
    }
    let mut matrix = Matrix::of(builds);
    if let Some(most) = args.profiles {
        matrix = matrix.with_profiles(most);
    }
    written(render::write_matrix(&matrix, format, style, out), out)?;
    Ok(OK)
}

/// Says that reports in which something was lost are not taken.
fn is_refused(builds: &[Build], args: &Args) -> bool {
    let lossy: Vec<&Build> = builds.iter().filter(|build| !build.is_lossless()).collect();
    let (Some(first), false) = (lossy.first(), args.allow_incomplete) else {
        return false;
    };
    say(&format!(
        "{} of {} Dockerfiles have reports in which something was lost ({}): what they lack may \
         be needed; trace them again, leave them out, or give --allow-incomplete",
        lossy.len(),
        builds.len(),
        first.dockerfile
    ));
    true
}

/// Explains a capability of one report, or of several.
fn explained(
    args: &Args,
    cap: Cap,
    format: PlainFormat,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    let style = args.color.style();
    if let [file] = &args.files[..]
        && !file.is_dir()
        && let Read::One(report) = read(args)?
    {
        let why = explain::explain(&report, cap);
        written(render::write_why(&why, format, style, out), out)?;
        return Ok(code(report.complete || args.allow_incomplete));
    }
    // Whole reports, one by one: what asks and what avoids it is in their evidence.
    let many = input::each(&args.files, Keep::Reports, |mut build| {
        let report = build.report.take();
        let kept = report.map(|report| (Brief::of(&report), Kept::of(&report, cap)));
        (build, kept)
    })?;
    told_foreign(many.foreign);
    let (builds, kept): (Vec<Build>, Vec<_>) = many.builds.into_iter().unzip();
    let builds = merge(builds);
    if is_refused(&builds, args) {
        return Ok(INCOMPLETE);
    }
    let kept = kept.into_iter().flatten().collect();
    let why = explain::explain_many(&Matrix::of(builds), &kept, cap);
    written(render::write_why_many(&why, format, style, out), out)?;
    Ok(OK)
}

fn told_foreign(foreign: usize) {
    if foreign > 0 {
        say(&format!(
            "{foreign} JSON files in these folders are not kcap's, and left out"
        ));
    }
}

enum Read {
    One(Box<Report>),
    Many(Vec<Build>),
}

fn read(args: &Args) -> anyhow::Result<Read> {
    if let [file] = &args.files[..]
        && !input::is_folder(file)
    {
        return match input::content(file, Keep::Reports, &mut Vec::new())? {
            Content::One(build) => match build.report {
                Some(report) => Ok(Read::One(Box::new(report))),
                None => Ok(Read::Many(vec![*build])),
            },
            Content::Matrix(builds) => Ok(Read::Many(builds)),
            Content::Foreign => bail!(
                "cannot read {}: neither a report nor a matrix of kcap",
                input::shown(file)
            ),
        };
    }
    let many = input::builds(&args.files, args.format.keep())?;
    told_foreign(many.foreign);
    Ok(Read::Many(many.builds))
}

fn code(complete: bool) -> u8 {
    if complete { OK } else { INCOMPLETE }
}

fn written(result: io::Result<()>, out: &mut impl Write) -> anyhow::Result<()> {
    super::written(result.and_then(|()| out.flush()), "the report")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{self, Capture};

    fn file(bytes: &[u8]) -> (tempfile::NamedTempFile, Args) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let args = Args {
            files: vec![file.path().into()],
            why: None,
            allow_incomplete: false,
            profiles: None,
            wrap: None,
            format: Format::Json,
            color: Color::Never,
        };
        (file, args)
    }

    fn packed(capture: &Capture) -> Vec<u8> {
        let mut bytes = Vec::new();
        capture::write(capture, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_capture_and_its_report_render_alike() {
        let (_kept, args) = file(&packed(&Capture::default()));
        let mut first = Vec::new();
        assert_eq!(run(&args, &mut first).unwrap(), OK);
        let (_kept, args) = file(&first);
        let mut second = Vec::new();
        assert_eq!(run(&args, &mut second).unwrap(), OK);
        assert_eq!(first, second);
    }

    #[test]
    fn one_capability_is_explained_and_an_unknown_one_is_a_line() {
        let (_kept, mut args) = file(&packed(&Capture::default()));
        args.why = Some("cap_chown".to_owned());
        let mut out = Vec::new();
        assert_eq!(run(&args, &mut out).unwrap(), OK);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["schema"], explain::SCHEMA);
        assert_eq!(
            (&value["name"], &value["required"]),
            (&"CHOWN".into(), &false.into())
        );
        args.why = Some("CHWON".to_owned());
        // Before anything is read.
        args.files = vec!["/nonexistent/x".into()];
        let error = format!("{:#}", run(&args, &mut Vec::new()).unwrap_err());
        assert!(error.ends_with("(did you mean CHOWN?)"), "{error}");
    }

    #[test]
    fn loss_is_told_by_the_exit_code() {
        let mut capture = Capture::default();
        capture.loss.checks = 1;
        let (_kept, args) = file(&packed(&capture));
        assert_eq!(run(&args, &mut Vec::new()).unwrap(), INCOMPLETE);
    }

    #[test]
    fn bad_input_is_one_line() {
        let whole = packed(&Capture::default());
        for bytes in [
            &b""[..],
            b"\x1b[2J",
            b"{\x1b",
            b"{}",
            b"\x1f\x8b",
            &whole[..whole.len() / 2],
        ] {
            let (_kept, args) = file(bytes);
            let error = format!("{:#}", run(&args, &mut Vec::new()).unwrap_err());
            assert!(error.starts_with("cannot read "), "{error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
        let args = Args {
            files: vec!["/nonexistent/x".into()],
            why: None,
            allow_incomplete: false,
            profiles: None,
            wrap: None,
            format: Format::Table,
            color: Color::Auto,
        };
        let error = format!("{:#}", run(&args, &mut Vec::new()).unwrap_err());
        assert!(error.starts_with("cannot open /nonexistent/x"), "{error}");
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (_kept, args) = file(&packed(&Capture::default()));
        assert_eq!(run(&args, &mut Closed).unwrap(), OK);
    }
}
