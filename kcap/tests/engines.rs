//! docker and podman, with a real Kaniko: builds, failures, kills, and that nothing is left behind.
//!
//! Each test brings storage of its own, and docker a daemon of its own on a private socket, so that no
//! image or container of the machine is touched. Needs root, `docker` and `dockerd`, or `podman`, a
//! static `/bin/busybox`, and the executor, which `KCAP_KANIKO_EXECUTOR` names where it is not at
//! `/kaniko/executor`. Says so where it cannot run.

#[path = "engines/bench.rs"]
mod bench;
#[path = "engines/host.rs"]
mod host;
#[path = "engines/pasted.rs"]
mod pasted;

use std::{fs, process::Command, time::Instant};

use bench::Bench;
use host::{Daemon, Storage, assert_no_mounts, lacks, set, skipped};
use kcap::launch::{Engine, client};
use kcap::render::Format;
use tempfile::TempDir;

fn error(opened: anyhow::Result<Box<dyn Engine>>) -> String {
    format!("{:#}", opened.err().expect("it cannot be opened"))
}

#[test]
fn docker() {
    if let Some(reason) = lacks(&["docker", "dockerd"]) {
        return skipped("docker", &reason);
    }
    let dir = TempDir::with_prefix("kcap-docker-").unwrap();
    set("DOCKER_HOST", "tcp://user:secret@127.0.0.1:1");
    let remote = error(client::docker());
    assert!(remote.contains("reached by tcp://127.0.0.1:1:"), "{remote}");
    set(
        "DOCKER_HOST",
        format!("unix://{}", dir.path().join("socket").display()),
    );
    let down = error(client::docker());
    assert!(down.contains("systemctl start docker"), "{down}");
    eprintln!("docker: {remote}\ndocker: {down}");

    let daemon = Daemon::start(dir.path());
    let begin = Instant::now();
    let engine = client::docker().unwrap();
    eprintln!("docker: opened in {:.0?}", begin.elapsed());
    pasted::are_taken_as_meant("docker", Format::Docker, dir.path());
    Bench::new("docker", engine, dir.path()).all();
    drop(daemon);
    assert_no_mounts(dir.path());
    dir.close().unwrap();
}

#[test]
fn podman() {
    if let Some(reason) = lacks(&["podman"]) {
        return skipped("podman", &reason);
    }
    let dir = TempDir::with_prefix("kcap-podman-").unwrap();
    let place = |name: &str| dir.path().join(name).display().to_string();
    let storage = format!(
        "[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
        place("root"),
        place("run")
    );
    fs::write(dir.path().join("storage.conf"), storage).unwrap();
    // Without systemd; limits that root of a container may set; runc where there is one, since older
    // versions of crun refuse hosts that have cgroups v1 and v2.
    let runtime = match Command::new("runc").arg("--version").output() {
        Ok(_) => "runtime = \"runc\"\n",
        Err(_) => "",
    };
    let config = format!(
        "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
         [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\ntmp_dir = \"{}\"\n{runtime}",
        place("tmp")
    );
    fs::write(dir.path().join("containers.conf"), config).unwrap();
    set("CONTAINERS_STORAGE_CONF", dir.path().join("storage.conf"));
    set("CONTAINERS_CONF", dir.path().join("containers.conf"));

    let begin = Instant::now();
    let engine = client::podman().unwrap();
    eprintln!("podman: opened in {:.0?}", begin.elapsed());
    let storage = Storage(place("root/overlay"));
    pasted::are_taken_as_meant("podman", Format::Podman, dir.path());
    Bench::new("podman", engine, dir.path()).all();
    drop(storage);
    assert_no_mounts(dir.path());
    dir.close().unwrap();
}
