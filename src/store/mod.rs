//! The keyspace on disk: rows, the write-behind layer, and the engine below it.
//!
//! Truth is the transaction log and the head; this is an index over them that can be rebuilt at any
//! time. One entry at a time changes it ([`EntryRows`]); the changes of a whole entry become
//! visible at once, in the *active layer*, a sorted map in memory. A layer that is big enough is
//! *frozen*, and frozen layers are *drained* to the engine, oldest first, by whoever calls
//! [`Store::drain_step`]; the store has no threads. A layer that waits for a long-lived view goes to
//! a file when memory runs out. Reads look in the layers, from the newest down, then in the row
//! cache, then in the engine.
//!
//! Invariants:
//! - The engine's *marker* is the index whose state the engine holds, unless a layer is being
//!   drained; then the drain journal holds that layer whole until the engine has it for good.
//! - The marker never passes what the caller says is synced in the node's own transaction log, nor
//!   the index of a living [`FrozenView`].
//! - What the row cache says of a row is what the engine has, unless a layer holds the row; layers
//!   are looked at first, and one that goes leaves its rows in the cache.
//!
//! Left out: compression (sled's is slow, heads compress), expiry and counts (rows of the
//! keyspace), and any promise after a power cut (see [`Distrust`]).

mod belief;
mod bulk;
mod changes;
mod drain;
mod empty_ranges;
mod engine;
mod engine_fence;
mod engine_fjall;
mod engine_memory;
mod engine_sled;
mod entry;
mod entry_changes;
mod journal;
pub mod keyspace;
mod layers;
mod local_rows;
mod merge;
mod rebuild;
mod row_cache;
pub mod rows;
mod sealed;
mod shared;
mod small_file;
mod spill;
#[cfg(test)]
mod tests;
mod trust;
mod view;

pub use bulk::BULK_TAG;
pub use drain::{DrainLimits, DrainProgress};
pub use engine::{Change, Engine, EngineChoice, Ingest};
pub use engine_fence::engine_panic_is_caught;
pub use engine_fjall::FjallEngine;
pub use engine_memory::MemoryEngine;
pub use engine_sled::SledEngine;
pub use entry::EntryRows;
pub use local_rows::LOCAL_SPACE;
pub use rebuild::Rebuild;
pub use rows::{RowList, Rows, RowsMut, StoreError};
pub use shared::{Opened, Store, StoreOptions, StorePlace};
pub use small_file::{MemoryFile, RealFile, SmallFile};
pub use trust::{Distrust, boot_id};
pub use view::{FrozenView, ReadView};
