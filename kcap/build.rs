//! Chooses the BPF object that goes into the library, and nothing else: `$KCAP_BPF_OBJECT`, the
//! committed one where it is fresh, a build of now, or an error that says how to get one.

#[allow(dead_code, reason = "the rest is for cargo xtask bpf")]
#[path = "build/object.rs"]
mod object;
#[path = "build/strip.rs"]
mod strip;
#[allow(dead_code, reason = "the rest is for cargo xtask bpf")]
#[path = "build/toolchain.rs"]
mod toolchain;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=KCAP_BPF_OBJECT");
    println!("cargo::rerun-if-env-changed=KCAP_TOOLCHAIN");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    if env::var_os("CARGO_FEATURE_TRACE").is_none() {
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let chosen = choose(&package, &out).and_then(|bytes| {
        fs::write(out.join("kcap.bpf.o"), &bytes)
            .map_err(|e| format!("cannot write {}/kcap.bpf.o: {e}", out.display()))?;
        Ok(object::sha256(&bytes))
    });
    match chosen {
        Ok(sum) => println!("cargo::rustc-env=KCAP_BPF_SHA256={sum}"),
        Err(why) => println!("cargo::error={why}"),
    }
}

fn choose(package: &Path, out: &Path) -> Result<Vec<u8>, String> {
    if let Some(path) = env::var_os("KCAP_BPF_OBJECT").filter(|v| !v.is_empty()) {
        let path = PathBuf::from(path);
        println!("cargo::rerun-if-changed={}", path.display());
        return fs::read(&path)
            .map_err(|e| format!("cannot read KCAP_BPF_OBJECT={}: {e}", path.display()));
    }
    let workspace = package.parent().unwrap_or(package);
    for path in object::watched(workspace)
        .into_iter()
        .chain([package.join("bpf")])
    {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let sources = object::sources(workspace, &toolchain::FLAGS).map_err(|e| {
        format!(
            "cannot read the BPF sources beside {}: {e}",
            package.display()
        )
    })?;
    if let Some(bytes) = committed(package, sources.as_deref()) {
        return Ok(bytes);
    }
    if sources.is_none() {
        return Err(
            "bpf/kcap.bpf.o is missing or damaged, and no BPF sources are beside it: \
                    take a complete copy of kcap, or set KCAP_BPF_OBJECT"
                .into(),
        );
    }
    match toolchain::discover() {
        Some(found) => found
            .compile(workspace, &out.join("bpf"))
            .inspect_err(|why| {
                println!("cargo::error={why}");
                // Cargo shows the compiler's messages only of a build script that fails.
                std::process::exit(1);
            }),
        None => Err(
            "kcap/bpf/kcap.bpf.o is older than the BPF sources and no BPF toolchain was \
                     found: run `cargo xtask bpf`"
                .into(),
        ),
    }
}

/// The committed object, where it is whole and made from `sources`, or from sources unknown here.
fn committed(package: &Path, sources: Option<&str>) -> Option<Vec<u8>> {
    let note = object::Note::parse(&fs::read_to_string(package.join(object::NOTE)).ok()?)?;
    let bytes = fs::read(package.join(object::OBJECT)).ok()?;
    let whole = object::sha256(&bytes) == note.object;
    let fresh = sources.is_none_or(|sum| sum == note.sources);
    (whole && fresh).then_some(bytes)
}
