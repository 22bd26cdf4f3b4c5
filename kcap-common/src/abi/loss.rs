//! Counters for every place of ours that can drop something, one per CPU, summed by userspace.
//! What the kernel skips on its own (`recursion_misses`) is read from the programs instead.

/// Checks whose tally could not be handed over: the ring buffer was full when a full table bucket
/// had to make room. Counted in checks, not in records.
pub const CHECKS: u32 = 0;
/// Evidence samples (stacks) dropped by a full ring buffer.
pub const EVIDENCE: u32 = 1;
/// Fork, exec and exit records dropped by a full ring buffer.
pub const EXECS: u32 = 2;
/// Outcome counts dropped by a full ring buffer, in checks. Their failures look like success in the
/// tallies, so that where this is not 0 no success is known.
pub const OUTCOMES: u32 = 3;
/// Processes that could not be followed because their id is beyond the scope table.
pub const SCOPE: u32 = 4;
/// Checks, kept and counted, whose outcome slot was taken or full: their outcome is unknown.
/// Not a loss; told so that its cause is known.
pub const SLOTS: u32 = 5;
/// Checks whose recomputed result differs from the kernel's (only when asked for).
pub const DISAGREE: u32 = 6;
/// Checks whose result was recomputed and compared (only when asked for).
pub const COMPARED: u32 = 7;
/// Needs decided without a check that could not be recorded.
pub const UNASKED: u32 = 8;
/// Entries that stayed in their table although userspace asked for them: the ring buffer was full.
/// Not a loss; it has to ask again.
pub const LEFT: u32 = 9;
/// Parts of tables that were gone through because userspace asked. Not a loss; fewer than it asked for
/// are a program that the kernel skipped, and it has to ask again.
pub const PARTS: u32 = 10;
/// How many counters there are.
pub const COUNT: u32 = 11;
