//! The driver: where the protocol, the transaction log, the store and the peers meet.

pub mod applier;
mod catch_up;
mod driver;
pub mod environment;
mod head_plan;
pub mod heads;
mod message;
mod proposals;
pub mod recovery;
mod refusal;
mod stamp;
mod status;

pub use applier::{Applier, Frozen};
pub use driver::{Driver, Start};
pub use environment::{Environment, Input, Outcome, Submission};
pub use message::{HeadChunk, HeadName, NodeMessage};
pub use refusal::Refusal;
pub use stamp::StampClock;
pub use status::{CatchUp, Role, Status};
