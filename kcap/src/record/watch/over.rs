//! A session that is over, as it came from the kernel: its capture is put together where there is time
//! for that.

use std::time::{Duration, Instant};

use super::running::Running;
use crate::{
    capture::{Capture, Subject},
    record::{
        Opened,
        kernel::Finish,
        late,
        mask::Mask,
        reading,
        share::Session,
        subject::{self, wall_ns},
        trace::{Described, Ended},
    },
};

/// A session that is over, as it came from the kernel.
pub struct Over {
    session: Session,
    opened: Opened,
    end: Finish,
    trace: Described,
    interrupted: bool,
    started_ns: u64,
    duration: Duration,
    /// When its Dockerfile is waited for no longer.
    until: Instant,
}

impl std::fmt::Debug for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Over")
            .field("opened", &self.opened)
            .finish_non_exhaustive()
    }
}

impl Over {
    /// One that was taken just now. `interrupted`: kcap ends before it did.
    pub(super) fn new(
        running: Running,
        mut session: Session,
        end: Finish,
        trace: Described,
        interrupted: bool,
    ) -> Self {
        session.settle();
        session.assembler.close();
        let took = wall_ns().saturating_sub(running.started_ns);
        Self {
            session,
            end,
            trace,
            interrupted,
            opened: running.opened,
            started_ns: running.started_ns,
            duration: Duration::from_nanos(took),
            until: Instant::now() + reading::PATIENCE,
        }
    }

    /// Bytes that it takes, roughly.
    pub fn size(&self) -> usize {
        self.session.size()
    }

    /// It took more than it may, and what was beyond is lost.
    pub fn is_over_bounds(&self) -> bool {
        self.session.assembler.is_full()
    }

    /// Puts its capture together; `note` gets lines for people.
    pub fn capture(mut self, note: &mut dyn FnMut(String)) -> Capture {
        let (shown, secrets) = subject::masked_texts(&self.opened.command);
        let ended = Ended {
            status: None,
            interrupted: self.interrupted,
            timed_out: false,
            started_ns: self.started_ns,
            duration: self.duration,
        };
        let subject = Subject {
            late: self.opened.late,
            ..subject::subject(shown, self.session.dockerfile.end(self.until), None, &ended)
        };
        let mut capture = self.trace.capture(
            self.session.assembler,
            &self.end,
            subject,
            self.interrupted,
            &Mask::new(secrets),
            note,
        );
        capture.subject.exit_status = late::status(&capture);
        capture
    }
}
