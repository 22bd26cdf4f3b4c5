//! Names for kernel addresses, from `/proc/kallsyms`: one pass that keeps only what the wanted
//! addresses need, whatever the size of the table.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use crate::capture::Frame;

/// The kernel's own limit of a name is 512 bytes; with address, type and module a line is longer.
const LINE: u64 = 1024;
/// No function is this large: an address further behind the last symbol belongs to none that is
/// listed, such as a module's where modules are hidden.
const LONGEST: u64 = 1 << 18;

/// Names of the wanted addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    names: BTreeMap<u64, (String, u64)>,
    hidden: bool,
}

/// A symbol that may be the last one at or below a wanted address.
struct Candidate {
    start: u64,
    text: bool,
    name: String,
}

impl Symbols {
    /// Reads the running kernel's table.
    ///
    /// # Errors
    /// Where the file cannot be opened or read.
    pub fn of_kernel(wanted: &[u64]) -> io::Result<Self> {
        Self::read(
            BufReader::with_capacity(1 << 16, File::open("/proc/kallsyms")?),
            wanted,
        )
    }

    /// Reads a table in the format of `/proc/kallsyms`. Lines that do not parse are passed over.
    /// Of several symbols at one address the first counts, as it does in the kernel's own traces.
    pub fn read(mut table: impl BufRead, wanted: &[u64]) -> io::Result<Self> {
        let mut sorted = wanted.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        // For each wanted address: the last symbol between it and the wanted address before it.
        let mut best: Vec<Option<Candidate>> = sorted.iter().map(|_| None).collect();
        let mut hidden = true;
        let mut line = Vec::new();
        loop {
            line.clear();
            if table.by_ref().take(LINE).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let whole = line.ends_with(b"\n");
            if let Some((start, kind, name)) = parse(&line) {
                hidden &= start == 0;
                let slot = sorted.partition_point(|&address| address < start);
                if let Some(slot) = best.get_mut(slot)
                    && slot.as_ref().is_none_or(|c| c.start < start)
                {
                    *slot = Some(Candidate {
                        start,
                        text: matches!(kind, b't' | b'T' | b'w' | b'W'),
                        name: String::from_utf8_lossy(name).into_owned(),
                    });
                }
            }
            if !whole {
                skip_line(&mut table)?;
            }
        }
        let mut names = BTreeMap::new();
        let mut last: Option<Candidate> = None;
        for (&address, candidate) in sorted.iter().zip(best) {
            last = candidate.or(last);
            if let Some(symbol) = &last
                && symbol.text
                && !hidden
                && address - symbol.start < LONGEST
            {
                names.insert(address, (symbol.name.clone(), address - symbol.start));
            }
        }
        Ok(Self { names, hidden })
    }

    /// The kernel hides its addresses: all are zero. `CAP_SYSLOG` in the initial user namespace
    /// shows them, unless `kernel.kptr_restrict` is 2.
    pub fn hidden(&self) -> bool {
        self.hidden
    }

    /// The symbol that holds a wanted address, and the offset into it.
    pub fn get(&self, address: u64) -> Option<(&str, u64)> {
        self.names
            .get(&address)
            .map(|(name, offset)| (name.as_str(), *offset))
    }

    /// The frame of a wanted address.
    pub fn frame(&self, address: u64) -> Frame {
        let (symbol, offset) = self.get(address).unzip();
        Frame {
            address,
            symbol: symbol.map(String::from),
            offset: offset.unwrap_or_default(),
        }
    }
}

/// Address, type letter and name of a line.
fn parse(line: &[u8]) -> Option<(u64, u8, &[u8])> {
    let mut words = line.split(|b| b.is_ascii_whitespace());
    let digits = words.next()?;
    let start = match digits.len() {
        1..=16 => digits.iter().try_fold(0, |n: u64, &digit| {
            Some(n << 4 | u64::from((digit as char).to_digit(16)?))
        })?,
        _ => return None,
    };
    let &[kind] = words.next()? else { return None };
    let name = words.next().filter(|name| !name.is_empty())?;
    Some((start, kind, name))
}

fn skip_line(table: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = table.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|&b| b == b'\n');
        let used = end.map_or(buffer.len(), |at| at + 1);
        table.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000000 T first_at_the_address
ffffffff81000100 t cap_capable
ffffffff81000200 T _etext
ffffffff82000000 D some_data
ffffffffc0000010 t late\t[module]
ffffffffc0000000 t early\t[module]
";

    fn read(wanted: &[u64]) -> Symbols {
        Symbols::read(TABLE.as_bytes(), wanted).unwrap()
    }

    #[test]
    fn addresses_get_the_symbol_that_holds_them() {
        let wanted = [
            0xffffffffc0000018,
            0xffffffff81000100,
            0xffffffff810001ff,
            0xffffffff81000001,
            0xffffffff81000100,
            0xffffffffc0000008,
        ];
        let symbols = read(&wanted);
        assert!(!symbols.hidden());
        assert_eq!(symbols.get(wanted[0]), Some(("late", 8)));
        assert_eq!(symbols.get(wanted[1]), Some(("cap_capable", 0)));
        assert_eq!(symbols.get(wanted[2]), Some(("cap_capable", 0xff)));
        assert_eq!(symbols.get(wanted[3]), Some(("_stext", 1)));
        assert_eq!(symbols.get(wanted[5]), Some(("early", 8)));
        let frame = symbols.frame(wanted[2]);
        assert_eq!(
            (frame.symbol.as_deref(), frame.offset),
            (Some("cap_capable"), 0xff)
        );
    }

    #[test]
    fn addresses_outside_of_functions_have_no_name() {
        let wanted = [
            1,
            0xffffffff80ffffff,
            0xffffffff82000008,
            0xffffffff81100200,
            u64::MAX,
        ];
        let symbols = read(&wanted);
        for address in wanted {
            assert_eq!(symbols.get(address), None, "{address:#x}");
            assert_eq!(
                symbols.frame(address),
                Frame {
                    address,
                    ..Frame::default()
                }
            );
        }
        assert_eq!(symbols.get(0x1234), None, "never wanted");
    }

    #[test]
    fn hidden_addresses_say_so() {
        let table = "0000000000000000 T _stext\n0000000000000000 t cap_capable\n";
        let symbols = Symbols::read(table.as_bytes(), &[0, 5]).unwrap();
        assert!(symbols.hidden());
        assert_eq!(symbols.get(5), None);
        assert!(Symbols::read(&b""[..], &[5]).unwrap().hidden());
    }

    #[test]
    fn odd_lines_are_passed_over() {
        let long = "x".repeat(5000);
        let table = format!(
            "\nzz t bad\n12345678901234567 t wide\n10 tt kind\n11 t\n12 t {long}\n20 t good\n\u{fffd}\n"
        );
        let symbols = Symbols::read(table.as_bytes(), &[0x11, 0x21]).unwrap();
        assert_eq!(symbols.get(0x21), Some(("good", 1)));
        assert_eq!(symbols.get(0x11), None);
    }

    proptest! {
        /// The one-pass answer against looking through the whole table for each address.
        #[test]
        fn as_by_exhaustive_search(
            table in prop::collection::vec((1u64..500, prop::bool::ANY), 1..40),
            wanted in prop::collection::vec(0u64..600, 0..20),
        ) {
            let text: String = table
                .iter()
                .enumerate()
                .map(|(i, (at, text))| format!("{at:016x} {} s{i}\n", if *text { 't' } else { 'd' }))
                .collect();
            let symbols = Symbols::read(text.as_bytes(), &wanted).unwrap();
            for address in wanted {
                let mut best: Option<(usize, u64, bool)> = None;
                for (i, &(at, text)) in table.iter().enumerate() {
                    if at <= address && best.is_none_or(|b| b.1 < at) {
                        best = Some((i, at, text));
                    }
                }
                let expected =
                    best.filter(|b| b.2).map(|(i, at, _)| (format!("s{i}"), address - at));
                let got = symbols.get(address).map(|(name, offset)| (name.to_owned(), offset));
                prop_assert_eq!(got, expected);
            }
        }
    }

    #[test]
    fn this_kernel_names_its_own_functions() {
        let table = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        let known = table.lines().find_map(|line| {
            let address = line
                .strip_suffix(" T cap_capable")
                .or(line.strip_suffix(" t cap_capable"))?;
            u64::from_str_radix(address, 16).ok().filter(|&a| a != 0)
        });
        let Some(address) = known else {
            eprintln!("SKIPPED this_kernel_names_its_own_functions: kallsyms hides addresses");
            return;
        };
        let symbols = Symbols::of_kernel(&[address + 4, 5]).unwrap();
        assert_eq!(symbols.get(address + 4), Some(("cap_capable", 4)));
        assert_eq!(symbols.get(5), None);
    }
}
