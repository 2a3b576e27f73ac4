//! Multi-Paxos without IO.

mod types;

pub use types::{
    Ballot, DurableState, Entry, Incarnation, Index, NodeId, Position, Save, SaveId, Value,
};
