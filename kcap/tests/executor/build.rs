//! Carries out a Dockerfile: Kaniko's lines, in Kaniko's order, and between them what the Dockerfile
//! says that the kernel is asked.

use std::{ffi::CString, fs::Permissions, os::unix::fs::PermissionsExt as _, path::Path};

use crate::{
    dockerfile::{Dockerfile, Instruction, Stage},
    log, ops,
    sys::{self, Res, must},
};

/// Why a build ended early.
#[derive(Debug)]
pub enum Failure {
    /// A RUN instruction ended with this status, which has been said.
    Run(u8),
    /// Anything else.
    Build(String),
    /// It was called wrongly.
    Usage(String),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Build(why)
    }
}

/// What instructions say of those behind them.
struct State {
    shell: Vec<String>,
    user: Option<(u32, u32)>,
}

/// Builds it.
///
/// # Errors
/// [`Failure`].
pub fn build(dockerfile: &Dockerfile) -> Result<(), Failure> {
    if dockerfile.silent {
        log::silence();
    }
    ops::prepare()?;
    for stage in &dockerfile.stages {
        if stage.base != "scratch" {
            log::info(&format!("Retrieving image manifest {}", stage.base));
        }
    }
    log::info("Built cross stage deps: map[]");
    for (index, stage) in dockerfile.stages.iter().enumerate() {
        if index > 0 {
            log::info("Deleting filesystem...");
        }
        log::info(&format!(
            "Building stage '{}' [idx: '{index}', base-idx: '-1']",
            stage.base
        ));
        self::stage(stage)?;
    }
    log::info("Skipping push to container registry due to --no-push flag");
    Ok(())
}

fn stage(stage: &Stage) -> Result<(), Failure> {
    let mut state = State {
        shell: ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
        user: None,
    };
    let needs_files = stage.instructions.iter().find(|i| i.requires_files());
    match needs_files {
        Some(first) => {
            log::info(&format!(
                "Unpacking rootfs as cmd {} requires it.",
                first.text
            ));
            unpack()?;
            ops::perform(&stage.unpack)?;
        }
        None => log::info("Skipping unpacking as no commands require it."),
    }
    let mut initial = Some(&stage.initial);
    for instruction in &stage.instructions {
        log::info(&instruction.text);
        if instruction.keyword == "RUN"
            && let Some(initial) = initial.take()
        {
            log::info("Initializing snapshotter ...");
            log::info("Taking snapshot of full filesystem...");
            ops::perform(initial)?;
        }
        carry_out(instruction, &mut state)?;
        match instruction.keyword.as_str() {
            "RUN" => log::info("Taking snapshot of full filesystem..."),
            _ if instruction.requires_files() => log::info("Taking snapshot of files..."),
            _ => continue,
        }
        ops::perform(&instruction.snapshot)?;
    }
    Ok(())
}

/// Puts a shell into the root file system, where this is a container's and there is none. It asks for
/// no capability: podman makes a root that nobody may write to, which its owner can change.
fn unpack() -> Res {
    let marks = ["/.dockerenv", "/run/.containerenv"];
    let shell = Path::new("/bin/sh");
    if shell.exists() || !marks.iter().any(|mark| Path::new(mark).exists()) {
        return Ok(());
    }
    let made = std::fs::set_permissions("/", Permissions::from_mode(0o755))
        .and_then(|()| std::fs::create_dir_all("/bin"))
        .and_then(|()| std::env::current_exe())
        .and_then(|exe| std::os::unix::fs::symlink(exe, shell));
    made.map_err(|e| format!("cannot make {}: {e}", shell.display()))
}

fn carry_out(instruction: &Instruction, state: &mut State) -> Result<(), Failure> {
    let rest = instruction.rest.as_str();
    match instruction.keyword.as_str() {
        "RUN" => return run(rest, state),
        "COPY" | "ADD" => ops::perform(&ops::among(rest.split_whitespace()))?,
        "WORKDIR" => {
            log::info("Cmd: workdir");
            log::info(&format!("Changed working directory to {rest}"));
        }
        "USER" => {
            log::info("Cmd: USER");
            let (user, group) = rest.split_once(':').unwrap_or((rest, "0"));
            let id = |text: &str| {
                text.parse()
                    .map_err(|_| format!("{text}: only numbers are known"))
            };
            state.user = Some((id(user)?, id(group)?));
        }
        "SHELL" => {
            state.shell = words(rest).ok_or(format!("SHELL requires the exec form: {rest}"))?;
        }
        _ => {}
    }
    Ok(())
}

/// The words of an exec form; none of them holds a quotation mark or a comma.
fn words(text: &str) -> Option<Vec<String>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let word = |part: &str| {
        let word = part.trim().strip_prefix('"')?.strip_suffix('"')?;
        Some(word.to_owned())
    };
    inner.split(',').map(word).collect()
}

fn run(text: &str, state: &State) -> Result<(), Failure> {
    let command = words(text).unwrap_or_else(|| {
        let mut command = state.shell.clone();
        command.push(text.to_owned());
        command
    });
    log::info(&format!("Cmd: {}", command[0]));
    log::info(&format!("Args: [{}]", command[1..].join(" ")));
    if let Some((user, _)) = state.user {
        log::info(&format!(
            "Util.Lookup returned: &{{Uid:{user} Gid: Username: Name: HomeDir:/}}"
        ));
        log::info("Performing slow lookup of group ids for ");
    }
    log::info(&format!("Running: [{}]", command.join(" ")));
    let status = child(&command, state.user)?;
    if status != 0 {
        log::raw(&format!(
            "error building image: error building stage: failed to execute command: waiting for \
             process to exit: {}\n",
            if libc::WIFEXITED(status) {
                format!("exit status {}", libc::WEXITSTATUS(status))
            } else {
                "signal: killed".to_owned()
            }
        ));
        let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
        return Err(Failure::Run(code.map_or(1, |code| code as u8)));
    }
    Ok(())
}

/// Runs a command as Go does: a process group of its own, the user changed before it is executed.
/// What is left of the group is killed.
fn child(command: &[String], user: Option<(u32, u32)>) -> Res<i32> {
    let texts: Vec<CString> = command
        .iter()
        .map(|word| sys::c_path(word.as_ref()))
        .collect::<Res<_>>()?;
    let args: Vec<_> = texts.iter().map(CString::as_c_str).collect();
    let pid = sys::fork(|| {
        must("setpgid", sys::setpgid(0, 0))?;
        if let Some((user, group)) = user {
            must("setgroups", sys::setgroups_none())?;
            must("setgid", sys::setgid(group))?;
            must("setuid", sys::setuid(user))?;
        }
        let errno = sys::exec(args[0], &args);
        must(&command[0], Err(errno))
    })?;
    let status = sys::wait(pid)?;
    match sys::kill(-pid, libc::SIGKILL) {
        Ok(_) | Err(libc::ESRCH) => Ok(status),
        other => must("kill", other).map(|_| status),
    }
}
