//! Capability names over a newtype of the number, so that one that a newer kernel adds survives.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names by number, `include/uapi/linux/capability.h`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A capability. Ordered by number; reads and writes as its name without `CAP_`, or as its number
/// where it has no name here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cap(pub u8);

macro_rules! numbered {
    ($($name:ident = $number:literal),* $(,)?) => {
        impl Cap {
            $(#[doc = concat!("`CAP_", stringify!($name), "`.")] pub const $name: Self = Self($number);)*
        }
    };
}

numbered! {
    CHOWN = 0, DAC_OVERRIDE = 1, DAC_READ_SEARCH = 2, FOWNER = 3, FSETID = 4, KILL = 5, SETGID = 6,
    SETUID = 7, SETPCAP = 8, NET_BIND_SERVICE = 10, NET_ADMIN = 12, NET_RAW = 13, IPC_LOCK = 14,
    SYS_MODULE = 16, SYS_RAWIO = 17, SYS_CHROOT = 18, SYS_PTRACE = 19, SYS_PACCT = 20,
    SYS_ADMIN = 21, SYS_BOOT = 22, SYS_NICE = 23, SYS_RESOURCE = 24, SYS_TIME = 25,
    SYS_TTY_CONFIG = 26, MKNOD = 27, AUDIT_WRITE = 29, AUDIT_CONTROL = 30, SETFCAP = 31,
    MAC_OVERRIDE = 32, MAC_ADMIN = 33, SYSLOG = 34, PERFMON = 38, BPF = 39,
    CHECKPOINT_RESTORE = 40,
}

impl Cap {
    /// The set that Docker and its like give a container by default.
    pub const DOCKER_DEFAULT: u64 = 0xa804_25fb;

    /// Every capability that has a name here, by number.
    pub fn known() -> impl Iterator<Item = Self> {
        (0..NAMES.len() as u8).map(Self)
    }

    /// The name without `CAP_`, where there is one.
    pub fn name(self) -> Option<&'static str> {
        NAMES.get(usize::from(self.0)).copied()
    }

    /// Its bit in a capability set; 0 for a number that no set can hold.
    pub fn bit(self) -> u64 {
        1u64.checked_shl(u32::from(self.0)).unwrap_or(0)
    }

    /// Its bit in a mask; 0 for a number that no mask has room for.
    pub const fn mask(self) -> u64 {
        if self.0 < 64 { 1 << self.0 } else { 0 }
    }

    /// The capabilities of a set, by number.
    pub fn of_mask(mask: u64) -> impl Iterator<Item = Self> {
        (0..64).map(Self).filter(move |cap| mask & cap.bit() != 0)
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => f.pad(&self.0.to_string()),
        }
    }
}

impl fmt::Debug for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that names no capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownCap(String);

impl fmt::Display for UnknownCap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no capability; give a name such as CHOWN, or a number",
            self.0
        )
    }
}

impl std::error::Error for UnknownCap {}

impl FromStr for Cap {
    type Err = UnknownCap;

    /// Accepts `CHOWN`, `CAP_CHOWN` in any case, and decimal numbers 0 to 63.
    fn from_str(text: &str) -> Result<Self, UnknownCap> {
        let unknown = || {
            UnknownCap(
                text.chars()
                    .take(64)
                    .flat_map(char::escape_default)
                    .collect(),
            )
        };
        if let Ok(number) = text.parse::<u8>() {
            return if number < 64 {
                Ok(Self(number))
            } else {
                Err(unknown())
            };
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let number = NAMES
            .iter()
            .position(|known| *known == name)
            .ok_or_else(unknown)?;
        Ok(Self(number as u8))
    }
}

impl Serialize for Cap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Cap {
    fn schema_name() -> Cow<'static, str> {
        "Cap".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Capability name without CAP_, or the number of one without a name.",
            "pattern": "^([A-Z][A-Z_]*|[0-9]{1,2})$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_form_of_a_name_is_accepted() {
        for form in ["CHOWN", "CAP_CHOWN", "cap_chown", "chown", "0"] {
            assert_eq!(form.parse(), Ok(Cap::CHOWN), "{form}");
        }
        assert_eq!("CHECKPOINT_RESTORE".parse(), Ok(Cap::CHECKPOINT_RESTORE));
        for form in [
            "",
            "CAP_",
            "CHOWN ",
            "CAP_CAP_CHOWN",
            "64",
            "-1",
            "300",
            "\u{1b}[2J",
        ] {
            let error = form.parse::<Cap>().unwrap_err().to_string();
            assert!(!error.contains('\u{1b}'), "{error}");
        }
    }

    #[test]
    fn numbers_without_a_name_survive() {
        assert_eq!("41".parse(), Ok(Cap(41)));
        assert_eq!(Cap(41).to_string(), "41");
        for number in 0..64 {
            let cap = Cap(number);
            assert_eq!(cap.to_string().parse(), Ok(cap));
            assert_eq!(Cap::of_mask(cap.bit()).collect::<Vec<_>>(), [cap]);
            let json = serde_json::to_string(&cap).unwrap();
            assert_eq!(serde_json::from_str::<Cap>(&json).unwrap(), cap);
        }
        assert_eq!(Cap(200).bit(), 0);
    }

    #[test]
    fn numbers_are_those_of_the_names() {
        assert_eq!(Cap::SYS_ADMIN.name(), Some("SYS_ADMIN"));
        assert_eq!(Cap::SETFCAP.name(), Some("SETFCAP"));
        assert_eq!(Cap::SYSLOG.name(), Some("SYSLOG"));
        assert_eq!(Cap::AUDIT_WRITE.name(), Some("AUDIT_WRITE"));
        assert_eq!(Cap::MKNOD.name(), Some("MKNOD"));
        assert_eq!(Cap::BPF.name(), Some("BPF"));
        assert_eq!(Cap::SYS_TTY_CONFIG.name(), Some("SYS_TTY_CONFIG"));
    }
}
