//! Lines of Kaniko's log to what they announce: one table, each row below the place in Kaniko's
//! source that it relies on (github.com/osscontainertools/kaniko 1.28.3; those of
//! GoogleContainerTools 1.23 and 1.24 read the same unless a row says otherwise).
//!
//! An instruction announces itself by its own text, which its author chose. No other line of the
//! log can begin with a Dockerfile's keyword and a space, and no instruction with anything else, so
//! that neither can be taken for the other.

use super::line::{Level, Message};
use crate::interpret::dockerfile::Keyword;

/// What a line announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Base images are being looked up.
    Retrieve,
    /// A stage begins.
    Stage,
    /// A stage is not built: all that it is for comes from the cache.
    Eliminate,
    /// The base image is unpacked.
    Unpack,
    /// It is not unpacked.
    NoUnpack,
    /// An instruction begins.
    Instruction,
    /// The next instruction reads the context, for its cache key.
    Ahead,
    /// The first look at the file system, to compare with later.
    FirstSnapshot,
    /// Looking for what an instruction changed.
    Snapshot,
    /// An instruction goes on, after the first snapshot that it waited for.
    GoesOn,
    /// The cache has this instruction's layer.
    CacheHit,
    /// An instruction's layer is taken from the cache.
    FromCache,
    /// Files that other stages need are saved, and the file system is emptied.
    StageEnd,
    /// The build context is put aside.
    Context,
    /// A layer goes to the cache, in the background.
    CachePush,
    /// The image goes to a registry.
    Push,
    /// It goes to none.
    NoPush,
    /// Nothing that tells steps apart.
    Other,
}

struct Row {
    start: &'static str,
    level: Level,
    kind: Kind,
}

const fn row(kind: Kind, start: &'static str) -> Row {
    Row {
        start,
        level: Level::Info,
        kind,
    }
}

const fn warning(kind: Kind, start: &'static str) -> Row {
    Row {
        start,
        level: Level::Warning,
        kind,
    }
}

/// The first row that fits decides.
static ROWS: &[Row] = &[
    // pkg/image/remote/remote.go:39,65,95
    row(Kind::Retrieve, "Retrieving image "),
    // pkg/image/remote/remote.go:43
    row(Kind::Retrieve, "Returning cached image manifest"),
    // pkg/dockerfile/dockerfile.go:342
    row(Kind::Retrieve, "Resolved base name "),
    // pkg/image/image_util.go:112
    row(Kind::Retrieve, "Base image from previous stage "),
    // pkg/image/image_util.go:77
    row(Kind::Retrieve, "No base image, nothing to extract"),
    // pkg/executor/build.go:1297
    row(Kind::Retrieve, "Built cross stage deps: "),
    // GoogleContainerTools 1.24 pkg/executor/build.go:1022
    row(Kind::Retrieve, "Executing "),
    // pkg/executor/build.go:1825,1921,1951
    row(Kind::Retrieve, "shared-base: "),
    // pkg/executor/build.go:1535
    row(Kind::Stage, "Building stage "),
    // pkg/executor/build.go:1404
    row(Kind::Eliminate, "Eliminating stage "),
    // pkg/executor/build.go:543
    row(Kind::Unpack, "Unpacking rootfs as cmd "),
    // pkg/executor/build.go:573
    row(
        Kind::NoUnpack,
        "Skipping unpacking as no commands require it",
    ),
    // pkg/commands/add.go:251
    row(Kind::Ahead, "Using files from context: "),
    // pkg/snapshot/snapshot.go:55
    row(Kind::FirstSnapshot, "Initializing snapshotter ..."),
    // pkg/snapshot/snapshot.go:161
    row(Kind::Snapshot, "Taking snapshot of full filesystem..."),
    // pkg/snapshot/snapshot.go:82
    row(Kind::Snapshot, "Taking snapshot of files..."),
    // GoogleContainerTools 1.24 pkg/snapshot/snapshot.go:75
    row(
        Kind::Snapshot,
        "No files changed in this command, skipping snapshotting.",
    ),
    // pkg/commands/run.go:338
    row(Kind::GoesOn, "Cmd: "),
    // GoogleContainerTools before 1.9
    row(Kind::GoesOn, "cmd: "),
    // pkg/commands/run.go:150
    row(Kind::GoesOn, "skip mounting "),
    // pkg/commands/run.go:221,276
    warning(Kind::GoesOn, "Kaniko does not support "),
    // pkg/commands/run.go:66
    warning(Kind::GoesOn, "#969 kaniko does not support "),
    // pkg/commands/run.go:312
    warning(Kind::GoesOn, "#1713 kaniko does not support "),
    // pkg/executor/build.go:509
    row(Kind::CacheHit, "Using caching version of cmd: "),
    // pkg/commands/run.go:501, copy.go:260, add.go:173, workdir.go:141
    row(
        Kind::FromCache,
        "Found cached layer, extracting to filesystem",
    ),
    // pkg/executor/build.go:1858
    row(Kind::StageEnd, "Storing source image from stage "),
    // pkg/executor/build.go:1658
    row(Kind::StageEnd, "Saving file "),
    // pkg/util/fs_util.go:255
    row(Kind::StageEnd, "Deleting filesystem..."),
    // pkg/executor/build.go:1507,1677
    row(Kind::StageEnd, "Context restored"),
    // pkg/executor/build.go:1479
    row(Kind::Context, "Creating snapshot of build context"),
    // pkg/executor/push.go:422
    row(Kind::CachePush, "Pushing layer "),
    // pkg/executor/push.go:466
    row(Kind::CachePush, "Pushing cache pointer "),
    // pkg/executor/push.go:313
    row(Kind::Push, "Pushing image to "),
    // pkg/executor/push.go:286
    row(
        Kind::NoPush,
        "Skipping push to container registry due to --no-push flag",
    ),
];

/// The keyword that a message begins with. Kaniko logs every instruction in the Dockerfile's own
/// spelling (`pkg/executor/build.go:653`), but FROM, whose line is `Building stage`, and MAINTAINER,
/// which it leaves out (`pkg/commands/commands.go:112`).
pub fn keyword(text: &str) -> Option<Keyword> {
    let word = text.split(char::is_whitespace).next()?;
    // As BuildKit compares: by lower-case letters of Unicode.
    let lower = |c: char| c.to_lowercase().next().unwrap_or(c);
    let is = |keyword: &Keyword| {
        let name = keyword.name().chars().map(|c| c.to_ascii_lowercase());
        word.chars().map(lower).eq(name)
    };
    let logged = |keyword: &Keyword| !matches!(keyword, Keyword::From | Keyword::Maintainer);
    Keyword::ALL.iter().copied().filter(logged).find(is)
}

/// What a message announces, and what follows the words that say so.
pub fn classify<'m>(message: &'m Message<'_>) -> (Kind, &'m str) {
    if message.level == Level::Info && keyword(&message.text).is_some() {
        return (Kind::Instruction, &message.text);
    }
    let fits = |row: &Row| {
        let rest = message.after(row.start)?;
        (row.level == message.level).then_some((row.kind, rest))
    };
    ROWS.iter()
        .find_map(fits)
        .unwrap_or((Kind::Other, &message.text))
}

/// The numbers in `'NAME' [idx: '1', base-idx: '-1']`: the stage, and the stage that it builds on;
/// `None` where there are none, as in Kaniko before 1.9.
pub fn stage(rest: &str) -> (Option<usize>, Option<usize>) {
    let number = |name: &str| {
        let (_, rest) = rest.rsplit_once(name)?;
        rest.split('\'').next()?.parse().ok()
    };
    (number("[idx: '"), number("base-idx: '"))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn kind(level: Level, text: &str) -> Kind {
        let message = Message {
            level,
            text: Cow::Borrowed(text),
            cut: false,
        };
        classify(&message).0
    }

    #[test]
    fn no_row_can_be_an_instruction_and_no_instruction_a_row() {
        for row in ROWS {
            assert_eq!(keyword(row.start), None, "{}", row.start);
            // An instruction that says what a row says.
            for word in Keyword::ALL.iter().filter(|k| keyword(k.name()).is_some()) {
                let text = format!("{word} {}", row.start);
                assert_eq!(kind(Level::Info, &text), Kind::Instruction, "{text}");
            }
        }
    }

    #[test]
    fn rows_are_all_reached() {
        for (i, row) in ROWS.iter().enumerate() {
            let first = ROWS
                .iter()
                .position(|other| row.start.starts_with(other.start));
            assert_eq!(first, Some(i), "{}", row.start);
            assert_eq!(kind(row.level, row.start), row.kind);
        }
        assert_eq!(
            kind(Level::Other, "RUN true"),
            Kind::Other,
            "a line of -v debug"
        );
        assert_eq!(kind(Level::Warning, "RUN true"), Kind::Other);
        assert_eq!(kind(Level::Info, "run\ttrue"), Kind::Instruction);
        assert_eq!(kind(Level::Info, "Running: [RUN]"), Kind::Other);
    }

    #[test]
    fn stages_by_number() {
        assert_eq!(stage("'x' [idx: '12', base-idx: '-1']"), (Some(12), None));
        assert_eq!(stage("'x' [idx: '1', base-idx: '0']"), (Some(1), Some(0)));
        // The name of a stage's base is the author's.
        let forged = "'[idx: '7', base-idx: '7']' [idx: '1', base-idx: '0']";
        assert_eq!(stage(forged), (Some(1), Some(0)));
        assert_eq!(stage("'busybox'"), (None, None));
    }
}
