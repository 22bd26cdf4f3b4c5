//! A container of a podman's, which answers as Docker does.

use std::{fs, path::PathBuf, process::Command, thread, time::Duration};

use tempfile::TempDir;

use crate::{
    alone,
    counts::Counts,
    host::{Daemon, assert_no_mounts, lacks, run, skip},
    image,
    lab::Lab,
    lingering, told,
    watching::{Watch, all, is_whole},
};

/// A podman with storage of the test's own, and its service. Dropped, what it keeps is gone.
struct Podman {
    daemon: Option<Daemon>,
    dir: TempDir,
}

impl Podman {
    fn start() -> Self {
        // Not below /tmp: that may be in memory.
        let dir = TempDir::with_prefix_in("kcap-whose-", "/var/tmp").expect("a temporary folder");
        let place = |name: &str| dir.path().join(name).display().to_string();
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            place("root"),
            place("run")
        );
        fs::write(place("storage.conf"), storage).expect("a file");
        // Without systemd; with limits that root of a container may set; by runc, since older versions of
        // crun refuse hosts that have cgroups v1 and v2.
        let containers = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n\
             tmp_dir = \"{}\"\nruntime = \"runc\"\n",
            place("tmp")
        );
        fs::write(place("containers.conf"), containers).expect("a file");
        let (socket, log) = (place("socket"), PathBuf::from(place("log")));
        let mut podman = Self { daemon: None, dir };
        let mut service = podman.command(&["system", "service", "--time=0"]);
        service.arg(format!("unix://{socket}"));
        let answers = || PathBuf::from(&socket).exists();
        podman.daemon = Some(Daemon::start(&mut service, &log, &answers));
        podman
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        let place = |name: &str| self.dir.path().join(name);
        command
            .args(args)
            .env("CONTAINERS_STORAGE_CONF", place("storage.conf"))
            .env("CONTAINERS_CONF", place("containers.conf"));
        command
    }

    fn run(&self, args: &[&str]) -> String {
        run(&mut self.command(args))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for args in [["rm", "--all", "--force"], ["rmi", "--all", "--force"]] {
            // What is left is a temporary folder too many.
            let _ = self.command(&args).output();
        }
        self.daemon = None;
        // podman keeps this folder mounted on itself.
        crate::host::unmount(&self.dir.path().join("root/overlay"));
    }
}

#[test]
fn a_container_of_podmans_is_told_as_one_of_dockers() {
    let _one = alone();
    if let Some(why) = lacks(&["podman", "runc"]) {
        skip(&format!("whose builds are by podman: {why}"));
        return;
    }
    let lab = Lab::new();
    let podman = Podman::start();
    let (dockerfile, text, counts) = lingering(5);
    let layer = podman.dir.path().join("layer.tar");
    fs::write(&layer, image::layer(&lab, &[(dockerfile.clone(), text)])).expect("a file");
    let layer = layer.display().to_string();
    podman.run(&["import", &layer, "localhost/known:1"]);
    let socket = podman.dir.path().join("socket").display().to_string();
    let args = ["--docker-socket", &socket, "--only", "kcap/trace=yes"];
    let mut watch = Watch::start(&lab, &args);
    let executor = lab.path("kaniko/executor");
    let create = |labels: &[&str]| {
        let options = ["create", "--network", "none", "--name", "build"];
        let command = ["localhost/known:1", &executor, "-f", &dockerfile, "-c", "/"];
        podman.run(&[&options[..], labels, &command].concat())
    };
    let id = create(&[
        "--label",
        "kcap/trace=yes",
        "--label",
        "kcap/project=group/app",
        "--label",
        "kcap/commit=0123abcd",
    ]);
    podman.run(&["start", &id]);
    let line = watch.wait("report", 1).remove(0);
    // Its monitor writes down that it ended.
    thread::sleep(Duration::from_millis(200));
    let report = watch.report(&line);
    is_whole(&report);
    assert_eq!(all(&watch.capture(&line)), Counts::of(&counts));
    let identity = report.subject.identity.expect("whose it is");
    assert_eq!(identity.container, Some(id));
    assert_eq!(identity.runtime.as_deref(), Some("podman"));
    assert_eq!(identity.name.as_deref(), Some("build"));
    assert_eq!(identity.image.as_deref(), Some("localhost/known:1"));
    assert_eq!(told(&identity), ["group/app", "0123abcd", "", ""]);
    assert_eq!(watch.stop(), Some(0), "{}", watch.errors());
    let dir = podman.dir.path().to_owned();
    drop(podman);
    assert_no_mounts(&dir);
}
