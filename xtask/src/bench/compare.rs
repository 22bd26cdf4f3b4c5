//! How fast `kcap compare` reads two images that have nothing in common, how much memory it takes,
//! and how fast `sha256sum` reads the same two files side by side: the digests alone.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::setups::reap;
use super::stats::Spread;
use crate::sh::Exit;

/// Bytes of memory that the larger image may take, in kB.
const MEMORY: i64 = 200 << 10;
/// Layers of an image.
const LAYERS: u64 = 5;

/// What `cargo xtask bench compare` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Bytes of each image, unpacked, in units of 10⁹
    #[arg(long, value_name = "N", default_value_t = 5)]
    gigabytes: u64,
    /// Files of each image
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    files: u64,
    /// Compress layers, as Kaniko does
    #[arg(long)]
    gzip: bool,
    /// Rounds, in each of which both are run once
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// The kcap to measure; a release build of this copy otherwise
    #[arg(long, value_name = "FILE")]
    kcap: Option<PathBuf>,
    /// Exit 1 where it takes more memory than 200 MiB
    #[arg(long)]
    gate: bool,
}

/// Measures, and prints what was found.
///
/// # Errors
/// Where the images cannot be made or not be compared.
pub fn run(args: &Args) -> Result<()> {
    let kcap = match &args.kcap {
        Some(path) => path.clone(),
        None => super::release()?,
    };
    let dir = TempDir::new().context("cannot make a folder")?;
    eprintln!("xtask: makes two images in {}", dir.path().display());
    let images = [1, 2].map(|seed| (dir.path().join(format!("{seed}.tar")), seed));
    for (path, seed) in &images {
        image(path, *seed, args).with_context(|| format!("cannot make {}", path.display()))?;
    }
    let [a, b] = images.map(|(path, _)| path);
    let packed = a.metadata()?.len() + b.metadata()?.len();
    let unpacked = 2 * args.gigabytes * 1_000_000_000;
    let (mut ours, mut theirs, mut memory) = (vec![], vec![], 0);
    for _ in 0..args.rounds {
        let started = Instant::now();
        let child = Command::new(&kcap)
            .args(["compare", "--quiet"])
            .args([&a, &b])
            .spawn()
            .with_context(|| format!("cannot run {}", kcap.display()))?;
        let (status, most) = reap(&child)?;
        ensure!(
            status.code() == Some(1),
            "kcap compare does not find that the images differ: {status}"
        );
        ours.push(started.elapsed().as_secs_f64());
        memory = memory.max(most);
        let started = Instant::now();
        let sums = [&a, &b].map(|path| {
            let mut sum = Command::new("sha256sum");
            sum.arg(path).stdout(Stdio::null()).spawn()
        });
        for sum in sums {
            let status = sum.context("cannot run sha256sum")?.wait()?;
            ensure!(status.success(), "sha256sum fails: {status}");
        }
        theirs.push(started.elapsed().as_secs_f64());
    }
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
    println!(
        "Two images of {} GB and {} files each, {}, nothing in common.\n",
        args.gigabytes,
        args.files,
        if args.gzip {
            "layers gzipped"
        } else {
            "layers plain"
        }
    );
    println!("| | seconds | GB/s unpacked | GB/s as they lie there |\n|---|---|---|---|");
    for (name, times, bytes) in [
        ("kcap compare", &ours, Some(unpacked)),
        // It reads them as they are.
        ("sha256sum, two at once", &theirs, None),
    ] {
        let time = spread(times)?;
        let rate = |bytes: u64| format!("{:.2}", bytes as f64 / 1e9 / time.mid);
        let unpacked = bytes.map_or_else(|| "–".into(), rate);
        println!(
            "| {name} | {} | {unpacked} | {} |",
            time.show(1),
            rate(packed)
        );
    }
    println!(
        "\nTime over sha256sum's, by rounds: {}. Memory: {} MiB at most.",
        spread(&ratios)?.show(2),
        memory >> 10
    );
    if args.gate && memory > MEMORY {
        eprintln!(
            "xtask: kcap compare takes more memory than {} MiB",
            MEMORY >> 10
        );
        return Err(Exit(1).into());
    }
    Ok(())
}

fn spread(values: &[f64]) -> Result<Spread> {
    Spread::of(values.iter().copied()).context("no round was measured")
}

/// A docker archive of files that no other seed's image has.
fn image(path: &Path, seed: u64, args: &Args) -> Result<()> {
    let mut archive = Builder::new(BufWriter::with_capacity(1 << 20, File::create(path)?));
    let mut ids = Vec::new();
    let names: Vec<String> = (0..LAYERS).map(|n| format!("{n}.tar")).collect();
    for (number, name) in (0..).zip(&names) {
        // Its length has to stand before it.
        let mut file = tempfile::tempfile_in(path.parent().unwrap_or(Path::new("/tmp")))?;
        ids.push(layer(&mut file, seed, number, args)?);
        file.rewind()?;
        let mut header = Header::new_gnu();
        header.set_size(file.metadata()?.len());
        archive.append_data(&mut header, name, &mut file)?;
    }
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    let manifest = json!([{"Config": "config.json", "Layers": names}]);
    for (name, document) in [("config.json", &config), ("manifest.json", &manifest)] {
        let bytes = document.to_string();
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes.as_bytes())?;
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

/// Writes a layer; gives its digest, unpacked.
fn layer(to: &mut File, seed: u64, number: u64, args: &Args) -> Result<String> {
    let mut to = BufWriter::with_capacity(1 << 20, to);
    let digest = if args.gzip {
        let mut gzip = GzEncoder::new(&mut to, Compression::fast());
        let digest = fill(&mut gzip, seed, number, args)?;
        gzip.finish()?;
        digest
    } else {
        fill(&mut to, seed, number, args)?
    };
    to.flush()?;
    Ok(digest)
}

fn fill(to: &mut dyn Write, seed: u64, number: u64, args: &Args) -> Result<String> {
    let block = block();
    let size = args.gigabytes * 1_000_000_000 / args.files.max(1);
    let hash = Sha256::new();
    let mut tar = Builder::new(Hashing { hash, to });
    for n in 0..args.files / LAYERS {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(size);
        let path = format!("usr/lib/package-{number}-{}/folder/file-{n}.data", n / 100);
        // So that no other file has the same content.
        let start = (seed << 48 | number << 40 | n).to_le_bytes();
        let content = start.as_slice().chain(Endless {
            block: &block,
            at: 0,
        });
        tar.append_data(&mut header, path, content.take(size))?;
    }
    let digest = tar.into_inner()?.hash.finalize();
    Ok(format!("sha256:{}", kcap::image::hex(&digest)))
}

struct Hashing<'a> {
    hash: Sha256,
    to: &'a mut dyn Write,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Bytes of which gzip takes about half away, as of programs.
fn block() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut block = Vec::with_capacity(1 << 20);
    while block.len() < 1 << 20 {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend(state.to_le_bytes());
        block.extend([b'A'; 8]);
    }
    block
}

/// A block over and over.
struct Endless<'a> {
    block: &'a [u8],
    at: usize,
}

impl Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.block[self.at..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.at = (self.at + length) % self.block.len();
        Ok(length)
    }
}
