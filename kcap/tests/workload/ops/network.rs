//! Low ports and raw sockets.

use kcap_common::abi::key::unasked;
use kcap_common::decide::argclass::port;
use libc::{AF_INET, EACCES, EPERM, IPPROTO_ICMP, SOCK_DGRAM, SOCK_RAW};

use super::{Op, cap};
use crate::sys::{self, must, must_end};
use crate::truth::{check, need};

const LOW_PORT: u16 = 809;
const HIGH_PORT: u16 = 48_090;

/// The class of `socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)`.
pub const CLASS_RAW: u32 = (AF_INET | (SOCK_RAW << 8) | (IPPROTO_ICMP << 16)) as u32;

pub const OPS: &[Op] = &[
    Op {
        name: "bind",
        caps: &[cap::NET_BIND_SERVICE],
        alone: false,
        prepare: |w| {
            let refused = w.refused;
            Ok(Box::new(move || {
                for (port, want) in [(LOW_PORT, if refused { EACCES } else { 0 }), (HIGH_PORT, 0)] {
                    let fd = must("socket", sys::socket(AF_INET, SOCK_DGRAM, 0))?;
                    must("setsockopt", sys::reuse_port(fd))?;
                    let got = sys::bind_port(fd, port);
                    sys::close(fd);
                    must_end("bind", got, want)?;
                }
                Ok(())
            }))
        },
        truth: |refused| {
            let path = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
            let first: u16 = std::fs::read_to_string(path)
                .map_err(|e| format!("{path}: {e}"))?
                .trim()
                .parse()
                .map_err(|e| format!("{path}: {e}"))?;
            if first <= LOW_PORT {
                return Err(format!(
                    "{path} is {first}: no question is asked for port {LOW_PORT}"
                ));
            }
            Ok(vec![
                check(
                    cap::NET_BIND_SERVICE,
                    libc::SYS_bind,
                    "inet_bind; a high port asks nothing",
                )
                .either(refused, EACCES)
                .class(AF_INET as u32 | (port::LOW << 8)),
            ])
        },
    },
    Op {
        name: "raw-socket",
        caps: &[cap::NET_RAW],
        alone: false,
        prepare: |w| {
            let want = if w.refused { EPERM } else { 0 };
            Ok(Box::new(move || {
                let got = sys::socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
                if let Ok(fd) = got {
                    sys::close(fd);
                }
                must_end("socket", got, want)
            }))
        },
        truth: |refused| {
            Ok(vec![
                check(cap::NET_RAW, libc::SYS_socket, "inet_create")
                    .either(refused, EPERM)
                    .class(CLASS_RAW),
            ])
        },
    },
    // In a network namespace whose settings let anyone bind low ports and ping.
    Op {
        name: "network-unasked",
        caps: &[],
        alone: false,
        prepare: |_| {
            must("unshare", sys::unshare(libc::CLONE_NEWNET))?;
            for (setting, value) in [
                ("ip_unprivileged_port_start", "0"),
                ("ping_group_range", "0 0"),
            ] {
                let path = format!("/proc/sys/net/ipv4/{setting}");
                std::fs::write(&path, value).map_err(|e| format!("{path}: {e}"))?;
            }
            Ok(Box::new(|| {
                for port in [LOW_PORT, HIGH_PORT] {
                    let fd = must("socket", sys::socket(AF_INET, SOCK_DGRAM, 0))?;
                    must("setsockopt", sys::reuse_port(fd))?;
                    let got = sys::bind_port(fd, port);
                    sys::close(fd);
                    must("bind", got)?;
                }
                sys::close(must(
                    "socket",
                    sys::socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP),
                )?);
                Ok(())
            }))
        },
        truth: |_| {
            let ping = AF_INET | (SOCK_DGRAM << 8) | (IPPROTO_ICMP << 16);
            Ok(vec![
                need(
                    unasked::PORT,
                    libc::SYS_bind,
                    0,
                    "inet_bind; a high port needs nothing",
                )
                .class(AF_INET as u32 | (port::LOW << 8)),
                need(unasked::PING, libc::SYS_socket, 0, "ping_init_sock").class(ping as u32),
                check(cap::NET_BIND_SERVICE, libc::SYS_bind, "nothing is asked").times(0),
            ])
        },
    },
];
