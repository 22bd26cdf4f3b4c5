//! Real builds by a real Kaniko.
