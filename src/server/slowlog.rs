//! SLOWLOG: the last commands that took longer than a threshold.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use resp::Reply;

/// Arguments of a command that are kept.
const ARGUMENTS_MAX: usize = 32;
/// Bytes of an argument that are kept.
const ARGUMENT_BYTES_MAX: usize = 128;

/// One slow command.
#[derive(Debug)]
struct Entry {
    id: i64,
    /// Since the epoch.
    time_s: u64,
    us: u64,
    arguments: Vec<Bytes>,
    address: String,
    name: String,
}

/// Newest first.
#[derive(Debug, Default)]
pub struct Slowlog {
    entries: Mutex<(VecDeque<Entry>, i64)>,
}

impl Slowlog {
    /// A command that took `us`; at most `keep` entries stay.
    pub(super) fn push(
        &self,
        time_s: u64,
        us: u64,
        args: &[Bytes],
        (address, name): (String, String),
        keep: usize,
    ) {
        let arguments = shortened(args);
        let mut entries = self.entries.lock();
        let (entries, next) = &mut *entries;
        entries.push_front(Entry { id: *next, time_s, us, arguments, address, name });
        *next += 1;
        entries.truncate(keep);
    }

    /// At most `keep` entries stay.
    pub(super) fn truncate(&self, keep: usize) {
        self.entries.lock().0.truncate(keep);
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.lock().0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all; numbers go on.
    pub(super) fn reset(&self) {
        self.entries.lock().0.clear();
    }

    /// The newest ones.
    pub(super) fn reply(&self, count: usize) -> Reply {
        let text = |text: &str| Reply::Bulk(Bytes::copy_from_slice(text.as_bytes()));
        let entry = |entry: &Entry| {
            Reply::Array(vec![
                Reply::Integer(entry.id),
                Reply::Integer(entry.time_s as i64),
                Reply::Integer(entry.us as i64),
                Reply::Array(entry.arguments.iter().cloned().map(Reply::Bulk).collect()),
                text(&entry.address),
                text(&entry.name),
            ])
        };
        Reply::Array(self.entries.lock().0.iter().take(count).map(entry).collect())
    }
}

/// Copies, so that the request's whole buffer is not kept.
fn shortened(args: &[Bytes]) -> Vec<Bytes> {
    let shorten = |argument: &Bytes| match argument.len() > ARGUMENT_BYTES_MAX {
        true => {
            let more = argument.len() - ARGUMENT_BYTES_MAX;
            let mut kept = argument[..ARGUMENT_BYTES_MAX].to_vec();
            kept.extend_from_slice(format!("... ({more} more bytes)").as_bytes());
            Bytes::from(kept)
        }
        false => Bytes::copy_from_slice(argument),
    };
    if args.len() <= ARGUMENTS_MAX {
        return args.iter().map(shorten).collect();
    }
    let kept = ARGUMENTS_MAX - 1;
    let more = format!("... ({} more arguments)", args.len() - kept);
    args[..kept].iter().map(shorten).chain([Bytes::from(more)]).collect()
}
