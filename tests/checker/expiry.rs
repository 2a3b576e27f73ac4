//! Keys with a lifetime: gone when the log's clock has passed their deadline, not before, not
//! after, and never back.

use std::collections::BTreeMap;

use resp::Reply;

use super::operation::number;
use super::{Checked, violation};

#[derive(Clone, Copy, Default)]
struct Key {
    /// When the log's clock ends it, in ms; known once its setter was answered.
    deadline_ms: Option<u64>,
    /// A reader or the writer knew before this time that it was there.
    there_us: Option<u64>,
    /// A reader knew before this time that it was gone.
    gone_us: Option<u64>,
}

/// All such keys, by the operation that set them.
#[derive(Default)]
pub struct Expiring {
    keys: BTreeMap<usize, Key>,
    clock_heard_ms: u64,
}

/// A read of one.
pub struct Get {
    pub op: usize,
    pub set: usize,
    /// Asked and heard.
    pub times: (u64, u64),
    /// Before it was asked the log's clock was known to show this.
    pub clock_asked_ms: u64,
    /// The log's clock shows at most this now.
    pub clock_ms: u64,
}

impl Expiring {
    /// The latest time of the log that any client heard of.
    pub fn clock_heard_ms(&self) -> u64 {
        self.clock_heard_ms
    }

    /// The reply to SET PX and PEXPIRETIME.
    pub fn take_set(
        &mut self,
        op: usize,
        ttl_ms: u64,
        reply: &Reply,
        heard_us: u64,
    ) -> Checked<()> {
        let deadline_ms = match reply {
            Reply::Array(parts) if parts.len() == 2 && parts[0] == Reply::OK => number(&parts[1]),
            _ => None,
        };
        let Some(deadline_ms) = deadline_ms.filter(|deadline_ms| *deadline_ms > ttl_ms) else {
            return violation("replies", format!("operation {op} got {reply:?}"));
        };
        self.clock_heard_ms = self.clock_heard_ms.max(deadline_ms - ttl_ms);
        let key = self.keys.entry(op).or_default();
        key.deadline_ms = Some(deadline_ms);
        key.there_us = Some(key.there_us.map_or(heard_us, |us| us.min(heard_us)));
        Ok(())
    }

    pub fn take_get(&mut self, get: Get, reply: &Reply) -> Checked<()> {
        let Get { op, set, times: (asked_us, heard_us), clock_asked_ms, clock_ms } = get;
        let key = self.keys.entry(set).or_default();
        match reply {
            Reply::Bulk(_) => {
                if key.gone_us.is_some_and(|gone_us| gone_us < asked_us) {
                    let what = format!("{op} sees what {set} set after it was seen to be gone");
                    return violation("expiry", what);
                }
                if key.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= clock_asked_ms) {
                    let what = format!(
                        "{op} sees what {set} set until {:?}; the log's clock was {clock_asked_ms}",
                        key.deadline_ms
                    );
                    return violation("expiry", what);
                }
                key.there_us = Some(key.there_us.map_or(heard_us, |us| us.min(heard_us)));
            }
            Reply::Null if key.there_us.is_some_and(|there_us| there_us < asked_us) => {
                if key.deadline_ms.is_some_and(|deadline_ms| clock_ms < deadline_ms) {
                    let what = format!(
                        "{op} does not see what {set} set until {:?}; the log's clock is {clock_ms}",
                        key.deadline_ms
                    );
                    return violation("expiry", what);
                }
                key.gone_us = Some(key.gone_us.map_or(heard_us, |us| us.min(heard_us)));
            }
            Reply::Null => {}
            other => return violation("replies", format!("operation {op} got {other:?}")),
        }
        Ok(())
    }
}
