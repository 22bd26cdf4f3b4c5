//! What an entry of an image is made of, as small types that print and read back as one text each:
//! inventories and comparisons keep them in JSON.

use std::{fmt, str::FromStr, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{image::hex, render::escape};

/// A name, path, link target or attribute: any bytes. Written as text in which `\` stands as `\\`
/// and a byte that is no UTF-8 as `\xNN`. A clone is the same memory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteString(Arc<[u8]>);

impl ByteString {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::Deref for ByteString {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for ByteString {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for ByteString {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for ByteString {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl From<Vec<u8>> for ByteString {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

/// Bytes as text that says all of them.
fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                text.push('\\');
            }
            text.push(c);
        }
        for byte in chunk.invalid() {
            text.push_str("\\x");
            text.push_str(&hex(&[*byte]));
        }
    }
    text
}

/// Escaped for a terminal, on one line.
impl fmt::Display for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape::shown(&text(&self.0)))
    }
}

impl fmt::Debug for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl FromStr for ByteString {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            (rest, _) = match (byte, after) {
                (b'\\', [b'\\', after @ ..]) => (after, bytes.push(b'\\')),
                (b'\\', [b'x', high, low, after @ ..]) => {
                    let digit = |b: &u8| char::from(*b).to_digit(16).ok_or(Malformed("name"));
                    (after, bytes.push((digit(high)? << 4 | digit(low)?) as u8))
                }
                (b'\\', _) => return Err(Malformed("name")),
                _ => (after, bytes.push(byte)),
            };
        }
        Ok(bytes.into())
    }
}

/// A text that is no such value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is no {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// A SHA-256. Written as 64 digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut digest = [0; 32];
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
            return Err(Malformed("digest"));
        };
        if pairs.len() != digest.len() {
            return Err(Malformed("digest"));
        }
        for (byte, pair) in digest.iter_mut().zip(pairs) {
            for digit in pair {
                let digit = char::from(*digit).to_digit(16);
                *byte = *byte << 4 | digit.ok_or(Malformed("digest"))? as u8;
            }
        }
        Ok(Self(digest))
    }
}

/// Permissions, with the setuid, setgid and sticky bits. Written as four octal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mode(pub u16);

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mode {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        u16::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .map(Self)
            .ok_or(Malformed("mode"))
    }
}

/// Two numbers with a colon between them: user and group id of an owner, major and minor number of a
/// device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair(pub u32, pub u32);

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pair {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = Malformed("pair of numbers");
        let (first, second) = text.split_once(':').ok_or(malformed)?;
        let number = |text: &str| text.parse().map_err(|_| malformed);
        Ok(Self(number(first)?, number(second)?))
    }
}

impl Serialize for ByteString {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&text(&self.0))
    }
}

macro_rules! serialized_as_shown {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    )*};
}

macro_rules! read_from_text {
    ($($type:ty),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

/// What text each is written as.
macro_rules! described {
    ($($type:ty, $name:literal, $pattern:literal, $what:literal;)*) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $pattern, "description": $what})
            }
        }
    )*};
}

described! {
    ByteString, "ByteString", r"^([^\\]|\\\\|\\x[0-9a-f]{2})*$",
        "Any bytes: `\\` stands as `\\\\`, and a byte that is no UTF-8 as `\\xNN`.";
    Digest, "Digest", "^[0-9a-f]{64}$", "A SHA-256.";
    Mode, "Mode", "^[0-7]{4}$", "Permissions in octal digits.";
    Pair, "Pair", "^[0-9]+:[0-9]+$", "User and group id, or major and minor number.";
}
serialized_as_shown!(Digest, Mode, Pair);
read_from_text!(ByteString, Digest, Mode, Pair);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_written_and_read_back(bytes: Vec<u8>) {
            let name = ByteString::from(bytes);
            let json = serde_json::to_string(&name).unwrap();
            prop_assert_eq!(&serde_json::from_str::<ByteString>(&json).unwrap(), &name);
            prop_assert!(!name.to_string().chars().any(escape::is_unsafe));
        }

        #[test]
        fn numbers_are_written_and_read_back(a: u32, b: u32, mode in 0u16..0o10000, digest: [u8; 32]) {
            let (pair, mode, digest) = (Pair(a, b), Mode(mode), Digest(digest));
            prop_assert_eq!(pair.to_string().parse(), Ok(pair));
            prop_assert_eq!(mode.to_string().parse(), Ok(mode));
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        assert!("a\\".parse::<ByteString>().is_err());
        assert!("\\xg0".parse::<ByteString>().is_err());
        assert!("0".repeat(63).parse::<Digest>().is_err());
        assert!("10000".parse::<Mode>().is_err());
        assert!("1:-1".parse::<Pair>().is_err());
        assert_eq!(
            ByteString::from(&b"a\xff\\\x1b"[..]).to_string(),
            "a\\xff\\\\\\u{1b}"
        );
    }
}
