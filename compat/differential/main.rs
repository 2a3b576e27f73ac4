//! Random commands, sent over sockets to a cluster of three nodes and to a real Redis: every reply
//! must be the same.
//!
//! Two connections to each, taking turns, so that WATCH can fail; pipelines of up to 16 commands,
//! cut by MULTI and EXEC anywhere; half of the rounds in RESP3. A round is a thousand commands on
//! empty servers, all decided by its seed. `compat/differential/run --help` says how to run it for
//! longer. Needs `redis-server` (7.0 or newer) in the path.
//!
//! Left out, or compared more loosely, is only what `docs/compatibility.md` lists, and what depends
//! on the moment: the order of KEYS and SCAN; remaining lifetimes by a few seconds.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use resp::{Reply, ReplyDecoder, encode_request};

#[allow(dead_code)]
#[path = "../../tests/cluster/harness.rs"]
mod harness;
#[path = "../../tests/commands/support/random.rs"]
mod random;
#[path = "../../tests/commands/support/text.rs"]
mod text;

use harness::{Cluster, free_ports};

/// Commands of one round.
const ROUND: u64 = 1000;
/// Commands sent at once.
const PIPELINE_MAX: usize = 16;
/// How often a round is begun again because the cluster changed its master meanwhile.
const ATTEMPTS: usize = 5;
/// Commands shown when replies differ.
const SHOWN: usize = 60;

/// A real Redis on a port of its own.
struct Redis {
    child: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Redis {
    fn start() -> Redis {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = free_ports(1);
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()])
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is needed for this test: install it");
        let address = format!("127.0.0.1:{port}");
        harness::eventually("redis-server answers", || TcpStream::connect(&address).ok());
        Redis { child, address, _directory: directory }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Connection {
    stream: TcpStream,
    decoder: ReplyDecoder,
    buffer: BytesMut,
}

impl Connection {
    fn open(address: &str) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Connection { stream, decoder: ReplyDecoder::default(), buffer: BytesMut::new() })
    }

    /// Sends all at once.
    fn ask(&mut self, commands: &[Vec<Bytes>]) -> io::Result<Vec<Reply>> {
        let mut out = BytesMut::new();
        commands.iter().for_each(|args| encode_request(args, &mut out));
        self.stream.write_all(&out)?;
        let mut replies = Vec::new();
        while replies.len() < commands.len() {
            match self.decoder.decode(&mut self.buffer).map_err(io::Error::other)? {
                Some(reply) => replies.push(reply),
                None => {
                    let mut chunk = [0; 16 << 10];
                    match self.stream.read(&mut chunk)? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        count => self.buffer.extend_from_slice(&chunk[..count]),
                    }
                }
            }
        }
        Ok(replies)
    }
}

fn words(line: &str) -> Vec<Bytes> {
    line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

/// What of a reply is compared.
#[derive(Clone, Copy, PartialEq)]
enum Compared {
    Exactly,
    /// Not the order of an array.
    Unordered,
    /// Not the order of the second part.
    Scan,
    /// A remaining lifetime.
    Lifetime,
}

impl Compared {
    fn of(args: &[Bytes]) -> Compared {
        match args[0].to_ascii_lowercase().as_slice() {
            b"keys" => Compared::Unordered,
            b"scan" => Compared::Scan,
            b"ttl" | b"pttl" => Compared::Lifetime,
            _ => Compared::Exactly,
        }
    }

    fn same(self, theirs: &Reply, ours: &Reply) -> bool {
        match (self, theirs, ours) {
            (Compared::Unordered, Reply::Array(theirs), Reply::Array(ours)) => {
                let (mut theirs, mut ours) = (theirs.clone(), ours.clone());
                theirs.sort_by_key(text::of);
                ours.sort_by_key(text::of);
                theirs == ours
            }
            (Compared::Scan, Reply::Array(theirs), Reply::Array(ours)) => {
                theirs.len() == 2
                    && ours.len() == 2
                    && theirs[0] == ours[0]
                    && Compared::Unordered.same(&theirs[1], &ours[1])
            }
            (Compared::Lifetime, Reply::Integer(theirs), Reply::Integer(ours)) => {
                theirs == ours || *theirs > 0 && *ours > 0 && theirs.abs_diff(*ours) < 10_000
            }
            // A deadline that was given relative to now: the two were asked one after the other.
            (_, Reply::Integer(theirs), Reply::Integer(ours)) if *theirs > 1_000_000_000 => {
                theirs.abs_diff(*ours) < 10_000
            }
            _ => theirs == ours,
        }
    }
}

/// The same client at both servers.
struct Client {
    theirs: Connection,
    ours: Connection,
    /// How the replies of the open transaction are compared.
    queued: Option<Vec<Compared>>,
    watches: bool,
}

impl Client {
    fn open(redis: &str, cluster: &str) -> io::Result<Client> {
        let (theirs, ours) = (Connection::open(redis)?, Connection::open(cluster)?);
        Ok(Client { theirs, ours, queued: None, watches: false })
    }

    fn same(&mut self, args: &[Bytes], theirs: &Reply, ours: &Reply) -> bool {
        let name = args[0].to_ascii_lowercase();
        match (&name[..], theirs) {
            (b"multi", Reply::Simple(_)) => self.queued = Some(Vec::new()),
            (b"watch", Reply::Simple(_)) => self.watches = true,
            (b"exec" | b"discard", _) if args.len() == 1 => {
                let queued = self.queued.take().unwrap_or_default();
                self.watches = false;
                if let (Reply::Array(theirs), Reply::Array(ours)) = (theirs, ours) {
                    let mut parts = queued.iter().zip(theirs.iter().zip(ours));
                    return theirs.len() == ours.len()
                        && parts.all(|(compared, (theirs, ours))| compared.same(theirs, ours));
                }
            }
            (_, Reply::Simple(text)) if text == "QUEUED" => {
                if let Some(queued) = &mut self.queued {
                    queued.push(Compared::of(args));
                }
            }
            _ => (),
        }
        Compared::of(args).same(theirs, ours)
    }
}

/// A random command, or two that belong together.
fn random_commands(random: &mut fastrand::Rng, anyone_watches: bool) -> Vec<Vec<Bytes>> {
    let extra = [
        "dbsize",
        "ttl a",
        "pttl b",
        "ttl c",
        "scan 0 count 1000",
        "scan 0 COUNT 500 match a*",
        "SCAN 0 match [abc] count 1000",
        "scan 0 count 1000 type string",
        "scan x",
        "scan 0 count 0",
        "scan 0 count 100 type list",
        "pexpire b 1 lt x",
        "randomkey x",
        "multi x",
        "dump nosuch",
        "object freq",
        "wait x 0",
        "time x",
        "unwatch x",
        "echo",
        "swapdb 0 x",
    ];
    let args = match random.usize(..30) {
        0 => words(extra[random.usize(..extra.len())]),
        _ => random::random_command(random),
    };
    match args[0].to_ascii_lowercase().as_slice() {
        // Watched versions are equal again when the databases have changed places twice.
        b"swapdb" if anyone_watches => vec![words("ping")],
        // A watched key that was absent, then created and deleted, counts as unchanged here and as
        // changed in Redis: watch only what is there.
        b"watch" if args.len() > 1 => {
            let mut set = vec![Bytes::from("mset")];
            args[1..].iter().for_each(|key| set.extend([key.clone(), Bytes::from("w")]));
            vec![set, args]
        }
        _ => vec![args],
    }
}

/// Whether a reply is about the cluster and not about the command.
fn is_about_cluster(reply: &Reply) -> bool {
    match reply {
        Reply::Error(text) => {
            let word = text.split(' ').next().unwrap_or_default();
            ["MOVED", "CLUSTERDOWN", "TRYAGAIN", "UNCERTAIN", "LOADING"].contains(&word)
        }
        _ => false,
    }
}

/// One round; an error when the cluster's master was lost.
fn round(seed: u64, commands: u64, redis: &str, cluster: &str) -> io::Result<u64> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut clients = [Client::open(redis, cluster)?, Client::open(redis, cluster)?];
    for client in &mut clients {
        let first = [words("flushall")];
        client.theirs.ask(&first)?;
        client.ours.ask(&first)?;
        if seed % 2 == 1 {
            client.theirs.ask(&[words("hello 3")])?;
            client.ours.ask(&[words("hello 3")])?;
        }
    }
    let mut history: Vec<String> = Vec::new();
    let mut sent = 0;
    while sent < commands {
        let who = usize::from(random.u8(..3) == 0);
        let (mut pipeline, mut watches_soon) = (Vec::new(), false);
        let most = if random.bool() { 1 } else { random.usize(1..=PIPELINE_MAX) };
        while pipeline.len() < most {
            let anyone_watches = clients.iter().any(|client| client.watches);
            let more = random_commands(&mut random, anyone_watches || watches_soon);
            watches_soon |= more.len() > 1;
            pipeline.extend(more);
        }
        sent += pipeline.len() as u64;
        let client = &mut clients[who];
        let theirs = client.theirs.ask(&pipeline).expect("Redis answers");
        let ours = client.ours.ask(&pipeline)?;
        if ours.iter().any(is_about_cluster) {
            return Err(io::Error::other("the cluster has another master"));
        }
        for (args, (theirs, ours)) in pipeline.iter().zip(theirs.iter().zip(&ours)) {
            let shown: Vec<String> =
                args.iter().map(|arg| format!("\"{}\"", arg.escape_ascii())).collect();
            history.push(format!("{who}: {}  ->  {}", shown.join(" "), text::of(theirs)));
            assert!(
                client.same(args, theirs, ours),
                "seed {seed}, after\n{}\nRedis answers {}\nwe answer    {}",
                history[history.len().saturating_sub(SHOWN)..].join("\n"),
                text::of(theirs),
                text::of(ours),
            );
        }
    }
    Ok(sent)
}

#[test]
fn a_cluster_answers_as_redis_does() {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let commands = number("DIFFERENTIAL_COMMANDS", 10_000);
    let first_seed = number("DIFFERENTIAL_SEED", 0);
    let redis = Redis::start();
    let cluster = Cluster::start();
    let (started, mut sent, mut seed) = (Instant::now(), 0, first_seed);
    while sent < commands {
        let mut lost = 0;
        sent += loop {
            let master = cluster.master();
            let count = ROUND.min(commands - sent);
            match round(seed, count, &redis.address, cluster.address(master)) {
                Ok(sent) => break sent,
                Err(error) => {
                    lost += 1;
                    assert!(lost < ATTEMPTS, "seed {seed}, for the last time: {error}");
                }
            }
        };
        seed += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{sent} commands, seeds {first_seed} to {}, {seconds:.0} s: all the same", seed - 1);
}
