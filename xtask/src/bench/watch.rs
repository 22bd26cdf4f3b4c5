//! What `kcap watch` costs: a check with one build and with hundreds at once, thousands of builds in a
//! row, and nothing at all. The builds are by the executor of known truth of kcap's tests, each in a
//! cgroup and a mount namespace of its own.
//!
//! A check's time is the kernel's own account of its program (`kernel.bpf_stats`), so that what hundreds
//! of processes cost each other besides does not count.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kcap::host::cgroup::Layout;
use tempfile::TempDir;

use super::stats::Spread;
use crate::sh::{self, Exit};

/// How much a check may cost with many builds, beside one.
const RATIO: f64 = 1.2;
/// How much memory may differ after many builds in a row.
const FLAT: f64 = 0.05;
/// The share of a CPU that waiting may take.
const IDLE: f64 = 0.001;
/// How long it is left alone.
const ALONE: Duration = Duration::from_secs(30);
/// Checks of a round, however many builds make them.
const CHECKS: usize = 1_000_000;
/// How long builds wait before they make their checks, so that all have begun by then.
const BEGIN: Duration = Duration::from_secs(12);
/// Builds after which memory is looked at first.
const WARM: usize = 200;

/// What `cargo xtask bench watch` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Builds at once
    #[arg(long, value_name = "N", default_value_t = 500)]
    at_once: usize,
    /// Builds in a row
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    in_a_row: usize,
    /// Rounds of one build and of many, in turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// The kcap to measure; a release build of this copy otherwise
    #[arg(long, value_name = "FILE")]
    kcap: Option<PathBuf>,
    /// Write the figures to docs/benchmarks-watch.md as well
    #[arg(long)]
    write: bool,
    /// Exit 1 where memory is not flat, or something is left behind
    #[arg(long)]
    gate: bool,
}

/// A kcap that watches.
struct Watch {
    child: Child,
    address: String,
    reports: thread::JoinHandle<BTreeMap<String, usize>>,
}

impl Watch {
    fn start(kcap: &Path, executor: &Path) -> Result<Self> {
        let mut child = Command::new(kcap)
            .args(["watch", "--metrics", "127.0.0.1:0", "--match"])
            .arg(executor)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", kcap.display()))?;
        let mut errors = BufReader::new(child.stderr.take().context("no pipe")?);
        let mut line = String::new();
        errors.read_line(&mut line)?;
        let address = line.trim().strip_prefix("kcap: figures at http://");
        let address = address.and_then(|rest| rest.strip_suffix("/metrics"));
        let Some(address) = address.map(str::to_owned) else {
            let _ = child.kill();
            let _ = child.wait();
            bail!("kcap watch does not start: {}", line.trim());
        };
        // Nothing else is expected; a full pipe would stop it.
        thread::spawn(move || std::io::copy(&mut errors, &mut std::io::stderr()));
        let mut lines = BufReader::new(child.stdout.take().context("no pipe")?).lines();
        let first = lines.next().context("kcap watch ends at once")??;
        ensure!(first.contains("\"watching\""), "kcap watch says {first}");
        let reports = thread::spawn(move || {
            let mut seen = BTreeMap::new();
            for line in lines.map_while(Result::ok) {
                let Ok(line) = serde_json::from_str::<serde_json::Value>(&line) else {
                    continue;
                };
                let kind = match line["event"].as_str() {
                    Some("report") if line["complete"] == true => "complete",
                    Some("report") => "incomplete",
                    Some(other) => other,
                    None => "?",
                };
                *seen.entry(kind.to_owned()).or_default() += 1;
            }
            seen
        });
        Ok(Self {
            child,
            address,
            reports,
        })
    }

    /// A figure by its name and labels.
    fn figures(&self) -> Result<BTreeMap<String, f64>> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text
            .lines()
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(' ')?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect())
    }

    /// Waits until no build is open, and its figures have been given anew.
    fn settle(&self) -> Result<BTreeMap<String, f64>> {
        self.open(0)
    }

    /// Waits until so many builds are open, and its figures have been given anew.
    fn open(&self, builds: usize) -> Result<BTreeMap<String, f64>> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            thread::sleep(Duration::from_millis(1200));
            let figures = self.figures()?;
            if figures.get("kcap_sessions_open") == Some(&(builds as f64)) {
                // What they did until now is in the next.
                thread::sleep(Duration::from_millis(1200));
                return self.figures();
            }
            ensure!(Instant::now() < end, "{builds} builds are not open");
        }
    }

    /// Resident memory in kB, and open descriptors.
    fn weight(&self) -> Result<(u64, usize)> {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(proc.join("status"))?;
        let rss = status.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        });
        Ok((
            rss.context("no VmRSS")?,
            fs::read_dir(proc.join("fd"))?.count(),
        ))
    }

    /// CPU time until now, in seconds.
    fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let rest = stat.rsplit_once(')').context("no stat")?.1;
        let mut fields = rest.split_whitespace().skip(11);
        let mut next = || -> Result<f64> { Ok(fields.next().context("no time")?.parse()?) };
        let ticks = next()? + next()?;
        // SAFETY: an integer.
        Ok(ticks / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64)
    }

    /// Ends it; what it said, counted.
    fn stop(mut self) -> Result<BTreeMap<String, usize>> {
        // SAFETY: our own child, which is waited for next.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let status = self.child.wait()?;
        ensure!(status.success(), "kcap watch ends with {status}");
        self.reports
            .join()
            .map_err(|_| anyhow::anyhow!("what kcap watch says cannot be read"))
    }
}

/// A folder with the executor.
struct Lab {
    dir: TempDir,
    layout: Layout,
    number: usize,
}

impl Lab {
    fn new(example: &Path) -> Result<Self> {
        let dir = TempDir::new().context("cannot make a folder")?;
        for (folder, name) in [("kaniko", "executor"), ("bin", "sh"), ("bin", "truth")] {
            let folder = dir.path().join(folder);
            fs::create_dir_all(&folder)?;
            fs::copy(example, folder.join(name)).context("cannot copy the executor")?;
        }
        Ok(Self {
            dir,
            layout: Layout::detect()?,
            number: 0,
        })
    }

    fn executor(&self) -> PathBuf {
        self.dir.path().join("kaniko/executor")
    }

    fn dockerfile(&self, name: &str, run: &str) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        let shell = self.dir.path().join("bin/sh");
        let text = format!(
            "FROM scratch\nSHELL [\"{}\", \"-c\"]\nRUN {run}\n",
            shell.display()
        );
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Starts a build in a cgroup of its own.
    fn start(&mut self, dockerfile: &Path) -> Result<Build> {
        self.number += 1;
        let name = format!("kcap-bench-{}-{}", std::process::id(), self.number);
        let group = self.layout.mount.join(name);
        fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
        let procs = File::options().write(true).open(group.join("cgroup.procs"));
        let mut build = Build { group, child: None };
        let procs = procs.context("cannot enter a cgroup")?;
        let mut command = Command::new(self.executor());
        command.arg("-f").arg(dockerfile).args(["-c", "/"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: system calls alone.
        unsafe {
            command.pre_exec(move || {
                if libc::unshare(libc::CLONE_NEWNS) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                (&procs).write_all(b"0")
            });
        }
        build.child = Some(command.spawn().context("cannot start the executor")?);
        Ok(build)
    }
}

/// A build that runs.
struct Build {
    group: PathBuf,
    child: Option<Child>,
}

impl Build {
    fn end(mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            let status = child.wait()?;
            ensure!(status.success(), "a build ends with {status}");
        }
        Ok(())
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Its processes may be just dying.
        for _ in 0..1000 {
            match fs::remove_dir(&self.group) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    thread::sleep(Duration::from_millis(1));
                }
                _ => return,
            }
        }
    }
}

/// Measures, and prints what was found.
///
/// # Errors
/// Where this is not the superuser, or with `--gate`, something grows.
pub fn run(args: &Args) -> Result<()> {
    ensure!(
        sh::is_root(),
        "tracing needs root: run `sudo cargo xtask bench watch`"
    );
    ensure!(
        args.at_once > 0 && args.in_a_row >= 2 * WARM,
        "too few builds"
    );
    let kcap = match &args.kcap {
        Some(path) => path.clone(),
        None => super::release()?,
    };
    sh::run(sh::cargo().args([
        "build",
        "--quiet",
        "--release",
        "-p",
        "kcap",
        "--example",
        "executor",
    ]))?;
    let mut lab = Lab::new(&sh::target().join("release/examples/executor"))?;

    let watch = Watch::start(&kcap, &lab.executor())?;
    let mut checks = [vec![], vec![]];
    for round in 0..usize::from(args.rounds) {
        for step in 0..2 {
            let at = (round + step) % 2;
            let builds = if at == 0 { 1 } else { args.at_once };
            checks[at].push(check(&watch, &mut lab, builds)?);
        }
    }
    watch.stop()?;

    let watch = Watch::start(&kcap, &lab.executor())?;
    let dockerfile = lab.dockerfile("Small", "truth setuid:3 chown:40")?;
    let mut before = None;
    let started = Instant::now();
    for number in 0..args.in_a_row {
        lab.start(&dockerfile)?.end()?;
        if number + 1 == WARM {
            watch.settle()?;
            before = Some(watch.weight()?);
        }
        if (number + 1) % 500 == 0 {
            eprint!("\r{} of {} builds", number + 1, args.in_a_row);
        }
    }
    eprintln!();
    let row = started.elapsed();
    watch.settle()?;
    let (before, after) = (before.context("too few builds")?, watch.weight()?);
    let cpu = watch.cpu()?;
    thread::sleep(ALONE);
    let idle = (watch.cpu()? - cpu) / ALONE.as_secs_f64();
    let said = watch.stop()?;
    let complete = said.get("complete").copied().unwrap_or(0);

    let ratio = Spread::of(
        checks[1]
            .iter()
            .zip(&checks[0])
            .map(|(many, one)| many.check / one.check),
    );
    let ratio = ratio.context("no round")?;
    let of =
        |costs: &[Cost], of: fn(&Cost) -> f64| Spread::of(costs.iter().map(of)).context("no round");
    let grown = after.0 as f64 / before.0 as f64 - 1.0;
    let met = |yes| if yes { "met" } else { "missed" };
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let text = format!(
        "# What watching costs\n\nMade by `cargo xtask bench watch --write`; do not edit.\n\n{}\n\n\
         | what | figure | goal |\n|---|---|---|\n\
         | a check with one build, ns in the program, by the kernel's account | {} | |\n\
         | a check with {} builds at once | {} | |\n\
         | the ratio of both, by round | {} | at most {RATIO}: {} |\n\
         | a build until it makes them, µs in the program: 1 and {} at once | {} and {} | |\n\
         | {} builds in a row, in {:.0} s: resident memory after {WARM} and at the end, kB | {} and {} ({:+.1} %) | ±{:.0} %: {} |\n\
         | open descriptors, likewise | {} and {} | no more: {} |\n\
         | reports of these that are complete | {complete} of {} | all: {} |\n\
         | share of a CPU where no build runs, over {} s | {:.3} % | below {:.1} %: {} |\n",
        super::host(cpus)?,
        of(&checks[0], |cost| cost.check)?.show(0),
        args.at_once,
        of(&checks[1], |cost| cost.check)?.show(0),
        ratio.show(2),
        met(ratio.mid <= RATIO),
        args.at_once,
        of(&checks[0], |cost| cost.begin)?.show(0),
        of(&checks[1], |cost| cost.begin)?.show(0),
        args.in_a_row,
        row.as_secs_f64(),
        before.0,
        after.0,
        grown * 100.0,
        FLAT * 100.0,
        met(grown.abs() <= FLAT),
        before.1,
        after.1,
        met(after.1 <= before.1),
        args.in_a_row,
        met(complete == args.in_a_row),
        ALONE.as_secs(),
        idle * 100.0,
        IDLE * 100.0,
        met(idle < IDLE),
    );
    print!("{text}");
    if args.write {
        let path = sh::workspace().join("docs/benchmarks-watch.md");
        fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.gate && (grown.abs() > FLAT || after.1 > before.1 || complete != args.in_a_row) {
        eprintln!("xtask: builds leave something behind, or are not reported whole");
        return Err(Exit(1).into());
    }
    Ok(())
}

/// What the hook's program takes.
struct Cost {
    /// Nanoseconds for each check that builds make, once they all run.
    check: f64,
    /// Microseconds for a build until then: what it asks first has samples taken.
    begin: f64,
}

/// Measures so many builds that make their checks at once.
fn check(watch: &Watch, lab: &mut Lab, builds: usize) -> Result<Cost> {
    let run = format!(
        "truth sleep:{} setuid:{} sleep:500",
        BEGIN.as_millis(),
        CHECKS / builds
    );
    let dockerfile = lab.dockerfile(&format!("Many.{builds}"), &run)?;
    // Whichever hook this kernel has.
    let spent = |figures: &BTreeMap<String, f64>| -> Result<(f64, f64)> {
        let of = |what: &str| {
            let hooks = ["kcap_tp", "kcap_fexit", "kcap_kprobe"];
            let mut values = hooks.iter().filter_map(|hook| {
                figures.get(&format!("kcap_bpf_{what}_total{{program=\"{hook}\"}}"))
            });
            values.next().copied().context("kcap gives no times")
        };
        Ok((of("seconds")?, of("runs")?))
    };
    let before = spent(&watch.settle()?)?;
    let started = Instant::now();
    let all: Vec<Build> = (0..builds)
        .map(|_| lab.start(&dockerfile))
        .collect::<Result<_>>()?;
    let begun = spent(&watch.open(builds)?)?;
    ensure!(
        started.elapsed() < BEGIN,
        "the first build went on before all had begun: the machine is too busy"
    );
    for build in all {
        build.end()?;
    }
    let after = spent(&watch.settle()?)?;
    let runs = after.1 - begun.1;
    ensure!(
        runs >= (CHECKS / builds * builds) as f64,
        "{runs} checks were seen"
    );
    Ok(Cost {
        check: (after.0 - begun.0) * 1e9 / runs,
        begin: (begun.0 - before.0) * 1e6 / builds as f64,
    })
}
