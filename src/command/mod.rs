//! What clients can ask for: the command table, what each command does, and how commands travel
//! through the log.
//!
//! A command is a row of the table ([`table::Spec`]) and a function, both in the file of its kind.
//! Reads get a [`crate::store::keyspace::View`]; writes are checked before they enter the log and
//! applied from it, on every node, by [`apply_batch`]. Check and application use one parser, so an
//! entry never holds what applying would refuse as malformed.

pub mod apply;
pub mod assertions;
pub mod batch;
pub mod bitfield;
pub mod bits;
pub mod charge;
pub mod compare;
pub mod connection;
pub mod counters;
pub mod describe;
pub mod discovery;
pub mod dump;
pub mod expiry;
pub mod glob;
pub mod keys;
pub mod lcs;
pub mod long_double;
pub mod moving;
pub mod multiple;
pub mod object;
pub mod outcome;
pub mod page;
pub mod parse;
pub mod ranges;
pub mod scan;
pub mod server;
pub mod set;
pub mod strings;
pub mod table;

pub use apply::{Applied, ApplyError, Replies, apply_batch};
pub use table::{Kind, Spec, find};
