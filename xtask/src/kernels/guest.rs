//! Builds in virtual machines: a disk with all that they need, and the captures that come back over
//! the console.
//!
//! An emulated guest can die of a trap that another processor had already taken out of the kernel's code
//! (`Oops: int3` where a tracepoint was being attached). What arrived before is kept: call again with
//! `--keep`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::plan::Guest;
use crate::corpus::Subject;
use crate::lab::bundle::Bundle;
use crate::lab::kaniko::{self, Kaniko};
use crate::lab::{netns, registry};
use crate::setup;
use crate::sh;
use crate::vm::{Cgroup, Machine};

/// Enough for the root of one Debian build, its image and the base images.
const DISK: &str = "3G";
/// Kaniko keeps what it unpacks in memory at times.
const MEMORY: u32 = 3072;
/// Longer than the slowest Dockerfile takes, on a processor that is emulated and shared.
const EACH: Duration = Duration::from_secs(300);
/// What the guest's lines begin with.
const MARK: &str = "kcap-kernels:";

/// A disk image, removed when dropped.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
    names: Vec<String>,
}

impl Disk {
    /// Makes one with these Dockerfiles, a kcap that needs no libraries, and all that builds need.
    ///
    /// # Errors
    /// Where something is missing or cannot be copied.
    pub fn make(lab: &Kaniko, kcap: &Path, subjects: &[&Subject]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("kcap-guest-").tempdir()?;
        let root = folder.path().join("root");
        for place in ["dev", "proc", "sys", "tmp", "run", "out", "etc", "bin"] {
            fs::create_dir_all(root.join(place))?;
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        fs::copy(kcap, root.join("bin/kcap")).context("cannot copy kcap")?;
        fs::copy(setup::BUSYBOX, root.join("bin/busybox")).context("cannot copy BusyBox")?;
        let runc = sh::find("runc").context("no runc: run `cargo xtask setup --for test`")?;
        program(&root, &runc, "bin/runc")?;
        program(&root, &setup::registry()?, "bin/docker-registry")?;
        fs::copy(lab.executor(), root.join("executor"))?;
        sh::output(
            Command::new("cp")
                .arg("-r")
                .arg(lab.data())
                .arg(root.join("bases")),
        )?;
        let settings = registry::settings(Path::new("/bases"), netns::REGISTRY);
        fs::write(root.join("registry.yml"), settings)?;
        for subject in subjects {
            lay_out(&root, subject).with_context(|| subject.name.clone())?;
        }
        let image = folder.path().join("disk");
        sh::output(
            Command::new("mke2fs")
                .args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"])
                .arg(&root)
                .arg(&image)
                .arg(DISK),
        )?;
        fs::remove_dir_all(&root)?;
        Ok(Self {
            folder,
            names: subjects.iter().map(|s| s.name.clone()).collect(),
        })
    }

    /// Boots a guest with a copy of the disk, builds everything in it once, and hands each capture to
    /// `keep` as it arrives.
    ///
    /// # Errors
    /// Where the guest does not boot, a build leaves no whole capture, or `keep` fails.
    pub fn record(
        &self,
        guest: Guest,
        mut keep: impl FnMut(&str, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let builds = u32::try_from(self.names.len())?;
        let machine = Machine {
            kernel: setup::kernel(guest.series)?,
            preempt: guest.preempt,
            cgroup: Cgroup::V2,
            processors: 2,
            memory: MEMORY,
            disk: Some(self.folder.path().join("disk")),
            files: Vec::new(),
            environment: Vec::new(),
            timeout: EACH * (builds + 1),
            command: ["sh", "-c", include_str!("guest.sh"), MARK]
                .into_iter()
                .map(str::to_owned)
                .chain(self.names.iter().cloned())
                .collect(),
        };
        let mut console = Console::default();
        let mut kept = Ok(());
        let ended = machine.run(|line| {
            if let Some((name, text)) = console.line(line)
                && kept.is_ok()
            {
                kept = base64(&text)
                    .with_context(|| format!("{name}: its capture is cut"))
                    .and_then(|bytes| keep(&name, &bytes));
            }
        });
        kept?;
        match ended? {
            0 => console.finish(&self.names),
            status => bail!("the guest ended with status {status}: see its output above"),
        }
    }
}

/// Copies a program with the libraries that it is linked to, at their own paths.
fn program(root: &Path, program: &Path, place: &str) -> Result<()> {
    fs::copy(program, root.join(place))
        .with_context(|| format!("cannot copy {}", program.display()))?;
    let linked = sh::output(Command::new("ldd").arg(program)).unwrap_or_default();
    for word in linked.split_whitespace().filter(|w| w.starts_with('/')) {
        let to = root.join(word.trim_start_matches('/'));
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(word, to).with_context(|| format!("cannot copy {word}"))?;
    }
    Ok(())
}

/// Lays out one build, at `/builds/NAME`.
fn lay_out(root: &Path, subject: &Subject) -> Result<()> {
    let inside = PathBuf::from("/builds").join(&subject.name);
    let place = root.join("builds").join(&subject.name);
    fs::create_dir_all(place.join("out"))?;
    let recipe = subject.recipe(&place.join("context"))?;
    // kcap is told a Dockerfile by the path that the report shows, here as elsewhere.
    let shown = root.join("corpus").join(&subject.name);
    fs::create_dir_all(&shown)?;
    fs::copy(&recipe.dockerfile, shown.join("Dockerfile"))?;
    let bundle = place.join("bundle");
    kaniko::lay_out_around(&bundle)?;
    let config = Bundle {
        name: &subject.name,
        folder: &inside.join("bundle"),
        dockerfile: &inside.join("context/Dockerfile"),
        context: &inside.join("context"),
        output: Some(&inside.join("out")),
        flags: &kaniko::flags(&recipe.flags),
        variables: &recipe.variables,
        capabilities: subject.start,
        network: None,
    }
    .config();
    fs::write(bundle.join("config.json"), config.to_string())?;
    Ok(())
}

/// What a guest has written so far: of each build its end as `MARK NAME STATUS SECONDS`, its capture
/// as `MARK NAME = BASE64` in lines, and `MARK NAME .` behind it. Everything else is passed on.
#[derive(Debug, Default)]
struct Console {
    /// The capture that is arriving.
    text: String,
    /// Builds whose captures arrived.
    arrived: BTreeSet<String>,
}

impl Console {
    /// Takes a line; returns the name and base64 of a capture that ends with it.
    fn line(&mut self, line: &str) -> Option<(String, String)> {
        let Some(rest) = line.strip_prefix(MARK) else {
            eprintln!("guest: {line}");
            return None;
        };
        let words: Vec<&str> = rest.split_whitespace().collect();
        match words[..] {
            [_, "=", text] => self.text.push_str(text),
            [name, "."] => {
                self.arrived.insert(name.to_owned());
                return Some((name.to_owned(), std::mem::take(&mut self.text)));
            }
            [name, status, seconds] => {
                eprintln!("guest: {name} ended with {status} after {seconds} s");
            }
            _ => eprintln!("guest: {rest}"),
        }
        None
    }

    /// Whether each build left a capture.
    fn finish(&self, names: &[String]) -> Result<()> {
        let missing = names.iter().find(|name| !self.arrived.contains(*name));
        match missing {
            Some(name) => bail!("{name}: its build left no capture: see the guest's output above"),
            None => Ok(()),
        }
    }
}

/// Decodes base64 with its padding; `None` where it is none.
fn base64(text: &str) -> Option<Vec<u8>> {
    let value = |byte: u8| {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        Some(u32::from(value))
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (groups, rest) = text.as_bytes().as_chunks::<4>();
    for (at, group) in groups.iter().enumerate() {
        let pad = group.iter().rev().take_while(|b| **b == b'=').count();
        if pad > 2 || (pad > 0 && at + 1 < groups.len()) {
            return None;
        }
        let mut bits = 0;
        for byte in &group[..4 - pad] {
            bits = bits << 6 | value(*byte)?;
        }
        bits <<= 6 * pad;
        bytes.extend_from_slice(&bits.to_be_bytes()[1..4 - pad]);
    }
    rest.is_empty().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_back() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYg==", b"foob"),
            ("+/8=", &[0xfb, 0xff]),
        ] {
            assert_eq!(base64(text).as_deref(), Some(bytes), "{text}");
        }
        for bad in ["Zg=", "Zg", "Z===", "Zg==Zm9v", "Zm-v"] {
            assert_eq!(base64(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_capture_is_put_together_from_its_lines() {
        let mut console = Console::default();
        let mut found = Vec::new();
        for line in [
            "kcap-kernels: one 0 12",
            "[   3.2] a kernel's message",
            "kcap-kernels: one = Zm9v",
            "kcap-kernels: one = Zm8=",
            "kcap-kernels: one .",
            "kcap-kernels: two 125 3",
        ] {
            found.extend(console.line(line));
        }
        assert_eq!(found, [("one".to_owned(), "Zm9vZm8=".to_owned())]);
        console.finish(&["one".to_owned()]).unwrap();
        let missing = console.finish(&["one".to_owned(), "two".to_owned()]);
        assert!(missing.unwrap_err().to_string().starts_with("two:"));
    }
}
