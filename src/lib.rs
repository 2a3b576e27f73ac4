//! Arakoon: a replicated key-value store that puts consistency above anything else and speaks the
//! Redis protocol. The modules below are the map of the system; `docs/architecture.md` follows one
//! command through them.

pub mod cli;
pub mod command;
pub mod config;
pub mod disk;
pub mod head;
pub mod node;
pub mod paxos;
pub mod peers;
pub mod planted;
pub mod server;
pub mod store;
pub mod transaction_log;
