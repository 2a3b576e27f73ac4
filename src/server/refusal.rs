//! Why a node does not answer a command, and what the client is told. Each first word is a promise
//! about whether the update was applied; see `docs/operations.md`.

use std::borrow::Cow;

use redis_protocol::redis_keyslot;
use resp::Reply;

use super::info::host_and_port;

/// Why a command was not answered. Only [`Refusal::Uncertain`] may hide an applied update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another node is the master.
    Moved {
        /// Where its clients connect, `host:port`.
        address: String,
    },
    /// No master is known, or it lost its quorum before proposing.
    ClusterDown(Cow<'static, str>),
    /// The queue is full, or a handover is under way.
    TryAgain(Cow<'static, str>),
    /// This node is not ready yet.
    Loading,
    /// Updates are refused: the disk is nearly full, or the cluster was set read-only.
    Misconf(Cow<'static, str>),
    /// It was proposed, and then mastership was lost or the deadline passed.
    Uncertain,
}

impl Refusal {
    /// The error for a command whose first key is `key`.
    pub fn reply(&self, key: Option<&[u8]>) -> Reply {
        let text: Cow<'static, str> = match self {
            Refusal::Moved { address } => {
                let slot = key.map_or(0, redis_keyslot);
                format!("MOVED {slot} {}", bare(address)).into()
            }
            Refusal::ClusterDown(reason) => format!("CLUSTERDOWN {reason}").into(),
            Refusal::TryAgain(reason) => format!("TRYAGAIN {reason}").into(),
            Refusal::Loading => "LOADING this node is not ready yet".into(),
            Refusal::Misconf(reason) => format!("MISCONF {reason}").into(),
            Refusal::Uncertain => {
                "UNCERTAIN the master was lost before it could tell: the update may have been \
                 applied, now or later, or not"
                    .into()
            }
        };
        Reply::Error(text)
    }
}

/// Valkey's redirect without a slot, for clients that say that they follow it.
pub(super) fn redirect(address: &str) -> Reply {
    Reply::error(format!("REDIRECT {}", bare(address)))
}

/// As Redis writes it: an IPv6 address without brackets; the port is behind the last colon.
fn bare(address: &str) -> String {
    let (host, port) = host_and_port(address);
    format!("{host}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moved_names_the_slot_that_cluster_clients_expect() {
        let moved = Refusal::Moved { address: "h:1".to_owned() };
        assert_eq!(moved.reply(Some(b"foo")), Reply::error("MOVED 12182 h:1"));
        assert_eq!(moved.reply(Some(b"{user}x")), moved.reply(Some(b"user")));
        assert_eq!(moved.reply(None), Reply::error("MOVED 0 h:1"));
        let moved = Refusal::Moved { address: "[::1]:4000".to_owned() };
        assert_eq!(moved.reply(None), Reply::error("MOVED 0 ::1:4000"));
    }
}
