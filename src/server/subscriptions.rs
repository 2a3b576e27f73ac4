//! SUBSCRIBE, for Sentinel's events only: whoever asked by name or pattern is told of a new master.
//!
//! Other channels do not exist, and asking for one is refused: silence would be taken for quiet. Of
//! Sentinel's events only `+switch-master` ever comes; the others may be asked for, since libraries do.
//!
//! An event waits in the client's mailbox until its connection has a moment; a client that takes
//! none of them is parted from.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;
use resp::Reply;

use crate::command::glob;

/// The event of a new master. Its message: the master's name, old host and port, new host and port.
pub const SWITCH_MASTER: &str = "+switch-master";

/// Events that may wait for one client.
const WAITING_MAX: usize = 1024;

/// What Sentinel has events for. They are called so with `+` or `-` before; libraries ask for some
/// without.
const EVENTS: &[&str] = &[
    "convert-to-slave",
    "dup-sentinel",
    "elected-leader",
    "failover-detected",
    "failover-end",
    "failover-end-for-timeout",
    "failover-state-reconf-slaves",
    "failover-state-select-slave",
    "failover-state-send-slaveof-noone",
    "fix-slave-config",
    "monitor",
    "new-epoch",
    "no-good-slave",
    "odown",
    "reboot",
    "redirect-to-master",
    "replica-reconf-done",
    "replica-reconf-inprog",
    "replica-reconf-sent",
    "reset-master",
    "role-change",
    "sdown",
    "selected-slave",
    "sentinel",
    "sentinel-address-switch",
    "set",
    "slave",
    "slave-reconf-done",
    "slave-reconf-inprog",
    "slave-reconf-sent",
    "switch-master",
    "tilt",
    "try-failover",
];

/// Whether a channel may be asked for.
pub(super) fn is_channel(name: &[u8]) -> bool {
    let bare = name.strip_prefix(b"+").or_else(|| name.strip_prefix(b"-")).unwrap_or(name);
    EVENTS.iter().any(|event| event.as_bytes() == bare)
}

/// Whether a pattern may be asked for: one that some event matches.
pub(super) fn is_pattern(pattern: &[u8]) -> bool {
    let names = EVENTS.iter().flat_map(|event| ["+", "-", ""].map(|sign| format!("{sign}{event}")));
    names.into_iter().any(|name| glob::matches_name(pattern, &name))
}

/// What one client asked for, and what waits for it.
#[derive(Debug, Default)]
pub(super) struct Mailbox(Mutex<Subscribed>);

#[derive(Debug, Default)]
struct Subscribed {
    channels: BTreeSet<Bytes>,
    patterns: BTreeSet<Bytes>,
    waiting: VecDeque<Reply>,
}

/// By name or by pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Name,
    Pattern,
}

impl Subscribed {
    fn of(&mut self, by: By) -> &mut BTreeSet<Bytes> {
        match by {
            By::Name => &mut self.channels,
            By::Pattern => &mut self.patterns,
        }
    }

    fn count(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Posted {
    /// The client did not ask for it.
    No,
    Yes,
    /// The client takes nothing; it must go.
    Overflow,
}

impl Mailbox {
    /// Names and patterns, for CLIENT LIST.
    pub(super) fn counts(&self) -> (usize, usize) {
        let subscribed = self.0.lock();
        (subscribed.channels.len(), subscribed.patterns.len())
    }

    /// Adds a name; returns how many there are now.
    pub(super) fn subscribe(&self, by: By, name: &[u8]) -> usize {
        let mut subscribed = self.0.lock();
        // A copy, so that the request's whole buffer is not kept.
        subscribed.of(by).insert(Bytes::copy_from_slice(name));
        subscribed.count()
    }

    /// Removes a name; returns how many there are now.
    pub(super) fn unsubscribe(&self, by: By, name: &[u8]) -> usize {
        let mut subscribed = self.0.lock();
        subscribed.of(by).remove(name);
        subscribed.count()
    }

    /// All names.
    pub(super) fn names(&self, by: By) -> Vec<Bytes> {
        self.0.lock().of(by).iter().cloned().collect()
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        *self.0.lock() = Subscribed::default();
    }

    /// Puts an event in, once for the name and once for each pattern that matches, as Redis does.
    pub(super) fn post(&self, channel: &str, message: &str) -> Posted {
        let text = |text: &str| Reply::bulk(text.to_owned());
        let mut subscribed = self.0.lock();
        let mut events = Vec::new();
        if subscribed.channels.contains(channel.as_bytes()) {
            events.push(Reply::Push(vec![Reply::bulk("message"), text(channel), text(message)]));
        }
        for pattern in &subscribed.patterns {
            if glob::matches_name(pattern, channel) {
                let pattern = Reply::Bulk(pattern.clone());
                let parts = vec![Reply::bulk("pmessage"), pattern, text(channel), text(message)];
                events.push(Reply::Push(parts));
            }
        }
        if events.is_empty() {
            return Posted::No;
        }
        if subscribed.waiting.len() + events.len() > WAITING_MAX {
            return Posted::Overflow;
        }
        subscribed.waiting.extend(events);
        Posted::Yes
    }

    /// What waits, oldest first.
    pub(super) fn take(&self) -> VecDeque<Reply> {
        std::mem::take(&mut self.0.lock().waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sentinels_events_exist() {
        for name in ["+switch-master", "-sdown", "+sdown", "failover-end", "switch-master"] {
            assert!(is_channel(name.as_bytes()), "{name}");
        }
        for name in ["news", "", "+", "switch", "+news", "__keyspace@0__:a"] {
            assert!(!is_channel(name.as_bytes()), "{name}");
        }
        for pattern in ["*", "+*", "[-+]sdown", "+switch-*", "?switch-master", "switch-master"] {
            assert!(is_pattern(pattern.as_bytes()), "{pattern}");
        }
        for pattern in ["news.*", "__key*__:*", ""] {
            assert!(!is_pattern(pattern.as_bytes()), "{pattern}");
        }
    }

    #[test]
    fn an_event_comes_once_for_the_name_and_once_for_each_pattern() {
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.post(SWITCH_MASTER, "m"), Posted::No);
        assert_eq!(mailbox.subscribe(By::Name, b"+switch-master"), 1);
        assert_eq!(mailbox.subscribe(By::Pattern, b"*"), 2);
        assert_eq!(mailbox.subscribe(By::Pattern, b"-*"), 3);
        assert_eq!(mailbox.post(SWITCH_MASTER, "m"), Posted::Yes);
        assert_eq!(mailbox.take().len(), 2);
        assert_eq!(mailbox.take().len(), 0);
        for _ in 0..WAITING_MAX / 2 {
            assert_eq!(mailbox.post(SWITCH_MASTER, "m"), Posted::Yes);
        }
        assert_eq!(mailbox.post(SWITCH_MASTER, "m"), Posted::Overflow);
        mailbox.clear();
        assert_eq!(mailbox.counts(), (0, 0));
    }
}
