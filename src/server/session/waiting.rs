//! WAIT and WAITAOF.
//!
//! An acknowledged update is on the disks of a majority already, so a majority is counted without
//! asking; more are known when their acknowledgements have come back. What is waited for are all
//! entries applied here when the command is taken up, so at least those of this client.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use resp::Reply;

use super::{Session, Taken};
use crate::command::parse::{integer, integer_argument};
use crate::server::Backend;
use crate::server::shared::{TIMED_OUT, UNBLOCKED, WAITS};

/// How soon the nodes are looked at again: the first time, and at most later.
const PAUSE_MS: u64 = 2;
const PAUSE_MS_MAX: u64 = 50;

/// A request that waits for other nodes' disks.
pub(super) struct Waiting {
    /// The entry that must be on them.
    index: u64,
    /// When to give up, in the log's time; `None`: never.
    until_ms: Option<u64>,
    pause_ms: u64,
}

/// What WAIT and WAITAOF ask for.
struct Wanted {
    here: bool,
    others: i64,
    timeout_ms: u64,
}

impl Wanted {
    fn parse(args: &[Bytes], with_local: bool) -> Result<Wanted, Reply> {
        if !with_local {
            let (others, timeout_ms) = (integer_argument(&args[1])?, timeout(&args[2])?);
            return Ok(Wanted { here: false, others, timeout_ms });
        }
        let here = match integer_argument(&args[1])? {
            0 => false,
            1 => true,
            _ => {
                let text = "ERR value is out of range, value must between 0 and 1";
                return Err(Reply::error(text));
            }
        };
        let others = integer_argument(&args[2])?;
        if others < 0 {
            return Err(Reply::error("ERR value is out of range, must be positive"));
        }
        Ok(Wanted { here, others, timeout_ms: timeout(&args[3])? })
    }
}

pub(super) fn timeout(argument: &[u8]) -> Result<u64, Reply> {
    let number = integer(argument);
    let number =
        number.ok_or_else(|| Reply::error("ERR timeout is not an integer or out of range"))?;
    u64::try_from(number).map_err(|_| Reply::error("ERR timeout is negative"))
}

/// Whether this node and how many others have the entry at `index`, which is applied here, on disk.
fn synced(index: u64, backend: &dyn Backend) -> (bool, i64) {
    let synced = backend.synced();
    let here = synced.here >= index;
    let others = synced.others.iter().filter(|other| **other >= index).count();
    // What is applied is chosen, so a majority has it on disk; this node's own may be among them.
    let majority_without_this = synced.others.len().div_ceil(2);
    (here, others.max(majority_without_this) as i64)
}

fn reply(with_local: bool, (here, others): (bool, i64)) -> Reply {
    match with_local {
        true => Reply::Array(vec![Reply::Integer(i64::from(here)), Reply::Integer(others)]),
        false => Reply::Integer(others),
    }
}

impl Session {
    pub(super) fn wait(
        &mut self,
        args: &[Bytes],
        with_local: bool,
        out: &mut BytesMut,
        backend: &dyn Backend,
    ) -> Taken {
        if !self.gathered.is_empty() {
            return Taken::Later;
        }
        let wanted = match Wanted::parse(args, with_local) {
            Ok(wanted) => wanted,
            Err(error) => return self.emit(error, out),
        };
        let index = match self.applied_index(backend) {
            Ok(index) => self.waiting.as_ref().map_or(index, |waiting| waiting.index),
            Err(error) => return self.emit(error, out),
        };
        let found = synced(index, backend);
        let now_ms = backend.stamp_ms();
        let waiting = self.waiting.get_or_insert_with(|| Waiting {
            index,
            until_ms: (wanted.timeout_ms > 0).then(|| now_ms.saturating_add(wanted.timeout_ms)),
            pause_ms: PAUSE_MS,
        });
        let enough = found.1 >= wanted.others && (found.0 || !wanted.here);
        if enough || waiting.until_ms.is_some_and(|until_ms| until_ms <= now_ms) {
            return self.emit(reply(with_local, found), out);
        }
        let blocked = &self.signals.blocked;
        // It waits from now on, or did before and was perhaps told not to meanwhile.
        match blocked.compare_exchange(0, WAITS, Ordering::SeqCst, Ordering::SeqCst) {
            Err(TIMED_OUT) => return self.emit(reply(with_local, found), out),
            Err(UNBLOCKED) => {
                let text = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
                return self.emit(Reply::error(text), out);
            }
            Ok(_) | Err(_) => (),
        }
        let pause = Duration::from_millis(waiting.pause_ms);
        waiting.pause_ms = (waiting.pause_ms * 2).min(PAUSE_MS_MAX);
        Taken::Pause(pause)
    }

    /// The same without waiting.
    pub(super) fn count_synced(
        &mut self,
        args: &[Bytes],
        with_local: bool,
        backend: &dyn Backend,
    ) -> Reply {
        let count = Wanted::parse(args, with_local).and_then(|_| self.applied_index(backend));
        count.map_or_else(|error| error, |index| reply(with_local, synced(index, backend)))
    }

    /// The last entry applied here; refused where this node is not the master.
    fn applied_index(&self, backend: &dyn Backend) -> Result<u64, Reply> {
        let index = backend.with_rows(&mut |_| ());
        let index = index.and_then(|index| backend.lease(index).map(|()| index));
        index.map_err(|refusal| self.refuse(&super::for_a_read(refusal), None))
    }
}
