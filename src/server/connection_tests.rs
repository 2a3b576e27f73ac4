//! Connections over real sockets, with a handler that stands in for the session.

mod places;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use resp::{Protocol, Reply, ReplyDecoder, Request, encode_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::connection::{ConnectionHandler, Step};
use super::limits::{ConnectionLimits, OUTPUT_TURN_BYTES};
use super::listener::ClientListener;
use super::places::Places;

const PATIENCE: Duration = Duration::from_secs(20);

/// What the handlers of a test share with it.
#[derive(Default)]
struct Shared {
    /// Each WAIT puts the sender of its outcome here.
    waiting: Mutex<Vec<oneshot::Sender<i64>>>,
    handled: AtomicUsize,
    /// On which threads a SET or GET was handled, in order, each change once.
    threads: Mutex<Vec<String>>,
    dropped_handlers: AtomicUsize,
}

/// ECHO text; GET and REPEAT count: that many bytes; WAIT: an integer, once the test says which; SET key
/// number: that number, a moment later; QUIT.
struct Handler {
    shared: Arc<Shared>,
}

impl Handler {
    fn note_thread(&self) {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        let mut threads = self.shared.threads.lock();
        if threads.last() != Some(&thread) {
            threads.push(thread);
        }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.shared.dropped_handlers.fetch_add(1, Ordering::SeqCst);
    }
}

impl ConnectionHandler for Handler {
    type Ticket = Pin<Box<dyn Future<Output = i64> + Send>>;

    fn handle(
        &mut self,
        requests: &mut VecDeque<Request>,
        out: &mut BytesMut,
    ) -> Step<Self::Ticket> {
        while out.len() < OUTPUT_TURN_BYTES {
            let Some(request) = requests.pop_front() else { break };
            self.shared.handled.fetch_add(1, Ordering::SeqCst);
            match request.name() {
                b"ECHO" => {
                    Reply::Bulk(request.arguments[1].clone()).encode(Protocol::Resp2, out);
                }
                b"GET" | b"REPEAT" => {
                    if request.name() == b"GET" {
                        self.note_thread();
                    }
                    let count = String::from_utf8_lossy(&request.arguments[1]).parse();
                    Reply::bulk(vec![b'r'; count.expect("a count")]).encode(Protocol::Resp2, out);
                }
                b"SET" => {
                    self.note_thread();
                    let number = String::from_utf8_lossy(&request.arguments[2]).parse();
                    let number = number.expect("a number");
                    return Step::Wait(Box::pin(async move {
                        tokio::task::yield_now().await;
                        number
                    }));
                }
                b"WAIT" => {
                    let (sender, receiver) = oneshot::channel();
                    self.shared.waiting.lock().push(sender);
                    return Step::Wait(Box::pin(async move { receiver.await.unwrap_or(-1) }));
                }
                _ => {
                    Reply::OK.encode(Protocol::Resp2, out);
                    return Step::Close;
                }
            }
        }
        Step::Idle
    }

    fn resume(&mut self, outcome: i64, out: &mut BytesMut) {
        Reply::Integer(outcome).encode(Protocol::Resp2, out);
    }
}

struct Server {
    listener: ClientListener,
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
}

async fn start(limits: ConnectionLimits) -> Server {
    start_in(limits, None).await
}

async fn start_in(limits: ConnectionLimits, places: Option<Places>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let shared = Arc::new(Shared::default());
    let handlers = Arc::clone(&shared);
    let make_handler = move |_| Handler { shared: Arc::clone(&handlers) };
    Server {
        listener: ClientListener::start(listener, limits, places, make_handler),
        address,
        shared,
    }
}

struct TestClient {
    stream: TcpStream,
    decoder: ReplyDecoder,
    buffer: BytesMut,
}

impl TestClient {
    async fn connect(server: &Server) -> TestClient {
        let stream = TcpStream::connect(server.address).await.expect("listens");
        TestClient { stream, decoder: ReplyDecoder::default(), buffer: BytesMut::new() }
    }

    async fn send(&mut self, words: &[&[u8]]) {
        let mut out = BytesMut::new();
        encode_request(words, &mut out);
        self.stream.write_all(&out).await.expect("sent");
    }

    /// `None`: the server closed the connection.
    async fn next(&mut self) -> Option<Reply> {
        loop {
            if let Some(reply) = self.decoder.decode(&mut self.buffer).expect("valid") {
                return Some(reply);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
            if matches!(read.expect("an answer in time"), Ok(0) | Err(_)) {
                return None;
            }
        }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deep_pipeline_is_answered_in_order() {
    let server = start(ConnectionLimits::default()).await;
    let TestClient { stream, mut decoder, mut buffer } = TestClient::connect(&server).await;
    let (mut read_half, mut write_half) = stream.into_split();
    let count = 100_000;
    let writer = tokio::spawn(async move {
        let mut out = BytesMut::new();
        for number in 0..count {
            encode_request(&["ECHO".to_owned(), number.to_string()], &mut out);
        }
        write_half.write_all(&out).await.expect("sent");
        write_half
    });
    for expected in 0..count {
        let reply = loop {
            if let Some(reply) = decoder.decode(&mut buffer).expect("valid") {
                break reply;
            }
            let read = timeout(PATIENCE, read_half.read_buf(&mut buffer)).await.expect("in time");
            assert!(read.expect("open") > 0, "closed before reply {expected}");
        };
        assert_eq!(reply, Reply::bulk(expected.to_string()));
    }
    writer.await.expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_value_arrives_in_small_pieces() {
    let server = start(ConnectionLimits::default()).await;
    let mut client = TestClient::connect(&server).await;
    client.stream.set_nodelay(true).expect("open");
    let value = Bytes::from(vec![b'v'; 16 * 1024 * 1024]);
    let mut out = BytesMut::new();
    encode_request(&[&b"ECHO"[..], &value], &mut out);
    for piece in out.chunks(16 * 1024) {
        client.stream.write_all(piece).await.expect("sent");
    }
    assert_eq!(client.next().await, Some(Reply::Bulk(value)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_costs_one_turn_and_then_its_connection() {
    let limits = ConnectionLimits {
        drain_timeout: Duration::from_millis(300),
        ..ConnectionLimits::default()
    };
    let server = start(limits).await;
    let mut slow = TestClient::connect(&server).await;
    let mut out = BytesMut::new();
    for _ in 0..1000 {
        encode_request(&["REPEAT", "1000000"], &mut out);
    }
    slow.stream.write_all(&out).await.expect("sent");
    let mut other = TestClient::connect(&server).await;
    other.send(&[b"ECHO", b"x"]).await;
    assert_eq!(other.next().await, Some(Reply::bulk("x")));
    wait_for(|| server.listener.registry().count() == 1).await;
    // Sockets of this machine take a few MB; without a bound all 1000 would have been handled.
    let handled = server.shared.handled.load(Ordering::SeqCst);
    assert!(handled < 100, "{handled} of 1000 requests handled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_lost_while_it_waits_is_forgotten() {
    let limits = ConnectionLimits {
        half_closed_timeout: Duration::from_millis(50),
        ..ConnectionLimits::default()
    };
    let server = start(limits).await;
    let mut client = TestClient::connect(&server).await;
    client.send(&[b"WAIT"]).await;
    wait_for(|| server.shared.waiting.lock().len() == 1).await;
    drop(client);
    wait_for(|| server.listener.registry().count() == 0).await;
    wait_for(|| server.shared.dropped_handlers.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_no_more_still_gets_its_replies() {
    let server = start(ConnectionLimits::default()).await;
    let mut client = TestClient::connect(&server).await;
    client.send(&[b"WAIT"]).await;
    client.send(&[b"ECHO", b"after"]).await;
    client.stream.shutdown().await.expect("open");
    wait_for(|| server.shared.waiting.lock().len() == 1).await;
    server.shared.waiting.lock().pop().expect("one waits").send(7).expect("still waits");
    assert_eq!(client.next().await, Some(Reply::Integer(7)));
    assert_eq!(client.next().await, Some(Reply::bulk("after")));
    assert_eq!(client.next().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_picks_clients_and_lets_them_finish_what_they_began() {
    let server = start(ConnectionLimits::default()).await;
    let registry = server.listener.registry();
    let mut waiting = TestClient::connect(&server).await;
    waiting.send(&[b"WAIT"]).await;
    wait_for(|| server.shared.waiting.lock().len() == 1).await;
    waiting.send(&[b"ECHO", b"never begun"]).await;
    let mut readonly = TestClient::connect(&server).await;
    wait_for(|| registry.count() == 2).await;
    registry.list()[1].set_readonly(true);

    assert_eq!(registry.close_clients(|client| !client.is_readonly()), 1);
    server.shared.waiting.lock().pop().expect("one waits").send(1).expect("still waits");
    assert_eq!(waiting.next().await, Some(Reply::Integer(1)));
    assert_eq!(waiting.next().await, None);

    readonly.send(&[b"ECHO", b"stays"]).await;
    assert_eq!(readonly.next().await, Some(Reply::bulk("stays")));
    registry.list().last().expect("one is left").kill();
    assert_eq!(readonly.next().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_end_waits_and_then_insists() {
    let server = start(ConnectionLimits::default()).await;
    let mut stuck = TestClient::connect(&server).await;
    stuck.send(&[b"WAIT"]).await;
    wait_for(|| server.shared.waiting.lock().len() == 1).await;
    let mut idle = TestClient::connect(&server).await;
    wait_for(|| server.listener.registry().count() == 2).await;
    server.listener.shutdown(Duration::from_millis(50)).await;
    assert_eq!(idle.next().await, None);
    assert_eq!(stuck.next().await, None);
    server.listener.registry().wait_until_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_reach_the_client() {
    let limits = ConnectionLimits { clients_max: 1, ..ConnectionLimits::default() };
    let server = start(limits).await;
    let mut client = TestClient::connect(&server).await;
    client.send(&[b"ECHO", b"first"]).await;
    assert_eq!(client.next().await, Some(Reply::bulk("first")));
    let mut second = TestClient::connect(&server).await;
    assert_eq!(second.next().await, Some(Reply::error("ERR max number of clients reached")));
    assert_eq!(second.next().await, None);

    // What came before the error is answered; what comes after does not swallow the reply.
    let mut bytes = b"*2\r\n$4\r\nECHO\r\n$1\r\na\r\n*1\r\n$100000000\r\n".to_vec();
    bytes.resize(8 * 1024 * 1024, b'x');
    client.stream.write_all(&bytes).await.expect("sent");
    assert_eq!(client.next().await, Some(Reply::bulk("a")));
    let Some(Reply::Error(error)) = client.next().await else { panic!("no error") };
    assert!(error.starts_with("ERR Protocol error: invalid bulk length"), "{error}");
    assert_eq!(client.next().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_turned_away() {
    let server = start(ConnectionLimits::default()).await;
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfcECHO x\r\nECHO x\r\n";
    let lines = [&b"POST / HTTP/1.1\r\nECHO x\r\n"[..], b"GET / HTTP/1.1\r\nECHO x\r\n", hello];
    for line in lines {
        let mut client = TestClient::connect(&server).await;
        client.stream.write_all(line).await.expect("sent");
        let Some(Reply::Error(error)) = client.next().await else { panic!("no error") };
        assert!(error.contains("speaks the Redis protocol"), "{error}");
        assert_eq!(client.next().await, None, "nothing behind it is taken for a command");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quitting_closes_after_the_reply() {
    let server = start(ConnectionLimits::default()).await;
    let mut client = TestClient::connect(&server).await;
    client.send(&[b"QUIT"]).await;
    client.send(&[b"ECHO", b"never"]).await;
    assert_eq!(client.next().await, Some(Reply::OK));
    assert_eq!(client.next().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_client_keeps_no_room_and_an_announced_argument_finds_it() {
    let server = start(ConnectionLimits::default()).await;
    let mut client = TestClient::connect(&server).await;
    client.send(&[b"ECHO", b"x"]).await;
    assert_eq!(client.next().await, Some(Reply::bulk("x")));
    let known = server.listener.registry().list().remove(0);
    // What it says in a few words is read into room that is not its own.
    wait_for(|| known.input_bytes() == (0, 0)).await;
    client.stream.write_all(b"*2\r\n").await.expect("sent");
    wait_for(|| matches!(known.input_bytes(), (4, 16_384..32_768))).await;
    known.rest();
    wait_for(|| known.input_bytes() == (4, 0)).await;
    client.stream.write_all(b"$4\r\nECHO\r\n$1\r\nz\r\n").await.expect("sent");
    assert_eq!(client.next().await, Some(Reply::bulk("z")));
    client.send(&[b"ECHO", b"y"]).await;
    assert_eq!(client.next().await, Some(Reply::bulk("y")));

    let start = b"*2\r\n$4\r\nECHO\r\n$1000000\r\nabc";
    client.stream.write_all(start).await.expect("sent");
    wait_for(|| {
        let (received, room) = known.input_bytes();
        received == start.len() && received + room >= 1_000_000
    })
    .await;
    known.rest();
    wait_for(|| known.input_bytes() == (start.len(), 0)).await;
    let rest = vec![b'd'; 1_000_000 - 3];
    client.stream.write_all(&rest).await.expect("sent");
    client.stream.write_all(b"\r\n").await.expect("sent");
    let expected = [b"abc".to_vec(), rest].concat();
    assert_eq!(client.next().await, Some(Reply::bulk(expected)));
    wait_for(|| known.input_bytes() == (0, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_announcements_get_little_room_and_their_arguments_all_the_same() {
    let server = start(ConnectionLimits::default()).await;
    const LENGTH: usize = 1 << 20;
    let header = format!("*2\r\n$4\r\nECHO\r\n${LENGTH}\r\n").into_bytes();
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut client = TestClient::connect(&server).await;
        client.stream.write_all(&header).await.expect("sent");
        clients.push(client);
    }
    let known = server.listener.registry().list();
    wait_for(|| known.iter().all(|it| it.input_bytes().0 == header.len())).await;
    let room: usize = known.iter().map(|it| it.input_bytes().1).sum();
    assert!(room < 50 << 20, "{} MiB for 100 announced values", room >> 20);
    for client in &mut clients {
        let value = vec![b'v'; LENGTH];
        client.stream.write_all(&value).await.expect("sent");
        client.stream.write_all(b"\r\n").await.expect("sent");
        assert_eq!(client.next().await, Some(Reply::bulk(value)));
    }
}
