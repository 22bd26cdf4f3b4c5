//! Reads what kcap needs from the kernel's BTF: offsets of structure members, values of
//! enumerators, and whether a function or typedef exists.
//!
//! A scanner of ours rather than a library: BTF libraries build a graph of every type, while kcap
//! asks for some dozens of members once, before the build starts, under a budget of time and
//! memory. [`Btf::parse`] walks the type section once and notes where each type starts; queries
//! then read the bytes in place. BTF comes from the kernel, yet nothing here trusts it: a broken or
//! hostile image is an error, never a panic and never an endless walk.

use std::fmt;

/// Where the running kernel shows its BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
/// Name, info, and size or type: the head of every record.
const HEAD: usize = 12;
/// Typedefs and qualifiers in a row, and structures in structures: deeper is not C that anyone
/// wrote.
const DEPTH: usize = 32;
/// Members looked at for one path, so that structures that contain themselves end.
const STEPS: usize = 1 << 20;

mod kind {
    pub const INT: u32 = 1;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const TYPEDEF: u32 = 8;
    pub const VOLATILE: u32 = 9;
    pub const CONST: u32 = 10;
    pub const RESTRICT: u32 = 11;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const DECL_TAG: u32 = 17;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

/// Why BTF could not give what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BtfError {
    /// It is not BTF that this scanner can read.
    Malformed(&'static str),
    /// A kind of type that did not exist when this scanner was written.
    UnknownKind(u32),
    /// Members that the kernel does not have, or has only as bitfields, as `structure.member`.
    Missing(Vec<String>),
}

impl fmt::Display for BtfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(
                f,
                "cannot read this kernel's BTF: {what}: boot a kernel whose BTF bpftool can dump"
            ),
            Self::UnknownKind(kind) => write!(
                f,
                "cannot read this kernel's BTF: type kind {kind} is unknown: use a newer kcap"
            ),
            Self::Missing(members) => write!(
                f,
                "this kernel's BTF lacks {}: kcap supports Linux 6.1 and later: use a newer kcap, \
                 or another kernel",
                members.join(", ")
            ),
        }
    }
}

impl std::error::Error for BtfError {}

/// The kernel's BTF, scanned once.
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Byte offset of each type in the type section; entry 0 is `void` and never read.
    starts: Vec<u32>,
    composites: Vec<u32>,
    enums: Vec<u32>,
    typedefs: Vec<u32>,
    funcs: Vec<u32>,
}

/// The head of one record.
#[derive(Clone, Copy)]
struct Head {
    name: u32,
    info: u32,
    /// Size or type, by kind.
    extra: u32,
    /// Byte offset of what follows the head.
    body: usize,
}

impl Head {
    fn kind(self) -> u32 {
        (self.info >> 24) & 0x1f
    }

    fn len(self) -> usize {
        (self.info & 0xffff) as usize
    }

    fn flag(self) -> bool {
        self.info >> 31 == 1
    }
}

/// What became of one member path in one structure.
enum Walk {
    Found(u32),
    Absent,
}

impl<'a> Btf<'a> {
    /// Scans an image as [`VMLINUX`] shows it. Every record is known to lie within the section
    /// afterwards.
    pub fn parse(image: &'a [u8]) -> Result<Self, BtfError> {
        let magic = image
            .first_chunk::<2>()
            .ok_or(BtfError::Malformed("it is cut short"))?;
        match u16::from_ne_bytes(*magic) {
            MAGIC => {}
            m if m.swap_bytes() == MAGIC => {
                return Err(BtfError::Malformed("it is in another machine's byte order"));
            }
            _ => return Err(BtfError::Malformed("it does not start like BTF")),
        }
        if image.get(2) != Some(&1) {
            return Err(BtfError::Malformed("its version is not 1"));
        }
        let [header, type_off, type_len, str_off, str_len] =
            [4, 8, 12, 16, 20].map(|at| word(image, at).map(|w| w as usize));
        let (Some(header), Some(type_off), Some(type_len), Some(str_off), Some(str_len)) =
            (header, type_off, type_len, str_off, str_len)
        else {
            return Err(BtfError::Malformed("its header is cut short"));
        };
        let section = |off: usize, len: usize| {
            let from = header.checked_add(off)?;
            image.get(from..from.checked_add(len)?)
        };
        if header < HEADER {
            return Err(BtfError::Malformed("its header is too small"));
        }
        let types = section(type_off, type_len)
            .ok_or(BtfError::Malformed("its types lie outside of it"))?;
        let strings = section(str_off, str_len)
            .ok_or(BtfError::Malformed("its strings lie outside of it"))?;
        let mut btf = Self {
            types,
            strings,
            // A record takes 25 bytes on average.
            starts: Vec::with_capacity(types.len() / 24 + 1),
            composites: Vec::new(),
            enums: Vec::new(),
            typedefs: Vec::new(),
            funcs: Vec::new(),
        };
        btf.scan()?;
        Ok(btf)
    }

    fn scan(&mut self) -> Result<(), BtfError> {
        self.starts.push(0);
        let mut at = 0;
        while at < self.types.len() {
            let head = self
                .head_at(at)
                .ok_or(BtfError::Malformed("a type is cut short"))?;
            let id = self.starts.len() as u32;
            let kind = head.kind();
            let list = match kind {
                kind::STRUCT | kind::UNION => Some(&mut self.composites),
                kind::ENUM | kind::ENUM64 => Some(&mut self.enums),
                kind::TYPEDEF => Some(&mut self.typedefs),
                kind::FUNC => Some(&mut self.funcs),
                _ => None,
            };
            if let Some(list) = list
                && head.name != 0
            {
                list.push(id);
            }
            self.starts.push(at as u32);
            let body = match kind {
                kind::INT | kind::VAR | kind::DECL_TAG => 4,
                kind::ARRAY => 12,
                kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * head.len(),
                kind::ENUM | kind::FUNC_PROTO => 8 * head.len(),
                // Pointers, forwards, modifiers, functions and floats are a head alone.
                2 | 7..=12 | 16 | 18 => 0,
                other => return Err(BtfError::UnknownKind(other)),
            };
            at = head.body + body;
            if at > self.types.len() {
                return Err(BtfError::Malformed("a type is cut short"));
            }
        }
        Ok(())
    }

    /// Byte offsets of members, in the order asked: for each the structure's name and the paths to
    /// try. A dot descends into a named member; members of unnamed structures and unions are found
    /// as in C. Where several structures have the name, the first that has the member counts.
    /// Bitfields have no byte offset and count as absent.
    ///
    /// # Errors
    /// [`BtfError::Missing`] with every member that is absent.
    pub fn offsets(&self, wanted: &[(&str, &[&str])]) -> Result<Vec<u32>, BtfError> {
        let mut found: Vec<Option<u32>> = vec![None; wanted.len()];
        // The best alternative so far: a later structure may have one that is to be preferred.
        let mut rank = vec![usize::MAX; wanted.len()];
        let mut names: Vec<(&str, Vec<usize>)> = Vec::new();
        for (i, (structure, _)) in wanted.iter().enumerate() {
            match names.binary_search_by_key(structure, |n| n.0) {
                Ok(at) => names[at].1.push(i),
                Err(at) => names.insert(at, (structure, vec![i])),
            }
        }
        for &id in &self.composites {
            let Some(head) = self.head(id) else { continue };
            let Ok(at) = names.binary_search_by(|n| n.0.as_bytes().cmp(self.name(head.name)))
            else {
                continue;
            };
            for &i in &names[at].1 {
                for (nth, path) in wanted[i].1.iter().enumerate().take(rank[i]) {
                    let mut steps = STEPS;
                    let parts: Vec<&str> = path.split('.').collect();
                    if let Walk::Found(offset) = self.walk(id, &parts, 0, DEPTH, &mut steps)? {
                        (found[i], rank[i]) = (Some(offset), nth);
                        break;
                    }
                }
            }
        }
        let missing: Vec<String> = wanted
            .iter()
            .zip(&found)
            .filter(|(_, offset)| offset.is_none())
            .map(|((structure, paths), _)| {
                let members: Vec<_> = paths.iter().map(|p| format!("{structure}.{p}")).collect();
                members.join(" or ")
            })
            .collect();
        if missing.is_empty() {
            Ok(found.into_iter().flatten().collect())
        } else {
            Err(BtfError::Missing(missing))
        }
    }

    /// Follows `path` through the members of type `id`, which starts `base` bits in.
    fn walk(
        &self,
        id: u32,
        path: &[&str],
        base: u32,
        depth: usize,
        steps: &mut usize,
    ) -> Result<Walk, BtfError> {
        let endless = BtfError::Malformed("a structure contains itself");
        let Some((first, rest)) = path.split_first() else {
            return Ok(Walk::Absent);
        };
        let Some(depth) = depth.checked_sub(1) else {
            return Err(endless);
        };
        let Some(head) = self.peel(id) else {
            return Ok(Walk::Absent);
        };
        if !matches!(head.kind(), kind::STRUCT | kind::UNION) {
            return Ok(Walk::Absent);
        }
        for n in 0..head.len() {
            *steps = steps.checked_sub(1).ok_or(endless.clone())?;
            let at = head.body + 12 * n;
            let (Some(name), Some(ty), Some(packed)) =
                (self.word(at), self.word(at + 4), self.word(at + 8))
            else {
                return Err(BtfError::Malformed("a member is cut short"));
            };
            // With the flag the upper byte holds a bitfield's width.
            let (width, bits) = if head.flag() {
                (packed >> 24, packed & 0xff_ffff)
            } else {
                (0, packed)
            };
            let offset = base
                .checked_add(bits)
                .ok_or(BtfError::Malformed("a member lies too far out"))?;
            let found = if name == 0 {
                self.walk(ty, path, offset, depth, steps)?
            } else if !self.is_name(name, first) {
                Walk::Absent
            } else if !rest.is_empty() {
                return self.walk(ty, rest, offset, depth, steps);
            } else if width != 0 || offset % 8 != 0 {
                return Ok(Walk::Absent);
            } else {
                Walk::Found(offset / 8)
            };
            if let Walk::Found(_) = found {
                return Ok(found);
            }
        }
        Ok(Walk::Absent)
    }

    /// The value of an enumerator, by the enumeration's name and its own.
    pub fn enumerator(&self, enumeration: &str, constant: &str) -> Option<i64> {
        self.named(&self.enums, enumeration).find_map(|head| {
            let (size, wide) = match head.kind() {
                kind::ENUM64 => (12, true),
                _ => (8, false),
            };
            (0..head.len())
                .map(|n| head.body + size * n)
                .find_map(|at| {
                    if !self.is_name(self.word(at)?, constant) {
                        return None;
                    }
                    let low = self.word(at + 4)?;
                    Some(match (wide, head.flag()) {
                        (true, _) => {
                            ((u64::from(self.word(at + 8)?) << 32) | u64::from(low)) as i64
                        }
                        (false, true) => i64::from(low as i32),
                        (false, false) => i64::from(low),
                    })
                })
        })
    }

    /// Whether there is a typedef of that name. Each tracepoint `x` that a `tp_btf` program can
    /// attach to has a `btf_trace_x`.
    pub fn has_typedef(&self, name: &str) -> bool {
        self.named(&self.typedefs, name).next().is_some()
    }

    /// How many parameters the function of that name has; `None` where there is no such function.
    /// Says nothing about callers that the compiler inlined it into.
    pub fn parameters(&self, function: &str) -> Option<usize> {
        self.named(&self.funcs, function).find_map(|head| {
            let proto = self.head(head.extra)?;
            (proto.kind() == kind::FUNC_PROTO).then(|| proto.len())
        })
    }

    /// BTF of the same shape in which only the named typedefs and functions are left, under the ids
    /// that they have in the kernel; every other type is an empty placeholder. For a library that
    /// builds a graph of all types where it is only asked for the ids of a few.
    pub fn index(&self, typedefs: &[&str], functions: &[&str]) -> Vec<u8> {
        const FORWARD: u32 = 7;
        let mut strings = vec![0];
        let mut kept = std::collections::BTreeMap::new();
        let lists = [
            (typedefs, &self.typedefs, kind::TYPEDEF),
            (functions, &self.funcs, kind::FUNC),
        ];
        for (names, ids, kind) in lists {
            for name in names {
                let found = ids.iter().find(|&&id| {
                    self.head(id)
                        .is_some_and(|head| self.is_name(head.name, name))
                });
                if let Some(&id) = found {
                    kept.insert(id, (strings.len() as u32, kind));
                    strings.extend_from_slice(name.as_bytes());
                    strings.push(0);
                }
            }
        }
        let last = kept.keys().next_back().copied().unwrap_or(0);
        let mut types = Vec::with_capacity(HEAD * last as usize);
        for id in 1..=last {
            let (name, kind) = kept.get(&id).copied().unwrap_or((0, FORWARD));
            for word in [name, kind << 24, 0] {
                types.extend_from_slice(&word.to_ne_bytes());
            }
        }
        let mut image = MAGIC.to_ne_bytes().to_vec();
        image.extend_from_slice(&[1, 0]);
        let (types_len, strings_len) = (types.len() as u32, strings.len() as u32);
        for word in [HEADER as u32, 0, types_len, types_len, strings_len] {
            image.extend_from_slice(&word.to_ne_bytes());
        }
        image.extend(types);
        image.extend(strings);
        image
    }

    /// Those of the listed types that have the name.
    fn named<'s>(&'s self, ids: &'s [u32], name: &'s str) -> impl Iterator<Item = Head> + 's {
        ids.iter()
            .filter_map(|&id| self.head(id))
            .filter(move |head| self.is_name(head.name, name))
    }

    /// The type behind typedefs and qualifiers.
    fn peel(&self, mut id: u32) -> Option<Head> {
        for _ in 0..DEPTH {
            let head = self.head(id)?;
            match head.kind() {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = head.extra;
                }
                _ => return Some(head),
            }
        }
        None
    }

    /// The head of a type by its id; `None` for `void` and for ids that are out of range.
    fn head(&self, id: u32) -> Option<Head> {
        if id == 0 {
            return None;
        }
        self.head_at(*self.starts.get(id as usize)? as usize)
    }

    fn head_at(&self, at: usize) -> Option<Head> {
        let [name, info, extra] = [at, at + 4, at + 8].map(|at| self.word(at));
        Some(Head {
            name: name?,
            info: info?,
            extra: extra?,
            body: at + HEAD,
        })
    }

    fn word(&self, at: usize) -> Option<u32> {
        word(self.types, at)
    }

    /// Whether the name at `offset` is `name`, without looking for its end first.
    fn is_name(&self, offset: u32, name: &str) -> bool {
        let tail = self.strings.get(offset as usize..).unwrap_or_default();
        tail.strip_prefix(name.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    /// A name, without its NUL; empty where the offset is out of range.
    fn name(&self, offset: u32) -> &'a [u8] {
        let tail = self.strings.get(offset as usize..).unwrap_or_default();
        let end = tail.iter().position(|&b| b == 0).unwrap_or(tail.len());
        &tail[..end]
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let chunk = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(chunk.try_into().ok()?))
}

#[cfg(test)]
mod tests;
