//! `cargo xtask picture`: what the HTML page of the corpus looks like, for those who read about it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::setup::{self, Need};
use crate::sh;

/// What `cargo xtask picture` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to write it
    #[arg(long, value_name = "FILE", default_value = "docs/page.png")]
    to: PathBuf,
    /// The state of the page, as its fragment has it
    #[arg(long, value_name = "FRAGMENT", default_value = "")]
    fragment: String,
    /// Its size in pixels
    #[arg(long, value_name = "WIDTH,HEIGHT", default_value = "1200,1000")]
    size: String,
}

/// Largest picture, in bytes: it is committed.
const LARGEST: u64 = 250_000;

/// Renders the page of the corpus' captures and takes its picture.
///
/// # Errors
/// Where there is no Chromium, the page cannot be made, or the picture is too large.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Need::Pages])?;
    let workspace = sh::workspace();
    let scratch = tempfile::tempdir()?;
    let page = scratch.path().join("page.html");
    let mut command = sh::cargo();
    command
        .args(["run", "--quiet", "--package", "kcap", "--", "report"])
        .args(["--format", "html", "corpus"])
        .current_dir(&workspace)
        .stdout(File::create(&page)?);
    sh::run(&mut command)?;
    let picture = scratch.path().join("page.png");
    let status = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--hide-scrollbars", "--virtual-time-budget=3000"])
        .arg(format!(
            "--user-data-dir={}",
            scratch.path().join("profile").display()
        ))
        .arg(format!("--window-size={}", args.size))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("file://{}{}", page.display(), args.fragment))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("cannot run chromium")?;
    let size = fs::metadata(&picture).map_or(0, |found| found.len());
    if !status.success() || size == 0 {
        bail!(
            "chromium took no picture ({status}): run it by hand on `kcap report --format html corpus`"
        );
    }
    if size > LARGEST {
        bail!("the picture has {size} bytes, more than {LARGEST}: choose a smaller --size");
    }
    let to = workspace.join(&args.to);
    fs::copy(&picture, &to).with_context(|| format!("cannot write {}", to.display()))?;
    println!("{} ({size} bytes)", to.display());
    Ok(())
}
