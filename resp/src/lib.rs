//! RESP, the Redis serialization protocol, versions 2 and 3: bytes <-> values, no sockets.

mod reply;

pub use reply::{Protocol, Reply};
