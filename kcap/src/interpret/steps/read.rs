//! A log to lines that are understood.

use super::events::{self, Kind};
use super::line::{self, Level, Message, collapsed};
use crate::capture::LogLine;

/// A line of the log, understood.
#[derive(Debug)]
pub struct Line<'a> {
    /// The generation that it begins.
    pub program: u32,
    /// What it announces.
    pub kind: Kind,
    /// It is one of the lines that `-v error` leaves out.
    pub info: bool,
    /// What follows the words that say so; the whole text of an instruction, blanks made one.
    pub message: Message<'a>,
}

/// Understands a log.
pub fn read<'a>(log: impl Iterator<Item = &'a LogLine>) -> Vec<Line<'a>> {
    let other = || Message {
        level: Level::Other,
        text: "".into(),
        cut: false,
    };
    log.map(|line| {
        let message = line::parse(line);
        let (kind, message) = match &message {
            None => (Kind::Other, other()),
            Some(message) => {
                let (kind, rest) = events::classify(message);
                let text = match kind {
                    Kind::Other => "".into(),
                    _ => collapsed(rest).into_owned().into(),
                };
                (
                    kind,
                    Message {
                        level: message.level,
                        text,
                        cut: message.cut,
                    },
                )
            }
        };
        Line {
            program: line.program,
            kind,
            info: message.level == Level::Info,
            message,
        }
    })
    .collect()
}
