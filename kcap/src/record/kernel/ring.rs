//! The reading side of the ring buffer, and of the kernel side's log.

use std::{
    io::{self, Write as _},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;

use super::{
    load::CALIBRATION,
    raw::{Raw, decode},
};

/// Where the kernel side's diagnostics go.
pub struct StandardError;

impl log::Log for StandardError {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // Numbers and texts of ours; nothing can be done where standard error is closed.
        let _ = writeln!(io::stderr(), "kcap: kernel side: {}", record.args());
    }

    fn flush(&self) {}
}

/// The ring buffer's reading side.
pub struct Ring {
    /// What the programs send.
    pub records: RingBuf<MapData>,
    /// What they log, where that is asked for.
    pub log: Option<EbpfLogger<StandardError>>,
}

impl Ring {
    /// Hands every record that is there to `each`; gives how many were no record of ours.
    pub fn drain(&mut self, mut each: impl FnMut(Raw)) -> u64 {
        if let Some(log) = &mut self.log {
            log.flush();
        }
        let mut unknown = 0;
        while let Some(item) = self.records.next() {
            match decode(&item) {
                Some(Raw::Tally(key, _)) if key.program == CALIBRATION => {}
                Some(Raw::Evidence(e)) if e.key.program == CALIBRATION => {}
                Some(Raw::Unasked(u)) if u.key.program == CALIBRATION => {}
                Some(raw) => each(raw),
                None => unknown += 1,
            }
        }
        unknown
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.records.as_raw_fd()
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.records.as_fd()
    }
}
