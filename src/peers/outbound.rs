//! The dialing side: keeps one connection to one node for one channel, and writes what is queued.
//!
//! Everything that gathered while the last write ran goes out in the next one. The acceptor sends a
//! byte about once a second; a connection on which neither side hears the other for a while is
//! given up, because TCP alone takes many minutes to notice a node whose power is gone.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::config::PeersConfig;
use super::frame::{put_frame, put_header};
use super::hello::{Channel, Hello, greet};
use super::log_limit::LogLimit;
use super::queue::Queue;
use crate::paxos::{Incarnation, NodeId};

const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// To connect and to be welcomed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the dialer says that it lives when it has nothing to send.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the acceptor may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Payloads from here on are written from where they are instead of being copied together.
const COPY_BYTES_MAX: usize = 32 * 1024;
/// The room for gathering that an idle connection keeps.
const KEPT_BYTES: usize = 64 * 1024;

/// One way to one node.
pub(super) struct Outbound {
    pub(super) config: Arc<PeersConfig>,
    pub(super) to: NodeId,
    pub(super) channel: Channel,
    pub(super) queue: Arc<Queue>,
    /// The life that we say we are.
    pub(super) incarnation: watch::Receiver<Incarnation>,
    /// True: write what waits, then end.
    pub(super) stopping: watch::Receiver<bool>,
    /// The other node has just dialed us, so it is worth trying at once.
    pub(super) peer_seen: Arc<Notify>,
}

/// Why a connection ended without an error.
enum Ended {
    Stopping,
    NewIncarnation,
}

impl Outbound {
    /// Runs until the node stops.
    pub(super) async fn run(mut self) {
        let log_limit = LogLimit::default();
        let mut backoff = BACKOFF_MIN;
        while !*self.stopping.borrow() {
            let mut stopping = self.stopping.clone();
            let connected = tokio::select! {
                connected = timeout(CONNECT_TIMEOUT, self.connect()) => connected,
                _ = stopping.wait_for(|stopping| *stopping) => return,
            };
            let error = match connected {
                Ok(Ok(stream)) => {
                    backoff = BACKOFF_MIN;
                    self.queue.open();
                    let ended = self.serve(stream).await;
                    self.queue.close();
                    match ended {
                        Ok(Ended::Stopping) => return,
                        Ok(Ended::NewIncarnation) => continue,
                        Err(error) => error,
                    }
                }
                Ok(Err(error)) => error,
                Err(_) => io::Error::new(io::ErrorKind::TimedOut, "no answer"),
            };
            if log_limit.permits() {
                let name = self.config.name(self.to);
                match error.kind() {
                    // What everybody sees while a node is down.
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::UnexpectedEof => {
                        tracing::debug!("no connection to {name}: {error}");
                    }
                    _ => tracing::warn!("no connection to {name}: {error}"),
                }
            }
            // Between half of it and all of it, so that nodes do not dial in step.
            let pause = backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
            backoff = (backoff * 2).min(BACKOFF_MAX);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.peer_seen.notified() => backoff = BACKOFF_MIN,
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
        }
    }

    async fn connect(&mut self) -> io::Result<TcpStream> {
        let incarnation = *self.incarnation.borrow_and_update();
        let address = self
            .config
            .nodes
            .get(usize::from(self.to.0))
            .map(|peer| peer.address.as_str())
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "not in the config"))?;
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let hello = Hello::ours(&self.config, incarnation, self.to, self.channel);
        greet(&mut stream, &hello).await?;
        Ok(stream)
    }

    async fn serve(&mut self, stream: TcpStream) -> io::Result<Ended> {
        let (read_half, mut write_half) = stream.into_split();
        let incarnation = &mut self.incarnation;
        tokio::select! {
            error = watch_other_side(read_half) => Err(error),
            result = write_queue(&self.queue, &mut write_half, &mut self.stopping) => {
                result.map(|()| Ended::Stopping)
            }
            _ = incarnation.changed() => Ok(Ended::NewIncarnation),
        }
    }
}

/// Returns when the other side is gone.
async fn watch_other_side(mut read_half: OwnedReadHalf) -> io::Error {
    let mut signs = [0; 64];
    loop {
        match timeout(SILENCE_MAX, read_half.read(&mut signs)).await {
            Ok(Ok(0)) => {
                return io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the other node");
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error,
            Err(_) => return io::Error::new(io::ErrorKind::TimedOut, "silent for too long"),
        }
    }
}

/// Writes until the connection fails, or until the node stops and everything is written.
async fn write_queue(
    queue: &Queue,
    stream: &mut (impl AsyncWrite + Unpin),
    stopping: &mut watch::Receiver<bool>,
) -> io::Result<()> {
    let mut gather = BytesMut::new();
    let mut last_write = Instant::now();
    loop {
        let batch = tokio::select! {
            biased;
            batch = queue.take() => batch,
            () = told_to_stop(stopping) => return stream.shutdown().await,
            () = sleep_until(last_write + IDLE_INTERVAL) => Vec::new(),
        };
        if batch.is_empty() {
            gather.clear();
            put_frame(&[], &mut gather);
            stream.write_all(&gather).await?;
        } else {
            write_batch(&batch, &mut gather, stream).await?;
            queue.written(&batch);
        }
        last_write = Instant::now();
        if gather.capacity() > KEPT_BYTES {
            gather = BytesMut::new();
        }
    }
}

/// Also when nobody is left to tell.
async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn write_batch(
    batch: &[Bytes],
    gather: &mut BytesMut,
    stream: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    gather.clear();
    for frame in batch {
        if frame.len() < COPY_BYTES_MAX {
            put_frame(frame, gather);
        } else {
            put_header(frame, gather);
            stream.write_all(gather).await?;
            gather.clear();
            stream.write_all(frame).await?;
        }
    }
    stream.write_all(gather).await
}
