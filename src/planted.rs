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
    /// A promise leaves before it is on disk.
    PromiseBeforeDisk,
    /// A follower's vote leaves before the entries are on disk.
    AcceptedBeforeDisk,
    /// A candidate asks for promises before its own is on disk: after a power cut it takes the same
    /// ballot again.
    BallotReused,
    /// A follower takes entries of a ballot below its promise.
    AcceptsLowerBallot,
    /// A candidate leads with its own log, whatever the promises said.
    AdoptsOwnLog,
    /// A follower promises another ballot while the lease that it granted runs.
    PromisesDuringLease,
    /// A leader hands its lease back and goes on serving.
    ServesAfterRelease,
    /// A leader nominates its successor, whose grant then counts as handed back, and goes on serving.
    NominatesWhileServing,
    /// Updates that a handover held back are refused, and proposed all the same when this node leads
    /// again.
    HeldUpdatesProposedLater,
    /// One promise less than a majority elects a leader.
    MinorityElects,
    /// An entry is chosen although a zone does not have it.
    ZoneIgnored,
    /// A node that lost its disk takes the life it had before.
    LifeReused,
    /// Entries are applied before they are chosen.
    AppliesBeforeChosen,
    /// What was proposed by a master that lost its ballot is refused as if it had not been.
    RefusesWhatWasProposed,
    /// Whoever was master answers reads until told otherwise, whatever the clock says.
    LeaseEndIgnored,
    /// A read is answered from a view that was taken before the mastership.
    ViewOfEarlierMastership,
    /// A new master sets the log's clock by its wall clock, though its electors kept time.
    NewMasterTakesItsWallTime,
    /// The master's clock follows its wall clock at once instead of by a tenth.
    ClockSlewsAtOnce,
    /// A read takes a key for gone by the reader's clock, not by the log's.
    ExpiryByReadersClock,
    /// EXEC compares watched versions before it is proposed, not when it is applied.
    WatchComparedEarly,
    /// A reply that belongs to no request is sent.
    ReplyOfClockItemSent,
    /// The replies of one entry go to the wrong clients.
    RepliesSwapped,
    /// A read does not wait for the writes before it on its connection.
    ReadOvertakesWrite,
    /// The store's index is written with the first rows of a layer instead of the last.
    IndexBeforeRows,
    /// The store's index stays one behind its rows, so that an entry is applied again.
    IndexBehindRows,
    /// A head says that it is one entry further than its rows.
    HeadAheadOfItsRows,
    /// A head says that it is two entries behind its rows: who catches up by it applies them again.
    HeadBehindItsRows,
    /// What stays unanswered is not sent again.
    UnansweredNotResent,
    /// A follower is sent everything at once, however much is on its way to it.
    WindowIgnored,
    /// A lease counts as handed back whoever says so.
    ReleaseFromAnybody,
    /// A head that is found at the start counts as durable although its name may not be.
    HeadNameNotSynced,
    /// A failed sync is tried again and then believed.
    FailedSyncRetried,
    /// SCAN goes on from a cursor of another node.
    CursorOfAnotherNode,
    /// A large range that is deleted also hides keys that were set in it afterwards.
    RemovalHidesNewerKeys,
    /// Each step of a large range's removal leaves one row behind, which comes back at its end.
    RemovalSkipsRows,
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
