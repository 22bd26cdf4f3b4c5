//! Where a build's container reaches this host, and who else does.
//!
//! A registry of private images must not be one for everybody, and a secret in the address is not
//! enough on this host, where everybody reads the arguments of programs. So:
//!
//! - On the host's network it is 127.0.0.1, and only sockets of the user that runs kcap are admitted.
//! - On a bridge it is the gateway's address, and only addresses of the bridge's subnet are admitted,
//!   without the gateway's own, which programs of this host have. Other machines may route packets to
//!   it, but get no answer to a forged address. Other containers of the bridge need the secret, which
//!   they do not see.
//!
//! On other networks (`none`, those of other containers, slirp4netns and pasta, which translate
//! addresses, macvlan, which does not lead to the host) there is no such place.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::AsRawFd as _,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::net::TcpSocket;

use crate::{launch::call::Call, render::escape};

/// Most columns of a network's name in an error.
const SHOWN: usize = 60;

/// A socket with an address, not yet listening, and who may come.
#[derive(Debug)]
pub struct Place {
    pub socket: TcpSocket,
    pub address: SocketAddrV4,
    pub admits: Admits,
}

/// Who may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admits {
    /// Sockets of this user, on this host.
    User(u32),
    /// Addresses of a subnet, but for the one that is asked.
    Subnet {
        /// Its first address.
        first: Ipv4Addr,
        /// How many bits of it all share.
        bits: u32,
    },
}

/// Finds a place for containers of this engine on this network.
///
/// # Errors
/// Where there is none.
pub fn find(engine: &str, network: Option<&str>) -> Result<Place> {
    // `name:options` is podman's.
    let name = network.filter(|name| !name.is_empty());
    let kind = name.map(|name| name.split_once(':').map_or(name, |(kind, _)| kind));
    match (engine, kind) {
        ("oci", None) | (_, Some("host")) => {
            // SAFETY: takes nothing.
            let user = unsafe { libc::geteuid() };
            bind(Ipv4Addr::LOCALHOST, false, Admits::User(user))
        }
        (_, Some("none")) => bail!("a container without network reaches nothing"),
        (_, Some(kind @ ("container" | "ns" | "slirp4netns" | "pasta" | "private"))) => {
            bail!("the network {kind} has no address of this host alone")
        }
        ("docker", None | Some("default" | "bridge")) => bridge("docker", "bridge"),
        ("podman", None | Some("default" | "bridge")) => bridge("podman", "podman"),
        ("docker" | "podman", Some(kind)) => bridge(engine, kind),
        _ => bail!("the engine has no such network"),
    }
}

/// The place on a bridge.
fn bridge(engine: &str, network: &str) -> Result<Place> {
    // SAFETY: takes nothing.
    let root = unsafe { libc::geteuid() } == 0;
    ensure!(
        engine == "docker" || root,
        "podman without root has networks of its own"
    );
    let call = Call::new(engine, ["network", "inspect", "--", network]);
    let answer = call.run()?;
    let what = || format!("{engine}'s network {}", escape::head(network, SHOWN));
    ensure!(answer.success, "{}: {}", what(), answer.complaint);
    let subnet = subnet(&answer.output).with_context(what)?;
    // podman has the address only while a container runs; docker always, unless its daemon is
    // elsewhere.
    let admits = Admits::Subnet {
        first: subnet.first,
        bits: subnet.bits,
    };
    bind(subnet.gateway, engine == "podman", admits).with_context(what)
}

#[derive(Debug, PartialEq, Eq)]
struct Subnet {
    first: Ipv4Addr,
    bits: u32,
    gateway: Ipv4Addr,
}

/// The first IPv4 subnet of a bridge that has a gateway, from what `network inspect` says of either
/// engine.
fn subnet(inspected: &str) -> Result<Subnet> {
    let networks: Value = serde_json::from_str(inspected).context("it is no JSON")?;
    let network = networks.get(0).context("there is none")?;
    let either = |a: &str, b: &str| network.pointer(a).or_else(|| network.pointer(b));
    let driver = either("/Driver", "/driver").and_then(Value::as_str);
    ensure!(
        driver == Some("bridge"),
        "its driver is {}, which has no address of this host alone",
        escape::head(driver.unwrap_or("unknown"), SHOWN)
    );
    let subnets = either("/IPAM/Config", "/subnets").and_then(Value::as_array);
    let read = |subnet: &Value| {
        let text = |a: &str, b: &str| subnet.get(a).or_else(|| subnet.get(b))?.as_str();
        let (first, bits) = text("Subnet", "subnet")?.split_once('/')?;
        let bits = bits.parse().ok().filter(|bits| *bits <= 32)?;
        Some(Subnet {
            first: first.parse().ok()?,
            bits,
            gateway: text("Gateway", "gateway")?.parse().ok()?,
        })
    };
    let found = subnets.into_iter().flatten().find_map(read);
    found.context("it has no gateway with an IPv4 address")
}

/// A socket at this address; `early`, though nothing has it yet.
fn bind(address: Ipv4Addr, early: bool, admits: Admits) -> Result<Place> {
    let open = || {
        let socket = TcpSocket::new_v4()?;
        if early {
            let on: libc::c_int = 1;
            // SAFETY: an open socket, and a live integer with its size.
            let set = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::IPPROTO_IP,
                    libc::IP_FREEBIND,
                    (&raw const on).cast(),
                    size_of_val(&on) as libc::socklen_t,
                )
            };
            if set != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        socket.bind(SocketAddrV4::new(address, 0).into())?;
        match socket.local_addr()? {
            SocketAddr::V4(address) => Ok((socket, address)),
            SocketAddr::V6(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    };
    let (socket, address) = open().with_context(|| format!("cannot listen on {address}"))?;
    Ok(Place {
        socket,
        address,
        admits,
    })
}

impl Admits {
    /// Whether who asks from there, at this address of ours, may.
    pub fn admits(self, from: SocketAddr, ours: SocketAddrV4) -> bool {
        let IpAddr::V4(ip) = from.ip() else {
            return false;
        };
        match self {
            Self::User(user) => owner(SocketAddrV4::new(ip, from.port()), ours) == Some(user),
            Self::Subnet { first, bits } => {
                let within = |ip: Ipv4Addr| u64::from(ip.to_bits()) >> (32 - bits.min(32));
                within(ip) == within(first) && ip != *ours.ip()
            }
        }
    }
}

/// How often the list of sockets is read: the kernel hands it out in pieces, and between two of them a
/// socket can move within it.
const READS: u32 = 3;

/// The user whose socket on this host is connected so; `None` where there is none.
fn owner(from: SocketAddrV4, to: SocketAddrV4) -> Option<u32> {
    // The address as a number in memory, which is how the kernel writes it.
    let shown = |address: SocketAddrV4| {
        let ip = u32::from_ne_bytes(address.ip().octets());
        format!("{ip:08X}:{:04X}", address.port())
    };
    let (from, to) = (shown(from), shown(to));
    (0..READS).find_map(|_| {
        let sockets = BufReader::new(File::open("/proc/self/net/tcp").ok()?);
        sockets.lines().map_while(Result::ok).find_map(|line| {
            // Number, local and remote address, state, queues, timer, retransmits, user.
            let mut words = line.split_ascii_whitespace().skip(1);
            let same = words.next()? == from && words.next()? == to;
            words.nth(4).filter(|_| same)?.parse().ok()
        })
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn gateways_are_read_of_both_engines() {
        let docker = r#"[{"Name":"bridge","Driver":"bridge","IPAM":{"Config":[
            {"Subnet":"fd00::/64","Gateway":"fd00::1"},
            {"Subnet":"172.17.0.0/16","Gateway":"172.17.0.1"}]}}]"#;
        let podman = r#"[{"name":"podman","driver":"bridge","network_interface":"podman0",
            "subnets":[{"subnet":"10.88.0.0/16","gateway":"10.88.0.1"}]}]"#;
        for (text, first, gateway) in [
            (docker, [172, 17, 0, 0], [172, 17, 0, 1]),
            (podman, [10, 88, 0, 0], [10, 88, 0, 1]),
        ] {
            let expected = Subnet {
                first: first.into(),
                bits: 16,
                gateway: gateway.into(),
            };
            assert_eq!(subnet(text).unwrap(), expected);
        }
        for (text, why) in [
            ("", "no JSON"),
            ("[]", "none"),
            (r#"[{"Driver":"macvlan"}]"#, "macvlan"),
            (
                r#"[{"Driver":"bridge","IPAM":{"Config":[]}}]"#,
                "no gateway",
            ),
            (
                r#"[{"driver":"bridge","subnets":[{"subnet":"10.0.0.0/99","gateway":"10.0.0.1"}]}]"#,
                "no gateway",
            ),
        ] {
            let error = format!("{:#}", subnet(text).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn networks_without_a_place_are_refused() {
        for (engine, network) in [
            ("oci", "none"),
            ("oci", "bridge"),
            ("docker", "none"),
            ("docker", "container:x"),
            ("podman", "slirp4netns:mtu=1"),
            ("podman", "pasta"),
            ("buildah", "x"),
        ] {
            assert!(find(engine, Some(network)).is_err(), "{engine} {network}");
        }
    }

    #[test]
    fn subnets_admit_others_but_not_the_gateway() {
        let admits = Admits::Subnet {
            first: [172, 17, 0, 0].into(),
            bits: 16,
        };
        let ours = SocketAddrV4::new([172, 17, 0, 1].into(), 80);
        for (from, admitted) in [
            ([172, 17, 3, 4], true),
            ([172, 17, 0, 1], false),
            ([172, 18, 0, 2], false),
            ([127, 0, 0, 1], false),
        ] {
            assert_eq!(admits.admits((from, 1).into(), ours), admitted, "{from:?}");
        }
        let all = Admits::Subnet {
            first: [0, 0, 0, 0].into(),
            bits: 0,
        };
        assert!(all.admits(([9, 9, 9, 9], 1).into(), ours));
    }

    #[test]
    fn on_the_host_only_this_users_sockets_are_admitted() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(ours) = listener.local_addr().unwrap() else {
            panic!("it is IPv4");
        };
        let stream = TcpStream::connect(ours).unwrap();
        let from = stream.local_addr().unwrap();
        // SAFETY: takes nothing.
        let user = unsafe { libc::geteuid() };
        assert!(Admits::User(user).admits(from, ours));
        assert!(!Admits::User(user + 1).admits(from, ours));
        drop(listener);
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        assert!(!Admits::User(user).admits(nobody, ours));
    }
}
