//! What several tests use.

pub mod client;
pub mod map;
pub mod node;
pub mod random;
pub mod text;
