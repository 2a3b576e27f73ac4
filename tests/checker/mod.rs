//! What clients may see, and whether they did: operations, what they mean, and the checks of whole
//! histories. Used by the simulator and by the runner of real processes, so it knows neither: times
//! are microseconds of one clock that is right for both ends of every operation.

pub mod expiry;
pub mod graph;
pub mod history;
pub mod operation;
pub mod registers;
pub mod scans;
pub mod workload;

pub use history::History;
pub use operation::{Heard, Kind};
pub use workload::{Conversation, Role, Workload};

/// Something that must not happen.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which check found it.
    pub check: &'static str,
    pub what: String,
}

/// Of a check.
pub type Checked<T> = std::result::Result<T, Violation>;

pub fn violation<T>(check: &'static str, what: String) -> Checked<T> {
    Err(Violation { check, what })
}
