//! What clients ask for, one operation after the other.

use fastrand::Rng;

use super::history::{History, Outcome};
use super::operation::{Kind, ONCE_MEMBERS, number};

/// Keys of lists and registers change this often, so that values stay small and searches short.
const EPOCH_US: u64 = 5_000_000;
/// Groups of keys that are set once, and of keys that are scanned, change this often.
const GROUP_US: u64 = 3_000_000;

/// What a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Talks to the master.
    Main,
    /// Stays with one node in READONLY mode and reads its state.
    Stale,
}

/// What one client's next operation depends on.
#[derive(Clone, Debug)]
pub struct Conversation {
    pub role: Role,
    /// What a WATCH on the present connection saw, to be followed by its EXEC.
    watched: Option<(u32, u64)>,
    scan: Option<usize>,
}

impl Conversation {
    pub fn new(role: Role) -> Conversation {
        Conversation { role, watched: None, scan: None }
    }

    /// The connection is another one now: it watches nothing.
    pub fn reconnected(&mut self) {
        self.watched = None;
    }

    /// Takes note of what came of an operation.
    pub fn heard(&mut self, history: &History, op: usize, rng: &mut Rng) {
        let op = &history.ops[op];
        if let (Kind::Watch { key }, Outcome::Reply(reply)) = (&op.kind, &op.outcome)
            && let Some(seen) = number(reply)
        {
            self.watched = (rng.u8(..10) < 8).then_some((*key, seen));
        }
    }
}

/// How operations are chosen.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Lists, and registers, at a time.
    pub lists: u32,
    /// Whether ranges of keys are filled and deleted as well. They are large.
    pub ranges: bool,
}

impl Workload {
    pub fn choose(
        &self,
        now_us: u64,
        conversation: &mut Conversation,
        history: &mut History,
        rng: &mut Rng,
    ) -> Kind {
        let epoch = (now_us / EPOCH_US) as u32 * 100;
        let key = epoch + rng.u32(..self.lists);
        let other = epoch + (key - epoch + 1) % self.lists;
        let keys = if key < other { (key, other) } else { (other, key) };
        if conversation.role == Role::Stale {
            if self.ranges && rng.u8(..4) == 0 {
                return Kind::StaleRange { key: self.range(now_us, rng) };
            }
            return Kind::Stale { keys };
        }
        if let Some((key, seen)) = conversation.watched.take() {
            return Kind::Swap { key, seen };
        }
        if self.ranges && rng.u8(..30) == 0 {
            let key = self.range(now_us, rng);
            return match rng.u8(..8) {
                0..2 => Kind::FillRange { key },
                2..5 => Kind::LookAtRange { key, whole: rng.u8(..4) == 0 },
                _ => Kind::ClearRange { key, by_prefix: rng.bool() },
            };
        }
        let group = (now_us / GROUP_US) as u32;
        let once = group * ONCE_MEMBERS + rng.u32(..ONCE_MEMBERS);
        match rng.u8(..34) {
            0..4 => Kind::Append { key },
            4..7 => Kind::AppendBoth { keys },
            7 => Kind::ReadAppend { keys: if rng.bool() { keys } else { (keys.1, keys.0) } },
            8..10 => Kind::Get { key },
            10..12 => Kind::GetBoth { keys },
            12 => Kind::GetBothInTransaction { keys },
            13 => Kind::Increment { key: rng.u32(..2) },
            14 => Kind::Count { key: rng.u32(..2) },
            15..18 => Kind::Watch { key: rng.u32(..2) },
            18 => Kind::SetAbsent { key: once },
            19 => Kind::GetOnce { key: once },
            20 if rng.bool() => Kind::Keys { group },
            20 => Kind::Range { group },
            21 | 22 => Kind::SetExpiring { ttl_ms: rng.u64(1..3_000) },
            23 => match history.expiring.len() {
                0 => Kind::SetExpiring { ttl_ms: rng.u64(1..3_000) },
                count => {
                    let set = rng.usize(count.saturating_sub(10)..count);
                    Kind::GetExpiring { set: history.expiring[set] }
                }
            },
            24 => Kind::Put { key },
            25 => Kind::Look { key },
            26 => Kind::Exchange { key },
            27 => Kind::Delete { key },
            28 | 29 => Kind::SetScanned { group, member: history.scans.new_member(group) },
            30 => match history.scans.deletable(group, |count| rng.usize(..count)) {
                Some(member) => Kind::DeleteScanned { group, member },
                None => Kind::SetScanned { group, member: history.scans.new_member(group) },
            },
            _ => self.scan(now_us, group, conversation, history, rng),
        }
    }

    /// A range of the present: some are large.
    fn range(&self, now_us: u64, rng: &mut Rng) -> u32 {
        (now_us / EPOCH_US) as u32 * 4 + rng.u32(..2)
    }

    fn scan(
        &self,
        now_us: u64,
        group: u32,
        conversation: &mut Conversation,
        history: &mut History,
        rng: &mut Rng,
    ) -> Kind {
        let count = rng.u32(1..6);
        let next = conversation.scan.and_then(|scan| Some((scan, history.scans.next_step(scan)?)));
        let (scan, (group, cursor)) =
            next.unwrap_or_else(|| (history.scans.begin(group, now_us), (group, "0".to_owned())));
        conversation.scan = Some(scan);
        Kind::Scan { scan, group, cursor, count }
    }
}
