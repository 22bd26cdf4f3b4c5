//! kcap finds the Linux capabilities that a container image build needs, with evidence.
//!
//! The stages, each of which knows only the one before it: `launch` turns options into a running
//! build, `record` a build into a [`capture::Capture`], `interpret` a capture into a
//! [`report::Report`], [`combine`] several reports into a
//! matrix, `render` either into bytes. From the capture on, everything is pure
//! functions over owned data.

pub mod capture;
pub mod cli;
pub mod combine;
pub mod compare;
pub mod explain;
#[cfg(all(fuzzing, feature = "trace"))]
pub mod fuzzing;
pub mod host;
pub mod image;
pub mod input;
pub mod interpret;
#[cfg(feature = "trace")]
pub mod launch;
pub mod prove;
#[cfg(feature = "trace")]
pub mod record;
#[cfg(feature = "remote")]
pub mod remote;
pub mod render;
pub mod report;
#[cfg(feature = "trace")]
pub mod watch;
