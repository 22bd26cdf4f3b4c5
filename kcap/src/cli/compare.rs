//! `kcap compare`: what differs between two built images. Needs no root and no kernel.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::{exit, report::Color};
use crate::{
    compare::{self, comparison::Comparison},
    render::{self, PlainFormat},
};

/// Arguments of `kcap compare`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kcap compare before.tar after.tar
  kcap compare --exact --all layout-a/ layout-b/
  kcap compare --format json before.tar after.tar | jq .counts

An image is an OCI layout, as a folder or a tar of it, or an archive of `docker save` or Kaniko's \
--tar-path. Compared are every entry's kind, mode, owner, link, device numbers, attributes and \
content, what a container starts with, and the history; not times, nor how files are spread over \
layers. Content that says when or where something ran (logs, caches, random keys) is noise: it is \
counted by rule, and makes no difference without --exact.

Exit code: 0 where the images are the same, 1 where they differ, 2 where one cannot be read.")]
pub struct Args {
    /// The image to compare with
    #[arg(value_name = "IMAGE")]
    pub from: PathBuf,
    /// The image that is compared
    #[arg(value_name = "IMAGE")]
    pub to: PathBuf,
    /// Count every difference: content that rules of noise are about too
    #[arg(long)]
    pub exact: bool,
    /// Show all differences, however many
    #[arg(long)]
    pub all: bool,
    /// What goes to standard output
    #[arg(long, value_enum, default_value_t)]
    pub format: PlainFormat,
    /// Nothing on standard output: the exit code says it
    #[arg(short, long)]
    pub quiet: bool,
    /// When to use colours
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
}

/// Compares the images; returns the exit code.
///
/// # Errors
/// Where an image cannot be read, or `out` not be written: exit code 2.
pub fn run(args: &Args, out: &mut impl Write) -> Result<u8> {
    let (from, to) = compare::read_both(&args.from, &args.to)?;
    let name = |path: &Path| path.to_string_lossy().into_owned();
    let names = (name(&args.from), name(&args.to));
    let comparison = Comparison::of((&names.0, &from), (&names.1, &to), args.exact);
    if !args.quiet {
        let style = args.color.style();
        let written = render::write_comparison(&comparison, args.all, args.format, style, out);
        // The exit code says it to whoever has read enough.
        super::written(written.and_then(|()| out.flush()), "the comparison")?;
    }
    Ok(if comparison.same { 0 } else { exit::NO })
}
