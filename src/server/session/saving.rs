//! SAVE: asks for a head, and waits until this node has it.

use std::time::Duration;

use bytes::BytesMut;
use resp::Reply;

use super::outcomes::for_a_read;
use super::{Session, Taken};
use crate::server::{Backend, NodeInfo};

/// How soon SAVE looks again whether the head is there.
const SAVE_PAUSE: Duration = Duration::from_millis(20);
/// SAVE asks again when no head was being written for so long: the node may not have led for a
/// moment, or may have had no room. It is also ample for a head that is written to become known.
const SAVE_ASKS_EVERY_US: u64 = 5_000_000;
/// SAVE gives up when no head was written for so long, and none is being written.
const SAVE_PATIENCE_US: u64 = 60_000_000;
/// SAVE gives up when so many ended that were being written, and none is there.
const SAVE_ENDED_MAX: u32 = 3;
impl Session {
    /// SAVE: asks until this node has a head of a state that includes all before.
    pub(super) fn save(&mut self, out: &mut BytesMut, backend: &dyn Backend) -> Taken {
        if !self.gathered.is_empty() {
            return Taken::Later;
        }
        let permitted = match self.saving {
            None => backend.write_head(),
            Some(_) => backend.may_write(),
        };
        if let Err(refusal) = permitted {
            self.saving = None;
            return self.emit(for_a_read(refusal).reply(None), out);
        }
        let (info, now_us) = (backend.info(), self.shared.now_us());
        let saving = self.saving.get_or_insert_with(|| Saving::new(&info, now_us));
        let reply = match saving.look(&info, now_us) {
            SaveStep::Wait => return Taken::Pause(SAVE_PAUSE),
            // Whether it may is looked at anew in the next round.
            SaveStep::Ask => match backend.write_head() {
                Ok(()) => return Taken::Pause(SAVE_PAUSE),
                Err(refusal) => for_a_read(refusal).reply(None),
            },
            SaveStep::Done => Reply::OK,
            SaveStep::GiveUp => Reply::error(
                "ERR The head could not be written. See the log of this node, and the free space of \
                 its disk",
            ),
        };
        self.saving = None;
        self.emit(reply, out)
    }
}

/// A SAVE that has asked for a head.
#[derive(Debug)]
pub(super) struct Saving {
    /// The head is to reach this index.
    wanted: u64,
    /// The newest head when it was looked at last.
    newest: u64,
    /// When this SAVE began, or the newest head came since.
    since_us: u64,
    /// When it last asked, or saw that one is being written.
    quiet_since_us: u64,
    in_progress: bool,
    /// How many have ended since the newest came.
    ended: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum SaveStep {
    Wait,
    Ask,
    Done,
    GiveUp,
}

impl Saving {
    fn new(info: &NodeInfo, now_us: u64) -> Saving {
        Saving {
            wanted: info.applied_index,
            newest: info.head_index,
            since_us: now_us,
            quiet_since_us: now_us,
            in_progress: false,
            ended: 0,
        }
    }

    fn look(&mut self, info: &NodeInfo, now_us: u64) -> SaveStep {
        if info.head_index >= self.wanted {
            return SaveStep::Done;
        }
        let was_in_progress = std::mem::replace(&mut self.in_progress, info.head_in_progress);
        if info.head_index != self.newest {
            // One that had been asked for before; while it was to come, none else was.
            self.newest = info.head_index;
            (self.since_us, self.quiet_since_us) = (now_us, now_us);
            self.ended = 0;
            return SaveStep::Ask;
        }
        if info.head_in_progress {
            self.quiet_since_us = now_us;
            return SaveStep::Wait;
        }
        self.ended += u32::from(was_in_progress);
        if self.ended >= SAVE_ENDED_MAX {
            return SaveStep::GiveUp;
        }
        if now_us.saturating_sub(self.quiet_since_us) < SAVE_ASKS_EVERY_US {
            return SaveStep::Wait;
        }
        if now_us.saturating_sub(self.since_us) >= SAVE_PATIENCE_US {
            return SaveStep::GiveUp;
        }
        self.quiet_since_us = now_us;
        SaveStep::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    fn node(head_index: u64, head_in_progress: bool) -> NodeInfo {
        NodeInfo { applied_index: 10, head_index, head_in_progress, ..NodeInfo::default() }
    }

    #[test]
    fn save_asks_again_and_gives_up_when_no_head_comes() {
        let mut saving = Saving::new(&node(4, false), 0);
        let mut asked = Vec::new();
        let gave_up_s = (0..1000).find(|second| match saving.look(&node(4, false), second * S) {
            SaveStep::Ask => {
                asked.push(*second);
                false
            }
            step => step == SaveStep::GiveUp,
        });
        assert_eq!(gave_up_s, Some(60));
        assert_eq!(asked, (5..60).step_by(5).collect::<Vec<_>>());
    }

    #[test]
    fn save_has_patience_while_a_head_is_being_written() {
        let mut saving = Saving::new(&node(4, false), 0);
        for second in 0..1000 {
            assert_eq!(saving.look(&node(4, true), second * S), SaveStep::Wait);
        }
        assert_eq!(saving.look(&node(4, false), 1000 * S), SaveStep::Wait, "not known yet");
        assert_eq!(saving.look(&node(10, false), 1001 * S), SaveStep::Done);
    }

    #[test]
    fn save_asks_at_once_when_an_earlier_head_is_there() {
        let mut saving = Saving::new(&node(4, true), 0);
        assert_eq!(saving.look(&node(4, true), 100 * S), SaveStep::Wait);
        assert_eq!(saving.look(&node(7, false), 101 * S), SaveStep::Ask);
        assert_eq!(saving.look(&node(7, false), 102 * S), SaveStep::Wait);
        assert_eq!(saving.look(&node(10, false), 103 * S), SaveStep::Done);
    }

    #[test]
    fn save_gives_up_when_heads_fail_one_after_the_other() {
        let mut saving = Saving::new(&node(4, false), 0);
        for round in 0..3 {
            assert_eq!(saving.look(&node(4, true), 2 * round * S), SaveStep::Wait);
            let step = saving.look(&node(4, false), (2 * round + 1) * S);
            assert_eq!(step, if round < 2 { SaveStep::Wait } else { SaveStep::GiveUp });
        }
    }
}
