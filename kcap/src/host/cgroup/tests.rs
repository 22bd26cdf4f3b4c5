use super::*;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

fn mounts(lines: &str) -> Vec<MountInfo> {
    lines
        .lines()
        .map(|line| MountInfo::from_line(line).unwrap())
        .collect()
}

fn memberships(lines: &[(u32, &str, &str)]) -> Vec<Membership> {
    lines
        .iter()
        .map(|&(hierarchy, controllers, path)| Membership {
            hierarchy,
            controllers: controllers.split(',').map(String::from).collect(),
            path: path.into(),
        })
        .collect()
}

const UNIFIED: &str = "30 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw";
const PIDS: &str = "39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids";
const MEMORY: &str = "40 31 0:37 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
const CPUSET: &str = "41 31 0:38 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset";
const BLKIO: &str = "42 31 0:39 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio";

#[test]
fn the_unified_hierarchy_comes_first() {
    let groups = memberships(&[(8, "pids", "/other"), (0, "", "/user.slice/a")]);
    let v2 = Layout::choose(&mounts(UNIFIED), &groups).unwrap();
    assert_eq!((v2.kind, v2.hierarchy, v2.controller), (Kind::V2, 0, None));
    assert_eq!(v2.own, Path::new("/sys/fs/cgroup/user.slice/a"));
    assert_eq!(v2.subsystem_constant(), None);
    let hybrid = format!("{PIDS}\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw");
    let hybrid = Layout::choose(&mounts(&hybrid), &groups).unwrap();
    assert_eq!((hybrid.kind, hybrid.hierarchy), (Kind::Hybrid, 0));
    assert_eq!(hybrid.own, Path::new("/sys/fs/cgroup/unified/user.slice/a"));
}

#[test]
fn version_1_by_its_best_controller() {
    let groups = memberships(&[(8, "pids", "/a"), (4, "memory", "/b"), (3, "cpuset", "/")]);
    let all = [CPUSET, MEMORY, PIDS].join("\n");
    let v1 = Layout::choose(&mounts(&all), &groups).unwrap();
    assert_eq!(
        (v1.kind, v1.hierarchy, v1.controller),
        (Kind::V1, 8, Some("pids"))
    );
    assert_eq!(v1.subsystem_constant().as_deref(), Some("pids_cgrp_id"));
    assert_eq!(v1.own, Path::new("/sys/fs/cgroup/pids/a"));
    let memory = Layout::choose(&mounts(&[CPUSET, MEMORY].join("\n")), &groups).unwrap();
    assert_eq!(memory.controller, Some("memory"));
    assert!(Layout::choose(&mounts(CPUSET), &groups).is_err());
    let blkio = Layout::choose(&mounts(BLKIO), &memberships(&[(7, "blkio", "/")])).unwrap();
    assert_eq!(blkio.subsystem_constant().as_deref(), Some("io_cgrp_id"));
}

#[test]
fn nothing_mounted_is_an_error_that_helps() {
    let error = Layout::choose(&[], &[]).unwrap_err().to_string();
    assert!(error.contains("mount -t cgroup2"), "{error}");
}

#[test]
fn paths_below_a_mount() {
    for (root, path, expected) in [
        ("/", "/", Some("")),
        ("/", "/a/b", Some("a/b")),
        ("/a", "/a", Some("")),
        ("/a", "/a/b", Some("b")),
        ("/a", "/ab", None),
        ("/a", "/", None),
        ("/", "/../x", None),
        ("/../..", "/", None),
    ] {
        assert_eq!(below(root, path), expected, "{root} {path}");
    }
    assert_eq!(unescape(Path::new("/sys/fs/c\\040g")), "/sys/fs/c g");
}

/// A group of our own in the hierarchy that kcap would choose, and in the one that it would choose
/// without cgroup2; a loud skip for each that cannot be.
fn groups(test: &str) -> Vec<(Layout, Cgroup)> {
    let myself = Process::myself().unwrap();
    let legacy: Vec<MountInfo> = myself
        .mountinfo()
        .unwrap()
        .0
        .into_iter()
        .filter(|m| m.fs_type == "cgroup")
        .collect();
    let layouts = [
        Layout::detect(),
        myself_in(&legacy).context("no version 1 hierarchy to test with"),
    ];
    layouts
        .into_iter()
        .filter_map(|layout| {
            layout
                .and_then(|l| Cgroup::create(&l).map(|g| (l, g)))
                .inspect_err(|e| eprintln!("SKIPPED {test} in one hierarchy: {e:#}"))
                .ok()
        })
        .collect()
}

fn myself_in(mounts: &[MountInfo]) -> Result<Layout> {
    let groups = Process::myself()?.cgroups()?.0;
    let memberships: Vec<Membership> = groups.into_iter().map(Membership::from).collect();
    Layout::choose(mounts, &memberships)
}

/// Held by tests that look for groups left behind, which would find each other's.
static SWEEP: Mutex<()> = Mutex::new(());

fn child_in(group: &Cgroup, program: &str, args: &[&str]) -> Child {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    let procs = group.procs().try_clone_to_owned().unwrap();
    // SAFETY: `enter` makes one system call, which is async-signal-safe.
    unsafe { command.pre_exec(move || enter(std::os::fd::AsFd::as_fd(&procs))) };
    command.spawn().unwrap()
}

#[test]
fn a_command_starts_inside() {
    for (layout, group) in groups("a_command_starts_inside") {
        assert_eq!(group.hierarchy(), layout.hierarchy);
        assert!(group.id() > ROOT_ID);
        assert_eq!(group.id(), fs::metadata(group.path()).unwrap().ino());
        let mut child = child_in(&group, "sleep", &["60"]);
        assert_eq!(group.pids().unwrap(), [child.id() as i32]);
        let line = fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
        let name = group
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let prefix = format!("{}:", layout.hierarchy);
        assert!(
            line.lines()
                .any(|l| l.starts_with(&prefix) && l.ends_with(&name)),
            "{line}"
        );

        let target = layout.resolve(group.path()).unwrap();
        assert_eq!(target.id, group.id());
        let inner = group.path().strip_prefix(&layout.mount).unwrap();
        assert_eq!(layout.resolve(&Path::new("/").join(inner)).unwrap(), target);

        group.kill(PATIENCE).unwrap();
        assert!(group.pids().unwrap().is_empty());
        child.wait().unwrap();
        let path = group.path().to_owned();
        group.remove(PATIENCE).unwrap();
        assert!(!path.exists());
    }
}

#[test]
fn what_the_command_made_goes_too() {
    for (_, group) in groups("what_the_command_made_goes_too") {
        fs::create_dir_all(group.path().join("inner/most")).unwrap();
        let mut child = child_in(&group, "sleep", &["60"]);
        let moved = group.path().join("inner/most/cgroup.procs");
        fs::write(moved, child.id().to_string()).unwrap();
        assert_eq!(group.pids().unwrap(), [child.id() as i32]);
        group.kill(PATIENCE).unwrap();
        child.wait().unwrap();
        let path = group.path().to_owned();
        drop(group);
        assert!(!path.exists());
    }
}

#[test]
fn a_group_in_use_is_not_removed() {
    let _alone = SWEEP.lock();
    for (layout, group) in groups("a_group_in_use_is_not_removed") {
        let mut child = child_in(&group, "sleep", &["60"]);
        let path = group.path().to_owned();
        let error = group.remove(Duration::ZERO).unwrap_err().to_string();
        assert!(
            error.contains(&child.id().to_string()) && !error.contains('\n'),
            "{error}"
        );
        assert!(path.exists());
        assert!(!layout.remove_stale().contains(&path), "its maker lives");
        child.kill().unwrap();
        child.wait().unwrap();
        group::remove_tree(&path).unwrap();
    }
}

#[test]
fn groups_of_dead_kcaps_are_removed() {
    let _alone = SWEEP.lock();
    for (layout, group) in groups("groups_of_dead_kcaps_are_removed") {
        let mut gone = Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        let parent = group.path().parent().unwrap();
        let stale = parent.join(format!("kcap-{}-0", gone.id()));
        fs::create_dir_all(stale.join("inner")).unwrap();
        let locked = parent.join(format!("kcap-{}-1", gone.id()));
        fs::create_dir(&locked).unwrap();
        let held = fs::File::open(&locked).unwrap();
        stale::lock(&held).unwrap();
        let removed = layout.remove_stale();
        assert!(removed.contains(&stale) && !stale.exists());
        assert!(locked.exists() && group.path().exists());
        drop(held);
        assert!(layout.remove_stale().contains(&locked));
    }
}

#[test]
fn the_root_is_no_scope() {
    let Ok(layout) = Layout::detect() else {
        eprintln!("SKIPPED the_root_is_no_scope: no cgroups here");
        return;
    };
    assert!(layout.resolve(Path::new("/no/such/group")).is_err());
    assert!(layout.resolve(Path::new("/proc")).is_err());
    if fs::metadata(&layout.mount).unwrap().ino() != ROOT_ID {
        eprintln!("SKIPPED the_root_is_no_scope: the root group is not to be seen from here");
        return;
    }
    for path in [&layout.mount, Path::new("/"), Path::new("/a/..")] {
        let error = layout.resolve(path);
        assert!(error.is_err(), "{}", path.display());
    }
    let error = layout.resolve(&layout.mount).unwrap_err().to_string();
    assert!(error.contains("root cgroup"), "{error}");
}

#[test]
fn a_group_is_found_by_its_id_where_that_is_allowed() {
    let layout = Layout::detect().unwrap();
    let id = fs::metadata(&layout.own).unwrap().ino();
    // Without DAC_READ_SEARCH the kernel does not say.
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } == 0 {
        assert_eq!(layout.folder(id), Some(layout.own.canonicalize().unwrap()));
        // As it has it itself.
        let line = layout.line(id).unwrap();
        let lines = fs::read_to_string("/proc/self/cgroup").unwrap();
        assert_eq!(layout.place(&line), layout.place(&lines), "{line}");
    }
    assert_eq!(layout.folder(u64::MAX - 1), None);
    assert_eq!(layout.line(u64::MAX - 1), None);
}
