//! The accepting side: checks who dials, reads frames and hands them on.
//!
//! For each node and channel the newest connection wins, because a node dials again only when it
//! has given up its older one, of which late bytes may still arrive here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use super::config::{OnFrame, PeersConfig};
use super::frame::{FRAME_BYTES_MAX, read_more, take_frame};
use super::hello::{Answer, Channel, Hello, answer, receive_hello};
use super::log_limit::LogLimit;

/// How long a stranger may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections at a time whose hello has not come yet; the others wait to be accepted.
const STRANGERS_MAX: usize = 64;
/// How long a dialer may be silent; it says that it lives once a second.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How often the dialer is told that we live.
const SIGN_INTERVAL: Duration = Duration::from_secs(1);
/// The room that is kept while nothing arrives.
const KEPT_BYTES: usize = 256 * 1024;

/// The newest connection of one node and channel, counted from 1. Locked while a frame is handed
/// on, so that an older connection cannot slip one in behind a newer one.
#[derive(Debug, Default)]
pub(super) struct Line {
    newest: Mutex<u64>,
    replaced: Notify,
    connected: Mutex<bool>,
}

impl Line {
    /// A connection of it is open.
    pub(super) fn is_connected(&self) -> bool {
        *self.connected.lock()
    }

    fn start(&self) -> u64 {
        let mut newest = self.newest.lock();
        *newest += 1;
        *self.connected.lock() = true;
        self.replaced.notify_waiters();
        *newest
    }

    fn end(&self, number: u64) {
        let newest = self.newest.lock();
        if *newest == number {
            *self.connected.lock() = false;
        }
    }
}

pub(super) struct Inbound {
    pub(super) config: Arc<PeersConfig>,
    pub(super) on_frame: OnFrame,
    /// By seat, then by channel.
    pub(super) lines: Vec<[Line; Channel::COUNT]>,
    /// By seat: the node has just dialed us.
    pub(super) peers_seen: Vec<[Arc<Notify>; Channel::COUNT]>,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) log_limit: LogLimit,
}

impl Inbound {
    /// Accepts until the node stops.
    pub(super) async fn run(self: Arc<Self>, listener: TcpListener) {
        let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
        let mut stopping = self.stopping.clone();
        loop {
            let accepted = tokio::select! {
                accepted = accept(&listener, &strangers) => accepted,
                _ = stopping.wait_for(|stopping| *stopping) => return,
            };
            let (stream, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: it passes, or somebody reads this.
                    if self.log_limit.permits() {
                        tracing::warn!("cannot accept connections of other nodes: {error}");
                    }
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let inbound = Arc::clone(&self);
            tokio::spawn(async move {
                let mut stopping = inbound.stopping.clone();
                let address = stream.peer_addr();
                let result = tokio::select! {
                    result = inbound.serve(stream, permit) => result,
                    _ = stopping.wait_for(|stopping| *stopping) => return,
                };
                let Err(error) = result else { return };
                match error.kind() {
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                        tracing::debug!("a connection of another node ended: {error}");
                    }
                    _ if inbound.log_limit.permits() => {
                        let address = address.map_or("?".to_owned(), |address| address.to_string());
                        tracing::warn!("dropped a connection from {address}: {error}");
                    }
                    _ => {}
                }
            });
        }
    }

    async fn serve(
        &self,
        mut stream: TcpStream,
        permit: tokio::sync::OwnedSemaphorePermit,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = BytesMut::new();
        let hello = timeout(HELLO_TIMEOUT, self.welcome(&mut stream, &mut buffer))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no hello"))??;
        drop(permit);

        let seat = usize::from(hello.from.0);
        let line = &self.lines[seat][hello.channel.position()];
        let number = line.start();
        for seen in &self.peers_seen[seat] {
            seen.notify_one();
        }
        let result = tokio::select! {
            result = self.receive(&mut stream, &mut buffer, &hello, line, number) => result,
            () = wait_until_replaced(line, number) => Ok(()),
        };
        line.end(number);
        result
    }

    async fn welcome(&self, stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<Hello> {
        let hello = receive_hello(stream, buffer).await?;
        if let Some(reason) = hello.reason_to_refuse(&self.config) {
            answer(stream, &Answer::Refused(reason.clone())).await?;
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        answer(stream, &Answer::Welcome).await?;
        Ok(hello)
    }

    async fn receive(
        &self,
        stream: &mut TcpStream,
        buffer: &mut BytesMut,
        hello: &Hello,
        line: &Line,
        number: u64,
    ) -> io::Result<()> {
        let mut last_sign = Instant::now();
        loop {
            while let Some(frame) = take_frame(buffer, FRAME_BYTES_MAX)? {
                if frame.is_empty() {
                    continue;
                }
                let newest = line.newest.lock();
                if *newest != number {
                    return Ok(());
                }
                (self.on_frame)(hello.from, hello.incarnation, hello.channel, frame);
            }
            if buffer.is_empty() && buffer.capacity() > KEPT_BYTES {
                *buffer = BytesMut::new();
            }
            timeout(SILENCE_MAX, read_more(stream, buffer))
                .await
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "silent for too long"))??;
            if last_sign.elapsed() >= SIGN_INTERVAL {
                last_sign = Instant::now();
                // Without room for one byte the dialer has not read the earlier ones: no loss.
                let _ = stream.try_write(&[0]);
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    strangers: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(strangers).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

async fn wait_until_replaced(line: &Line, number: u64) {
    loop {
        let replaced = line.replaced.notified();
        if *line.newest.lock() != number {
            return;
        }
        replaced.await;
    }
}
