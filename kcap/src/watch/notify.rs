//! What systemd is told of a service (`sd_notify(3)`): that it is ready, lives, re-reads its settings,
//! stops.

use std::{
    env,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

/// The way to systemd, where it started kcap.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
}

impl Notify {
    /// By the variable that systemd sets.
    pub fn from_env() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let address = match name.as_bytes() {
                [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
                _ => SocketAddr::from_pathname(&name),
            };
            Some((UnixDatagram::unbound().ok()?, address.ok()?))
        });
        Self { socket }
    }

    /// Says so. Nobody can be told where that fails.
    pub fn say(&self, state: &str) {
        if let Some((socket, to)) = &self.socket {
            let _ = socket.send_to_addr(state.as_bytes(), to);
        }
    }

    /// How often it wants to hear that kcap lives, where it does.
    pub fn watchdog() -> Option<Duration> {
        let for_us =
            env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let interval: u64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
        (for_us && interval > 0).then(|| Duration::from_micros(interval) / 2)
    }
}
