//! What each tier of tests runs.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum as _;

use super::Kind;
use super::run::{Counter, Tier};
use crate::fuzz::{Fuzzers, Keep, Target};
use crate::setup::{self, Need};
use crate::vm::{self, Cgroup, Machine, Preempt};
use crate::{bpf, lab, sh};

/// The guests: every series of kernels with each preemption mode. The layouts of control groups
/// are spread over them, so that each is met without booting more often.
const GUESTS: [(&str, Preempt, Cgroup); 4] = [
    ("6.1", Preempt::Voluntary, Cgroup::V2),
    ("6.1", Preempt::Full, Cgroup::Hybrid),
    ("6.12", Preempt::Voluntary, Cgroup::V1),
    ("6.12", Preempt::Full, Cgroup::V2),
];
/// Longer than the tests take in a guest, ten to twenty times slower than its host.
const GUEST_TIMEOUT: Duration = Duration::from_secs(600);
/// Test programs that run as root here, and in the guests.
const ROOT_TESTS: [&str; 3] = ["root", "phases", "watch"];
/// What of `watch` depends on the kernel and its hooks. Loading kcap takes a guest as long as all else, and
/// each of these does once.
const WATCHED: [&str; 2] = ["fifty_containers", "it_runs_without_root"];
/// Seconds for each kind of input.
const FUZZED: u32 = 5;
/// One test at a time, since each traces; skips are told at once.
const TEST_ARGS: [&str; 2] = ["--test-threads=1", "--nocapture"];

/// Runs one tier.
///
/// # Errors
/// Where something fails that is no test: a build, a program that does not start.
pub fn run(kind: Kind, tier: &mut Tier) -> Result<()> {
    match kind {
        Kind::Lint => lint(tier),
        Kind::Pure => pure(tier),
        Kind::Fuzz => fuzzers(tier),
        Kind::Pages => pages(tier),
        Kind::Bpf => object(tier),
        Kind::Root => root(tier),
        Kind::Vm => vm(tier),
        Kind::Engines => engines(tier),
    }
}

/// Sets up for a tier, or skips it and says why.
fn ready(tier: &mut Tier, need: Need) -> bool {
    match setup::ensure(&[need]) {
        Ok(_) => true,
        Err(why) if why.is::<sh::Exit>() => {
            tier.skip("something is missing that only a person can install: see above");
            false
        }
        Err(why) => {
            tier.skip(format!("set-up failed: {why:#}"));
            false
        }
    }
}

fn lint(tier: &mut Tier) -> Result<()> {
    for tool in ["fmt", "clippy"] {
        if sh::output(sh::cargo().args([tool, "--version"])).is_err() {
            tier.skip("no rustfmt or clippy: run `rustup component add rustfmt clippy`");
            return Ok(());
        }
    }
    tier.check(sh::cargo().args(["fmt", "--all", "--check"]));
    let deny = ["--", "--deny", "warnings"];
    tier.check(
        sh::cargo()
            .args(["clippy", "--quiet", "--all-targets"])
            .args(deny),
    );
    // `--all-targets` leaves out test programs that only run when named.
    let named = ["clippy", "--quiet", "--package", "kcap", "--test", "*"];
    tier.check(sh::cargo().args(named).args(deny));
    // What needs no kernel does without it, and so do its tests, which are run with it.
    let pure = [
        "clippy",
        "--quiet",
        "--package",
        "kcap",
        "--no-default-features",
        "--lib",
        "--bins",
        "--profile",
        "test",
    ];
    tier.check(sh::cargo().args(pure).args(deny));
    // Links in docs that lead nowhere.
    let docs = [
        "doc",
        "--quiet",
        "--no-deps",
        "--package",
        "kcap",
        "--package",
        "kcap-common",
    ];
    tier.check(
        sh::cargo()
            .args(docs)
            .env("RUSTDOCFLAGS", "--deny warnings"),
    );
    Ok(())
}

fn pure(tier: &mut Tier) -> Result<()> {
    tier.tests(sh::cargo().args(["test", "--quiet", "--no-fail-fast"]))
}

/// Each fuzzer from the seeds alone, so that it takes the same time everywhere.
fn fuzzers(tier: &mut Tier) -> Result<()> {
    if !ready(tier, Need::Fuzz) {
        return Ok(());
    }
    let fuzzers = Fuzzers::build()?;
    for target in Target::value_variants() {
        match fuzzers.fuzz(*target, FUZZED, Keep::Nothing) {
            Ok(()) => tier.pass(),
            Err(why) => tier.fail(format!("{why:#}")),
        }
    }
    Ok(())
}

fn pages(tier: &mut Tier) -> Result<()> {
    if !ready(tier, Need::Pages) {
        return Ok(());
    }
    tier.tests(
        sh::cargo()
            .args(["test", "--package", "kcap", "--test", "pages", "--"])
            .args(TEST_ARGS)
            .env("KCAP_AXE", setup::axe()?),
    )
}

fn object(tier: &mut Tier) -> Result<()> {
    ready(tier, Need::Bpf);
    match bpf::check()? {
        bpf::Outcome::Reproduced(what) => {
            println!("{what}");
            tier.pass();
        }
        bpf::Outcome::Fresh(what) => {
            println!("{what}");
            tier.pass();
            // Where Debian has moved on, that is no fault of this machine's or of the object's.
            if bpf::toolchain::discover().is_none() {
                tier.not_run
                    .push("no toolchain to reproduce the object with".into());
            }
        }
        bpf::Outcome::Stale(why) => tier.fail(why),
    }
    Ok(())
}

/// Why this process cannot load BPF programs, if so.
fn privileges() -> Option<String> {
    const SYS_ADMIN: u64 = 1 << 21;
    const BPF: u64 = 1 << 39;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0);
    if !sh::is_root() {
        Some("needs root: run it as root".into())
    } else if held & (SYS_ADMIN | BPF) == 0 {
        Some("needs CAP_BPF or CAP_SYS_ADMIN, which this root does not have".into())
    } else if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        Some("needs a kernel with BTF (/sys/kernel/btf/vmlinux)".into())
    } else {
        None
    }
}

fn root(tier: &mut Tier) -> Result<()> {
    if let Some(why) = privileges() {
        tier.skip(why);
        return Ok(());
    }
    if !ready(tier, Need::Test) {
        return Ok(());
    }
    let programs = Programs::build(sh::static_cargo, &ROOT_TESTS)?;
    for test in ROOT_TESTS {
        tier.tests(
            Command::new(programs.get(test)?)
                .args(TEST_ARGS)
                .current_dir(sh::workspace().join("kcap"))
                .envs(programs.environment()?),
        )?;
    }
    // Performance is gated on what the verifier walks, which no other load changes.
    let xtask = env::current_exe().context("cannot find cargo xtask itself")?;
    tier.check(
        Command::new(xtask)
            .args(["bench", "--quick", "--gate", "--kcap"])
            .arg(programs.get("kcap")?),
    );
    Ok(())
}

fn vm(tier: &mut Tier) -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        tier.skip("guests are x86-64 only");
        return Ok(());
    }
    if !ready(tier, Need::Test) {
        return Ok(());
    }
    let programs = Programs::build(sh::static_cargo, &ROOT_TESTS)?;
    for (series, preempt, cgroup) in GUESTS {
        let name = format!("Linux {series} preempt={}", preempt.name());
        let Ok(kernel) = setup::kernel(series) else {
            tier.skip(format!(
                "{name}: this machine's package sources have no such kernel"
            ));
            continue;
        };
        println!("\n--- {name}");
        let machine = Machine {
            kernel,
            preempt,
            cgroup,
            processors: 2,
            memory: vm::MEMORY,
            disk: None,
            files: programs.files(),
            environment: programs
                .environment()?
                .into_iter()
                .map(|(key, value)| format!("{key}={}", value.display()))
                .collect(),
            timeout: GUEST_TIMEOUT,
            // Each hook once: with `voluntary` it is fexit, with `full` a kprobe.
            command: one_by_one(&programs, cgroup == Cgroup::V2)?,
        };
        let mut counter = Counter::default();
        match machine.run(|line| counter.line(line)) {
            Ok(status) => tier.settle(&counter, status == 0, &name),
            Err(why) => tier.fail(format!("{name}: {why:#}")),
        }
    }
    Ok(())
}

/// A command of the guest's that runs all test programs, whatever becomes of each.
fn one_by_one(programs: &Programs, watched: bool) -> Result<Vec<String>> {
    let args = TEST_ARGS.join(" ");
    let mut script = "status=0".to_owned();
    let mut command = vec![];
    for (at, test) in ROOT_TESTS.into_iter().enumerate() {
        let only = match test {
            "watch" if !watched => continue,
            "watch" => WATCHED.join(" "),
            _ => String::new(),
        };
        // The first argument is $1: $0 is the name of the shell.
        script += &format!("; \"${}\" {args} {only} || status=$?", at + 1);
        command.push(programs.get(test)?.to_string_lossy().into_owned());
    }
    script += "; exit $status";
    let shell = ["sh", "-c", &script, "sh"].map(str::to_owned);
    Ok(shell.into_iter().chain(command).collect())
}

fn engines(tier: &mut Tier) -> Result<()> {
    if let Some(why) = privileges() {
        tier.skip(why);
        return Ok(());
    }
    store(tier)?;
    if cfg!(not(target_arch = "x86_64")) {
        tier.skip("builds of the known executor: it is built for x86-64 only");
    } else if ready(tier, Need::Engines) {
        let tests = ["builds", "whose"];
        let programs = Programs::build(sh::static_cargo, &tests)?;
        for test in tests {
            tier.tests(
                Command::new(programs.get(test)?)
                    .args(TEST_ARGS)
                    .current_dir(sh::workspace().join("kcap"))
                    .envs(programs.environment()?),
            )?;
        }
    }
    cluster(tier)?;
    kaniko(tier)
}

/// An object store that speaks S3.
fn store(tier: &mut Tier) -> Result<()> {
    if !ready(tier, Need::Store) {
        return Ok(());
    }
    // Elsewhere than on Debian, set-up cannot tell.
    let mut swift = Command::new("/usr/bin/python3");
    if sh::output(swift.args(["-c", "import swift.common.middleware.s3api"])).is_err() {
        tier.skip("no OpenStack Swift for the system's python3: an object store is not tested");
        return Ok(());
    }
    let programs = Programs::build(sh::cargo, &["store"])?;
    tier.tests(
        Command::new(programs.get("store")?)
            .args(TEST_ARGS)
            .current_dir(sh::workspace().join("kcap"))
            .envs(programs.environment()?),
    )
}

/// Proofs in a cluster. There is none in a package, so that it may be absent: what a real one took and
/// answered is held against kcap by the pure tests.
fn cluster(tier: &mut Tier) -> Result<()> {
    if env::var_os("KCAP_KUBERNETES_POD").is_none() {
        tier.absent("no Kubernetes cluster: see kcap/tests/kubernetes.rs for what names one");
        return Ok(());
    }
    tier.tests(
        sh::cargo()
            .args(["test", "--package", "kcap", "--test", "kubernetes", "--"])
            .args(TEST_ARGS),
    )
}

/// What a real Kaniko is needed for. It has no Debian package, so that it may be absent.
fn kaniko(tier: &mut Tier) -> Result<()> {
    let Some(executor) = lab::kaniko::executor() else {
        tier.absent("no Kaniko executor: set KCAP_KANIKO_EXECUTOR to its path");
        return Ok(());
    };
    if !ready(tier, Need::Kaniko) || !ready(tier, Need::Engines) {
        return Ok(());
    }
    tier.tests(
        sh::cargo()
            .args(["test", "--package", "kcap", "--test", "live"])
            .args(["--test", "engines", "--test", "oci", "--test", "bases"])
            .arg("--")
            .args(TEST_ARGS)
            .env("KCAP_KANIKO_EXECUTOR", &executor)
            .env("KCAP_REGISTRY", setup::registry()?),
    )?;
    if !ready(tier, Need::Corpus) {
        return Ok(());
    }
    tier.tests(
        sh::cargo()
            .args(["test", "--package", "xtask", "--test", "truth", "--"])
            .args(TEST_ARGS)
            .env("KCAP_KANIKO_EXECUTOR", executor),
    )
}

/// Programs that cargo built for a test, by the names of their targets.
struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// Builds kcap, these test programs, and what they trace, with the cargo that `cargo` makes.
    fn build(cargo: impl Fn() -> Command, tests: &[&str]) -> Result<Self> {
        // One command would build the examples as test programs as well, without their `main`.
        let mut programs = Self(BTreeMap::new());
        let examples = ["--example", "workload", "--example", "executor"];
        programs.add(cargo().args(["build", "--bin", "kcap"]).args(examples))?;
        let tests = tests.iter().flat_map(|test| ["--test", test]);
        programs.add(cargo().args(["test", "--no-run"]).args(tests))?;
        Ok(programs)
    }

    fn add(&mut self, cargo: &mut Command) -> Result<()> {
        let output = cargo
            .args([
                "--package",
                "kcap",
                "--message-format",
                "json-render-diagnostics",
            ])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run cargo")?;
        if !output.status.success() {
            bail!("`{}` failed: see above", sh::shown(cargo));
        }
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else {
                continue;
            };
            let name = message["target"]["name"].as_str();
            if let (Some(name), Some(path)) = (name, message["executable"].as_str()) {
                self.0.insert(name.to_owned(), PathBuf::from(path));
            }
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Result<&Path> {
        let path = self.0.get(name).map(PathBuf::as_path);
        path.with_context(|| format!("cargo built no program `{name}` for the tests"))
    }

    /// How a test program finds the others.
    fn environment(&self) -> Result<[(&'static str, &Path); 3]> {
        Ok([
            ("KCAP_WORKLOAD", self.get("workload")?),
            ("KCAP_EXECUTOR", self.get("executor")?),
            ("CARGO_BIN_EXE_kcap", self.get("kcap")?),
        ])
    }

    /// The programs, at their own paths: that of kcap is compiled into its tests.
    fn files(&self) -> Vec<(PathBuf, String)> {
        self.0
            .values()
            .map(|path| (path.clone(), path.to_string_lossy().into_owned()))
            .collect()
    }
}
