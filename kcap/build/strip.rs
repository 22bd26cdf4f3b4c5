//! Takes the DWARF sections out of a BPF object.
//!
//! BTF is made from them while linking; after that nothing reads them, and they are nine tenths of
//! the file. Nothing on every machine can do this (`llvm-objcopy` is no part of a Rust toolchain).

/// Size of the ELF header, of a section header, of a symbol and of a relocation without addend.
const HEADER: usize = 64;
const SECTION: usize = 64;
const SYMBOL: usize = 24;
const RELOCATION: usize = 16;

const SYMTAB: u32 = 2;
const NOBITS: u32 = 8;
const REL: u32 = 9;
/// Section numbers from here on have meanings of their own.
const RESERVED: u16 = 0xff00;

/// A section: its header, its content, and whether it stays.
struct Section<'a> {
    header: &'a [u8],
    content: Vec<u8>,
    stays: bool,
}

impl Section<'_> {
    fn kind(&self) -> u32 {
        u32_at(self.header, 4).unwrap_or(0)
    }
}

/// The object without `.debug_*`, their relocations, and symbols that only these need.
///
/// # Errors
/// Where the bytes are no 64-bit little-endian relocatable ELF file; one line.
pub fn debug_sections(object: &[u8]) -> Result<Vec<u8>, String> {
    strip(object).ok_or_else(|| "the linker's output is not the ELF file it should be".into())
}

fn strip(object: &[u8]) -> Option<Vec<u8>> {
    // Magic, 64 bits, little endian.
    if object.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let mut sections = read(object)?;
    let numbers = numbers(sections.iter().map(|section| section.stays));
    let symtab = sections
        .iter()
        .position(|section| section.kind() == SYMTAB)?;
    let symbols = keep_symbols(&mut sections[symtab].content, &numbers)?;
    let first_global = u32_at(sections[symtab].header, 44)? as usize;
    let locals = symbols.get(..first_global)?.iter().flatten().count();
    for section in sections.iter_mut().filter(|s| s.stays && s.kind() == REL) {
        for entry in section.content.chunks_exact_mut(RELOCATION) {
            let old = u32_at(entry, 12)? as usize;
            let new = u32::try_from((*symbols.get(old)?)?).ok()?;
            entry[12..16].copy_from_slice(&new.to_le_bytes());
        }
    }
    write(
        object,
        &sections,
        &numbers,
        symtab,
        u32::try_from(locals).ok()?,
    )
}

fn read(object: &[u8]) -> Option<Vec<Section<'_>>> {
    let table = usize::try_from(u64_at(object, 40)?).ok()?;
    let count = usize::from(u16_at(object, 60)?);
    let names = usize::from(u16_at(object, 62)?);
    let header = |index: usize| object.get(table + index * SECTION..)?.get(..SECTION);
    let content = |header: &[u8]| {
        let offset = usize::try_from(u64_at(header, 24)?).ok()?;
        let size = usize::try_from(u64_at(header, 32)?).ok()?;
        match u32_at(header, 4)? {
            NOBITS | 0 => Some(&[][..]),
            _ => object.get(offset..offset.checked_add(size)?),
        }
    };
    let strings = content(header(names)?)?;
    (0..count)
        .map(|index| {
            let header = header(index)?;
            let name = strings.get(u32_at(header, 0)? as usize..)?;
            let stays = !name.starts_with(b".debug_") && !name.starts_with(b".rel.debug_");
            Some(Section {
                header,
                content: content(header)?.to_vec(),
                stays,
            })
        })
        .collect()
}

/// New numbers for those that stay.
fn numbers(stay: impl Iterator<Item = bool>) -> Vec<Option<usize>> {
    let mut next = 0;
    stay.map(|stays| {
        stays.then(|| {
            next += 1;
            next - 1
        })
    })
    .collect()
}

/// Drops symbols of sections that go, renumbers the others' sections, and returns the symbols'
/// new numbers.
fn keep_symbols(table: &mut Vec<u8>, sections: &[Option<usize>]) -> Option<Vec<Option<usize>>> {
    let mut kept = Vec::with_capacity(table.len());
    let mut stay = Vec::new();
    for symbol in table.chunks_exact(SYMBOL) {
        let section = u16_at(symbol, 6)?;
        let new = match section {
            RESERVED.. => Some(section),
            _ => match sections.get(usize::from(section))? {
                Some(new) => Some(u16::try_from(*new).ok()?),
                None => None,
            },
        };
        stay.push(new.is_some());
        if let Some(new) = new {
            kept.extend_from_slice(&symbol[..6]);
            kept.extend_from_slice(&new.to_le_bytes());
            kept.extend_from_slice(&symbol[8..]);
        }
    }
    *table = kept;
    Some(numbers(stay.into_iter()))
}

fn write(
    object: &[u8],
    sections: &[Section<'_>],
    numbers: &[Option<usize>],
    symtab: usize,
    locals: u32,
) -> Option<Vec<u8>> {
    let renumber = |old: u32| u32::try_from((*numbers.get(old as usize)?)?).ok();
    let mut out = object.get(..HEADER)?.to_vec();
    let mut headers = Vec::new();
    for (index, section) in sections.iter().enumerate().filter(|(_, s)| s.stays) {
        let mut header = section.header.to_vec();
        let align = usize::try_from(u64_at(&header, 48)?).ok()?.max(1);
        out.resize(out.len().next_multiple_of(align), 0);
        if index > 0 {
            header[24..32].copy_from_slice(&(out.len() as u64).to_le_bytes());
        }
        if section.kind() != NOBITS {
            header[32..40].copy_from_slice(&(section.content.len() as u64).to_le_bytes());
        }
        let link = renumber(u32_at(&header, 40)?)?;
        header[40..44].copy_from_slice(&link.to_le_bytes());
        // What it means depends on the kind: here a count of symbols or the number of a section.
        let info = match section.kind() {
            REL => renumber(u32_at(&header, 44)?)?,
            _ if index == symtab => locals,
            _ => u32_at(&header, 44)?,
        };
        header[44..48].copy_from_slice(&info.to_le_bytes());
        out.extend_from_slice(&section.content);
        headers.extend_from_slice(&header);
    }
    out.resize(out.len().next_multiple_of(8), 0);
    let table = out.len() as u64;
    out[40..48].copy_from_slice(&table.to_le_bytes());
    let count = u16::try_from(headers.len() / SECTION).ok()?;
    out[60..62].copy_from_slice(&count.to_le_bytes());
    let names = renumber(u32::from(u16_at(object, 62)?))?;
    out[62..64].copy_from_slice(&u16::try_from(names).ok()?.to_le_bytes());
    out.extend_from_slice(&headers);
    Some(out)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(field.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This very program is an ELF file without `.rel` sections; what stays must stay the same.
    #[test]
    fn other_sections_keep_their_bytes() {
        let object = std::fs::read("/proc/self/exe").unwrap();
        let before = read(&object).unwrap();
        let stripped = debug_sections(&object).unwrap();
        let after = read(&stripped).unwrap();
        assert!(
            before.iter().any(|section| !section.stays),
            "nothing to strip"
        );
        assert!(after.iter().all(|section| section.stays));
        let kept = before.iter().filter(|section| section.stays);
        for (old, new) in kept.zip(&after) {
            assert_eq!(old.header[..24], new.header[..24]);
            if old.kind() != SYMTAB {
                assert!(old.content == new.content);
            }
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let object = std::fs::read("/proc/self/exe").unwrap();
        assert!(debug_sections(b"").is_err());
        assert!(debug_sections(b"\x7fELF\x02\x01").is_err());
        for length in [63, 64, 100, 4096, object.len() - 1] {
            assert!(debug_sections(&object[..length]).is_err(), "{length}");
        }
    }
}
