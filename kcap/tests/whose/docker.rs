//! Containers of a Docker's.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use kcap::report::Report;
use tempfile::TempDir;

use crate::{
    alone,
    counts::Counts,
    host::{Daemon, assert_no_mounts, lacks, run, skip, unmount},
    image,
    lab::Lab,
    lingering, numbered, told,
    watching::{Watch, all, is_whole},
};

/// Containers at once.
const CONTAINERS: usize = 50;
/// An image whose maker says whose build it is.
const LYING: &str =
    "com.gitlab.gitlab-runner.job.url=https://gitlab.example.com/victim/app/-/jobs/1";

/// A Docker of the test's own, with images of the known executor.
struct Docker {
    dir: TempDir,
    daemon: Option<Daemon>,
}

impl Docker {
    fn start(lab: &Lab, dockerfiles: &[(String, String)]) -> Self {
        // Not below /tmp: that may be in memory.
        let dir = TempDir::with_prefix_in("kcap-whose-", "/var/tmp").expect("a temporary folder");
        let folder = dir.path().to_owned();
        let place = |name: &str| folder.join(name).display().to_string();
        fs::write(place("daemon.json"), "{}").expect("a file");
        let mut dockerd = Command::new("dockerd");
        dockerd
            .arg(format!("--host=unix://{}", place("socket")))
            .arg(format!("--config-file={}", place("daemon.json")))
            .arg(format!("--data-root={}", place("data")))
            .arg(format!("--exec-root={}", place("exec")))
            .arg(format!("--pidfile={}", place("pid")))
            .args(["--bridge=none", "--iptables=false", "--ip-masq=false"])
            .arg("--ip-forward=false");
        let mut docker = Self { dir, daemon: None };
        let answers = || {
            let output = docker.command(&["version"]).output();
            output.is_ok_and(|output| output.status.success())
        };
        let log = PathBuf::from(place("log"));
        docker.daemon = Some(Daemon::start(&mut dockerd, &log, &answers));
        let layer = place("layer.tar");
        fs::write(&layer, image::layer(lab, dockerfiles)).expect("a file");
        docker.run(&["import", &layer, "known:1"]);
        let label = format!("LABEL {LYING}");
        docker.run(&["import", "--change", &label, &layer, "lying:1"]);
        docker
    }

    fn socket(&self) -> String {
        self.dir.path().join("socket").display().to_string()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .args(args)
            .stdin(Stdio::null())
            .env("DOCKER_HOST", format!("unix://{}", self.socket()))
            .env("DOCKER_CONFIG", self.dir.path());
        command
    }

    fn run(&self, args: &[&str]) -> String {
        run(&mut self.command(args))
    }

    /// Creates a container that builds this Dockerfile, and gives its id.
    fn create(&self, lab: &Lab, options: &[&str], image: &str, dockerfile: &str) -> String {
        let executor = lab.path("kaniko/executor");
        let args = [&["create", "--network", "none"], options].concat();
        let command = [image, &executor, "-f", dockerfile, "-c", "/"];
        self.run(&[&args[..], &command].concat())
    }

    fn start_of(&self, id: &str) -> Child {
        let mut command = self.command(&["start", id]);
        command.stdout(Stdio::null());
        command.spawn().expect("docker starts")
    }

    /// Ends it, and sees that nothing is left.
    fn end(self) {
        let ids = self.run(&["ps", "--all", "--quiet"]);
        let ids: Vec<&str> = ids.lines().collect();
        if !ids.is_empty() {
            self.run(&[&["rm", "--force"], &ids[..]].concat());
        }
        let dir = self.dir.path().to_owned();
        drop(self);
        assert_no_mounts(&dir);
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.daemon = None;
        unmount(&self.dir.path().join("exec/netns/default"));
    }
}

/// Sees that no check, program or outcome was lost. A container that is over before kcap comes to look at
/// its files, as on a busy machine, takes their file capabilities with it: true for that, which its report
/// has to say.
fn is_counted(report: &Report) -> bool {
    let late = report.loss.file_caps > 0;
    let counted = Report {
        complete: report.complete || late,
        ..report.clone()
    };
    is_whole(&counted);
    assert!(!(late && report.complete), "{:?}", report.loss);
    late
}

/// Docker and the folder of the executor's paths, or why not.
fn docker(dockerfiles: &[(String, String)]) -> Option<(Lab, Docker)> {
    if let Some(why) = lacks(&["docker", "dockerd"]) {
        skip(&format!("whose builds are by Docker: {why}"));
        return None;
    }
    let lab = Lab::new();
    let docker = Docker::start(&lab, dockerfiles);
    Some((lab, docker))
}

#[test]
fn fifty_of_dockers_containers_at_once_are_fifty_reports_each_of_its_own() {
    let _one = alone();
    let all_of_them: Vec<_> = (1..=CONTAINERS).map(numbered).collect();
    let files: Vec<_> = (all_of_them.iter())
        .map(|(path, text, _)| (path.clone(), text.clone()))
        .collect();
    let Some((lab, docker)) = docker(&files) else {
        return;
    };
    let socket = docker.socket();
    let args = ["--docker-socket", &socket, "--label", "team"];
    let mut watch = Watch::start(&lab, &args);
    let mut expected = BTreeMap::new();
    for (n, (dockerfile, _, counts)) in all_of_them.iter().enumerate() {
        let (name, team) = (format!("build-{n}"), format!("team=t{n}"));
        let mut options = vec!["--name", &name, "--label", &team];
        let url = format!(
            "com.gitlab.gitlab-runner.job.url=https://gitlab.example.com/group/sub/p{n}/-/jobs/{n}"
        );
        let ids = [
            format!("com.gitlab.gitlab-runner.job.id={n}"),
            format!("com.gitlab.gitlab-runner.job.sha={n:040}"),
            format!("com.gitlab.gitlab-runner.pipeline.id=7{n}"),
        ];
        // Every build says that it is another project's.
        let claim = format!("CI_PROJECT_PATH=claimed/p{n}");
        options.extend(["--env", &claim]);
        if n % 2 == 0 {
            options.extend(["--label", &url]);
            options.extend(ids.iter().flat_map(|label| ["--label", label.as_str()]));
        }
        let image = if n % 4 == 1 { "lying:1" } else { "known:1" };
        let id = docker.create(&lab, &options, image, dockerfile);
        // Each is known by its counts.
        expected.insert(Counts::of(counts), (n, id, dockerfile, image));
    }
    let started: Vec<Child> = (expected.values())
        .map(|(_, id, ..)| docker.start_of(id))
        .collect();
    for mut child in started {
        assert!(child.wait().expect("it can be waited for").success());
    }
    let lines = watch.wait("report", CONTAINERS);
    assert_eq!(watch.stop(), Some(0), "{}", watch.errors());
    let (mut longest, mut late, mut unread) = (0, 0, 0);
    for line in &lines {
        let report = watch.report(line);
        let counts = all(&watch.capture(line));
        let found = expected.remove(&counts);
        let (n, id, dockerfile, image) = found.unwrap_or_else(|| panic!("{counts:?}: {line:#}"));
        late += usize::from(is_counted(&report));
        longest = longest.max(report.subject.duration_ms);
        assert_eq!(report.subject.exit_status, Some(0));
        let identity = report.subject.identity.clone().expect("whose it is");
        let name = line["name"].as_str().expect("a name");
        // However soon it was over.
        assert_eq!(identity.container, Some(id));
        assert_eq!(identity.runtime.as_deref(), Some("docker"));
        assert_eq!(identity.name, Some(format!("build-{n}")));
        assert_eq!(identity.image.as_deref(), Some(image));
        assert_eq!(identity.labels, [("team".into(), format!("t{n}"))].into());
        let project = if n % 2 == 0 {
            let (commit, pipeline) = (format!("{n:040}"), format!("7{n}"));
            let project = format!("group/sub/p{n}");
            let said = [&*project, &*commit, &*pipeline, &*n.to_string()];
            assert_eq!(told(&identity), said);
            assert!(identity.claimed.is_empty());
            project
        } else {
            // Neither does an image say it.
            let project = format!("claimed/p{n}");
            assert_eq!(told(&identity), [&*project, "", "", ""]);
            assert_eq!(identity.claimed, ["project"]);
            project
        };
        assert!(name.starts_with(&format!("host/{project}/")), "{name}");
        // Its files are there for some milliseconds only.
        match &report.subject.dockerfile {
            Some(path) => assert_eq!(path, dockerfile),
            None => unread += 1,
        }
    }
    assert!(expected.is_empty(), "{expected:?}");
    eprintln!(
        "{CONTAINERS} builds of at most {longest} ms; {late} were over before the programs that they ran were \
         looked at, {unread} before their Dockerfiles were"
    );
    // How many depends on what else the machine does.
    assert!(
        late < CONTAINERS && unread < CONTAINERS,
        "{late} and {unread}"
    );
    docker.end();
}

#[test]
fn only_builds_with_a_label_of_dockers_are_watched() {
    let _one = alone();
    let (dockerfile, text, counts) = lingering(3);
    let Some((lab, docker)) = docker(&[(dockerfile.clone(), text)]) else {
        return;
    };
    let socket = docker.socket();
    let args = ["--docker-socket", &socket, "--only", "kcap/trace=yes"];
    let mut watch = Watch::start(&lab, &args);
    let options = [
        &["--label", "kcap/trace=yes"][..],
        &["--label", "kcap/trace=no"],
        &[],
    ];
    let ids = options.map(|options| docker.create(&lab, options, "known:1", &dockerfile));
    for id in &ids {
        docker.run(&["start", id]);
    }
    let left = watch.wait("left-out", 2);
    let line = watch.wait("report", 1).remove(0);
    assert_eq!(line["identity"]["container"], ids[0]);
    assert_eq!(all(&watch.capture(&line)), Counts::of(&counts));
    // It is there for long enough to be read for certain.
    assert_eq!(watch.report(&line).subject.dockerfile, Some(dockerfile));
    for line in left {
        assert_eq!(line["why"], "it has no label kcap/trace=yes");
        assert_ne!(line["identity"]["container"], ids[0]);
    }
    assert_eq!(watch.stop(), Some(0), "{}", watch.errors());
    docker.end();
}

#[test]
fn builds_are_reported_without_an_engine_and_it_is_missed_once() {
    let _one = alone();
    let (dockerfile, text, counts) = lingering(4);
    let Some((lab, docker)) = docker(&[(dockerfile.clone(), text)]) else {
        return;
    };
    let args = ["--docker-socket", "/nonexistent/socket"];
    let mut watch = Watch::start(&lab, &args);
    let ids = [(); 3].map(|()| docker.create(&lab, &[], "known:1", &dockerfile));
    for id in &ids {
        docker.run(&["start", id]);
    }
    for line in watch.wait("report", ids.len()) {
        let id = line["identity"]["container"].as_str().expect("a container");
        assert!(ids.iter().any(|other| other == id), "{line:#}");
        assert_eq!(line["identity"].get("name"), None);
        assert_eq!(all(&watch.capture(&line)), Counts::of(&counts));
    }
    assert_eq!(watch.stop(), Some(0), "{}", watch.errors());
    let errors = watch.errors();
    let complaints = errors.lines().filter(|l| l.contains("/nonexistent/socket"));
    assert_eq!(complaints.count(), 1, "{errors}");
    docker.end();
}
