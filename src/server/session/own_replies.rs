//! A bound on what a session itself answers within one EXEC.
//!
//! What comes from the store is bounded by allowances. These answers look at no key, but a few bytes ask
//! for tens of kilobytes (COMMAND DOCS, INFO), and all answers of an EXEC are in memory together.

use std::borrow::Cow;
use std::mem::size_of;

use resp::Reply;

/// Memory that such answers of one EXEC may take.
const BYTES_MAX: usize = 64 << 20;

const TOO_LONG: Reply =
    Reply::Error(Cow::Borrowed("ERR the replies of this transaction are too long; send fewer"));

/// What is left for the others of the same EXEC.
#[derive(Debug)]
pub(super) struct OwnReplies {
    left_bytes: usize,
}

impl Default for OwnReplies {
    fn default() -> OwnReplies {
        OwnReplies { left_bytes: BYTES_MAX }
    }
}

impl OwnReplies {
    /// The reply, or an error in its place.
    pub fn bound(&mut self, reply: Reply) -> Reply {
        match self.left_bytes.checked_sub(bytes_of(&reply)) {
            Some(left) => {
                self.left_bytes = left;
                reply
            }
            None => TOO_LONG,
        }
    }
}

/// Memory that it takes, but for what each reply takes.
fn bytes_of(reply: &Reply) -> usize {
    let all = |replies: &[Reply]| replies.iter().map(|it| size_of::<Reply>() + bytes_of(it)).sum();
    match reply {
        Reply::Bulk(bytes) | Reply::Verbatim(_, bytes) => bytes.len(),
        Reply::Simple(Cow::Owned(text)) | Reply::Error(Cow::Owned(text)) => text.len(),
        Reply::Array(replies) | Reply::Set(replies) | Reply::Push(replies) => all(replies),
        Reply::Map(pairs) => pairs
            .iter()
            .map(|(key, value)| 2 * size_of::<Reply>() + bytes_of(key) + bytes_of(value))
            .sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exceeds_the_bound_is_an_error_and_shorter_ones_go_on() {
        let long = || Reply::Array(vec![Reply::bulk(vec![1; BYTES_MAX / 3])]);
        let mut own = OwnReplies::default();
        for _ in 0..2 {
            assert_eq!(own.bound(long()), long());
        }
        assert_eq!(own.bound(long()), TOO_LONG);
        let pairs = || Reply::Map(vec![(Reply::bulk("key"), Reply::Integer(1))]);
        assert_eq!(own.bound(pairs()), pairs());
        assert_eq!(own.bound(Reply::OK), Reply::OK);
        let all: usize = (0..).take_while(|_| own.bound(pairs()) != TOO_LONG).count();
        assert!(all > 1000, "{all}");
    }
}
