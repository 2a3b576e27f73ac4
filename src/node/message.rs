//! What nodes say to each other: the protocol's messages, and what travels beside them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::paxos;

/// A message between two nodes, as the peers' connections carry it (postcard; the connection's
/// hello carries the version).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeMessage {
    /// The protocol's.
    Paxos(paxos::Message),
    /// The master's clock; its receiver estimates the log's clock by it.
    Stamp {
        /// Of its reign: a stamp that comes late, from an earlier one, sets no clock back.
        ballot: paxos::Ballot,
        /// Milliseconds since the epoch.
        stamp_ms: u64,
    },
    /// A head of this index was written here.
    HeadDigest(HeadName),
    /// Send me your newest head, or go on with the one that I have a part of.
    HeadRequest {
        /// What the sender has a part of.
        partial: Option<HeadName>,
        /// How much of it.
        offset_bytes: u64,
    },
    /// A part of a head.
    HeadChunk(HeadChunk),
    /// The sender wants to be the master: the leader of that ballot shall hand over to it. A node
    /// of an older version drops it as no message.
    AskForMastership {
        /// Whose leader is asked.
        ballot: paxos::Ballot,
    },
}

/// Names one head: heads of one index have one hash on all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadName {
    /// The state after this entry.
    pub index: paxos::Index,
    /// Over its rows.
    pub hash: [u8; 32],
}

/// A part of a head file. The files of one head may differ between nodes in blocks and footer, so
/// a transfer that changes its source starts over unless the sizes agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadChunk {
    /// Which head.
    pub name: HeadName,
    /// The whole file's.
    pub size_bytes: u64,
    /// Where in the file `bytes` begin.
    pub offset_bytes: u64,
    /// The part.
    pub bytes: Bytes,
}

impl NodeMessage {
    /// The bytes of a frame.
    pub fn encode(&self) -> Bytes {
        postcard::to_stdvec(self).expect("writing to memory cannot fail").into()
    }

    /// The message in a frame; `None`: not one of ours.
    pub fn decode(frame: &[u8]) -> Option<NodeMessage> {
        postcard::from_bytes(frame).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_numbers_and_unknown_ones_are_dropped() {
        let ask = NodeMessage::AskForMastership { ballot: paxos::Ballot::ZERO };
        for (number, message) in
            [(1, NodeMessage::Stamp { ballot: paxos::Ballot::ZERO, stamp_ms: 7 }), (5, ask)]
        {
            let frame = message.encode();
            assert_eq!(frame[0], number);
            assert_eq!(NodeMessage::decode(&frame), Some(message));
        }
        assert_eq!(NodeMessage::decode(&[6, 0, 0]), None);
    }
}
