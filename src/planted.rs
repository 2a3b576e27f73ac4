//! Deliberate faults, each of which the simulator must find: see `docs/testing.md`.
//!
//! Without the feature `planted-bugs`, and so in every release, [`plants`] is false and costs
//! nothing. With it, a fault is switched on for one thread: the simulator runs a whole cluster in
//! one thread, and several clusters beside each other. Every module may ask; none may depend on it.

/// The faults. Each names what the node then does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A half-synced follower takes the leader's ballot and so outranks a longer log.
    HalfSyncedOutranks,
    /// A node that lost its disk votes at once.
    WipedNodeVotes,
    /// The leader counts its own vote before its sync.
    VoteBeforeSync,
    /// A restarted node promises at once, though it may have granted a lease.
    NoWaitAfterRestart,
    /// The leader counts its lease from the answer instead of from the question.
    LeaseFromAnswer,
    /// The master answers before its own first entry is applied.
    AnswersBeforeEstablished,
    /// A late sync cuts off what was acknowledged after it.
    LateSyncTruncates,
    /// The transaction log takes damage in its middle for a torn end.
    DamageTakenForTornEnd,
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Switches a fault on for this thread, and any other off.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this fault is switched on. Always false in a release.
#[inline]
pub fn plants(bug: Bug) -> bool {
    #[cfg(feature = "planted-bugs")]
    return PLANTED.get() == Some(bug);
    #[cfg(not(feature = "planted-bugs"))]
    {
        let _ = bug;
        false
    }
}
