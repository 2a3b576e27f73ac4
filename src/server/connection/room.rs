//! Room that the connections of a thread share: each needs it only while it has its turn.
//!
//! Hundreds of connections with buffers of their own spread over more memory than the processor's
//! caches take, and each turn waits for it. What a short request is read into, and what its reply is
//! put into, is the same few kilobytes for all of them here; only what lasts longer than a turn is
//! copied to memory of the connection's own.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

/// What one read through the shared room brings at most.
pub(super) const SHARED_READ_BYTES: usize = 16 * 1024;
/// No more room for replies is kept.
const KEPT_REPLY_BYTES: usize = 4 * 1024;

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
        *replies = REPLIES.take().unwrap_or_default();
    }
}

/// Takes the room of replies that have all been written.
pub(super) fn give_back(replies: &mut BytesMut) {
    let mut room = std::mem::take(replies);
    if (1..=KEPT_REPLY_BYTES).contains(&room.capacity()) {
        room.clear();
        REPLIES.set(Some(room));
    }
}
