//! `kcap generate`: man pages, shell completions and JSON Schemas, from the definitions that kcap itself
//! runs by.

mod man;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, ValueEnum};
use clap_complete::Shell;

use super::{Cli, written};
use crate::{combine, compare, explain, report};

/// Shells that completions are shipped for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Arguments of `kcap generate`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kcap generate man /usr/local/share/man/man1
  kcap generate completions bash > /etc/bash_completion.d/kcap
  kcap generate completions zsh > ~/.zfunc/_kcap
  kcap generate schema report > kcap.report.v1.json

Exit code: 0 success, 2 bad usage, or something cannot be written.")]
pub struct Args {
    /// What to generate.
    #[command(subcommand)]
    pub what: What,
}

/// What can be generated.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum What {
    /// Write the man pages into a folder
    Man {
        /// The folder; it is made where it is missing
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Print a shell's completions
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the JSON Schema of something that kcap writes
    Schema {
        /// What it is the schema of
        #[arg(value_enum)]
        name: Schema,
    },
    /// Write man pages, completions and schemas into folders below one, as packages have them
    All {
        /// The folder; it is made where it is missing
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// What has a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Schema {
    /// A report
    Report,
    /// Several reports together
    Matrix,
    /// What kcap check writes
    Check,
    /// What kcap compare writes
    Comparison,
    /// What --why writes of one report
    Explanation,
    /// What --why writes of several
    Explanations,
    /// A line that kcap watch writes
    #[cfg(feature = "trace")]
    Event,
}

impl Schema {
    /// Its text.
    pub fn text(self) -> String {
        match self {
            Self::Report => report::schema(),
            Self::Matrix => combine::schema(),
            Self::Check => combine::check::schema(),
            Self::Comparison => compare::comparison::schema(),
            Self::Explanation => explain::schema(),
            Self::Explanations => explain::schema_many(),
            #[cfg(feature = "trace")]
            Self::Event => crate::watch::events::schema(),
        }
    }

    fn name(self) -> String {
        let value = self.to_possible_value().expect("none is skipped");
        value.get_name().to_owned()
    }
}

/// Everything, by its path below one folder.
///
/// # Errors
/// Where a man page cannot be rendered.
pub fn all() -> Result<BTreeMap<PathBuf, String>> {
    let mut all = BTreeMap::new();
    for (name, page) in man::pages(Cli::command())? {
        all.insert(Path::new("man").join(name), page);
    }
    for shell in SHELLS {
        let name = clap_complete::Generator::file_name(&shell, env!("CARGO_PKG_NAME"));
        all.insert(Path::new("completions").join(name), completions(shell));
    }
    for schema in Schema::value_variants() {
        let name = format!("kcap.{}.v1.json", schema.name());
        all.insert(Path::new("schemas").join(name), schema.text());
    }
    Ok(all)
}

fn completions(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(
        shell,
        &mut Cli::command(),
        env!("CARGO_PKG_NAME"),
        &mut text,
    );
    String::from_utf8_lossy(&text).into_owned()
}

/// Generates what was asked for; returns the exit code.
///
/// # Errors
/// Where something cannot be written: exit code 2.
pub fn run(args: &Args, out: &mut impl Write) -> Result<u8> {
    let text = match &args.what {
        What::Man { folder } => {
            write(folder, man::pages(Cli::command())?)?;
            return Ok(0);
        }
        What::All { folder } => {
            write(folder, all()?)?;
            return Ok(0);
        }
        What::Completions { shell } => completions(*shell),
        What::Schema { name } => name.text(),
    };
    let result = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written(result, "to standard output")?;
    Ok(0)
}

fn write<P: AsRef<Path>>(
    folder: &Path,
    files: impl IntoIterator<Item = (P, String)>,
) -> Result<()> {
    for (name, text) in files {
        let path = folder.join(name);
        let above = path.parent().unwrap_or(folder);
        fs::create_dir_all(above)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| {
                format!(
                    "cannot write {}: choose a folder that is writable, or can be made",
                    path.display()
                )
            })?;
    }
    Ok(())
}
