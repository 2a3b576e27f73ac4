//! The clients of a load, and what they count.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::{Buf, BytesMut};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use resp::encode_request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::mix::{self, Kind, Mix};
use super::{BenchArgs, replies};

/// A pipeline that is not answered within this is given up: longer than any bound of the server.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// Pause after an error that says "not now", so that errors do not become the load.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(5);
/// Room for reading replies at a time.
const READ_BYTES: usize = 16 * 1024;
/// Keys per MSET while filling, at most,
const FILL_KEYS_MAX: u64 = 50;
/// and bytes of its values, unless one value alone is larger.
const FILL_BYTES_MAX: u64 = 1024 * 1024;

/// What every client does.
pub struct Plan {
    mix: Mix,
    pipeline: usize,
    keys: u64,
    value_size: usize,
    seed: u64,
    /// What is sent from here on counts,
    pub begin: Instant,
    /// if it is answered by then.
    pub end: Instant,
}

impl Plan {
    /// The plan that the arguments describe.
    pub fn new(args: &BenchArgs, begin: Instant, end: Instant) -> Plan {
        Plan {
            mix: args.mix.clone(),
            pipeline: args.pipeline as usize,
            keys: args.keys,
            value_size: args.value_size,
            seed: args.seed,
            begin,
            end,
        }
    }
}

/// Latencies in microseconds, by kind of command.
pub struct Totals {
    by_kind: Vec<Histogram<u64>>,
}

impl Totals {
    /// Nothing counted yet.
    pub fn new() -> Totals {
        let histogram =
            || Histogram::new_with_bounds(1, 60_000_000, 3).expect("1 us to 60 s is a valid range");
        Totals { by_kind: Kind::ALL.iter().map(|_| histogram()).collect() }
    }

    /// Counts others in.
    pub fn add(&mut self, other: &Totals) {
        for (mine, others) in self.by_kind.iter_mut().zip(&other.by_kind) {
            mine.add(others).expect("all histograms have the same range");
        }
    }

    /// Commands that were answered without an error.
    pub fn count(&self) -> u64 {
        self.by_kind.iter().map(Histogram::len).sum()
    }

    /// The latencies of one kind, in microseconds.
    pub fn of(&self, kind: Kind) -> &Histogram<u64> {
        &self.by_kind[kind.position()]
    }

    /// The latencies of all kinds together, in microseconds.
    pub fn all(&self) -> Histogram<u64> {
        let mut all = Totals::new().by_kind.swap_remove(0);
        for histogram in &self.by_kind {
            all.add(histogram).expect("all histograms have the same range");
        }
        all
    }

    fn record(&mut self, kind: Kind, latency: Duration) {
        let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.by_kind[kind.position()].saturating_record(latency_us.max(1));
    }
}

/// What the clients tell each other and the progress line.
pub struct Shared {
    addresses: Mutex<Vec<String>>,
    /// Which of them to connect to.
    current: AtomicUsize,
    /// Commands answered without an error, warm-up included.
    pub answered: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
    /// As many as there are threads: one per client would be a megabyte for each.
    totals: Vec<Mutex<Totals>>,
    started: Instant,
    write_last_ns: AtomicU64,
    write_gap_max_ns: AtomicU64,
}

impl Shared {
    /// For servers at these addresses, the likely master first, and clients on so many threads.
    pub fn new(addresses: Vec<String>, threads: usize) -> Shared {
        assert!(!addresses.is_empty(), "a load needs a server");
        assert!(threads > 0, "a load needs a thread");
        Shared {
            addresses: Mutex::new(addresses),
            current: AtomicUsize::new(0),
            answered: AtomicU64::new(0),
            errors: Mutex::new(BTreeMap::new()),
            totals: (0..threads).map(|_| Mutex::new(Totals::new())).collect(),
            started: Instant::now(),
            write_last_ns: AtomicU64::new(0),
            write_gap_max_ns: AtomicU64::new(0),
        }
    }

    /// Errors so far, by first word.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().clone()
    }

    /// Of all clients.
    pub fn totals(&self) -> Totals {
        let mut all = Totals::new();
        self.totals.iter().for_each(|totals| all.add(&totals.lock()));
        all
    }

    /// The longest time within the measured one in which no write was acknowledged.
    pub fn write_gap_max(&self, plan: &Plan) -> Duration {
        self.write_gap_ends(plan, plan.end);
        Duration::from_nanos(self.write_gap_max_ns.load(Ordering::Relaxed))
    }

    fn count_errors(&self, word: &str, count: u64) {
        *self.errors.lock().entry(word.to_string()).or_default() += count;
    }

    fn write_gap_ends(&self, plan: &Plan, now: Instant) {
        let ns = |at: Instant| (at - self.started).as_nanos() as u64;
        let now_ns = ns(now);
        let last_ns = self.write_last_ns.swap(now_ns, Ordering::Relaxed).max(ns(plan.begin));
        self.write_gap_max_ns.fetch_max(now_ns.saturating_sub(last_ns), Ordering::Relaxed);
    }

    fn address(&self) -> (usize, String) {
        let addresses = self.addresses.lock();
        let current = self.current.load(Ordering::Relaxed) % addresses.len();
        (current, addresses[current].clone())
    }

    /// The server at `failed` is of no use: the next one's turn, unless somebody else said so.
    fn leave(&self, failed: usize) {
        let next = (failed + 1) % self.addresses.lock().len();
        let _ = self.current.compare_exchange(failed, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn moved_to(&self, address: &str) {
        let mut addresses = self.addresses.lock();
        let known = addresses.iter().position(|known| known == address);
        let position = known.unwrap_or_else(|| {
            addresses.push(address.to_string());
            addresses.len() - 1
        });
        self.current.store(position, Ordering::Relaxed);
    }
}

/// One client until the plan's end.
pub async fn client(plan: std::sync::Arc<Plan>, shared: std::sync::Arc<Shared>, number: u32) {
    let mut random = fastrand::Rng::with_seed(plan.seed.wrapping_add(u64::from(number) << 32));
    let value: Vec<u8> = (0..plan.value_size).map(|_| random.alphanumeric() as u8).collect();
    let totals = &shared.totals[number as usize % shared.totals.len()];
    let mut connection: Option<Connection> = None;
    let mut request = BytesMut::new();
    let mut kinds = Vec::with_capacity(plan.pipeline);
    // Looking at the clock costs more than making a request up, so the end of one exchange is taken
    // for the beginning of the next.
    let mut now = Instant::now();
    while now < plan.end {
        let Some(open) = &mut connection else {
            connection = Connection::open(&shared).await;
            now = Instant::now();
            continue;
        };
        request.clear();
        kinds.clear();
        for _ in 0..plan.pipeline {
            let kind = plan.mix.choose(&mut random);
            mix::write_command(&mut request, kind, &mut random, plan.keys, &value);
            kinds.push(kind);
        }
        let mut round = Round { plan: &plan, shared: &shared, totals, sent: now, answered: now };
        let goes_on = open.exchange(&request, &kinds, &mut round).await;
        now = round.answered;
        if !goes_on {
            connection = None;
            now = Instant::now();
        }
    }
}

/// Where the answers of one pipeline are counted.
struct Round<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    totals: &'a Mutex<Totals>,
    sent: Instant,
    /// When replies came last.
    answered: Instant,
}

impl Round<'_> {
    /// Counts `kinds`, answered just now without an error.
    fn count(&self, kinds: &[Kind]) {
        if kinds.is_empty() {
            return;
        }
        let now = self.answered;
        self.shared.answered.fetch_add(kinds.len() as u64, Ordering::Relaxed);
        if self.sent < self.plan.begin || now > self.plan.end {
            return;
        }
        let mut totals = self.totals.lock();
        for kind in kinds {
            totals.record(*kind, now - self.sent);
        }
        drop(totals);
        if kinds.iter().any(|kind| kind.writes()) {
            self.shared.write_gap_ends(self.plan, now);
        }
    }
}

struct Connection {
    stream: TcpStream,
    /// Of the server's address.
    position: usize,
    buffer: BytesMut,
    /// Ends when a pipeline may be overdue. Set anew only then: most are answered long before.
    overdue: Pin<Box<Sleep>>,
}

impl Connection {
    async fn open(shared: &Shared) -> Option<Connection> {
        let (position, address) = shared.address();
        let connect = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(&address)).await;
        match connect {
            Ok(Ok(stream)) if stream.set_nodelay(true).is_ok() => {
                let buffer = BytesMut::with_capacity(READ_BYTES);
                let overdue = Box::pin(tokio::time::sleep(ANSWER_WITHIN));
                Some(Connection { stream, position, buffer, overdue })
            }
            _ => {
                shared.leave(position);
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                None
            }
        }
    }

    /// Sends one pipeline and reads its answers; false when the connection is of no more use.
    async fn exchange(&mut self, request: &[u8], kinds: &[Kind], round: &mut Round<'_>) -> bool {
        let mut done = 0;
        let mut refusal = None;
        let Connection { stream, buffer, overdue, .. } = self;
        let deadline = tokio::time::Instant::from_std(round.sent + ANSWER_WITHIN);
        let answers = async {
            stream.write_all(request).await?;
            while done < kinds.len() {
                done += read_replies(stream, buffer, &kinds[done..], round, &mut refusal).await?;
            }
            io::Result::Ok(())
        };
        let failure = tokio::select! {
            biased;
            answered = answers => answered.err().map(|_| "closed"),
            () = passes(overdue, deadline) => Some("timeout"),
        };
        if let Some(word) = failure {
            round.shared.count_errors(word, (kinds.len() - done) as u64);
            round.shared.leave(self.position);
            return false;
        }
        match refusal {
            None => true,
            Some(Refusal::Moved(address)) => {
                round.shared.moved_to(&address);
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                false
            }
            Some(Refusal::NotNow) => {
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                // The server may stay in this state while another one becomes the master.
                round.shared.leave(self.position);
                false
            }
        }
    }
}

/// Waits until then. The timer may be set for an earlier time.
async fn passes(timer: &mut Pin<Box<Sleep>>, deadline: tokio::time::Instant) {
    timer.as_mut().await;
    while timer.deadline() < deadline {
        timer.as_mut().reset(deadline);
        timer.as_mut().await;
    }
}

/// Reads once and counts the replies that are whole; how many.
async fn read_replies(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    kinds: &[Kind],
    round: &mut Round<'_>,
    refusal: &mut Option<Refusal>,
) -> io::Result<usize> {
    buffer.reserve(READ_BYTES);
    if stream.read_buf(buffer).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    round.answered = Instant::now();
    let (mut offset, mut count, mut counted) = (0, 0, 0);
    while count < kinds.len() {
        let reply = replies::first(&buffer[offset..])
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let Some(reply) = reply else { break };
        if let Some(text) = reply.error {
            round.count(&kinds[counted..count]);
            counted = count + 1;
            let text = String::from_utf8_lossy(text);
            let word = text.split(' ').next().unwrap_or_default();
            round.shared.count_errors(word, 1);
            *refusal = Refusal::of(&text).or(refusal.take());
        }
        offset += reply.length;
        count += 1;
    }
    round.count(&kinds[counted..count]);
    buffer.advance(offset);
    Ok(count)
}

/// Errors after which a client goes elsewhere.
enum Refusal {
    Moved(String),
    NotNow,
}

impl Refusal {
    fn of(text: &str) -> Option<Refusal> {
        let mut words = text.split(' ');
        match words.next()? {
            "MOVED" => words.nth(1).map(|address| Refusal::Moved(address.to_string())),
            "CLUSTERDOWN" | "LOADING" | "TRYAGAIN" | "UNCERTAIN" => Some(Refusal::NotNow),
            _ => None,
        }
    }
}

/// Writes every key once, so that gets find values of the right size.
pub async fn fill(shared: &Shared, args: &BenchArgs) -> anyhow::Result<()> {
    let (_, address) = shared.address();
    let value = vec![b'v'; args.value_size];
    let mut stream = TcpStream::connect(&address).await.context("cannot connect to fill")?;
    let mut buffer = BytesMut::new();
    let keys_at_once = (FILL_BYTES_MAX / args.value_size.max(1) as u64).clamp(1, FILL_KEYS_MAX);
    let mut first = 0;
    while first < args.keys {
        let last = (first + keys_at_once).min(args.keys);
        let names: Vec<_> = (first..last).map(mix::key_name).collect();
        let mut arguments: Vec<&[u8]> = vec![b"MSET"];
        arguments.extend(names.iter().flat_map(|name| [&name[..], &value]));
        let mut request = BytesMut::new();
        encode_request(&arguments, &mut request);
        stream.write_all(&request).await?;
        buffer.clear();
        loop {
            if stream.read_buf(&mut buffer).await? == 0 {
                anyhow::bail!("{address} closed the connection while it was filled");
            }
            match replies::first(&buffer) {
                Ok(None) => {}
                Ok(Some(replies::Found { error: None, .. })) => break,
                Ok(Some(replies::Found { error: Some(text), .. })) => {
                    anyhow::bail!("{address} answered {}", String::from_utf8_lossy(text))
                }
                Err(_) => anyhow::bail!("{address} does not answer as Redis does"),
            }
        }
        first = last;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers whatever it reads with `reply`; with nothing, it closes instead.
    async fn server(reply: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                while stream.read(&mut request).await.is_ok_and(|length| length > 0)
                    && !reply.is_empty()
                    && stream.write_all(reply.as_bytes()).await.is_ok()
                {}
            }
        });
        address
    }

    /// One client's short load on these servers.
    async fn load(addresses: Vec<String>) -> Shared {
        let begin = Instant::now();
        let plan = Plan {
            mix: "set".parse().expect("a mix"),
            pipeline: 1,
            keys: 10,
            value_size: 10,
            seed: 1,
            begin,
            end: begin + Duration::from_millis(200),
        };
        let shared = Arc::new(Shared::new(addresses, 1));
        client(Arc::new(plan), shared.clone(), 0).await;
        Arc::into_inner(shared).expect("the only client is done")
    }

    #[tokio::test]
    async fn a_client_goes_where_moved_sends_it() {
        let master = server("+OK\r\n".into()).await;
        let replica = server(format!("-MOVED 1 {master}\r\n")).await;
        let shared = load(vec![replica]).await;
        let totals = shared.totals();
        assert!(totals.of(Kind::Set).len() > 1);
        assert_eq!(shared.errors(), BTreeMap::from([("MOVED".to_string(), 1)]));
        // The last answer may come after the end.
        let answered = shared.answered.load(Ordering::Relaxed);
        assert!((answered - 1..=answered).contains(&totals.count()), "{answered} answered");
    }

    #[tokio::test]
    async fn a_client_leaves_a_server_that_closes_or_cannot_answer_now() {
        for (reply, word) in [("", "closed"), ("-CLUSTERDOWN no\r\n", "CLUSTERDOWN")] {
            let bad = server(reply.into()).await;
            let good = server("+OK\r\n".into()).await;
            let shared = load(vec![bad, good]).await;
            assert!(shared.totals().count() > 1);
            assert_eq!(shared.errors(), BTreeMap::from([(word.to_string(), 1)]));
        }
    }
}
