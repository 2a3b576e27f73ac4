//! The first words on a connection between nodes.
//!
//! The dialer sends a magic number, the version of the peer protocol (u16, little endian) and a
//! frame with its [`Hello`]; the acceptor answers with a frame that holds an [`Answer`]. What comes
//! before the frames stays as it is in every version, so that versions can refuse each other.

use std::io;

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::paxos::{Incarnation, NodeId};

use super::config::PeersConfig;
use super::frame::{invalid, put_frame, read_frame, read_more};

const MAGIC: &[u8; 8] = b"ARAKOON\n";
const VERSION: u16 = 3;
const PREFIX_BYTES: usize = MAGIC.len() + 2;
/// A hello is small; until it is accepted a stranger gets no more memory than this.
const HELLO_BYTES_MAX: usize = 4096;

/// What a connection carries. Apart, so that neither a large entry nor a head delays a heartbeat:
/// a lease must not depend on how fast 16 MiB get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Channel {
    /// Messages of the protocol.
    Stream,
    /// Chunks of heads.
    Bulk,
    /// Heartbeats and their answers.
    Pulse,
}

impl Channel {
    /// Every channel, in the order of `Channel::position`.
    pub const ALL: [Channel; Channel::COUNT] = [Channel::Stream, Channel::Bulk, Channel::Pulse];
    /// How many there are.
    pub const COUNT: usize = 3;

    /// Its place in arrays with one element per channel.
    pub(super) fn position(self) -> usize {
        match self {
            Channel::Stream => 0,
            Channel::Bulk => 1,
            Channel::Pulse => 2,
        }
    }
}

/// Who dials, whom, and what for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) cluster_id: String,
    pub(super) fingerprint: u64,
    pub(super) from: NodeId,
    pub(super) from_name: String,
    pub(super) incarnation: Incarnation,
    pub(super) to: NodeId,
    pub(super) channel: Channel,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    Welcome,
    /// With the reason, for the dialer's log.
    Refused(String),
}

impl Hello {
    /// What we say when we dial a node.
    pub(super) fn ours(
        config: &PeersConfig,
        incarnation: Incarnation,
        to: NodeId,
        channel: Channel,
    ) -> Hello {
        Hello {
            cluster_id: config.cluster_id.clone(),
            fingerprint: config.fingerprint,
            from: config.node,
            from_name: config.name(config.node).to_owned(),
            incarnation,
            to,
            channel,
        }
    }

    /// Why we do not talk to that node, if so.
    pub(super) fn reason_to_refuse(&self, config: &PeersConfig) -> Option<String> {
        if self.cluster_id != config.cluster_id {
            return Some(format!(
                "it belongs to the cluster {:?}, this node to {:?}",
                self.cluster_id, config.cluster_id
            ));
        }
        let known = config.nodes.get(usize::from(self.from.0));
        if known.is_none_or(|peer| peer.name != self.from_name) || self.from == config.node {
            return Some(format!(
                "no other node of this config is {:?} at place {}",
                self.from_name, self.from.0
            ));
        }
        if self.to != config.node {
            return Some(format!(
                "it wants to talk to {}, this is {}",
                config.name(self.to),
                config.name(config.node)
            ));
        }
        if self.fingerprint != config.fingerprint {
            return Some("its config differs from this node's".to_owned());
        }
        None
    }
}

/// Sends our hello and waits for the answer; an error when we are refused.
pub(super) async fn greet(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    hello: &Hello,
) -> io::Result<()> {
    let mut out = BytesMut::new();
    out.extend_from_slice(MAGIC);
    out.put_u16_le(VERSION);
    put_message(hello, &mut out);
    stream.write_all(&out).await?;
    // The acceptor sends nothing but single signs of life after its answer, so what is read beyond
    // the answer need not be kept.
    let answer = read_frame(stream, &mut BytesMut::new(), HELLO_BYTES_MAX).await?;
    match postcard::from_bytes(&answer) {
        Ok(Answer::Welcome) => Ok(()),
        Ok(Answer::Refused(reason)) => {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("refused: {reason}")))
        }
        Err(error) => Err(invalid(format!("an answer that makes no sense: {error}"))),
    }
}

/// Waits for the hello of whoever dialed. Bytes after it stay in the buffer.
pub(super) async fn receive_hello(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<Hello> {
    loop {
        let known = buffer.len().min(MAGIC.len());
        if buffer[..known] != MAGIC[..known] {
            return Err(invalid("no node speaks like this".to_owned()));
        }
        if buffer.len() >= PREFIX_BYTES {
            break;
        }
        read_more(stream, buffer).await?;
    }
    let prefix = buffer.split_to(PREFIX_BYTES);
    let version = u16::from_le_bytes([prefix[8], prefix[9]]);
    if version != VERSION {
        let reason = format!("it speaks version {version} of the peer protocol, not {VERSION}");
        answer(stream, &Answer::Refused(reason.clone())).await?;
        return Err(invalid(reason));
    }
    let frame = read_frame(stream, buffer, HELLO_BYTES_MAX).await?;
    postcard::from_bytes(&frame)
        .map_err(|error| invalid(format!("a hello that makes no sense: {error}")))
}

pub(super) async fn answer(
    stream: &mut (impl AsyncWrite + Unpin),
    answer: &Answer,
) -> io::Result<()> {
    let mut out = BytesMut::new();
    put_message(answer, &mut out);
    stream.write_all(&out).await
}

fn put_message(message: &impl Serialize, out: &mut BytesMut) {
    let payload = postcard::to_allocvec(message).expect("plain data in memory always serializes");
    put_frame(&payload, out);
}
