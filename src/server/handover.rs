//! What a client may ask about the mastership, and why it is not done.

/// Whom to hand over to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// The replica that is furthest.
    #[default]
    Any,
    /// The replica with this id, see [`super::topology::node_id`].
    Node(String),
    /// The node that was asked.
    Own,
}

/// A planned handover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandOver {
    /// To whom.
    pub target: Target,
    /// Also if the target has not caught up in time, which costs time and loses nothing; or, for
    /// [`Target::Own`], if no master is known.
    pub force: bool,
    /// How long the target may take to catch up; `None`: as long as it needs.
    pub timeout_ms: Option<u64>,
}

/// Why nothing is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandOverRefused {
    /// Another one has begun.
    #[error("a handover is under way")]
    UnderWay,
    /// Only the master can.
    #[error("this node is not the master")]
    NotMaster,
    /// There is nobody to ask.
    #[error("no master is known")]
    NoMaster,
    /// Nobody else answers and votes.
    #[error("no replica can be reached")]
    NoReplica,
    /// The target is not a replica that can be reached and votes.
    #[error("the target is not a replica")]
    NotReplica,
}
