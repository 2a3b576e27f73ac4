//! Room that the connections of a thread share: each needs it only while it has its turn.
//!
//! Hundreds of connections with buffers of their own spread over more memory than the processor's
//! caches take, and each turn waits for it. What the kernel puts bytes into, and what replies gather in,
//! is the same few kilobytes for all of them here. What has come is copied to memory of its own, which
//! the allocator has at hand and which goes with the requests that lie in it.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

/// What one read through the shared room brings at most.
pub(super) const SHARED_READ_BYTES: usize = 16 * 1024;
/// The room for replies. What has grown larger is not kept.
const REPLY_BYTES: usize = 4 * 1024;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; SHARED_READ_BYTES].into());
    /// `None`: somebody has borrowed it.
    static REPLIES: RefCell<Option<BytesMut>> = const { RefCell::new(None) };
}

/// Reads once what has arrived, up to [`SHARED_READ_BYTES`], and appends it to `into`. The number of
/// bytes; 0: there will be no more.
pub(super) fn read(
    stream: &mut TcpStream,
    into: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    READ.with_borrow_mut(|room| {
        let mut read = ReadBuf::new(room);
        // After a short read this knows that there is no more, and does not ask the kernel again.
        ready!(Pin::new(stream).poll_read(context, &mut read))?;
        into.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
}

/// Gives `replies`, which are empty, the room of this thread, unless they have some.
pub(super) fn borrow(replies: &mut BytesMut) {
    if replies.capacity() == 0 {
        *replies = REPLIES.take().unwrap_or_else(|| BytesMut::with_capacity(REPLY_BYTES));
    }
}

/// Takes the room of replies that have all been written.
pub(super) fn give_back(replies: &mut BytesMut) {
    let mut room = std::mem::take(replies);
    room.clear();
    // What was written does not count as room until it is reclaimed.
    if room.try_reclaim(REPLY_BYTES) && room.capacity() <= REPLY_BYTES {
        REPLIES.set(Some(room));
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, BufMut};

    use super::*;

    /// Where the replies of a turn with so many bytes were.
    fn turn(bytes: usize) -> *const u8 {
        let mut replies = BytesMut::new();
        borrow(&mut replies);
        assert!(replies.is_empty(), "nothing is left of others' replies");
        let place = replies.as_ptr();
        replies.put_bytes(b'r', bytes);
        replies.advance(bytes);
        give_back(&mut replies);
        assert_eq!(replies.capacity(), 0);
        place
    }

    #[test]
    fn replies_are_where_the_last_ones_were_and_large_ones_leave_nothing() {
        let place = turn(5);
        for bytes in [0, 9, 1, REPLY_BYTES, 100, REPLY_BYTES - 1, 5] {
            assert_eq!(turn(bytes), place, "{bytes} bytes");
        }
        for bytes in [REPLY_BYTES + 1, 1 << 20] {
            turn(bytes);
            assert!(REPLIES.take().is_none(), "{bytes} bytes are kept");
        }
        let mut without_room = BytesMut::new();
        let place = turn(5);
        give_back(&mut without_room);
        assert_eq!(turn(5), place, "what has no room takes none away");
    }

    #[test]
    fn two_at_the_same_time_have_room_of_their_own() {
        let (mut one, mut other) = (BytesMut::new(), BytesMut::new());
        borrow(&mut one);
        borrow(&mut other);
        one.put_slice(b"one");
        other.put_slice(b"other");
        assert_eq!((&one[..], &other[..]), (&b"one"[..], &b"other"[..]));
    }
}
