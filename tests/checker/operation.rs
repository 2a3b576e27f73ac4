//! The operations of clients: what is sent for each, and what its replies say.

use bytes::Bytes;
use resp::Reply;

/// Keys in one group of keys that are set once.
pub const ONCE_MEMBERS: u32 = 8;

/// What a client asks for. Keys that a run uses for long would grow; so most carry a number that
/// changes over time.
#[derive(Clone, Debug)]
pub enum Kind {
    /// APPEND of the operation's number.
    Append {
        key: u32,
    },
    /// APPEND to two lists in one transaction.
    AppendBoth {
        keys: (u32, u32),
    },
    /// In one transaction: GET of one list, APPEND to another.
    ReadAppend {
        keys: (u32, u32),
    },
    Get {
        key: u32,
    },
    /// MGET of two lists.
    GetBoth {
        keys: (u32, u32),
    },
    /// GET of two lists in one transaction that writes nothing.
    GetBothInTransaction {
        keys: (u32, u32),
    },
    /// MGET of two lists in READONLY mode: may be old, never torn.
    Stale {
        keys: (u32, u32),
    },
    Increment {
        key: u32,
    },
    Count {
        key: u32,
    },
    /// WATCH and GET.
    Watch {
        key: u32,
    },
    /// MULTI, SET, EXEC behind a WATCH that saw this.
    Swap {
        key: u32,
        seen: u64,
    },
    /// SET NX.
    SetAbsent {
        key: u32,
    },
    GetOnce {
        key: u32,
    },
    /// KEYS over a group of keys that are set once.
    Keys {
        group: u32,
    },
    /// AK.RANGE over the same.
    Range {
        group: u32,
    },
    /// SET of a register to the operation's number.
    Put {
        key: u32,
    },
    /// GET of a register.
    Look {
        key: u32,
    },
    /// GETSET of a register.
    Exchange {
        key: u32,
    },
    /// DEL of a register.
    Delete {
        key: u32,
    },
    /// MSET of all keys of a range to the operation's number: a register of many keys.
    FillRange {
        key: u32,
    },
    /// MGET of some keys of it, or all of them by AK.PREFIX.
    LookAtRange {
        key: u32,
        whole: bool,
    },
    /// The same in READONLY mode: may be old, never torn.
    StaleRange {
        key: u32,
    },
    /// AK.DELPREFIX or AK.DELRANGE of it.
    ClearRange {
        key: u32,
        by_prefix: bool,
    },
    /// SET PX, and the deadline that came of it, in one transaction.
    SetExpiring {
        ttl_ms: u64,
    },
    GetExpiring {
        set: usize,
    },
    /// SET of a key that only this operation sets, to be scanned.
    SetScanned {
        group: u32,
        member: u32,
    },
    /// DEL of such a key; nobody else deletes it.
    DeleteScanned {
        group: u32,
        member: u32,
    },
    /// One step of a SCAN over a group.
    Scan {
        scan: usize,
        group: u32,
        cursor: String,
        count: u32,
    },
}

/// What a client heard.
#[derive(Clone, Debug)]
pub enum Heard {
    /// UNCERTAIN, or the connection ended behind the request.
    Unknown,
    /// It certainly did nothing; where the master is, if that was said.
    Refused {
        master: Option<String>,
    },
    Reply(Reply),
}

/// First words of errors which promise that nothing was applied.
const REFUSALS: [&str; 5] = ["MOVED", "CLUSTERDOWN", "TRYAGAIN", "LOADING", "MISCONF"];

fn text(value: impl ToString) -> Bytes {
    Bytes::from(value.to_string())
}

/// A list's element is its operation's number in eight digits.
fn element(op: usize) -> Bytes {
    Bytes::from(format!("{op:08}"))
}

pub fn elements(value: &[u8]) -> Option<Vec<usize>> {
    if !value.len().is_multiple_of(8) {
        return None;
    }
    value.chunks(8).map(|chunk| std::str::from_utf8(chunk).ok()?.parse().ok()).collect()
}

/// The elements in a reply to GET; none for a key that is not there.
pub fn list_of(reply: &Reply) -> Option<Vec<usize>> {
    match reply {
        Reply::Null => Some(Vec::new()),
        Reply::Bulk(value) => elements(value),
        _ => None,
    }
}

/// The number in a reply; 0 for a key that is not there.
pub fn number(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::Null => Some(0),
        Reply::Integer(number) => u64::try_from(*number).ok(),
        Reply::Bulk(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        _ => None,
    }
}

pub fn list_key(key: u32) -> Bytes {
    Bytes::from(format!("list{key}"))
}

fn once_key(key: u32) -> Bytes {
    text(format!("once{}:{}", key / ONCE_MEMBERS, key % ONCE_MEMBERS))
}

/// The number of a key that is set once.
pub fn once_number(key: &[u8]) -> Option<u32> {
    let (group, member) = std::str::from_utf8(key).ok()?.strip_prefix("once")?.split_once(':')?;
    Some(group.parse::<u32>().ok()? * ONCE_MEMBERS + member.parse::<u32>().ok()?)
}

/// How many keys a range has: few are deleted within one entry, many by a removal whose rows go in
/// later ones.
pub fn range_keys(key: u32) -> u32 {
    if key.is_multiple_of(4) { 1100 } else { 40 }
}

fn range_key(key: u32, member: u32) -> Bytes {
    text(format!("range{key}:{member:04}"))
}

/// Members of a range that stand for all: its ends, and those around what one entry removes.
fn range_sample(key: u32) -> impl Iterator<Item = u32> {
    let last = range_keys(key) - 1;
    [0, 1, 249, 250, 251, 499, 500, 750, 999, 1000, 1001]
        .into_iter()
        .filter(move |it| *it < last)
        .chain([last])
}

/// What a range is according to a reply: empty, or all of it the number of its setter. `None`: it is
/// torn, or the reply makes no sense.
pub fn range_value(key: u32, whole: bool, reply: &Reply) -> Option<Option<u64>> {
    let Reply::Array(parts) = reply else { return None };
    let values: Vec<&Reply> = match whole {
        false if parts.len() == range_sample(key).count() => parts.iter().collect(),
        false => return None,
        true if parts.is_empty() => return Some(None),
        true if parts.len() != 2 * range_keys(key) as usize => return None,
        true => {
            let in_order = parts.iter().step_by(2).zip(0..);
            for (part, member) in in_order {
                if *part != Reply::Bulk(range_key(key, member)) {
                    return None;
                }
            }
            parts.iter().skip(1).step_by(2).collect()
        }
    };
    let first = values.first()?;
    if values.iter().any(|value| value != first) {
        return None;
    }
    match first {
        Reply::Null => Some(None),
        value => Some(Some(number(value)?)),
    }
}

fn scanned_key(group: u32, member: u32) -> Bytes {
    text(format!("scan{group}:{member}"))
}

/// The member of a group that a scanned key is.
pub fn scanned_member(group: u32, key: &[u8]) -> Option<u32> {
    let (of, member) = std::str::from_utf8(key).ok()?.strip_prefix("scan")?.split_once(':')?;
    if of.parse() == Ok(group) { member.parse().ok() } else { None }
}

fn call(name: &'static str, arguments: impl IntoIterator<Item = Bytes>) -> Vec<Bytes> {
    std::iter::once(Bytes::from_static(name.as_bytes())).chain(arguments).collect()
}

/// A transaction around commands. UNWATCH first: what an earlier WATCH saw is not meant here.
fn transaction(calls: impl IntoIterator<Item = Vec<Bytes>>) -> Vec<Vec<Bytes>> {
    let mut all = vec![call("UNWATCH", [])];
    all.extend(guarded(calls));
    all
}

fn guarded(calls: impl IntoIterator<Item = Vec<Bytes>>) -> Vec<Vec<Bytes>> {
    let mut all = vec![call("MULTI", [])];
    all.extend(calls);
    all.push(call("EXEC", []));
    all
}

/// The requests of an operation, to be sent together on one connection; each has one reply.
pub fn requests(op: usize, kind: &Kind) -> Vec<Vec<Bytes>> {
    let get = |key: u32| call("GET", [list_key(key)]);
    let append = |key: u32| call("APPEND", [list_key(key), element(op)]);
    let counter = |key: u32| text(format!("count{key}"));
    let guard = |key: u32| text(format!("guard{key}"));
    let register = |key: u32| text(format!("register{key}"));
    let one = |request| vec![request];
    match kind {
        Kind::Append { key } => one(append(*key)),
        Kind::AppendBoth { keys } => transaction([append(keys.0), append(keys.1)]),
        Kind::ReadAppend { keys } => transaction([get(keys.0), append(keys.1)]),
        Kind::Get { key } => one(get(*key)),
        Kind::GetBoth { keys } | Kind::Stale { keys } => {
            one(call("MGET", [list_key(keys.0), list_key(keys.1)]))
        }
        Kind::GetBothInTransaction { keys } => transaction([get(keys.0), get(keys.1)]),
        Kind::Increment { key } => one(call("INCR", [counter(*key)])),
        Kind::Count { key } => one(call("GET", [counter(*key)])),
        Kind::Watch { key } => vec![call("WATCH", [guard(*key)]), call("GET", [guard(*key)])],
        Kind::Swap { key, seen } => guarded([call("SET", [guard(*key), text(seen + 1)])]),
        Kind::SetAbsent { key } => one(call("SET", [once_key(*key), text(op), text("NX")])),
        Kind::GetOnce { key } => one(call("GET", [once_key(*key)])),
        Kind::Keys { group } => one(call("KEYS", [text(format!("once{group}:*"))])),
        Kind::Range { group } => {
            let bounds = [text(format!("[once{group}:")), text(format!("(once{group};"))];
            one(call("AK.RANGE", bounds))
        }
        Kind::Put { key } => one(call("SET", [register(*key), text(op)])),
        Kind::Look { key } => one(call("GET", [register(*key)])),
        Kind::Exchange { key } => one(call("GETSET", [register(*key), text(op)])),
        Kind::Delete { key } => one(call("DEL", [register(*key)])),
        Kind::FillRange { key } => {
            let pairs = (0..range_keys(*key)).flat_map(|it| [range_key(*key, it), text(op)]);
            one(call("MSET", pairs))
        }
        Kind::LookAtRange { key, whole: true } => {
            one(call("AK.PREFIX", [text(format!("range{key}:")), text("WITHVALUES")]))
        }
        Kind::LookAtRange { key, whole: false } | Kind::StaleRange { key } => {
            one(call("MGET", range_sample(*key).map(|member| range_key(*key, member))))
        }
        Kind::ClearRange { key, by_prefix: true } => {
            one(call("AK.DELPREFIX", [text(format!("range{key}:"))]))
        }
        Kind::ClearRange { key, by_prefix: false } => {
            let bounds = [text(format!("[range{key}:")), text(format!("(range{key};"))];
            one(call("AK.DELRANGE", bounds))
        }
        Kind::SetExpiring { ttl_ms } => {
            let key = text(format!("brief{op}"));
            let set = call("SET", [key.clone(), text(op), text("PX"), text(ttl_ms)]);
            transaction([set, call("PEXPIRETIME", [key])])
        }
        Kind::GetExpiring { set } => one(call("GET", [text(format!("brief{set}"))])),
        Kind::SetScanned { group, member } => {
            one(call("SET", [scanned_key(*group, *member), text(op)]))
        }
        Kind::DeleteScanned { group, member } => one(call("DEL", [scanned_key(*group, *member)])),
        Kind::Scan { group, cursor, count, .. } => {
            let pattern = text(format!("scan{group}:*"));
            let options = [text(cursor), text("MATCH"), pattern, text("COUNT"), text(count)];
            one(call("SCAN", options))
        }
    }
}

/// What the replies to an operation's requests say together.
pub fn heard(kind: &Kind, replies: Vec<Reply>) -> Heard {
    let read = matches!(kind, Kind::Watch { .. });
    let mut last = Reply::Null;
    for reply in replies {
        last = reply;
        // Both halves of a WATCH count. In a transaction only EXEC's reply does: it refuses when a
        // command could not be queued.
        if read && matches!(last, Reply::Error(_)) {
            break;
        }
    }
    let Reply::Error(error) = &last else { return Heard::Reply(last) };
    let mut words = error.split(' ');
    match words.next() {
        Some("UNCERTAIN") => Heard::Unknown,
        Some("EXECABORT") => Heard::Refused { master: None },
        Some("MOVED") => Heard::Refused { master: words.nth(1).map(str::to_owned) },
        Some(word) if REFUSALS.contains(&word) => Heard::Refused { master: None },
        _ => Heard::Reply(last),
    }
}
