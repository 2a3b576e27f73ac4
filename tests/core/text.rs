//! How messages, events and logs look in a trace.

use arakoon::paxos::{Ballot, Entry, Event, Incarnation, Message, NodeId, Position, Value};

pub fn node(name: &str) -> Result<NodeId, String> {
    match name.strip_prefix('n').and_then(|seat| seat.parse::<u8>().ok()) {
        Some(seat @ 1..) => Ok(NodeId(seat - 1)),
        _ => Err(format!("not a node: {name}")),
    }
}

pub fn value(value: &Value) -> String {
    match value {
        Value::Establish { .. } => "establish".into(),
        Value::Batch(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Admit { node, incarnation } => format!("admit({node} life {incarnation})"),
    }
}

/// As `3:a@1.n1`: index, value, ballot it was first proposed under.
pub fn entries<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> String {
    let texts: Vec<String> = entries
        .into_iter()
        .map(|entry| format!("{}:{}@{}", entry.index, value(&entry.value), ballot(entry.ballot)))
        .collect();
    format!("[{}]", texts.join(" "))
}

pub fn ballot(ballot: Ballot) -> String {
    match ballot.incarnation {
        _ if ballot == Ballot::ZERO => "0".into(),
        Incarnation(1) => ballot.to_string(),
        life => format!("{ballot}/{life}"),
    }
}

fn position(position: Position) -> String {
    format!("{}@{}", position.index, ballot(position.ballot))
}

pub fn lives(members: &[Incarnation]) -> String {
    let texts: Vec<String> = members.iter().map(Incarnation::to_string).collect();
    format!("[{}]", texts.join(" "))
}

pub fn message(message: &Message) -> String {
    let name = message.name();
    match message {
        Message::Hail => name.into(),
        Message::Standing { to, members } => format!("{name} to life {to}: {}", lives(members)),
        Message::Found { members } => format!("{name} {}", lives(members)),
        Message::Canvass { .. } => name.into(),
        Message::CanvassReply { willing, .. } => format!("{name} willing={willing}"),
        Message::Prepare { ballot: b } => format!("{name} {}", ballot(*b)),
        Message::Promise { ballot: b, accepted, last, base, chosen, .. } => format!(
            "{name} {} accepted={} last={} base={base} chosen={chosen}",
            ballot(*b),
            ballot(*accepted),
            position(*last)
        ),
        Message::Reject { ballot: b, promised } => {
            format!("{name} {} promised={}", ballot(*b), ballot(*promised))
        }
        Message::Fetch { ballot: b, from } => format!("{name} {} from={from}", ballot(*b)),
        Message::Suffix { ballot: b, previous, entries: list } => {
            format!("{name} {} after {} {}", ballot(*b), position(*previous), entries(list))
        }
        Message::Accept { ballot: b, previous, entries: list, chosen, adopted } => format!(
            "{name} {} after {} {} chosen={chosen} adopted={adopted}",
            ballot(*b),
            position(*previous),
            entries(list)
        ),
        Message::Accepted { ballot: b, index, vote } => {
            format!("{name} {} up to {index} vote={vote}", ballot(*b))
        }
        Message::Gap { ballot: b, chosen } => format!("{name} {} chosen={chosen}", ballot(*b)),
        Message::Heartbeat { ballot: b, last, chosen, .. } => {
            format!("{name} {} last={last} chosen={chosen}", ballot(*b))
        }
        Message::HeartbeatReply { ballot: b, granted, index, .. } => {
            format!("{name} {} granted={granted} up to {index}", ballot(*b))
        }
        Message::Behind { ballot: b, .. }
        | Message::Release { ballot: b }
        | Message::Nominate { ballot: b } => format!("{name} {}", ballot(*b)),
    }
}

pub fn event(event: &Event) -> String {
    match event {
        Event::Elected { ballot: b, establish, .. } => {
            format!("elected with {}, establishes at {establish}", ballot(*b))
        }
        Event::Deposed { ballot: b, reason } => format!("deposed from {}: {reason}", ballot(*b)),
        Event::HeadNeeded { from } => format!("needs a head from {from}"),
        Event::Outlived { above } => format!("outlived by life {above}"),
        Event::Joined { voting: true } => "joined, votes".into(),
        Event::Joined { voting: false } => "joined without a vote".into(),
        Event::Admitted => "admitted, votes".into(),
    }
}
