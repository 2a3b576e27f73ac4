//! One client's connection: bytes to requests, requests to the handler, replies to bytes.
//!
//! Works in turns: decode what has arrived, let the handler answer, write all its replies at once,
//! read again. Invariants: replies leave in the order of the requests; while replies cannot be
//! written nothing more is handled, so a client that does not read costs one turn's output; an
//! idle connection keeps no room, or soon none; a request is dropped only with the whole connection.

mod handler;
mod moving;
mod room;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use resp::{DecodeError, Protocol, Request, RequestDecoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

pub use self::handler::{ConnectionHandler, Step};
use super::limits::ConnectionLimits;
use super::places::{Place, Places, Seat};
use super::registry::Registration;
use super::residence::Residence;
use super::room_ahead::RoomAhead;
use super::strangers::Stranger;

/// The least room for reading: as a rule the thread's, and the connection's own for the rest of what has begun.
const READ_BYTES_MIN: usize = room::SHARED_READ_BYTES;
/// The most room for reading, unless it is known how much comes.
const READ_BYTES_MAX: usize = 256 * 1024;
/// The most room that is made ahead for an argument that has been announced.
const ANNOUNCED_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The same when all connections together have made much: this much, then as much as has come.
const ANNOUNCED_BYTES_MIN: usize = 64 * 1024;
/// While the handler waits, this much is read ahead; it is how a lost client is noticed.
const READ_AHEAD_BYTES: usize = 64 * 1024;
/// The most requests of one turn.
const TURN_REQUESTS: usize = 1024;
/// The bytes of arguments after which a turn takes no further request.
const TURN_BYTES: usize = 1024 * 1024;
/// How long what a client still sends is read and dropped before closing. Closing with unread bytes
/// would reset the connection, and with it replies that the client has not read yet.
const LINGER: Duration = Duration::from_secs(1);

/// Why a connection ends.
enum End {
    /// After replies that the client should be able to read.
    Orderly,
    /// It is of no use any more, or must go at once.
    AtOnce,
    /// It goes on there.
    Moves(Place),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::AtOnce
    }
}

/// Whether a client may still send.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    Open,
    /// It closed its half, at this time.
    Closed(Instant),
}

/// Why nothing more can be decoded.
#[derive(Clone, Copy)]
enum Undecodable {
    Malformed(DecodeError),
    /// Its lines must not be taken for commands.
    Stranger(Stranger),
}

/// A connection and its handler.
pub struct Connection<H> {
    stream: TcpStream,
    handler: H,
    registration: Registration,
    limits: ConnectionLimits,
    decoder: RequestDecoder,
    /// Received, not decoded.
    buffer: BytesMut,
    /// Decoded, not handled.
    requests: VecDeque<Request>,
    /// Replies, not written.
    out: BytesMut,
    /// How much to ask for in the next read.
    read_bytes: usize,
    /// The buffer has room for an argument that was announced.
    announced: bool,
    /// Nothing has come since.
    ahead: Option<RoomAhead>,
    /// What the requests of this turn took in the buffer.
    decoded_bytes: usize,
    /// The client has been silent: no room is kept for what it may say.
    resting: bool,
    sending: Sending,
    /// Nothing of what came was looked at yet.
    fresh: bool,
    undecodable: Option<Undecodable>,
    /// `None`: it stays with the workers.
    places: Option<Places>,
    residence: Residence,
    /// Beside the driver.
    seat: Option<Seat>,
}

impl<H: ConnectionHandler> Connection<H> {
    /// Of a client that was just accepted.
    pub fn new(
        stream: TcpStream,
        handler: H,
        registration: Registration,
        limits: ConnectionLimits,
    ) -> Connection<H> {
        Connection {
            stream,
            handler,
            registration,
            limits,
            decoder: RequestDecoder::new(limits.requests),
            buffer: BytesMut::new(),
            requests: VecDeque::new(),
            out: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
            announced: false,
            ahead: None,
            decoded_bytes: 0,
            resting: false,
            sending: Sending::Open,
            fresh: true,
            undecodable: None,
            places: None,
            residence: Residence::default(),
            seat: None,
        }
    }

    /// The same that may go elsewhere. To be run on the workers at first.
    pub fn with_places(mut self, places: Option<Places>) -> Connection<H> {
        self.places = places;
        self
    }

    /// Runs until it ends, or goes on elsewhere.
    pub async fn run(mut self) {
        loop {
            match self.serve().await {
                End::Orderly => return self.linger().await,
                End::AtOnce => return,
                End::Moves(place) => match self.go_on_in(place) {
                    Some(stays) => self = stays,
                    None => return,
                },
            }
        }
    }

    async fn serve(&mut self) -> End {
        loop {
            match self.turn().await {
                Ok(()) => {}
                Err(end) => return end,
            }
            // A client that always has more to say must not keep its thread to itself.
            tokio::task::consume_budget().await;
        }
    }

    /// Handles what is there, or waits for more.
    async fn turn(&mut self) -> Result<(), End> {
        if self.registration.client().take_call() {
            room::borrow(&mut self.out);
            self.handler.deliver(&mut self.out);
            self.write().await?;
            self.resting |= self.registration.client().take_rest();
        }
        if self.registration.client().must_finish() {
            return Err(End::Orderly);
        }
        if self.requests.is_empty() {
            self.receive_elsewhere()?;
        }
        self.decode();
        if self.requests.is_empty() {
            return match (self.undecodable, self.sending) {
                (Some(Undecodable::Malformed(error)), _) => {
                    self.handler.on_decode_error(error, &mut self.out);
                    self.write().await?;
                    Err(End::Orderly)
                }
                (Some(Undecodable::Stranger(stranger)), _) => {
                    stranger.reply().encode(Protocol::Resp2, &mut self.out);
                    self.write().await?;
                    Err(End::Orderly)
                }
                (None, Sending::Closed(_)) => Err(End::AtOnce),
                (None, Sending::Open) => {
                    self.receive_elsewhere()?;
                    self.wait_for_bytes().await
                }
            };
        }
        self.resting = false;
        self.registration.client().touch();
        self.tell_input();
        if let Some(place) = self.leaves_for() {
            return Err(End::Moves(place));
        }
        self.handle().await
    }

    /// Moves whole requests from the buffer to the queue, as many as one turn takes.
    fn decode(&mut self) {
        if self.buffer.len() >= 2
            && std::mem::take(&mut self.fresh)
            && let Some(stranger) = Stranger::by_bytes(&self.buffer)
        {
            return self.turn_away(stranger);
        }
        let mut bytes = 0;
        let before = self.buffer.len();
        while self.undecodable.is_none()
            && self.requests.len() < TURN_REQUESTS
            && bytes < TURN_BYTES
        {
            match self.decoder.decode(&mut self.buffer) {
                Ok(Some(request)) => match Stranger::by_request(&request) {
                    Some(stranger) => self.turn_away(stranger),
                    None => {
                        bytes += request.byte_count();
                        self.requests.push_back(request);
                    }
                },
                Ok(None) => break,
                Err(error) => self.undecodable = Some(Undecodable::Malformed(error)),
            }
        }
        self.decoded_bytes += before - self.buffer.len();
        if self.buffer.is_empty() && !self.keeps_room() {
            // The requests have it, and it goes with them.
            self.buffer = BytesMut::new();
        }
    }

    /// More comes at once than the shared room takes, or is announced.
    fn keeps_room(&self) -> bool {
        self.announced || self.read_bytes > READ_BYTES_MIN
    }

    /// For CLIENT LIST.
    fn tell_input(&self) {
        let received = self.decoded_bytes + self.buffer.len();
        let room = self.buffer.capacity() - self.buffer.len();
        self.registration.client().set_input_bytes(received, room);
    }

    fn turn_away(&mut self, stranger: Stranger) {
        let (address, language) = (self.registration.client().address(), stranger.language());
        tracing::warn!("closed a connection from {address}: it speaks {language}");
        self.undecodable = Some(Undecodable::Stranger(stranger));
    }

    /// Lets the handler work until it has nothing to wait for, and writes its replies.
    async fn handle(&mut self) -> Result<(), End> {
        loop {
            room::borrow(&mut self.out);
            let step = self.handle_here();
            self.write().await?;
            match step {
                Step::Idle => {
                    if self.requests.is_empty() {
                        self.requests.shrink_to(16);
                        self.decoded_bytes = 0;
                    }
                    return Ok(());
                }
                Step::Close => return Err(End::Orderly),
                Step::Wait(ticket) => {
                    let outcome = self.wait_for_ticket(ticket).await?;
                    room::borrow(&mut self.out);
                    self.handler.resume(outcome, &mut self.out);
                    if self.registration.client().must_finish() {
                        // Only what was begun is answered.
                        self.requests.clear();
                    }
                }
            }
        }
    }

    fn handle_here(&mut self) -> Step<H::Ticket> {
        if self.places.is_none() || !self.residence.is_measured() {
            return self.handler.handle(&mut self.requests, &mut self.out);
        }
        let began = std::time::Instant::now();
        let step = self.handler.handle(&mut self.requests, &mut self.out);
        self.residence.handled(began.elapsed(), self.out.len());
        step
    }

    async fn wait_for_ticket(
        &mut self,
        mut ticket: H::Ticket,
    ) -> Result<<H::Ticket as Future>::Output, End> {
        loop {
            let half_closed_end = match self.sending {
                Sending::Open => None,
                Sending::Closed(since) => Some(since + self.limits.half_closed_timeout),
            };
            let reads_ahead = half_closed_end.is_none() && self.buffer.len() < READ_AHEAD_BYTES;
            tokio::select! {
                biased;
                outcome = &mut ticket => return Ok(outcome),
                () = self.registration.client().killed() => return Err(End::AtOnce),
                // Not `readable`: this one keeps the room for its waker.
                readable = poll_fn(|context| self.stream.poll_read_ready(context)),
                    if reads_ahead => readable?,
                () = sleep_until(half_closed_end.unwrap_or_else(Instant::now)),
                    if half_closed_end.is_some() => return Err(End::AtOnce),
            }
            if reads_ahead {
                self.read()?;
            }
        }
    }

    async fn wait_for_bytes(&mut self) -> Result<(), End> {
        if self.resting {
            return self.rest().await;
        }
        if self.buffer.is_empty() {
            (self.read_bytes, self.announced) = (READ_BYTES_MIN, false);
            self.buffer = BytesMut::new();
            self.tell_input();
            let count = tokio::select! {
                biased;
                read = poll_fn(|context| room::read(&mut self.stream, &mut self.buffer, context)) => read?,
                // The next turn sees what for.
                () = self.registration.client().told() => return Ok(()),
            };
            self.took(count);
            return Ok(());
        }
        // An argument that was announced is not copied from one buffer to the next as it grows.
        let mut announced = self.decoder.missing_bytes(&self.buffer).min(ANNOUNCED_BYTES_MAX);
        if announced > self.read_bytes && self.ahead.is_none() {
            self.ahead = RoomAhead::make(self.registration.rooms_ahead(), announced);
        }
        if self.ahead.is_none() {
            let least = ANNOUNCED_BYTES_MIN.max(self.buffer.len());
            announced = announced.min(least);
        }
        self.announced |= announced > self.read_bytes;
        self.buffer.reserve(self.read_bytes.max(announced));
        self.tell_input();
        // Not `readable` and a try: after a short read this one knows that there is no more, and
        // the wait for the next request begins without asking the kernel again.
        let count = tokio::select! {
            biased;
            read = self.stream.read_buf(&mut self.buffer) => read?,
            // The next turn sees what for.
            () = self.registration.client().told() => return Ok(()),
        };
        self.took(count);
        Ok(())
    }

    /// Waits without any room for what is to come.
    async fn rest(&mut self) -> Result<(), End> {
        self.buffer = BytesMut::from(&self.buffer[..]);
        self.ahead = None;
        (self.read_bytes, self.announced) = (READ_BYTES_MIN, false);
        self.tell_input();
        tokio::select! {
            biased;
            readable = self.stream.readable() => readable?,
            () = self.registration.client().told() => return Ok(()),
        }
        self.resting = false;
        self.read()?;
        Ok(())
    }

    fn took(&mut self, count: usize) {
        self.ahead = None;
        self.handler.on_read(count);
        if self.buffer.len() > count {
            // A request that comes in pieces: the client is busy saying it.
            self.registration.client().touch();
        }
        if count == 0 {
            self.sending = Sending::Closed(Instant::now());
        } else if count >= self.read_bytes {
            // There is more: ask for more next time.
            self.read_bytes = (self.read_bytes * 4).min(READ_BYTES_MAX);
        }
    }

    /// Reads once what has arrived.
    fn read(&mut self) -> io::Result<()> {
        self.buffer.reserve(self.read_bytes);
        match self.stream.try_read_buf(&mut self.buffer) {
            Ok(count) => self.took(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Writes all replies, as fast as the client takes them.
    async fn write(&mut self) -> Result<(), End> {
        // Set once the client has not taken everything at once.
        let mut started = None;
        while !self.out.is_empty() {
            match self.stream.try_write(&self.out) {
                Ok(count) => {
                    self.handler.on_written(count);
                    self.out.advance(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let now = Instant::now();
                    let started = *started.get_or_insert(now);
                    if self.out.len() > self.limits.output_bytes_max
                        && now - started > self.limits.drain_timeout
                    {
                        return Err(self.too_slow());
                    }
                    let deadline = now + self.limits.drain_timeout;
                    let writable = tokio::select! {
                        biased;
                        writable = timeout_at(deadline, self.stream.writable()) => writable,
                        () = self.registration.client().killed() => return Err(End::AtOnce),
                    };
                    match writable {
                        Ok(writable) => writable?,
                        Err(_) => return Err(self.too_slow()),
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        room::give_back(&mut self.out);
        Ok(())
    }

    fn too_slow(&self) -> End {
        tracing::warn!(
            "closed the connection of client {} from {}: it does not take its replies, {} bytes wait",
            self.registration.client().id(),
            self.registration.client().address(),
            self.out.len()
        );
        End::AtOnce
    }

    /// Tells the client that there is no more, and gives it a little time to read what there is.
    async fn linger(mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let mut ignored = vec![0; 16 * 1024];
        let drained = async { while let Ok(1..) = self.stream.read(&mut ignored).await {} };
        tokio::select! {
            _ = timeout(LINGER, drained) => {}
            () = self.registration.client().killed() => {}
        }
    }
}
