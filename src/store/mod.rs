//! The keyspace on disk: rows, the write-behind layer, and the engines below it.

pub mod keyspace;
pub mod rows;

pub use rows::{Rows, RowsMut, StoreError};
