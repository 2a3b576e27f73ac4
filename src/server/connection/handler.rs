//! What a connection asks of the session behind it.

use std::collections::VecDeque;

use bytes::BytesMut;
use resp::{DecodeError, Protocol, Request};

use super::super::places::Place;

/// What a handler wants next.
#[derive(Debug)]
pub enum Step<Ticket> {
    /// Nothing to wait for. Requests left in the queue are handled after the replies so far are
    /// written; a handler leaves them there when `out` has passed
    /// [`crate::server::limits::OUTPUT_TURN_BYTES`].
    Idle,
    /// Wait for this, call [`ConnectionHandler::resume`], then `handle` again.
    Wait(Ticket),
    /// Write the replies, then close.
    Close,
}

/// The session behind a connection: a plain state machine. Dropped when the connection ends, also
/// while it waits.
pub trait ConnectionHandler: Send + 'static {
    /// Ready once the handler can go on.
    type Ticket: Future<Output: Send> + Send + Unpin + 'static;

    /// Takes requests from the front, in order, and appends replies to `out`; stops early when it
    /// must wait. Called when requests are there, and after every `resume`, then perhaps with an
    /// empty queue: it only goes on with what it has begun.
    fn handle(
        &mut self,
        requests: &mut VecDeque<Request>,
        out: &mut BytesMut,
    ) -> Step<Self::Ticket>;

    /// The outcome of what the last `handle` waited for.
    fn resume(&mut self, outcome: <Self::Ticket as Future>::Output, out: &mut BytesMut);

    /// Whether all that it is told without having asked is little.
    fn may_leave_workers(&self) -> bool {
        true
    }

    /// From now on it is called there.
    fn moved_to(&mut self, _place: Place) {}

    /// Bytes were read from the client.
    fn on_read(&self, _bytes: usize) {}

    /// Bytes were written to the client.
    fn on_written(&self, _bytes: usize) {}

    /// Appends what the client is told without having asked just now. Called between turns, after
    /// [`crate::server::registry::Client::call`].
    fn deliver(&mut self, _out: &mut BytesMut) {}

    /// The client sent what cannot be understood, after requests that all have been handled. The
    /// connection is closed after the reply.
    fn on_decode_error(&mut self, error: DecodeError, out: &mut BytesMut) {
        error.reply().encode(Protocol::Resp2, out);
    }
}
