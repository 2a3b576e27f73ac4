//! Commands and sessions against a node of one, without a log or sockets.

mod compatibility;
mod differential;
mod page;
mod read_ahead;
mod scripts;
mod sessions;
mod support;
