//! `kcap report`: renders a capture or a report. Needs no root and no kernel.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;

use crate::render::{self, Format, Style};
use crate::{explain, input};

/// Exit code of success.
const OK: u8 = 0;
/// Exit code where the result is incomplete.
const INCOMPLETE: u8 = 3;

/// Arguments of `kcap report`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A capture or a report; - is standard input
    #[arg(value_name = "CAPTURE|REPORT")]
    pub file: PathBuf,
    /// Explain one capability: what it allows, why the build asked for it, what would avoid it
    #[arg(long, value_name = "NAME")]
    pub why: Option<String>,
    /// What goes to standard output
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
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

/// Renders the file, or explains one capability of it, to `out`; returns the exit code: 0, or 3 where the report is incomplete.
///
/// # Errors
/// Where the name is no capability's, the file cannot be read or is neither, or `out` cannot be written: exit code 2. A closed
/// pipe is no error.
pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<u8> {
    // Before the file is read, which may be slow or standard input.
    let why = args.why.as_deref().map(explain::named).transpose()?;
    let report = input::report(&args.file)?;
    let (format, style) = (args.format, args.color.style());
    let written = match why {
        Some(cap) => render::write_why(&explain::explain(&report, cap), format, style, out),
        None => render::write(&report, format, style, out),
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write the report")
        }
        _ => Ok(if report.complete { OK } else { INCOMPLETE }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{self, Capture};

    fn file(bytes: &[u8]) -> (tempfile::NamedTempFile, Args) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let args = Args {
            file: file.path().into(),
            why: None,
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
        args.file = "/nonexistent/x".into();
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
            file: "/nonexistent/x".into(),
            why: None,
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
