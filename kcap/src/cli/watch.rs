//! `kcap watch`: every build on this host, a report each, until it is stopped.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::sync::mpsc;

use super::{exit, options::Tracing, say};
use crate::{
    host::{filecaps, privileges},
    record::{self, Failure, Scope, Signals, Watched},
    report::Cap,
    watch::{
        destination, identity, metrics,
        notify::Notify,
        service::{Service, Setup, to_stdout},
        settings::Settings,
        webhook::Address,
        whose,
    },
};

const MB: usize = 1_000_000;
/// What it needs, and what for: all to start, and those marked for as long as it runs.
const NEEDED: [(Cap, &str, bool); 5] = [
    (Cap::DAC_READ_SEARCH, "reading what containers run", true),
    (Cap::SYS_PTRACE, "reading what containers run", true),
    (Cap::SYSLOG, "the names of kernel functions", true),
    (Cap::PERFMON, "loading programs that trace", false),
    (Cap::BPF, "loading programs and reading their tables", true),
];

/// Arguments of `kcap watch`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kcap watch --out /var/lib/kcap
  kcap watch --out /var/lib/kcap --metrics 127.0.0.1:9464 --only kcap/trace=yes
  kcap watch --config /etc/kcap/watch.toml --out s3://builds/kcap

Every program that is executed under a matching path (--match) is a build, traced from its first
instruction until its container is empty. Its report is TENANT/PROJECT/DOCKERFILE/TIME-COMMIT-CONTAINER-SESSION.json
in the destination; what happens is a line of JSON on standard output (kcap.event/v1). SIGTERM ends it,
and what is open is written as interrupted; SIGHUP has --config read again.

Once all is loaded, it keeps no capabilities but BPF, SYS_PTRACE, DAC_READ_SEARCH and SYSLOG.

Exit code: 0 it was stopped, 2 bad usage or environment, 3 reports were lost.")]
pub struct Args {
    /// Where reports go: a folder, or s3://BUCKET/PREFIX in an object store (the variables of the AWS
    /// tools say where it is and who asks: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, ...)
    #[arg(short, long, value_name = "DESTINATION")]
    out: Option<PathBuf>,
    /// Write the capture of each build as well, from which its report can be made again
    #[arg(long, requires = "out")]
    captures: bool,
    /// Only builds whose container or pod has this label or annotation; several must all be there
    #[arg(long, value_name = "LABEL=VALUE", value_parser = label)]
    only: Vec<(String, String)>,
    /// Labels and annotations that reports carry
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// Settings that SIGHUP has read again: only, labels, keep-days, keep-megabytes, webhook
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "label", "keep_days", "keep_megabytes", "webhook"])]
    config: Option<PathBuf>,
    /// Remove reports that are older
    #[arg(long, value_name = "DAYS", requires = "out")]
    keep_days: Option<u64>,
    /// Remove the oldest reports where there is more in all
    #[arg(long, value_name = "MB", requires = "out")]
    keep_megabytes: Option<u64>,
    /// Post refusals and lost reports there as well; better in --config, where others do not see it
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// Where Docker or podman answers whose containers are [default: the usual places]
    #[arg(long, value_name = "PATH")]
    docker_socket: Vec<PathBuf>,
    /// Where containerd or CRI-O does, by the container runtime interface [default: the usual places]
    #[arg(long, value_name = "PATH")]
    cri_socket: Vec<PathBuf>,
    /// Give figures for Prometheus there, time spent in BPF programs included
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
    /// Most builds at once; others are left out, and that is told
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = sessions)]
    max_sessions: usize,
    /// Memory that one build may take; what is beyond is lost, and its report says so
    #[arg(long, value_name = "MB", default_value_t = 64)]
    session_memory: usize,
    /// Memory that all builds together may take: half of it in equal shares, the rest as they need it
    #[arg(long, value_name = "MB", default_value_t = 1024)]
    memory: usize,
    /// Memory for reports that cannot be written yet; beyond, the oldest are given up
    #[arg(long, value_name = "MB", default_value_t = 256)]
    queue_memory: usize,
    /// Keep all capabilities that it is started with
    #[arg(long, hide_short_help = true)]
    keep_capabilities: bool,
    /// Say how the trace is made; -vv adds the log of the kernel side
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(flatten)]
    tracing: Tracing,
}

/// The kernel side's table of cgroups holds 4096, and some are still in it while they are taken out.
fn sessions(text: &str) -> Result<usize, String> {
    match text.parse().map_err(|e| format!("{e}"))? {
        n @ 1..=4000 => Ok(n),
        _ => Err("1 to 4000 builds can be traced at once".into()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is no LABEL=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Watches until it is stopped; gives the exit code.
///
/// # Errors
/// Where nothing can be traced, or the destination cannot be written.
pub fn run(args: &Args) -> Result<u8> {
    let held = privileges::effective().context("cannot tell what kcap may do")?;
    if let Some((cap, why, _)) = NEEDED.iter().find(|(cap, ..)| held & cap.mask() == 0) {
        bail!(
            "kcap watch lacks {cap}, for {why}: give it (deploy/ has a unit and a pod that do), or run \
             it as root on the host"
        );
    }
    if let Err(why) = filecaps::can_look() {
        say(&format!(
            "cannot look into containers by openat2(2): {why}: reports go without Dockerfiles and file \
             capabilities; take RestrictSUIDSGID= and DynamicUser= out of its unit"
        ));
    }
    let settings = args.settings()?;
    let to = match &args.out {
        Some(out) => Some(destination(out, say)?),
        None => None,
    };
    let signals = Signals::block().context("cannot listen for signals")?;
    let shared = metrics::Shared::default();
    let figures = args.metrics.map(metrics::bind).transpose()?;
    if let Some(bound) = &figures {
        say(&format!("figures at http://{}/metrics", bound.address));
    }
    let mut options = args.tracing.options(args.verbose);
    if !args.keep_capabilities {
        let kept = NEEDED.iter().filter(|(.., stays)| *stays);
        options.keep = Some(kept.fold(0, |mask, (cap, ..)| mask | cap.mask()));
    }
    // Only the superuser can have the kernel keep account of that.
    let run_times = args.metrics.is_some() && held & Cap::SYS_ADMIN.mask() != 0;
    if args.metrics.is_some() && !run_times {
        say("without SYS_ADMIN there are no figures of the time spent in BPF programs");
    }
    let scope = Scope {
        sessions: args.max_sessions,
        each: args.session_memory.saturating_mul(MB),
        all: args.memory.saturating_mul(MB),
        variables: identity::variables(),
        alive: Notify::watchdog().unwrap_or(Duration::MAX),
        run_times,
    };
    let (leave, left) = mpsc::unbounded_channel();
    let config = args.config.clone();
    let mut service = Service::new(Setup {
        to,
        captures: args.captures,
        most: args.queue_memory.saturating_mul(MB),
        grace: options.grace,
        engines: whose::engines(&args.docker_socket, &args.cri_socket),
        settings,
        reread: config.map(|path| Box::new(move || Settings::read(&path)) as _),
        lines: to_stdout,
        matches: args.tracing.matches().to_vec(),
        metrics: shared.clone(),
        figures,
        leave,
        say,
    });
    let mut failed = None;
    let mut on = |what: Watched| {
        if let Err(why) = service.on(what) {
            // As if it had been asked to stop: there is nobody to take what is traced.
            // SAFETY: to this process, which reads it from a descriptor.
            unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
            failed.get_or_insert(why);
        }
    };
    let ended = record::watch(&mut on, left, &scope, &options, &signals);
    service.finish();
    match (ended, failed) {
        (Err(Failure::Kcap(why) | Failure::Command(_, why)), _) | (Ok(()), Some(why)) => Err(why),
        (Ok(()), None) => {
            let lost = metrics::with(&shared, |metrics| metrics.lost);
            Ok(if lost > 0 { exit::INCOMPLETE } else { 0 })
        }
    }
}

impl Args {
    fn settings(&self) -> Result<Settings> {
        match &self.config {
            Some(path) => Settings::read(path),
            None => Ok(Settings {
                only: self.only.iter().cloned().collect::<BTreeMap<_, _>>(),
                labels: self.label.clone(),
                keep_days: self.keep_days,
                keep_megabytes: self.keep_megabytes,
                // Here, since clap would show the text, which may be secret.
                webhook: self.webhook.as_deref().map(Address::parse).transpose()?,
            }),
        }
    }
}
