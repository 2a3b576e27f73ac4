//! What several tests use.

pub mod map;
pub mod text;
