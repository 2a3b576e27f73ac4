//! Connections that go from one place to another.

use std::sync::atomic::Ordering;

use bytes::BytesMut;
use resp::{Reply, encode_request};
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;

use super::super::limits::ConnectionLimits;
use super::super::places::Places;
use super::{PATIENCE, Server, TestClient, start_in, wait_for};

/// The threads that stand in for the driver's,
const DRIVER: &str = "stands in for the driver";
/// and for that for short turns.
const SHORT_TURNS: &str = "stands in for short turns";

/// A runtime on one thread, which ends when this is dropped.
struct OneThread {
    runtime: tokio::runtime::Handle,
    _stop: oneshot::Sender<()>,
}

impl OneThread {
    fn start(name: &str) -> OneThread {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ = runtime.block_on(stopped);
        });
        thread.expect("it starts");
        OneThread { runtime: handle, _stop: stop }
    }
}

impl TestClient {
    /// Asks for little until it is served where it should be. Turns that take long on a busy machine
    /// are no short ones.
    async fn read_until(&mut self, server: &Server, is_there: impl Fn(&str) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            self.send(&[b"GET", b"5"]).await;
            assert_eq!(self.next().await, Some(Reply::bulk("rrrrr")));
            if is_there(&server.last_thread()) {
                return;
            }
            let now = tokio::time::Instant::now();
            assert!(now < deadline, "on the thread {}", server.last_thread());
        }
    }
}

/// With a seat beside the driver.
fn places(short_turns: &OneThread, driver: &OneThread) -> Places {
    let here = tokio::runtime::Handle::current();
    Places::new(here, short_turns.runtime.clone(), driver.runtime.clone(), 1)
}

impl Server {
    fn last_thread(&self) -> String {
        self.shared.threads.lock().last().cloned().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_updates_goes_to_the_driver_and_back_and_loses_nothing() {
    let (short_turns, driver) = (OneThread::start(SHORT_TURNS), OneThread::start(DRIVER));
    let places = places(&short_turns, &driver);
    let server = start_in(ConnectionLimits::default(), Some(places)).await;
    let mut client = TestClient::connect(&server).await;
    let mut number = 0;
    for _ in 0..5 {
        for _ in 0..100 {
            number += 1;
            client.send(&[b"SET", b"k", number.to_string().as_bytes()]).await;
            assert_eq!(client.next().await, Some(Reply::Integer(number)));
        }
        // Both at once: the rest of what was read goes along.
        let mut out = BytesMut::new();
        encode_request(&["SET", "k", "-1"], &mut out);
        encode_request(&["ECHO", "text"], &mut out);
        encode_request(&["SET", "k", "-2"], &mut out);
        client.stream.write_all(&out).await.expect("sent");
        assert_eq!(client.next().await, Some(Reply::Integer(-1)));
        assert_eq!(client.next().await, Some(Reply::bulk("text")));
        assert_eq!(client.next().await, Some(Reply::Integer(-2)));
    }
    let threads = server.shared.threads.lock().clone();
    let visits = threads.iter().filter(|thread| *thread == DRIVER).count();
    assert_eq!(visits, 5, "{threads:?}");
    assert_ne!(threads.last().map(String::as_str), Some(DRIVER), "it has gone back");

    // One that ends there, and one that is closed there.
    for ends in [true, false] {
        let mut client = TestClient::connect(&server).await;
        for _ in 0..100 {
            client.send(&[b"SET", b"k", b"1"]).await;
            assert_eq!(client.next().await, Some(Reply::Integer(1)));
        }
        assert_eq!(server.last_thread(), DRIVER);
        // The only seat is taken.
        let mut other = TestClient::connect(&server).await;
        for _ in 0..200 {
            other.send(&[b"SET", b"k", b"2"]).await;
            assert_eq!(other.next().await, Some(Reply::Integer(2)));
        }
        assert_ne!(server.last_thread(), DRIVER);
        // A value that is not small is received elsewhere, and its client comes back.
        let long = format!("{}1", "0".repeat(100_000));
        client.send(&[b"SET", b"k", long.as_bytes()]).await;
        assert_eq!(client.next().await, Some(Reply::Integer(1)));
        assert_ne!(server.last_thread(), DRIVER);
        drop(other);
        for _ in 0..100 {
            client.send(&[b"SET", b"k", b"3"]).await;
            assert_eq!(client.next().await, Some(Reply::Integer(3)));
        }
        assert_eq!(server.last_thread(), DRIVER);
        if ends {
            drop(client);
            wait_for(|| server.shared.dropped_handlers.load(Ordering::SeqCst) == 2).await;
        } else {
            server.listener.shutdown(PATIENCE).await;
            assert_eq!(client.next().await, None);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_little_goes_to_the_thread_for_short_turns_and_back() {
    let (short_turns, driver) = (OneThread::start(SHORT_TURNS), OneThread::start(DRIVER));
    let places = places(&short_turns, &driver);
    let server = start_in(ConnectionLimits::default(), Some(places.clone())).await;
    let mut client = TestClient::connect(&server).await;
    for _ in 0..3 {
        client.read_until(&server, |thread| thread == SHORT_TURNS).await;
        places.open_short_turns(false);
        client.read_until(&server, |thread| thread != SHORT_TURNS).await;
        places.open_short_turns(true);
        client.read_until(&server, |thread| thread == SHORT_TURNS).await;
        // More than one turn, of which the first makes it leave, with the rest.
        let mut out = BytesMut::new();
        for number in 0..1000 {
            encode_request(&["GET", "1000"], &mut out);
            encode_request(&["SET", "k", &number.to_string()], &mut out);
        }
        client.stream.write_all(&out).await.expect("sent");
        for number in 0..1000 {
            assert_eq!(client.next().await, Some(Reply::bulk("r".repeat(1000))));
            assert_eq!(client.next().await, Some(Reply::Integer(number)));
        }
        assert_ne!(server.last_thread(), SHORT_TURNS);
        // One that only updates from now on.
        client.read_until(&server, |thread| thread == SHORT_TURNS).await;
        for number in 0..200 {
            client.send(&[b"SET", b"k", number.to_string().as_bytes()]).await;
            assert_eq!(client.next().await, Some(Reply::Integer(number)));
            assert_ne!(server.last_thread(), SHORT_TURNS);
        }
        assert_eq!(server.last_thread(), DRIVER);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_a_driver_that_stands_still_can_be_closed() {
    let (short_turns, driver) = (OneThread::start(SHORT_TURNS), OneThread::start(DRIVER));
    let places = places(&short_turns, &driver);
    let server = start_in(ConnectionLimits::default(), Some(places)).await;
    let mut client = TestClient::connect(&server).await;
    let known = loop {
        client.send(&[b"SET", b"k", b"1"]).await;
        assert_eq!(client.next().await, Some(Reply::Integer(1)));
        let known = server.listener.registry().list().remove(0);
        if server.last_thread() == DRIVER {
            break known;
        }
        assert!(!known.hang_up(), "with the workers it is closed by its task");
    };
    let (go_on, waits) = std::sync::mpsc::channel::<()>();
    driver.runtime.spawn(async move { waits.recv() });
    client.send(&[b"SET", b"k", b"2"]).await;
    assert!(known.hang_up());
    assert_eq!(client.next().await, None, "closed while the driver stands still");
    go_on.send(()).expect("it waits");
    wait_for(|| server.listener.registry().list().is_empty()).await;
    assert!(!known.hang_up(), "its socket is not kept any longer");
}
