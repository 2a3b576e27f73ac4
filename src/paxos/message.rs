//! What replicas say to each other.
//!
//! Any message may be lost, late, repeated or reordered. The sender's seat and incarnation travel
//! beside it (see [`super::Replica::receive`]).

use serde::{Deserialize, Serialize};

use super::settings::LEASE_US_MAX;
use super::types::{Ballot, Entry, Incarnation, Index, Position, Value};

/// A message of the protocol; `docs/paxos.md` has the table of who sends which when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// An empty node asks everyone whether there is a cluster.
    Hail,
    /// The answer to [`Message::Hail`], for that life of the asker only.
    Standing {
        /// Whom it answers; an answer to an earlier life says nothing about the present.
        to: Incarnation,
        /// The life of each seat; empty: the sender is empty as well.
        members: Vec<Incarnation>,
        /// The newest life of the asker's seat that the sender has heard from, admitted or not.
        newest: Incarnation,
    },
    /// Every configured node was empty: these lives found the cluster.
    Found {
        /// The life of each seat.
        members: Vec<Incarnation>,
    },
    /// Would you promise, if I asked? Changes nothing at the receiver.
    Canvass {
        /// Counts this sender's attempts, so that answers to earlier ones are not counted.
        attempt: u64,
    },
    /// The answer to [`Message::Canvass`].
    CanvassReply {
        /// The attempt it answers.
        attempt: u64,
        /// No lease granted by the sender is running, and it may vote.
        willing: bool,
        /// The highest round the sender has seen, so that the next ballot is above it.
        round: u64,
    },
    /// Phase 1a ("Paxos Made Simple", 2.2). The ballot is the nonce: each attempt has a fresh one.
    Prepare {
        /// The candidate's ballot.
        ballot: Ballot,
    },
    /// Phase 1b, sent once it is on disk. The log behind it does not change while the promise lasts.
    Promise {
        /// The ballot it answers.
        ballot: Ballot,
        /// Ranks the sender's log: first by this ballot, then by length.
        accepted: Ballot,
        /// The sender's last entry.
        last: Position,
        /// The sender's log starts after this index.
        base: Index,
        /// All entries up to here are chosen, as far as the sender knows.
        chosen: Index,
        /// See [`super::Replica::set_time`].
        time_ms: u64,
    },
    /// Not under that ballot.
    Reject {
        /// The ballot that was refused.
        ballot: Ballot,
        /// What the sender has promised.
        promised: Ballot,
    },
    /// A candidate asks the owner of the best log for what it lacks.
    Fetch {
        /// The candidate's ballot.
        ballot: Ballot,
        /// The first entry it wants.
        from: Index,
    },
    /// A chunk of the log whose owner promised.
    Suffix {
        /// The candidate's ballot.
        ballot: Ballot,
        /// The entry before the first of `entries`.
        previous: Position,
        /// Contiguous.
        entries: Vec<Entry>,
    },
    /// Phase 2a, for all entries after `previous`.
    Accept {
        /// The leader's ballot.
        ballot: Ballot,
        /// The entry before the first of `entries`.
        previous: Position,
        /// Contiguous; may be empty.
        entries: Vec<Entry>,
        /// All entries up to here are chosen.
        chosen: Index,
        /// The end of what the leader adopted when it was elected. Only a log that covers it may
        /// call itself accepted under this ballot.
        adopted: Index,
    },
    /// Phase 2b, cumulative, sent once it is on disk.
    Accepted {
        /// The leader's ballot.
        ballot: Ballot,
        /// The sender's log agrees with the leader's up to here, durably.
        index: Index,
        /// It is a vote: the sender may vote, and its log covers what the leader adopted.
        vote: bool,
    },
    /// The sender's log does not hold `previous` of an Accept.
    Gap {
        /// The leader's ballot.
        ballot: Ballot,
        /// The sender's chosen prefix, which every leader's log shares.
        chosen: Index,
    },
    /// The leader lives, and asks for its lease.
    Heartbeat {
        /// The leader's ballot.
        ballot: Ballot,
        /// The leader's own clock when it asked, echoed in the answer.
        sent_at_us: u64,
        /// How long the lease it asks for is.
        lease_us: u64,
        /// The leader's last entry.
        last: Index,
        /// All entries up to here are chosen.
        chosen: Index,
    },
    /// The answer to [`Message::Heartbeat`].
    HeartbeatReply {
        /// The leader's ballot.
        ballot: Ballot,
        /// The echo.
        sent_at_us: u64,
        /// The sender may vote and promises no other ballot until the lease ends by its own clock.
        granted: bool,
        /// Durable agreement with the leader's log, as in [`Message::Accepted`].
        index: Index,
        /// As in [`Message::Accepted`], which may have been lost.
        vote: bool,
    },
    /// What you lack is no longer in the leader's log: take a head.
    Behind {
        /// The leader's ballot.
        ballot: Ballot,
        /// As in [`Message::Accept`].
        adopted: Index,
    },
    /// The leader has stopped answering and never serves under this ballot again.
    Release {
        /// The ballot that is over.
        ballot: Ballot,
    },
    /// The receiver should campaign at once: its log is good enough and nobody leads.
    Nominate {
        /// The sender's ballot, which is over.
        ballot: Ballot,
    },
}

/// No time is beyond it, in ms since the epoch, and microseconds of it do not overflow.
const TIME_MS_MAX: u64 = 1 << 48;
/// No honest index or round comes near it, and sums with it do not overflow.
const COUNT_MAX: u64 = 1 << 62;

pub(super) fn is_plausible_index(index: Index) -> bool {
    index.0 <= COUNT_MAX
}

impl Message {
    /// Whether all numbers are such as an honest node may send. What is not is dropped unread.
    pub(super) fn is_plausible(&self, seats: usize) -> bool {
        let index = |index: &Index| is_plausible_index(*index);
        let ballot =
            |ballot: &Ballot| ballot.round <= COUNT_MAX && usize::from(ballot.node.0) < seats;
        let position = |position: &Position| index(&position.index) && ballot(&position.ballot);
        let life = |incarnation: &Incarnation| incarnation.0 < u64::MAX;
        let entry = |entry: &Entry| match &entry.value {
            Value::Admit { node, incarnation } => {
                position(&entry.position()) && usize::from(node.0) < seats && life(incarnation)
            }
            _ => position(&entry.position()),
        };
        match self {
            Message::Hail | Message::Canvass { .. } => true,
            Message::Standing { members, newest, .. } => {
                life(newest)
                    && (members.is_empty() || members.len() == seats)
                    && members.iter().all(life)
            }
            Message::Found { members } => members.len() == seats && members.iter().all(life),
            Message::CanvassReply { round, .. } => *round <= COUNT_MAX,
            Message::Promise { ballot: b, accepted, last, base, chosen, time_ms } => {
                *time_ms <= TIME_MS_MAX
                    && ballot(b)
                    && ballot(accepted)
                    && position(last)
                    && index(base)
                    && index(chosen)
            }
            Message::Reject { ballot: b, promised } => ballot(b) && ballot(promised),
            Message::Fetch { ballot: b, from } => ballot(b) && index(from),
            Message::Suffix { ballot: b, previous, entries } => {
                ballot(b) && position(previous) && entries.iter().all(entry)
            }
            Message::Accept { ballot: b, previous, entries, chosen, adopted } => {
                ballot(b)
                    && position(previous)
                    && entries.iter().all(entry)
                    && index(chosen)
                    && index(adopted)
            }
            Message::Heartbeat { ballot: b, lease_us, last, chosen, .. } => {
                ballot(b) && *lease_us <= LEASE_US_MAX && index(last) && index(chosen)
            }
            Message::Accepted { ballot: b, index: at, .. }
            | Message::Gap { ballot: b, chosen: at }
            | Message::HeartbeatReply { ballot: b, index: at, .. }
            | Message::Behind { ballot: b, adopted: at } => ballot(b) && index(at),
            Message::Prepare { ballot: b }
            | Message::Release { ballot: b }
            | Message::Nominate { ballot: b } => ballot(b),
        }
    }

    /// A short name for logs and traces.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Hail => "Hail",
            Message::Standing { .. } => "Standing",
            Message::Found { .. } => "Found",
            Message::Canvass { .. } => "Canvass",
            Message::CanvassReply { .. } => "CanvassReply",
            Message::Prepare { .. } => "Prepare",
            Message::Promise { .. } => "Promise",
            Message::Reject { .. } => "Reject",
            Message::Fetch { .. } => "Fetch",
            Message::Suffix { .. } => "Suffix",
            Message::Accept { .. } => "Accept",
            Message::Accepted { .. } => "Accepted",
            Message::Gap { .. } => "Gap",
            Message::Heartbeat { .. } => "Heartbeat",
            Message::HeartbeatReply { .. } => "HeartbeatReply",
            Message::Behind { .. } => "Behind",
            Message::Release { .. } => "Release",
            Message::Nominate { .. } => "Nominate",
        }
    }
}
