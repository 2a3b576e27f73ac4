//! Connections from clients: accepted by [`listener`], driven by [`connection`], listed in
//! [`registry`].

pub mod connection;
pub mod limits;
pub mod listener;
pub mod registry;

#[cfg(test)]
mod connection_tests;
