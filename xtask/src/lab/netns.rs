//! A network namespace for one build: nothing but a loopback device, the kernel's own settings,
//! and a port that leads to a registry outside.
//!
//! On the host's network a build's needs would depend on the host: on its
//! `ip_unprivileged_port_start` and `ping_group_range`, and on which ports are taken, by another
//! build for one.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};

/// Where the registry is, as seen from inside.
pub const REGISTRY: &str = "127.0.0.1:5000";

/// Ports from here on ask for no capability: the kernel's own setting. (Docker's is 0.)
pub const UNPRIVILEGED_PORT: u16 = 1024;

/// Groups that may ping without a capability, from and to: none, the kernel's own setting.
/// (Docker's has all.)
pub const PING_GROUPS: &str = "1 0";

const PORT: u16 = 5000;

/// A network namespace, there until dropped.
#[derive(Debug)]
pub struct Namespace {
    handle: File,
    listener: Arc<TcpListener>,
    relay: Option<JoinHandle<()>>,
}

impl Namespace {
    /// Makes one whose [`REGISTRY`] is the registry at `address`.
    ///
    /// # Errors
    /// Without root, or where the kernel has no network namespaces.
    pub fn new(address: &str) -> Result<Self> {
        // A thread that has moved to another namespace is of no use afterwards; sockets and open
        // files stay where they were made.
        let (handle, listener) = thread::spawn(enter)
            .join()
            .map_err(|_| anyhow!("the thread that makes a network namespace panicked"))?
            .context("cannot make a network namespace")?;
        let listener = Arc::new(listener);
        let (ours, address) = (Arc::clone(&listener), address.to_owned());
        let relay = thread::spawn(move || {
            while let Ok((inside, _)) = ours.accept() {
                // A registry that is gone shows in the build's own log.
                if let Ok(outside) = TcpStream::connect(&address) {
                    join(inside, outside);
                }
            }
        });
        Ok(Self {
            handle,
            listener,
            relay: Some(relay),
        })
    }

    /// A path by which another process can enter it.
    pub fn path(&self) -> PathBuf {
        let fd = self.handle.as_raw_fd();
        format!("/proc/{}/fd/{fd}", std::process::id()).into()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // SAFETY: the descriptor is open for as long as `listener` is. This ends `accept`.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
        if let Some(relay) = self.relay.take() {
            // It cannot panic; and there would be nothing to do about it.
            let _ = relay.join();
        }
    }
}

/// Moves this thread into a new namespace with its loopback device up.
fn enter() -> io::Result<(File, TcpListener)> {
    // SAFETY: takes no pointers; affects this thread only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    loopback_up()?;
    // What /proc/sys/net shows is the reading thread's namespace.
    fs::write(
        "/proc/sys/net/ipv4/ip_unprivileged_port_start",
        UNPRIVILEGED_PORT.to_string(),
    )?;
    fs::write("/proc/sys/net/ipv4/ping_group_range", PING_GROUPS)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
    Ok((File::open("/proc/thread-self/ns/net")?, listener))
}

fn loopback_up() -> io::Result<()> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeroes is a valid value: numbers and arrays of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request is valid for the call, and of the type that it wants.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Passes on what each side sends, until both have ended.
fn join(inside: TcpStream, outside: TcpStream) {
    let clones = (inside.try_clone(), outside.try_clone());
    let (Ok(inside_too), Ok(outside_too)) = clones else {
        return;
    };
    let pass = |mut from: TcpStream, mut to: TcpStream| {
        move || {
            // A side that is gone ends the other too.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        }
    };
    thread::spawn(pass(inside, outside));
    thread::spawn(pass(outside_too, inside_too));
}
