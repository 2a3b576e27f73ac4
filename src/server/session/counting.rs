//! Replies that come after their entry: the counts of large ranges that were deleted.
//!
//! The keys are gone when the entry is applied; how many there were is known when clock entries have
//! removed all their rows. Until then the session looks at the removal now and then. A command that
//! may be answered so is the last of its submission, so nothing stands in line behind it.

use std::time::Duration;

use bytes::BytesMut;
use resp::Reply;

use super::{Session, Step};
use crate::command::ranges::removal_of;
use crate::server::{Backend, Refusal};
use crate::store::StoreError;
use crate::store::keyspace::Removal;

/// How soon a removal is looked at again: the first time, and at most later.
const PAUSE_MS: u64 = 2;
const PAUSE_MS_MAX: u64 = 50;

/// How long nothing may be removed before the client is told that the count is not known: the log's
/// clock stands still, for example while the store's disk cannot take more.
const STALLED_MS: u64 = 5_000;

/// A reply that lacks counts.
pub(super) struct Counting {
    reply: Reply,
    pause_ms: u64,
    /// When rows were last removed, by the log's clock, and when that was seen.
    stepped_ms: Option<u64>,
    seen_ms: u64,
}

/// Whether counts are missing in a reply, or in the parts of a transaction's.
fn lacks_counts(reply: &Reply) -> bool {
    match reply {
        Reply::Array(parts) => parts.iter().any(|part| removal_of(part).is_some()),
        reply => removal_of(reply).is_some(),
    }
}

impl Session {
    /// Encodes a reply, or keeps it until it is complete.
    pub(super) fn encode_counted(&mut self, reply: Reply, out: &mut BytesMut) {
        assert!(self.counting.is_none(), "a reply behind one that is not complete");
        if lacks_counts(&reply) {
            let (pause_ms, stepped_ms, seen_ms) = (PAUSE_MS, None, 0);
            self.counting = Some(Counting { reply, pause_ms, stepped_ms, seen_ms });
        } else {
            self.send(&reply, out);
        }
    }

    /// Completes the reply that lacks counts, if there is one. `Some`: not yet.
    pub(super) fn go_on_counting(
        &mut self,
        out: &mut BytesMut,
        backend: &dyn Backend,
    ) -> Option<Step> {
        let Counting { mut reply, pause_ms, stepped_ms, mut seen_ms } = self.counting.take()?;
        let mut filled = Ok(None);
        let viewed = backend.with_rows(&mut |rows| {
            filled = fill(&mut reply, &mut |version| Removal::finished(rows, version))
                .and_then(|()| Removal::last_step_ms(rows));
        });
        // The count is of this mastership, or it does not matter: it never changes any more.
        let refused = viewed.and_then(|index| backend.lease(index)).is_err();
        if refused || matches!(filled, Err(StoreError::Replaced)) {
            // The keys are gone all the same, so this must not say that nothing was done.
            self.send(&Refusal::Uncertain.reply(None), out);
            return None;
        }
        let now_stepped_ms = match filled {
            Ok(stepped_ms) => stepped_ms,
            Err(error) => {
                self.store_failed(error, backend);
                return Some(Step::Close);
            }
        };
        let now_ms = backend.stamp_ms();
        if seen_ms == 0 || now_stepped_ms != stepped_ms {
            seen_ms = now_ms;
        }
        if lacks_counts(&reply) && now_ms < seen_ms.saturating_add(STALLED_MS) {
            let pause = Duration::from_millis(pause_ms);
            let pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
            let stepped_ms = now_stepped_ms;
            self.counting = Some(Counting { reply, pause_ms, stepped_ms, seen_ms });
            return Some(Step::Pause(pause));
        }
        give_up(&mut reply);
        self.send(&reply, out);
        None
    }
}

type Finished<'a> =
    dyn FnMut(crate::store::keyspace::Version) -> Result<Option<Option<u64>>, StoreError> + 'a;

fn parts_of(reply: &mut Reply) -> &mut [Reply] {
    match reply {
        Reply::Array(parts) => &mut parts[..],
        reply => std::slice::from_mut(reply),
    }
}

/// Says of counts that are not known that they are not.
fn give_up(reply: &mut Reply) {
    for part in parts_of(reply).iter_mut().filter(|part| removal_of(part).is_some()) {
        *part = Reply::error("UNCERTAIN the keys are gone, but were not counted in time");
    }
}

/// Puts in the counts that are known.
fn fill(reply: &mut Reply, finished: &mut Finished) -> Result<(), StoreError> {
    for part in parts_of(reply) {
        let Some(version) = removal_of(part) else { continue };
        match finished(version)? {
            Some(Some(count)) => *part = Reply::Integer(count as i64),
            Some(None) => (),
            // Finished so long ago that the count was dropped.
            None => *part = Refusal::Uncertain.reply(None),
        }
    }
    Ok(())
}
