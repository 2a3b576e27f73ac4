//! Nodes over real sockets of this machine.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::frame::put_frame;
use super::hello::{Answer, Hello, answer, greet, receive_hello};
use super::*;
use crate::paxos::{Incarnation, NodeId};

const PATIENCE: Duration = Duration::from_secs(20);

type Received = (NodeId, Incarnation, Channel, Bytes);

struct Node {
    peers: Peers,
    frames: mpsc::UnboundedReceiver<Received>,
}

impl Node {
    async fn next_frame(&mut self) -> Received {
        timeout(PATIENCE, self.frames.recv()).await.expect("a frame in time").expect("node runs")
    }

    async fn connected_to(&self, node: u8) {
        wait_for(|| self.peers.status(NodeId(node)).sending).await;
    }
}

async fn wait_for(condition: impl Fn() -> bool) {
    let reached = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, reached).await.expect("the condition holds in time");
}

async fn listeners(count: usize) -> (Vec<TcpListener>, PeersConfig) {
    let mut listeners = Vec::new();
    let mut nodes = Vec::new();
    for seat in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        nodes.push(PeerAddress { name: format!("n{}", seat + 1), address });
        listeners.push(listener);
    }
    let config = PeersConfig {
        cluster_id: "test".to_owned(),
        node: NodeId(0),
        nodes,
        fingerprint: 7,
        queue_bytes_max: 4 * 1024 * 1024,
    };
    (listeners, config)
}

fn start(config: &PeersConfig, node: u8, listener: TcpListener) -> Node {
    let (sender, frames) = mpsc::unbounded_channel();
    let on_frame: OnFrame = Arc::new(move |from, incarnation, channel, frame| {
        let _ = sender.send((from, incarnation, channel, frame));
    });
    let config = PeersConfig { node: NodeId(node), ..config.clone() };
    Node { peers: Peers::start(config, listener, Incarnation(1), on_frame), frames }
}

async fn start_all(count: usize) -> (Vec<Node>, PeersConfig) {
    let (listeners, config) = listeners(count).await;
    let nodes: Vec<Node> = listeners
        .into_iter()
        .zip(0..)
        .map(|(listener, seat)| start(&config, seat, listener))
        .collect();
    for (seat, node) in nodes.iter().enumerate() {
        for other in (0..count).filter(|other| *other != seat) {
            node.connected_to(other as u8).await;
        }
    }
    (nodes, config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_arrive_in_order_and_whole() {
    let (mut nodes, _) = start_all(3).await;
    let large = Bytes::from(vec![7; 3 * 1024 * 1024]);
    for number in 0..10_000u32 {
        let frame = Bytes::copy_from_slice(&number.to_le_bytes());
        assert!(nodes[0].peers.send(NodeId(1), Channel::Stream, frame));
    }
    assert!(nodes[2].peers.send(NodeId(1), Channel::Bulk, large.clone()));
    let mut expected = 0u32;
    let mut bulk = None;
    while expected < 10_000 || bulk.is_none() {
        let (from, incarnation, channel, frame) = nodes[1].next_frame().await;
        assert_eq!(incarnation, Incarnation(1));
        match channel {
            Channel::Stream => {
                assert_eq!((from, &frame[..]), (NodeId(0), &expected.to_le_bytes()[..]));
                expected += 1;
            }
            Channel::Bulk => bulk = Some((from, frame)),
            Channel::Pulse => panic!("nothing was sent on {channel:?}"),
        }
    }
    assert_eq!(bulk, Some((NodeId(2), large)));
    wait_for(|| nodes[0].peers.status(NodeId(1)).queue_bytes == 0).await;
    assert_eq!(nodes[0].peers.status(NodeId(1)).dropped_frames, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_is_reached_again() {
    let (mut nodes, config) = start_all(2).await;
    let stopped = nodes.pop().expect("two nodes");
    stopped.peers.shutdown().await;
    drop(stopped);
    let lost = Bytes::from_static(b"lost");
    wait_for(|| !nodes[0].peers.send(NodeId(1), Channel::Stream, lost.clone())).await;
    let status = nodes[0].peers.status(NodeId(1));
    assert!(!status.sending && status.dropped_frames > 0, "{status:?}");

    let listener = TcpListener::bind(&config.nodes[1].address).await.expect("the same port");
    let mut again = start(&config, 1, listener);
    nodes[0].connected_to(1).await;
    assert!(nodes[0].peers.send(NodeId(1), Channel::Stream, Bytes::from_static(b"back")));
    assert_eq!(again.next_frame().await.3, &b"back"[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_end_writes_what_is_queued() {
    let (mut nodes, _) = start_all(2).await;
    for _ in 0..100 {
        assert!(nodes[0].peers.send(NodeId(1), Channel::Stream, Bytes::from(vec![1; 10_000])));
    }
    nodes[0].peers.shutdown().await;
    for _ in 0..100 {
        assert_eq!(nodes[1].next_frame().await.3.len(), 10_000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_incarnation_is_told() {
    let (mut nodes, _) = start_all(2).await;
    nodes[0].peers.set_incarnation(Incarnation(9));
    let arrived = async {
        loop {
            nodes[0].peers.send(NodeId(1), Channel::Stream, Bytes::from_static(b"x"));
            let frame = timeout(Duration::from_millis(5), nodes[1].frames.recv()).await;
            if matches!(frame, Ok(Some((_, Incarnation(9), _, _)))) {
                return;
            }
        }
    };
    timeout(PATIENCE, arrived).await.expect("a frame under the new incarnation");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_with_a_reason() {
    let (nodes, config) = start_all(2).await;
    let ours = PeersConfig { node: NodeId(1), ..config.clone() };
    let hello = Hello::ours(&ours, Incarnation(1), NodeId(0), Channel::Stream);
    for (hello, reason) in [
        (Hello { cluster_id: "other".into(), ..hello.clone() }, "belongs to the cluster"),
        (Hello { fingerprint: 8, ..hello.clone() }, "config differs"),
        (Hello { from_name: "n9".into(), ..hello.clone() }, "no other node"),
        (Hello { from: NodeId(200), ..hello.clone() }, "no other node"),
        (Hello { from: NodeId(0), from_name: "n1".into(), ..hello.clone() }, "no other node"),
        (Hello { to: NodeId(1), ..hello.clone() }, "wants to talk to"),
    ] {
        let mut stream = TcpStream::connect(&config.nodes[0].address).await.expect("listens");
        let error = greet(&mut stream, &hello).await.expect_err("refused");
        assert!(error.to_string().contains(reason), "{error}, wanted: {reason}");
    }
    let mut stream = TcpStream::connect(&config.nodes[0].address).await.expect("listens");
    greet(&mut stream, &hello).await.expect("our own kind is welcome");
    drop(nodes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_dropped_and_harms_nobody() {
    let (mut nodes, config) = start_all(2).await;
    let mut wrong_version = b"ARAKOON\n".to_vec();
    wrong_version.extend_from_slice(&[9, 9, 0, 0]);
    let mut bad_hello = BytesMut::from(&b"ARAKOON\n\x01\x00"[..]);
    put_frame(&[0xff; 100], &mut bad_hello);
    let mut huge_hello = b"ARAKOON\n\x01\x00".to_vec();
    huge_hello.extend_from_slice(&[0xff; 8]);
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 1000], &wrong_version, &bad_hello, &huge_hello]
    {
        let mut stream = TcpStream::connect(&config.nodes[1].address).await.expect("listens");
        stream.write_all(garbage).await.expect("sent");
        // Closed, in order or with a reset.
        let closed = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "still open after {garbage:?}");
    }
    // A welcome node whose frames are damaged is dropped as well.
    let ours = PeersConfig { node: NodeId(0), ..config.clone() };
    let hello = Hello::ours(&ours, Incarnation(1), NodeId(1), Channel::Bulk);
    let mut stream = TcpStream::connect(&config.nodes[1].address).await.expect("listens");
    greet(&mut stream, &hello).await.expect("welcome");
    stream.write_all(&[1, 0, 0, 0, 0, 0, 0, 0, 1]).await.expect("sent");
    let closed = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok(), "still open after a wrong checksum");

    assert!(nodes[0].peers.send(NodeId(1), Channel::Stream, Bytes::from_static(b"fine")));
    assert_eq!(nodes[1].next_frame().await.3, &b"fine"[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_connection_is_closed_by_a_newer_one() {
    let (listeners, config) = listeners(2).await;
    let mut listeners = listeners.into_iter();
    let mut node = start(&config, 0, listeners.next().expect("two"));
    let ours = PeersConfig { node: NodeId(1), ..config.clone() };
    let hello = Hello::ours(&ours, Incarnation(1), NodeId(0), Channel::Stream);
    let mut older = TcpStream::connect(&config.nodes[0].address).await.expect("listens");
    greet(&mut older, &hello).await.expect("welcome");
    let mut out = BytesMut::new();
    put_frame(b"older", &mut out);
    older.write_all(&out).await.expect("sent");
    assert_eq!(node.next_frame().await.3, &b"older"[..]);

    let mut newer = TcpStream::connect(&config.nodes[0].address).await.expect("listens");
    greet(&mut newer, &hello).await.expect("welcome");
    let closed = timeout(PATIENCE, older.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok(), "the older connection is still open");
}

/// One node accepts and never reads. What is meant for it is dropped at the bound; the other node
/// gets everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_node_delays_nobody_else() {
    let (listeners, config) = listeners(3).await;
    let mut listeners = listeners.into_iter();
    let node = start(&config, 0, listeners.next().expect("three"));
    let mut other = start(&config, 1, listeners.next().expect("three"));
    let stuck = listeners.next().expect("three");
    let stuck = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = stuck.accept().await.expect("accepts");
            receive_hello(&mut stream, &mut BytesMut::new()).await.expect("a hello");
            answer(&mut stream, &Answer::Welcome).await.expect("sent");
            held.push(stream);
        }
    });
    node.connected_to(1).await;
    node.connected_to(2).await;

    let frame = Bytes::from(vec![3; 64 * 1024]);
    let full = async {
        while node.peers.send(NodeId(2), Channel::Stream, frame.clone()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, full).await.expect("the queue has a bound");
    let status = node.peers.status(NodeId(2));
    assert!(status.queue_bytes <= config.queue_bytes_max, "{status:?}");
    assert!(status.dropped_frames > 0, "{status:?}");

    for number in 0..100u8 {
        assert!(node.peers.send(NodeId(1), Channel::Stream, Bytes::from(vec![number])));
        assert_eq!(other.next_frame().await.3, &[number][..]);
    }
    stuck.abort();
}
