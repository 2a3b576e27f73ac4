//! What clients hear while a node opens its log and rebuilds its store: LOADING, at once, instead
//! of silence. `INFO` is answered, so that `arakoon status` can show the node.

use std::collections::VecDeque;
use std::future::Ready;

use bytes::{Bytes, BytesMut};
use resp::{Protocol, Reply, Request};

use super::connection::{ConnectionHandler, Step};
use super::refusal::Refusal;
use crate::command::parse::is;
use crate::config::Config;
use crate::paxos::NodeId;

/// A connection to a node that is not open yet.
pub struct LoadingHandler {
    info: Bytes,
}

impl LoadingHandler {
    /// For the node of that seat.
    pub fn new(config: &Config, seat: NodeId) -> LoadingHandler {
        let mut info = format!(
            "# Arakoon\r\nloading:1\r\ncluster_id:{}\r\nnode:{}\r\npart:loading\r\nquorum:0\r\n",
            config.cluster.id,
            config.node(seat).name
        );
        for (seat, node) in config.nodes.iter().enumerate() {
            let (name, client, peer) = (&node.name, node.advertised(), &node.peer);
            info += &format!("member{}:name={name},client={client},peer={peer}\r\n", seat + 1);
        }
        LoadingHandler { info: info.into() }
    }
}

impl ConnectionHandler for LoadingHandler {
    type Ticket = Ready<()>;

    fn handle(&mut self, requests: &mut VecDeque<Request>, out: &mut BytesMut) -> Step<Ready<()>> {
        for request in requests.drain(..) {
            let reply = match is(request.name(), "info") {
                true => Reply::Bulk(self.info.clone()),
                false => Refusal::Loading.reply(None),
            };
            reply.encode(Protocol::Resp2, out);
        }
        Step::Idle
    }

    fn resume(&mut self, (): (), _out: &mut BytesMut) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_info_is_answered_loading() {
        let config = Config::single("127.0.0.1".parse().expect("an address"), 4000, "d".as_ref());
        let mut handler = LoadingHandler::new(&config, NodeId(0));
        let request = |name: &'static str| Request { arguments: vec![Bytes::from(name)] };
        let mut requests = VecDeque::from([request("GET"), request("info")]);
        let mut out = BytesMut::new();
        assert!(matches!(handler.handle(&mut requests, &mut out), Step::Idle));
        let text = String::from_utf8_lossy(&out);
        assert!(text.starts_with("-LOADING this node is not ready yet\r\n$"), "{text}");
        assert!(text.contains("\r\npart:loading\r\n"), "{text}");
        assert!(text.contains("\r\nmember1:name=n1,client=127.0.0.1:4000,peer=\r\n"), "{text}");
    }
}
