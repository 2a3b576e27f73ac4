//! Arakoon's own questions to a node.

use bytes::Bytes;
use resp::Reply;

use super::Session;
use crate::command::parse::integer_argument;
use crate::server::{Backend, NodeInfo, Refusal};

impl Session {
    /// AK.TXID: the index of this node's state. Whatever this connection was answered came from it
    /// or an earlier one.
    pub(super) fn txid(&self, backend: &dyn Backend) -> Reply {
        let index = backend.with_rows(&mut |_| ());
        let index = index.and_then(|index| {
            if !self.read_only {
                backend.lease(index)?;
            }
            self.check_at_least(index).map(|()| index)
        });
        match index {
            Ok(index) => Reply::Integer(index as i64),
            Err(refusal) => self.refuse(&super::for_a_read(refusal), None),
        }
    }

    /// AK.ATLEAST
    pub(super) fn at_least(&mut self, args: &[Bytes], backend: &dyn Backend) -> Reply {
        let index = integer_argument(&args[1]).and_then(|index| {
            let text = "ERR value is out of range, must be positive";
            u64::try_from(index).map_err(|_| Reply::error(text))
        });
        match index {
            Ok(index) => self.at_least = index,
            Err(error) => return error,
        }
        match self.txid(backend) {
            Reply::Integer(_) => Reply::OK,
            refused => refused,
        }
    }

    /// Refuses a state that is older than AK.ATLEAST asked for.
    pub(super) fn check_at_least(&self, index: u64) -> Result<(), Refusal> {
        match index >= self.at_least {
            true => Ok(()),
            false => {
                let asked = self.at_least;
                let reason = format!("this node's state is {index}, AK.ATLEAST asked for {asked}");
                Err(Refusal::TryAgain(reason.into()))
            }
        }
    }
}

/// AK.MASTER
pub(super) fn master(info: &NodeInfo) -> Reply {
    let Some(address) = &info.master_address else { return Reply::Null };
    let own = (&info.name, &info.address);
    let mut nodes = info.peers.iter().map(|peer| (&peer.name, &peer.address));
    let named = |(_, other): &(&String, &String)| *other == address;
    let (name, _) = if named(&own) { own } else { nodes.find(named).unwrap_or(own) };
    Reply::Array(vec![Reply::bulk(name.clone()), Reply::bulk(address.clone())])
}

/// AK.PROGRESS
pub(super) fn progress(backend: &dyn Backend) -> Reply {
    Reply::Integer(i64::from(backend.lease(u64::MAX).is_ok()))
}

/// AK.STATS
pub(super) fn stats(info: &NodeInfo) -> Reply {
    let numbers = [
        ("last_index", info.last_index),
        ("chosen_index", info.chosen_index),
        ("applied_index", info.applied_index),
        ("head_index", info.head_index),
        ("lease_left_ms", info.lease_left_ms),
        ("uptime_ms", info.uptime_ms),
        ("memory_bytes", info.memory_bytes),
        ("disk_used_bytes", info.disk_used_bytes),
        ("disk_free_bytes", info.disk_free_bytes),
        ("cpu_user_us", info.cpu_user_us),
        ("cpu_system_us", info.cpu_system_us),
    ];
    let number = |(name, number): (&'static str, u64)| {
        (Reply::bulk(name), Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX)))
    };
    let texts = [("cluster_id", &info.cluster_id), ("name", &info.name), ("ballot", &info.ballot)];
    let text =
        |(name, text): (&'static str, &String)| (Reply::bulk(name), Reply::bulk(text.clone()));
    let role = (Reply::bulk("role"), Reply::bulk(info.role.name()));
    let pairs = texts.into_iter().map(text).chain([role]).chain(numbers.into_iter().map(number));
    Reply::Map(pairs.collect())
}
