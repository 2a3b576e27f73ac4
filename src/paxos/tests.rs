//! What no single message may do to a replica, and what it must do after odd ones.

use proptest::prelude::*;

use super::*;

const SEATS: usize = 3;
const LEASE_US: u64 = 500_000;

fn settings(seat: u8) -> Settings {
    let mut settings = Settings::new(NodeId(seat), Incarnation(2), SEATS, LEASE_US);
    settings.cache_bytes_max = 200;
    settings
}

fn founded(seat: u8) -> Replica {
    let state =
        DurableState { members: vec![Incarnation(2); SEATS], voting: true, ..Default::default() };
    Replica::new(settings(seat), Recovered { state, ..Recovered::default() }, 1, 0)
}

/// Everything handed out is on disk; answers the messages.
fn settle(replica: &mut Replica, now_us: u64) -> Vec<(NodeId, Message)> {
    let mut messages = Vec::new();
    loop {
        let ready = replica.take_ready();
        messages.extend(ready.messages);
        match ready.saves.last() {
            Some(save) => replica.saved(now_us, save.id),
            None => return messages,
        }
    }
}

fn ballot(round: u64, seat: u8) -> Ballot {
    Ballot { round, node: NodeId(seat), incarnation: Incarnation(2) }
}

fn willing(replica: &mut Replica, now_us: u64, from: NodeId) -> Option<bool> {
    replica.receive(now_us, from, Incarnation(2), Message::Canvass { attempt: 1 });
    settle(replica, now_us).into_iter().find_map(|(_, message)| match message {
        Message::CanvassReply { willing, .. } => Some(willing),
        _ => None,
    })
}

/// An earlier life of the seat may have granted a lease a moment before it lost its disk. The new
/// one must wait that long before it promises, even if no heartbeat ever told it of a lease.
#[test]
fn a_wiped_node_waits_for_what_its_earlier_life_may_have_granted() {
    let life = Incarnation(3);
    let mut replica =
        Replica::new(Settings { incarnation: life, ..settings(2) }, Recovered::default(), 1, 0);
    let members = vec![Incarnation(2); SEATS];
    let leader = NodeId(0);
    let standing = Message::Standing { to: life, members, newest: Incarnation(0) };
    replica.receive(1_000, leader, Incarnation(2), standing);
    settle(&mut replica, 1_000);
    let reign = ballot(1, 0);
    let establish = Value::Establish { members: Vec::new() };
    let admit = Value::Admit { node: NodeId(2), incarnation: life };
    let entries = [establish, admit].into_iter().zip(1..);
    let accept = Message::Accept {
        ballot: reign,
        previous: Position::default(),
        entries: entries
            .map(|(value, index)| Entry { index: Index(index), ballot: reign, value })
            .collect(),
        chosen: Index(2),
        adopted: Index(0),
    };
    replica.receive(2_000, leader, Incarnation(2), accept);
    settle(&mut replica, 2_000);
    assert!(replica.state().voting, "admitted");
    assert_eq!(willing(&mut replica, 3_000, NodeId(1)), Some(false));
    assert_eq!(willing(&mut replica, 1_000 + LEASE_US + 1_000, NodeId(1)), Some(true));
}

/// The crash came after the admission was applied, but before the state that follows from it was
/// saved: nobody would admit this life again.
#[test]
fn an_admission_known_to_be_chosen_holds_after_a_restart() {
    let life = Incarnation(3);
    let state = DurableState { members: vec![Incarnation(2); SEATS], ..Default::default() };
    let recovered = Recovered {
        state,
        last: Index(5),
        chosen: Index(4),
        runs: vec![(Index(1), ballot(0, 0))],
        admissions: vec![(Index(4), NodeId(2), life), (Index(5), NodeId(1), life)],
        ..Recovered::default()
    };
    let replica = Replica::new(Settings { incarnation: life, ..settings(2) }, recovered, 1, 0);
    assert!(replica.state().voting);
    let members = [Incarnation(2), Incarnation(2), life];
    assert_eq!(replica.state().members, members, "the second one is not chosen yet");
}

/// The simulator found it: a leader had heard a later life of a seat, which lost its disk before it
/// was admitted. It dropped what the next one said, whose number was lower, and nobody told it.
#[test]
fn a_life_below_one_that_was_never_admitted_is_told_so() {
    let mut leader = founded(0);
    let mut now_us = 0;
    while !leader.is_leader() {
        now_us += 1_000;
        leader.tick(now_us);
        for (to, message) in settle(&mut leader, now_us) {
            let answer = match message {
                Message::Canvass { attempt } => {
                    Message::CanvassReply { attempt, willing: true, round: 0 }
                }
                Message::Prepare { ballot } => Message::Promise {
                    ballot,
                    accepted: Ballot::ZERO,
                    last: Position::default(),
                    base: Index(0),
                    chosen: Index(0),
                    time_ms: 0,
                },
                _ => continue,
            };
            leader.receive(now_us, to, Incarnation(2), answer);
        }
    }
    let (ballot, seat) = (leader.state().promised, NodeId(2));
    let reply = Message::HeartbeatReply {
        ballot,
        sent_at_us: now_us,
        granted: false,
        index: Index(0),
        vote: false,
    };
    leader.receive(now_us, seat, Incarnation(9), reply);
    leader.receive(now_us, seat, Incarnation(5), Message::Hail);
    let mut answers = settle(&mut leader, now_us).into_iter().filter(|(to, _)| *to == seat);
    let standing = answers.find(|(_, message)| matches!(message, Message::Standing { .. }));
    let (_, standing) = standing.expect("a Hail is answered");

    let life = Incarnation(5);
    let state = DurableState { members: vec![Incarnation(2); SEATS], ..Default::default() };
    let recovered = Recovered { state, ..Recovered::default() };
    let mut learner = Replica::new(Settings { incarnation: life, ..settings(2) }, recovered, 1, 0);
    learner.receive(1_000, NodeId(0), Incarnation(2), standing);
    let events = learner.take_ready().events;
    assert_eq!(events, [Event::Outlived { above: Incarnation(9) }]);
}

/// The simulator found it: a node with thousands of entries to apply was elected, and no one served
/// until it had applied them, although others had.
#[test]
fn a_node_that_catches_up_does_not_stand() {
    let mut replica = founded(1);
    replica.set_catching_up(true);
    let canvasses = |replica: &mut Replica, from_us: u64| {
        let times = (from_us..from_us + 20 * LEASE_US).step_by(10_000);
        times
            .flat_map(|now_us| {
                replica.tick(now_us);
                settle(replica, now_us)
            })
            .any(|(_, message)| matches!(message, Message::Canvass { .. }))
    };
    assert!(!canvasses(&mut replica, 0));
    assert_eq!(willing(&mut replica, 20 * LEASE_US, NodeId(0)), Some(true), "it votes");
    replica.set_catching_up(false);
    assert!(canvasses(&mut replica, 20 * LEASE_US));
}

/// Taking over a long log takes time, which the clock that an elector kept must not lose.
#[test]
fn the_time_that_electors_kept_goes_on_while_their_log_is_adopted() {
    let mut candidate = founded(0);
    let (now_us, theirs) = (10_000_000, ballot(1, 1));
    let last = Position { index: Index(1), ballot: theirs };
    let mut seen = Vec::new();
    for step in 0..4 {
        let at_us = now_us + step * 100_000;
        candidate.tick(at_us);
        let ready = candidate.take_ready();
        seen.extend(ready.events);
        if let Some(save) = ready.saves.last() {
            candidate.saved(at_us, save.id);
        }
        let mut messages = ready.messages;
        messages.extend(settle(&mut candidate, at_us));
        for (to, message) in messages {
            let answer = match message {
                Message::Canvass { attempt } => {
                    Message::CanvassReply { attempt, willing: true, round: 1 }
                }
                Message::Prepare { ballot } if to == NodeId(1) => {
                    let (base, chosen) = (Index(0), Index(0));
                    let accepted = theirs;
                    Message::Promise { ballot, accepted, last, base, chosen, time_ms: 5_000 }
                }
                Message::Fetch { ballot, .. } => {
                    let value = Value::Establish { members: Vec::new() };
                    let entries = vec![Entry { index: Index(1), ballot: theirs, value }];
                    let previous = Position::default();
                    Message::Suffix { ballot, previous, entries }
                }
                _ => continue,
            };
            candidate.receive(at_us, to, Incarnation(2), answer);
        }
    }
    let times = seen.iter().filter_map(|event| match event {
        Event::Elected { time_ms, .. } => Some(*time_ms),
        _ => None,
    });
    assert_eq!(times.collect::<Vec<_>>(), [5_100], "the suffix came a step after the promise");
}

/// A disk that read old entries for a follower answers when this node leads no more.
#[test]
fn a_late_read_does_not_end_a_campaign() {
    let mut replica = founded(0);
    let mut now_us = 0;
    while !settle(&mut replica, now_us).iter().any(|(_, m)| matches!(m, Message::Canvass { .. })) {
        now_us += 1_000;
        replica.tick(now_us);
    }
    let request = ReadRequest { reader: Reader::Follower(NodeId(1)), from: Index(1), to: Index(1) };
    replica.entries_read(now_us, request, Vec::new());
    let answer = Message::CanvassReply { attempt: 1, willing: true, round: 0 };
    replica.receive(now_us, NodeId(1), Incarnation(2), answer);
    let messages = settle(&mut replica, now_us);
    assert!(messages.iter().any(|(_, m)| matches!(m, Message::Prepare { .. })), "{messages:?}");
}

/// A ballot that one node holds is over when that node says so, not another.
#[test]
fn a_lease_is_handed_back_by_its_holder_only() {
    let mut replica = founded(1);
    let reign = ballot(1, 0);
    let heartbeat = Message::Heartbeat {
        ballot: reign,
        sent_at_us: 0,
        lease_us: LEASE_US,
        last: Index(0),
        chosen: Index(0),
    };
    replica.receive(1_000, NodeId(0), Incarnation(2), heartbeat);
    settle(&mut replica, 1_000);
    let release = Message::Release { ballot: reign };
    replica.receive(2_000, NodeId(2), Incarnation(2), release.clone());
    assert_eq!(willing(&mut replica, 2_000, NodeId(2)), Some(false));
    replica.receive(3_000, NodeId(0), Incarnation(2), release);
    assert_eq!(willing(&mut replica, 3_000, NodeId(2)), Some(true));
}

/// A head reaches a node that has just promised itself: there is no leader to be told.
#[test]
fn a_head_installed_between_reigns_is_told_to_nobody() {
    let mut replica = founded(0);
    let mut now_us = 0;
    replica.receive(
        0,
        NodeId(1),
        Incarnation(2),
        Message::CanvassReply { attempt: 0, willing: true, round: 7 },
    );
    let mut prepared = None;
    while prepared.is_none() {
        now_us += 1_000;
        replica.tick(now_us);
        let answer = Message::CanvassReply { attempt: 1, willing: true, round: 0 };
        replica.receive(now_us, NodeId(1), Incarnation(2), answer);
        prepared = settle(&mut replica, now_us).into_iter().find_map(|(_, m)| match m {
            Message::Prepare { ballot } => Some(ballot),
            _ => None,
        });
    }
    let refused = prepared.unwrap();
    let reject = Message::Reject { ballot: refused, promised: ballot(refused.round + 1, 1) };
    replica.receive(now_us, NodeId(1), Incarnation(2), reject);
    let position = Position { index: Index(9), ballot: ballot(3, 1) };
    assert!(replica.head_installed(now_us, position, &[Incarnation(2); SEATS]));
    let messages = settle(&mut replica, now_us);
    assert!(messages.iter().all(|(to, _)| *to != NodeId(0)), "{messages:?}");
    assert_eq!(replica.chosen(), Index(9));
}

/// Small numbers, which fit together now and then, and the edges of the range.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..6u64, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1), 1 => Just(1 << 62)]
}

fn any_index() -> impl Strategy<Value = Index> {
    number().prop_map(Index)
}

fn any_life() -> impl Strategy<Value = Incarnation> {
    prop_oneof![9 => Just(2), 2 => number()].prop_map(Incarnation)
}

fn any_node() -> impl Strategy<Value = NodeId> {
    prop_oneof![12 => 0..3u8, 1 => Just(3), 1 => Just(64), 1 => Just(255)].prop_map(NodeId)
}

fn any_ballot() -> impl Strategy<Value = Ballot> {
    (number(), any_node(), any_life()).prop_map(|(round, node, incarnation)| Ballot {
        round,
        node,
        incarnation,
    })
}

fn any_position() -> impl Strategy<Value = Position> {
    prop_oneof![
        Just(Position::default()),
        (any_index(), any_ballot()).prop_map(|(index, ballot)| Position { index, ballot })
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let members = prop::collection::vec(any_life(), 0..4);
    prop_oneof![
        members.prop_map(|members| Value::Establish { members }),
        Just(Value::Batch(bytes::Bytes::from_static(b"x"))),
        (any_node(), any_life()).prop_map(|(node, incarnation)| Value::Admit { node, incarnation }),
    ]
}

/// Mostly contiguous after `previous`.
fn any_entries(previous: Position) -> impl Strategy<Value = Vec<Entry>> {
    prop::collection::vec((any_ballot(), any_value(), any_index(), 0..20u8), 0..4).prop_map(
        move |parts| {
            let entry = |(place, (ballot, value, index, odd))| {
                let next = Index(previous.index.0.wrapping_add(place as u64 + 1));
                Entry { index: if odd == 0 { index } else { next }, ballot, value }
            };
            parts.into_iter().enumerate().map(entry).collect()
        },
    )
}

fn any_message() -> impl Strategy<Value = Message> {
    let members = || prop::collection::vec(any_life(), 0..5);
    let run = || any_position().prop_flat_map(|previous| (Just(previous), any_entries(previous)));
    prop_oneof![
        Just(Message::Hail),
        (any_life(), members(), any_life()).prop_map(|(to, members, newest)| Message::Standing {
            to,
            members,
            newest
        }),
        members().prop_map(|members| Message::Found { members }),
        number().prop_map(|attempt| Message::Canvass { attempt }),
        (number(), any::<bool>(), number()).prop_map(|(attempt, willing, round)| {
            Message::CanvassReply { attempt, willing, round }
        }),
        any_ballot().prop_map(|ballot| Message::Prepare { ballot }),
        (any_ballot(), any_ballot(), any_position(), any_index(), any_index()).prop_map(
            |(ballot, accepted, last, base, chosen)| {
                Message::Promise { ballot, accepted, last, base, chosen, time_ms: last.index.0 }
            }
        ),
        (any_ballot(), any_ballot())
            .prop_map(|(ballot, promised)| Message::Reject { ballot, promised }),
        (any_ballot(), any_index()).prop_map(|(ballot, from)| Message::Fetch { ballot, from }),
        (any_ballot(), run()).prop_map(|(ballot, (previous, entries))| Message::Suffix {
            ballot,
            previous,
            entries
        }),
        (any_ballot(), run(), any_index(), any_index()).prop_map(
            |(ballot, (previous, entries), chosen, adopted)| {
                Message::Accept { ballot, previous, entries, chosen, adopted }
            }
        ),
        (any_ballot(), any_index(), any::<bool>())
            .prop_map(|(ballot, index, vote)| Message::Accepted { ballot, index, vote }),
        (any_ballot(), any_index()).prop_map(|(ballot, chosen)| Message::Gap { ballot, chosen }),
        (any_ballot(), number(), number(), any_index(), any_index()).prop_map(
            |(ballot, sent_at_us, lease_us, last, chosen)| {
                Message::Heartbeat { ballot, sent_at_us, lease_us, last, chosen }
            }
        ),
        (any_ballot(), number(), any::<bool>(), any_index(), any::<bool>()).prop_map(
            |(ballot, sent_at_us, granted, index, vote)| {
                Message::HeartbeatReply { ballot, sent_at_us, granted, index, vote }
            }
        ),
        (any_ballot(), any_index())
            .prop_map(|(ballot, adopted)| Message::Behind { ballot, adopted }),
        any_ballot().prop_map(|ballot| Message::Release { ballot }),
        any_ballot().prop_map(|ballot| Message::Nominate { ballot }),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Message(NodeId, Incarnation, Message),
    /// A message that claims this node's own newest ballot, or the sender's as leader.
    Fitting(NodeId, Message),
    Pass(u64),
    Sync,
    Propose,
    Head(Position, Vec<Incarnation>),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any_node(), any_life(), any_message()).prop_map(|(n, l, m)| Step::Message(n, l, m)),
        6 => (any_node(), any_message()).prop_map(|(n, m)| Step::Fitting(n, m)),
        2 => (0..LEASE_US).prop_map(Step::Pass),
        3 => Just(Step::Sync),
        1 => Just(Step::Propose),
        1 => (any_position(), prop::collection::vec(any_life(), 2..4))
            .prop_map(|(position, members)| Step::Head(position, members)),
    ]
}

/// Makes a lie likely to be heard: the ballot is the one that the receiver works under.
fn fit(message: &mut Message, from: NodeId, current: Ballot, attempt: u64) {
    let leads = Ballot { node: from, ..current };
    match message {
        Message::Promise { ballot, .. }
        | Message::Suffix { ballot, .. }
        | Message::Reject { ballot, .. }
        | Message::Accepted { ballot, .. }
        | Message::Gap { ballot, .. }
        | Message::HeartbeatReply { ballot, .. } => *ballot = current,
        Message::Prepare { ballot }
        | Message::Fetch { ballot, .. }
        | Message::Accept { ballot, .. }
        | Message::Heartbeat { ballot, .. }
        | Message::Behind { ballot, .. }
        | Message::Release { ballot }
        | Message::Nominate { ballot } => *ballot = leads,
        Message::CanvassReply { attempt: answered, willing, .. } => {
            *answered = attempt;
            *willing = true;
        }
        _ => {}
    }
}

fn play(replica: &mut Replica, steps: Vec<Step>) {
    let (mut now_us, mut attempt) = (0, 0);
    for step in steps {
        match step {
            Step::Message(from, life, message) => replica.receive(now_us, from, life, message),
            Step::Fitting(from, mut message) => {
                fit(&mut message, from, replica.state().promised, attempt);
                replica.receive(now_us, from, Incarnation(2), message);
            }
            Step::Pass(span_us) => {
                now_us += span_us;
                replica.tick(now_us);
            }
            Step::Propose => drop(replica.propose(Value::Batch(bytes::Bytes::from_static(b"y")))),
            Step::Head(position, members) => {
                replica.head_installed(now_us, position, &members);
            }
            Step::Sync => {
                for (_, message) in settle(replica, now_us) {
                    if let Message::Canvass { attempt: newest } = message {
                        attempt = newest;
                    }
                }
            }
        }
        let ready = replica.take_ready();
        for request in ready.reads {
            replica.entries_read(now_us, request, Vec::new());
        }
        for (_, message) in &ready.messages {
            if let Message::Canvass { attempt: newest } = message {
                attempt = *newest;
            }
        }
        if let Some(save) = ready.saves.last() {
            replica.saved(now_us, save.id);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    /// Design rule 12: whatever peers say, a node does not panic.
    #[test]
    fn no_message_panics_a_replica(
        empty in any::<bool>(),
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let mut replica = match empty {
            true => Replica::new(settings(0), Recovered::default(), 1, 0),
            false => founded(0),
        };
        play(&mut replica, steps);
    }
}
