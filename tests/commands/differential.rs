//! Random commands, answered by us and by a real Redis: every reply must be the same.
//!
//! Needs `redis-server` (7.0 or newer) in the path. `DIFFERENTIAL_SEED=N` replays one seed,
//! `DIFFERENTIAL_COMMANDS=N` runs longer. Left out: what differs by design (order of KEYS is sorted
//! before comparing, cursors) and what depends on the moment (remaining lifetimes; DBSIZE, which in
//! Redis counts expired keys until they are met).

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arakoon::server::{Session, Shared, Step};
use bytes::{Bytes, BytesMut};
use resp::{Reply, ReplyDecoder, Request, encode_request};

use crate::support::node::OneNode;
use crate::support::random::random_command;
use crate::support::text;

/// A real Redis on a socket of its own.
struct Redis {
    child: Child,
    stream: UnixStream,
    decoder: ReplyDecoder,
    buffer: BytesMut,
    _directory: tempfile::TempDir,
}

impl Redis {
    fn start() -> Redis {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("redis.sock");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--enable-debug-command", "yes"])
            .arg("--unixsocket")
            .arg(&socket)
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is needed for this test: install it");
        let deadline = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "redis-server: {error}"),
            }
            std::thread::yield_now();
        };
        let (decoder, buffer) = (ReplyDecoder::default(), BytesMut::new());
        Redis { child, stream, decoder, buffer, _directory: directory }
    }

    fn ask(&mut self, args: &[Bytes]) -> Reply {
        let mut out = BytesMut::new();
        encode_request(args, &mut out);
        self.stream.write_all(&out).expect("redis-server reads");
        loop {
            if let Some(reply) = self.decoder.decode(&mut self.buffer).expect("RESP") {
                return reply;
            }
            let mut chunk = [0; 4096];
            let count = self.stream.read(&mut chunk).expect("redis-server answers");
            assert!(count > 0, "redis-server closed the connection");
            self.buffer.extend_from_slice(&chunk[..count]);
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Our side.
struct Ours {
    node: OneNode,
    session: Session,
}

impl Ours {
    fn new() -> Ours {
        let shared = Arc::new(Shared::new(0));
        let session = Session::new(shared, 1, String::new(), String::new());
        Ours { node: OneNode::new(0), session }
    }

    fn ask(&mut self, args: &[Bytes]) -> Reply {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after the epoch");
        self.node.0.lock().stamp_ms = now.as_millis() as u64;
        let mut requests = VecDeque::from([Request { arguments: args.to_vec() }]);
        let mut out = BytesMut::new();
        loop {
            match self.session.handle(&mut requests, &mut out, &self.node) {
                Step::Submit(submission) => {
                    self.session.complete(self.node.propose(submission), &mut out);
                }
                Step::Idle if !requests.is_empty() => (),
                Step::Pause(_) => panic!("nothing here waits"),
                Step::Idle | Step::Close => break,
            }
        }
        let reply = ReplyDecoder::default().decode(&mut out).expect("RESP");
        reply.unwrap_or_else(|| panic!("no reply to {args:?}"))
    }
}

/// Whether the replies are the same, but for what differs by design. `sorted`: how deep the arrays
/// are whose order does not count; 0: none.
fn same(sorted: u32, theirs: &Reply, ours: &Reply) -> bool {
    match (theirs, ours) {
        (Reply::Array(theirs), Reply::Array(ours)) => {
            let (mut theirs, mut ours) = (theirs.clone(), ours.clone());
            if sorted == 1 {
                theirs.sort_by_key(text::of);
                ours.sort_by_key(text::of);
            }
            let inner = sorted.saturating_sub(1);
            let mut pairs = theirs.iter().zip(&ours);
            theirs.len() == ours.len() && pairs.all(|(theirs, ours)| same(inner, theirs, ours))
        }
        // A deadline that was given relative to now: the two were asked one after the other.
        (Reply::Integer(theirs), Reply::Integer(ours)) if *theirs > 1_000_000_000 => {
            theirs.abs_diff(*ours) < 5000
        }
        _ => theirs == ours,
    }
}

#[test]
fn what_one_dumps_the_other_restores() {
    let (mut redis, mut ours) = (Redis::start(), Ours::new());
    let mut random = fastrand::Rng::with_seed(7);
    let mut values: Vec<Bytes> =
        ["", "0", "-129", "32768", "-2147483648", "2147483648", "007"].map(Bytes::from).to_vec();
    for length in [1, 63, 64, 300, 16_383, 16_384, 100_000] {
        // Noise stays as it is; few letters are compressed.
        values.push((0..length).map(|_| random.u8(..)).collect());
        values.push((0..length).map(|_| random.u8(b'a'..b'd')).collect());
    }
    let call = |words: &[&[u8]]| words.iter().map(|word| Bytes::copy_from_slice(word)).collect();
    for value in values {
        let set: Vec<Bytes> = call(&[b"set", b"from", &value]);
        assert_eq!((redis.ask(&set), ours.ask(&set)), (Reply::OK, Reply::OK));
        let dump: Vec<Bytes> = call(&[b"dump", b"from"]);
        let (Reply::Bulk(theirs), Reply::Bulk(mine)) = (redis.ask(&dump), ours.ask(&dump)) else {
            panic!("DUMP answers a string");
        };
        let restore = |dump: &[u8]| call(&[b"restore", b"to", b"0", dump, b"replace"]);
        assert_eq!(ours.ask(&restore(&theirs)), Reply::OK, "{}", theirs.escape_ascii());
        assert_eq!(redis.ask(&restore(&mine)), Reply::OK, "{}", mine.escape_ascii());
        let get: Vec<Bytes> = call(&[b"get", b"to"]);
        let value = Reply::Bulk(value);
        assert_eq!((redis.ask(&get), ours.ask(&get)), (value.clone(), value));
    }
}

#[test]
fn random_commands_are_answered_as_redis_answers_them() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("DIFFERENTIAL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..20,
    };
    let commands = number("DIFFERENTIAL_COMMANDS").unwrap_or(1000);
    let mut redis = Redis::start();
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut ours = Ours::new();
        for line in ["reset", "flushall"] {
            redis.ask(&[Bytes::from_static(line.as_bytes())]);
        }
        let mut history = Vec::new();
        for _ in 0..commands {
            let args = random_command(&mut random);
            if args[0] == "watch" && args.len() > 1 {
                // A watched key that was absent, then created and deleted, counts as unchanged
                // here and as changed in Redis: watch only what is there.
                let mut set = vec![Bytes::from("mset")];
                args[1..].iter().for_each(|key| set.extend([key.clone(), Bytes::from("w")]));
                assert_eq!(redis.ask(&set), ours.ask(&set), "seed {seed}: {set:?}");
            }
            let (theirs, mine) = (redis.ask(&args), ours.ask(&args));
            // The order of KEYS; EXEC may hold one.
            let sorted = match args[0].to_ascii_lowercase().as_slice() {
                b"keys" => 1,
                b"exec" => 2,
                _ => 0,
            };
            let shown: Vec<String> =
                args.iter().map(|arg| format!("\"{}\"", arg.escape_ascii())).collect();
            history.push(format!("{}  ->  {}", shown.join(" "), text::of(&theirs)));
            assert!(
                same(sorted, &theirs, &mine),
                "seed {seed}, after\n{}\nRedis answers {}\nwe answer    {}",
                history[history.len().saturating_sub(60)..].join("\n"),
                text::of(&theirs),
                text::of(&mine),
            );
        }
    }
}
