//! System calls as the kernel defines them, per thread and without the C library's help: glibc
//! broadcasts `setuid` and its like to all threads and turns `settimeofday` into `clock_settime`,
//! and then the counts would be those of another operation.

use std::ffi::CStr;
use std::io;
use std::path::Path;

use libc::{c_int, c_long, c_ulong, c_void};

/// The positive errno of a failed call.
pub type Errno = i32;

/// What went wrong, for a person.
pub type Res<T = ()> = Result<T, String>;

/// The calling thread's last errno.
pub fn errno() -> Errno {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn result(value: c_long) -> Result<i64, Errno> {
    if value == -1 { Err(errno()) } else { Ok(value) }
}

/// A raw system call. Each use in this file passes plain numbers, or pointers to values that live
/// across the call and are as large as the kernel takes them to be.
macro_rules! call {
    ($nr:expr $(, $arg:expr)*) => {
        // SAFETY: see the macro's own comment; each wrapper takes its pointers from references.
        result(unsafe { libc::syscall($nr $(, $arg as c_long)*) })
    };
}

/// Turns an errno into a message that names what was tried.
pub fn must<T>(what: &str, got: Result<T, Errno>) -> Res<T> {
    got.map_err(|e| format!("{what}: {}", io::Error::from_raw_os_error(e)))
}

/// Demands that a call fails with `want`.
pub fn must_fail<T>(what: &str, got: Result<T, Errno>, want: Errno) -> Res {
    match got {
        Err(e) if e == want => Ok(()),
        Err(e) => Err(format!(
            "{what}: expected errno {want}, got {}",
            io::Error::from_raw_os_error(e)
        )),
        Ok(_) => Err(format!("{what}: expected errno {want}, but it succeeded")),
    }
}

/// Demands success (`want` 0) or exactly the errno `want`.
pub fn must_end<T>(what: &str, got: Result<T, Errno>, want: Errno) -> Res {
    if want == 0 {
        must(what, got).map(drop)
    } else {
        must_fail(what, got, want)
    }
}

pub fn setgroups_none() -> Result<i64, Errno> {
    call!(libc::SYS_setgroups, 0, 0)
}

pub fn setuid(id: u32) -> Result<i64, Errno> {
    call!(libc::SYS_setuid, id)
}

pub fn setgid(id: u32) -> Result<i64, Errno> {
    call!(libc::SYS_setgid, id)
}

pub fn setresuid(real: i32, effective: i32, saved: i32) -> Result<i64, Errno> {
    call!(libc::SYS_setresuid, real, effective, saved)
}

pub fn setreuid(real: i32, effective: i32) -> Result<i64, Errno> {
    call!(libc::SYS_setreuid, real, effective)
}

/// Never fails: the answer is the id in force before.
pub fn setfsuid(id: u32) -> u32 {
    call!(libc::SYS_setfsuid, id).unwrap_or(-1) as u32
}

pub fn chroot(path: &CStr) -> Result<i64, Errno> {
    call!(libc::SYS_chroot, path.as_ptr())
}

pub fn sethostname(name: &[u8]) -> Result<i64, Errno> {
    call!(libc::SYS_sethostname, name.as_ptr(), name.len())
}

/// `settimeofday(NULL, NULL)`: asks for SYS_TIME and changes nothing.
pub fn settimeofday_nothing() -> Result<i64, Errno> {
    call!(libc::SYS_settimeofday, 0, 0)
}

/// `reboot` with magic numbers that the kernel refuses after its check.
pub fn reboot_without_magic() -> Result<i64, Errno> {
    call!(libc::SYS_reboot, 0, 0, 0, 0)
}

pub fn unshare(flags: c_int) -> Result<i64, Errno> {
    call!(libc::SYS_unshare, flags)
}

pub fn setns(fd: c_int, kind: c_int) -> Result<i64, Errno> {
    call!(libc::SYS_setns, fd, kind)
}

pub fn kill(pid: i32, signal: c_int) -> Result<i64, Errno> {
    call!(libc::SYS_kill, pid, signal)
}

pub fn getpid() -> i32 {
    std::process::id() as i32
}

pub fn setpgid(pid: i32, group: i32) -> Result<i64, Errno> {
    call!(libc::SYS_setpgid, pid, group)
}

pub fn setsid() -> Result<i64, Errno> {
    call!(libc::SYS_setsid)
}

pub fn socket(family: c_int, kind: c_int, protocol: c_int) -> Result<c_int, Errno> {
    call!(libc::SYS_socket, family, kind, protocol).map(|fd| fd as c_int)
}

/// Lets several sockets bind the same port.
pub fn reuse_port(fd: c_int) -> Result<i64, Errno> {
    let on: c_int = 1;
    call!(
        libc::SYS_setsockopt,
        fd,
        libc::SOL_SOCKET,
        libc::SO_REUSEPORT,
        &raw const on,
        size_of::<c_int>()
    )
}

/// Binds to any IPv4 address.
pub fn bind_port(fd: c_int, port: u16) -> Result<i64, Errno> {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: 0 },
        sin_zero: [0; 8],
    };
    call!(
        libc::SYS_bind,
        fd,
        &raw const address,
        size_of::<libc::sockaddr_in>()
    )
}

pub fn close(fd: c_int) {
    // An error of `close` says nothing about the operation under test.
    let _ = call!(libc::SYS_close, fd);
}

pub fn setpriority_self(nice: c_int) -> Result<i64, Errno> {
    call!(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice)
}

pub fn setrlimit(resource: u32, value: u64) -> Result<i64, Errno> {
    let limit = libc::rlimit {
        rlim_cur: value,
        rlim_max: value,
    };
    call!(libc::SYS_setrlimit, resource, &raw const limit)
}

pub fn prctl(option: c_int, a: c_ulong, b: c_ulong) -> Result<i64, Errno> {
    call!(libc::SYS_prctl, option, a, b, 0, 0)
}

/// Makes two files the standard input and output, and closes all others but standard error.
pub fn keep_only(input: c_int, output: c_int) -> Res {
    must("dup2", call!(libc::SYS_dup2, input, 0))?;
    must("dup2", call!(libc::SYS_dup2, output, 1))?;
    must("close_range", call!(libc::SYS_close_range, 3, u32::MAX, 0)).map(drop)
}

/// A nameless file in memory, on the kernel's own tmpfs mount: no folder, no overlay.
pub fn memfd() -> Result<c_int, Errno> {
    call!(libc::SYS_memfd_create, c"workload".as_ptr(), 0).map(|fd| fd as c_int)
}

pub fn fchmod(fd: c_int, mode: u32) -> Result<i64, Errno> {
    call!(libc::SYS_fchmod, fd, mode)
}

pub fn fchown(fd: c_int, user: i32, group: i32) -> Result<i64, Errno> {
    call!(libc::SYS_fchown, fd, user, group)
}

/// `fchownat` of an open file: what `fchown` does, counted elsewhere.
pub fn fchownat(fd: c_int, user: i32, group: i32) -> Result<i64, Errno> {
    let (empty, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    call!(libc::SYS_fchownat, fd, empty, user, group, flags)
}

/// Makes `as_fd` the same open file, which programs executed later have, too.
pub fn inherit_as(fd: c_int, as_fd: c_int) -> Result<i64, Errno> {
    call!(libc::SYS_dup2, fd, as_fd)
}

/// File mode without the type, as `fstat` says.
pub fn mode_of(fd: c_int) -> Result<u32, Errno> {
    // SAFETY: an all-zero `stat` is a value of the type.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    call!(libc::SYS_fstat, fd, &raw mut stat)?;
    Ok(stat.st_mode & 0o7777)
}

pub fn write(fd: c_int, bytes: &[u8]) -> Result<i64, Errno> {
    call!(libc::SYS_write, fd, bytes.as_ptr(), bytes.len())
}

/// Reads one byte; 0 at the end.
pub fn read_byte(fd: c_int) -> Result<i64, Errno> {
    let mut byte = 0u8;
    call!(libc::SYS_read, fd, &raw mut byte, 1)
}

/// `(read end, write end)`.
pub fn pipe() -> Result<(c_int, c_int), Errno> {
    let mut fds = [0 as c_int; 2];
    call!(libc::SYS_pipe2, fds.as_mut_ptr(), 0)?;
    Ok((fds[0], fds[1]))
}

/// `mknod(2)` itself, not `mknodat`.
pub fn mknod(path: &CStr, mode: u32, device: u64) -> Result<i64, Errno> {
    call!(libc::SYS_mknod, path.as_ptr(), mode, device)
}

pub fn unlink(path: &CStr) -> Result<i64, Errno> {
    call!(libc::SYS_unlink, path.as_ptr())
}

/// `openat` relative to the working folder, with exactly these flags.
pub fn open(path: &CStr, flags: c_int) -> Result<c_int, Errno> {
    call!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0).map(|fd| fd as c_int)
}

/// `access(2)` itself, not `faccessat`.
pub fn access(path: &CStr, mode: c_int) -> Result<i64, Errno> {
    call!(libc::SYS_access, path.as_ptr(), mode)
}

pub fn fsetxattr(fd: c_int, name: &CStr, value: &[u8]) -> Result<i64, Errno> {
    call!(
        libc::SYS_fsetxattr,
        fd,
        name.as_ptr(),
        value.as_ptr(),
        value.len(),
        0
    )
}

pub fn fgetxattr(fd: c_int, name: &CStr) -> Result<i64, Errno> {
    let mut value = [0u8; 64];
    call!(
        libc::SYS_fgetxattr,
        fd,
        name.as_ptr(),
        value.as_mut_ptr(),
        value.len()
    )
}

pub fn mount_tmpfs(on: &CStr) -> Result<i64, Errno> {
    call!(
        libc::SYS_mount,
        c"none".as_ptr(),
        on.as_ptr(),
        c"tmpfs".as_ptr(),
        0,
        0
    )
}

/// `clone3` with nothing to say: EINVAL from the kernel, whatever a filter says before that.
pub fn clone3_nothing() -> Result<i64, Errno> {
    call!(libc::SYS_clone3, 0, 0)
}

/// Three capability sets of the calling thread, as masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: c_int,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const CAP_VERSION: u32 = 0x2008_0522;

pub fn capget() -> Result<Sets, Errno> {
    let header = CapHeader {
        version: CAP_VERSION,
        pid: 0,
    };
    let mut data = [[0u32; 3]; 2];
    call!(libc::SYS_capget, &raw const header, data.as_mut_ptr())?;
    let wide = |i: usize| u64::from(data[0][i]) | (u64::from(data[1][i]) << 32);
    Ok(Sets {
        effective: wide(0),
        permitted: wide(1),
        inheritable: wide(2),
    })
}

pub fn capset(sets: Sets) -> Result<i64, Errno> {
    let header = CapHeader {
        version: CAP_VERSION,
        pid: 0,
    };
    let half = |shift: u32| {
        [sets.effective, sets.permitted, sets.inheritable].map(|set| (set >> shift) as u32)
    };
    let data = [half(0), half(32)];
    call!(libc::SYS_capset, &raw const header, data.as_ptr())
}

/// Takes capabilities out of all three sets of the calling thread.
pub fn give_up(caps: &[u8]) -> Res {
    let mask = caps.iter().fold(0u64, |mask, cap| mask | 1 << cap);
    let held = must("capget", capget())?;
    must(
        "capset",
        capset(Sets {
            effective: held.effective & !mask,
            permitted: held.permitted & !mask,
            inheritable: held.inheritable & !mask,
        }),
    )
    .map(drop)
}

/// Runs `child` in a new process, which exits with 0, or with 1 after telling what failed.
pub fn fork(child: impl FnOnce() -> Res) -> Res<i32> {
    // SAFETY: `fork` of glibc leaves the allocator usable in the child, which runs `child` and
    // ends by `_exit`, so that nothing of the parent's is dropped or flushed twice.
    match unsafe { libc::fork() } {
        -1 => Err(format!("fork: {}", io::Error::last_os_error())),
        0 => {
            let status = match child() {
                Ok(()) => 0,
                Err(error) => {
                    eprintln!("workload: {error}");
                    1
                }
            };
            exit_group(status)
        }
        pid => Ok(pid),
    }
}

/// Ends the process at once.
pub fn exit_group(status: c_int) -> ! {
    // SAFETY: `_exit` runs no destructors and does not return.
    unsafe { libc::_exit(status) }
}

/// Ends the calling thread only; the process lives on in its other threads.
pub fn exit_thread() -> ! {
    let _ = call!(libc::SYS_exit, 0);
    exit_group(1)
}

/// Waits for a child and gives its wait status.
pub fn wait(pid: i32) -> Res<c_int> {
    let mut status: c_int = 0;
    loop {
        match call!(libc::SYS_wait4, pid, &raw mut status, 0, 0) {
            Err(libc::EINTR) => {}
            other => return must("wait4", other).map(|_| status),
        }
    }
}

/// Waits for a child that has to exit with 0.
pub fn wait_ok(pid: i32) -> Res {
    match wait(pid)? {
        0 => Ok(()),
        status => Err(format!("child {pid} ended with wait status {status:#x}")),
    }
}

/// Executes `path` with `args`, in an empty environment; returns only where that fails.
pub fn exec(path: &CStr, args: &[&CStr]) -> Errno {
    let mut argv: Vec<_> = args.iter().map(|arg| arg.as_ptr()).collect();
    argv.push(std::ptr::null());
    let envp = [std::ptr::null::<libc::c_char>()];
    call!(
        libc::SYS_execve,
        path.as_ptr(),
        argv.as_ptr(),
        envp.as_ptr()
    )
    .err()
    .unwrap_or(0)
}

/// Runs `child` on a stack of its own in a new process that shares this one's memory while this
/// thread waits for its end (`CLONE_VM | CLONE_VFORK` and `flags`). The child ends by returning.
pub fn vfork(flags: c_int, child: extern "C" fn(*mut c_void) -> c_int) -> Result<i32, Errno> {
    let mut stack = vec![0u128; 4096];
    // SAFETY: the stack outlives the child, since CLONE_VFORK holds this thread until it ended; its
    // top is 16-byte aligned; the child functions make system calls and return.
    let pid = unsafe {
        libc::clone(
            child,
            stack.as_mut_ptr().add(stack.len()).cast(),
            flags | libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            std::ptr::null_mut(),
        )
    };
    if pid == -1 { Err(errno()) } else { Ok(pid) }
}

/// Pins the calling thread to one CPU, counted modulo those it may run on.
pub fn pin(index: usize) -> Res {
    // SAFETY: an all-zero set is a value of the type; both calls get its true size.
    unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut allowed) != 0 {
            return Err(format!("sched_getaffinity: {}", io::Error::last_os_error()));
        }
        let cpus: Vec<usize> = (0..libc::CPU_SETSIZE as usize)
            .filter(|cpu| libc::CPU_ISSET(*cpu, &allowed))
            .collect();
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpus[index % cpus.len()], &mut one);
        if libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const one) != 0 {
            return Err(format!("sched_setaffinity: {}", io::Error::last_os_error()));
        }
    }
    Ok(())
}

/// File system type (`f_type`) and mount flags (`ST_*`) of a folder.
pub fn file_system(path: &Path) -> Res<(i64, u64)> {
    let path = c_path(path)?;
    // SAFETY: all-zero structures are values of their types, and the path ends in NUL.
    unsafe {
        let mut kind: libc::statfs = std::mem::zeroed();
        let mut mount: libc::statvfs = std::mem::zeroed();
        if libc::statfs(path.as_ptr(), &raw mut kind) != 0
            || libc::statvfs(path.as_ptr(), &raw mut mount) != 0
        {
            return Err(format!("statfs {path:?}: {}", io::Error::last_os_error()));
        }
        Ok((kind.f_type, mount.f_flag))
    }
}

/// A path as the kernel takes it.
pub fn c_path(path: &Path) -> Res<std::ffi::CString> {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::CString::new(path.as_os_str().as_bytes())
        .map_err(|_| format!("{}: a path must not hold a NUL byte", path.display()))
}
