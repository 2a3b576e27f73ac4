//! CLIENT REPLY: whether a client hears its replies. It changes only while nothing is gathered,
//! so what is gathered never mixes replies that are sent and replies that are not.

use bytes::BytesMut;
use resp::Reply;

use super::Session;

/// Whether replies are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Replies {
    #[default]
    Sent,
    Off,
    /// CLIENT REPLY SKIP was just taken.
    SkipNext,
    /// Of the request that is being answered not.
    Skip,
    /// That request was taken; its outcome may still be out.
    Skipped,
}

impl Session {
    /// The one place where replies leave.
    pub(super) fn send(&self, reply: &Reply, out: &mut BytesMut) {
        if self.replies == Replies::Sent {
            reply.encode(self.protocol, out);
        }
    }

    /// A request is looked at that nothing before it holds up.
    pub(super) fn begin_replies(&mut self) {
        match self.replies {
            Replies::SkipNext => self.replies = Replies::Skip,
            Replies::Skipped => self.replies = Replies::Sent,
            Replies::Sent | Replies::Off | Replies::Skip => (),
        }
    }

    /// A request was taken. Whether it must be answered before another is taken.
    pub(super) fn end_replies(&mut self) -> bool {
        let skipped = self.replies == Replies::Skip;
        if skipped {
            self.replies = Replies::Skipped;
        }
        skipped && self.count > 0
    }
}
