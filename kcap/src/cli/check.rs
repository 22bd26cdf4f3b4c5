//! `kcap check`: reports against what is allowed, or against earlier reports.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};

use super::report::Color;
use super::{exit, say, written};
use crate::combine::check::{Check, Policy, against_baseline, against_policy};
use crate::combine::{Build, merge};
use crate::input::{self, Keep};
use crate::render::{CheckFormat, write_check};

/// Exit code of success.
const OK: u8 = 0;
/// Largest policy file, in bytes: reports are policies too.
const LARGEST: u64 = 64 << 20;

/// Arguments of `kcap check`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("against").required(true)),
    override_usage = "\
kcap check [OPTIONS] --allow NAME,... REPORT...
       kcap check [OPTIONS] --policy NAME|FILE REPORT...
       kcap check [OPTIONS] --baseline OLD REPORT...",
    after_help = "\
Examples:
  kcap check --policy pss-baseline reports/
  kcap check --allow CHOWN,SETUID,SETGID api.json web.json
  kcap check --policy pod.yaml --container kaniko reports/
  kcap check --policy run.sh capture.kcap
  kcap check --baseline main/reports reports/ --format sarif
  kcap check --policy article reports/ --format markdown > comment.md

Policies: docker-default, podman-default, cri-o-default, pss-baseline, pss-restricted, article, \
shipwright. A file can be capability names one a line, a pod's or container's YAML or JSON, a docker \
or podman run line, or a report.

Only capabilities are checked. What one run cannot settle (unsure) counts as needed.

Exit code: 0 nothing is over, 1 a report needs more, 2 bad usage or input, 3 nothing is over as far \
as was seen, and a report is incomplete or its build did not succeed."
)]
pub struct Args {
    /// Capabilities that are allowed
    #[arg(long, value_name = "NAME", value_delimiter = ',', group = "against")]
    allow: Option<Vec<String>>,
    /// A named policy, or a file with one; - is standard input
    #[arg(long, value_name = "NAME|FILE", group = "against")]
    policy: Option<String>,
    /// An earlier report, or a folder of them: what came, what went, and by which instruction
    #[arg(long, value_name = "OLD", group = "against")]
    baseline: Option<PathBuf>,
    /// Reports, captures, matrices, or folders of them, as s3://BUCKET/PREFIX/ in an object store
    #[arg(value_name = "REPORT", required = true)]
    files: Vec<PathBuf>,
    /// Of a policy file with several containers, the one of that name
    #[arg(long, value_name = "NAME", requires = "policy")]
    container: Option<String>,
    /// Let what one run cannot settle pass
    #[arg(long)]
    allow_unsure: bool,
    /// Let reports pass in which something was lost, and builds that did not succeed
    #[arg(long)]
    allow_incomplete: bool,
    /// What goes to standard output
    #[arg(long, value_enum, default_value_t)]
    format: CheckFormat,
    /// When to use colours
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
}

/// Checks, and writes what was found to `out`; returns the exit code.
///
/// # Errors
/// Where the policy or a report cannot be read, or `out` not written: exit code 2.
pub fn run(args: &Args, out: &mut impl Write) -> Result<u8> {
    let mut check = check(args)?;
    check.incomplete_counts = !args.allow_incomplete;
    // A forge finds a file by its path in the repository.
    if let Ok(here) = env::current_dir() {
        for path in check.builds.iter_mut().filter_map(|b| b.path.as_mut()) {
            if let Ok(below) = Path::new(path).strip_prefix(&here) {
                *path = below.to_string_lossy().into_owned();
            }
        }
    }
    let result = write_check(&check, args.format, args.color.style(), out);
    written(result.and_then(|()| out.flush()), "to standard output")?;
    Ok(match (check.pass, check.is_proven()) {
        (false, _) => exit::NO,
        (true, false) => exit::INCOMPLETE,
        (true, true) => OK,
    })
}

fn check(args: &Args) -> Result<Check> {
    let count_unsure = !args.allow_unsure;
    if let Some(old) = &args.baseline {
        let name = input::shown(old);
        let old = builds(std::slice::from_ref(old))?;
        let new = builds(&args.files)?;
        return Ok(against_baseline(&name, &old, &new, count_unsure));
    }
    // The policy first: it is small, and its errors are the likelier.
    let policy = match (&args.allow, &args.policy) {
        (Some(names), _) => {
            let names = names.iter().map(|name| name.trim());
            Policy::of_names("--allow", names.filter(|name| !name.is_empty()))?
        }
        (None, Some(name)) => policy(name, args.container.as_deref())?,
        (None, None) => bail!("give --allow, --policy or --baseline"),
    };
    Ok(against_policy(&policy, &builds(&args.files)?, count_unsure))
}

fn builds(files: &[PathBuf]) -> Result<Vec<Build>> {
    let many = input::builds(files, Keep::Briefs)?;
    if many.foreign > 0 {
        say(&format!(
            "{} JSON files in these folders are not kcap's, and left out",
            many.foreign
        ));
    }
    Ok(merge(many.builds))
}

fn policy(name: &str, container: Option<&str>) -> Result<Policy> {
    if let Some(policy) = Policy::named(name) {
        if container.is_some() {
            bail!("--container is for a file with containers; {name} is a named policy");
        }
        return Ok(policy);
    }
    let path = Path::new(name);
    if name != "-" && !path.exists() {
        bail!(
            "--policy {}: neither a file nor a named policy; named are {}",
            input::shown(path),
            Policy::names()
        );
    }
    let shown = input::shown(path);
    let text = read(path).with_context(|| format!("cannot read {shown}"))?;
    Policy::of_text(&shown, &text, container)
        .with_context(|| format!("cannot take {shown} as a policy"))
}

fn read(path: &Path) -> Result<String> {
    let input: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(fs::File::open(path)?)
    };
    let mut bytes = Vec::new();
    input.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        bail!("it is larger than {} MiB", LARGEST >> 20);
    }
    input::are_few(&bytes)?;
    String::from_utf8(bytes).context("it is no text")
}
