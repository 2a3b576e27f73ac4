//! The driver: where the protocol, the transaction log, the store and the peers meet.

pub mod applier;
mod applying;
mod awake;
mod catch_up;
mod chores;
pub mod clock;
mod clock_entries;
mod disk_watch;
mod drain_schedule;
mod draining;
mod driver;
pub mod environment;
mod handle;
mod handover;
mod head_plan;
pub mod heads;
#[cfg(test)]
mod heads_tests;
mod inbox;
mod mailbox;
mod message;
mod proposals;
pub mod recovery;
mod refusal;
pub mod runtime;
mod saving;
mod stamp;
mod status;
mod world;

pub use applier::{Applier, Attempt, Frozen};
pub use awake::KeepAwake;
pub use driver::{Driver, Start};
pub use environment::{Environment, Input, Outcome, Submission};
pub use handle::Handle;
pub use handover::{HandOverOrder, HandOverState};
pub use head_plan::HeadSize;
pub use inbox::Inbox;
pub use message::{HeadChunk, HeadName, NodeMessage};
pub use proposals::answer_within_us;
pub use refusal::Refusal;
pub use runtime::{Ended, Node, Outbox, Surroundings};
pub use stamp::StampClock;
pub use status::{CatchUp, Role, Status};
