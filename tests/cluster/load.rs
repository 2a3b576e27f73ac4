//! Writers that remember what they were told, and the check against it afterwards.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arakoon::cli::client::Client;
use resp::Reply;

use crate::harness::{ANSWER_WITHIN, Cluster, eventually};

const WRITERS: usize = 4;
/// Before a writer tries again what it could not do.
const PAUSE: Duration = Duration::from_millis(5);
/// Keys per MGET when the writes are checked.
const KEYS_AT_ONCE: usize = 200;

/// A write load that runs until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Written>>,
}

/// What became of the writes. Each has a key of its own, so that each can be looked up.
#[derive(Default)]
pub struct Written {
    /// Must be there.
    acknowledged: Vec<String>,
    /// Answered with an error that says "not applied": must not be there.
    refused: Vec<(Instant, String)>,
    /// When writes got no answer, or UNCERTAIN.
    unknown: Vec<Instant>,
    /// When each acknowledgement came; sorted once the load is stopped.
    times: Vec<Instant>,
    /// Error texts that are in no contract.
    unexpected: Vec<String>,
}

impl Load {
    /// Starts writing.
    pub fn start(cluster: &Cluster) -> Load {
        Load::start_with(cluster, WRITERS, ANSWER_WITHIN)
    }

    /// The same with so many writers.
    pub fn start_many(cluster: &Cluster, writers: usize) -> Load {
        Load::start_with(cluster, writers, ANSWER_WITHIN)
    }

    /// The same; a writer that gets no answer for `patience` goes to the next node. From
    /// [`ANSWER_WITHIN`] on that is an error.
    pub fn start_patient(cluster: &Cluster, patience: Duration) -> Load {
        Load::start_with(cluster, WRITERS, patience)
    }

    fn start_with(cluster: &Cluster, writers: usize, patience: Duration) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        // Several loads of one test must not share keys.
        let load = fastrand::u32(..);
        let writers = (0..writers)
            .map(|writer| {
                let writer = Writer {
                    prefix: format!("load:{load:08x}:{writer}"),
                    addresses: cluster.addresses(),
                    current: 0,
                    patience,
                    stop: stop.clone(),
                    acknowledged: acknowledged.clone(),
                };
                std::thread::spawn(move || writer.run())
            })
            .collect();
        Load { stop, acknowledged, writers }
    }

    /// Waits until `count` more writes are acknowledged.
    pub fn wait_for(&self, count: u64) {
        let target = self.acknowledged.load(Ordering::Relaxed) + count;
        eventually("acknowledged writes", || {
            (self.acknowledged.load(Ordering::Relaxed) >= target).then_some(())
        });
    }

    /// Ends the writers.
    pub fn stop(mut self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Written::default();
        for writer in self.writers.drain(..) {
            let written = writer.join().expect("a writer does not panic");
            all.acknowledged.extend(written.acknowledged);
            all.refused.extend(written.refused);
            all.unknown.extend(written.unknown);
            all.times.extend(written.times);
            all.unexpected.extend(written.unexpected);
        }
        all.times.sort();
        all
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Written {
    /// The longest time without an acknowledgement that ended between these moments.
    pub fn longest_gap(&self, from: Instant, until: Instant) -> Duration {
        self.times
            .windows(2)
            .filter(|pair| pair[1] > from && pair[1] <= until)
            .map(|pair| pair[1] - pair[0])
            .max()
            .expect("writes were acknowledged between these moments")
    }

    /// The median and the longest of the gaps after each of these moments, the last until now: writes
    /// must have gone on between any two of them, so that each pause ended before the next.
    pub fn gaps_after(&self, moments: &[Instant]) -> (Duration, Duration) {
        let ends = moments[1..].iter().copied().chain([Instant::now()]);
        let mut gaps: Vec<Duration> =
            moments.iter().zip(ends).map(|(from, until)| self.longest_gap(*from, until)).collect();
        gaps.sort();
        (gaps[gaps.len() / 2], gaps[gaps.len() - 1])
    }

    /// Acknowledged writes per second between these moments.
    pub fn per_second(&self, from: Instant, until: Instant) -> f64 {
        let count = self.times.iter().filter(|at| (from..until).contains(at)).count();
        count as f64 / (until - from).as_secs_f64()
    }

    /// Writes between these moments that were refused, or whose outcome is unknown.
    pub fn not_acknowledged(&self, from: Instant, until: Instant) -> usize {
        let refused = self.refused.iter().map(|(at, _)| at);
        refused.chain(&self.unknown).filter(|at| (from..until).contains(at)).count()
    }

    /// Every acknowledged write is there with its value, none of the refused ones is, and no error
    /// was outside of the contract.
    pub fn check(&self, cluster: &Cluster) {
        assert!(!self.acknowledged.is_empty(), "the load wrote nothing");
        assert_eq!(self.unexpected, Vec::<String>::new(), "errors outside of the contract");
        let master = cluster.master();
        let values = |keys: &[String]| -> Vec<Reply> {
            let mut client =
                Client::connect(cluster.address(master), ANSWER_WITHIN).expect("it answers");
            let mut values = Vec::new();
            for keys in keys.chunks(KEYS_AT_ONCE) {
                client.set_timeout(ANSWER_WITHIN);
                let mut arguments = vec!["MGET"];
                arguments.extend(keys.iter().map(String::as_str));
                let answer = client.call(&arguments).expect("it answers");
                let Reply::Array(answers) = answer else { panic!("MGET answered {answer:?}") };
                assert_eq!(answers.len(), keys.len());
                values.extend(answers);
            }
            values
        };
        for (key, value) in self.acknowledged.iter().zip(values(&self.acknowledged)) {
            assert_eq!(value, Reply::bulk(key.clone()), "acknowledged write of {key}");
        }
        let refused: Vec<String> = self.refused.iter().map(|(_, key)| key.clone()).collect();
        for (key, value) in refused.iter().zip(values(&refused)) {
            assert_eq!(value, Reply::Null, "{key} was refused, but is there");
        }
        eprintln!(
            "{} acknowledged writes are there, {} refused ones are not",
            self.acknowledged.len(),
            self.refused.len()
        );
    }
}

struct Writer {
    prefix: String,
    addresses: Vec<String>,
    current: usize,
    patience: Duration,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Writer {
    /// Writes key after key; the value is the key. A key is tried once only: whatever came of it
    /// stays what it was.
    fn run(mut self) -> Written {
        let mut written = Written::default();
        let mut connection: Option<Client> = None;
        let mut number = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(client) = &mut connection else {
                let address = &self.addresses[self.current];
                connection = Client::connect(address, Duration::from_secs(1)).ok();
                if connection.is_none() {
                    self.leave();
                }
                continue;
            };
            number += 1;
            let key = format!("{}:{number}", self.prefix);
            client.set_timeout(self.patience);
            match client.call(&["SET", &key, &key]) {
                Ok(Reply::Simple(_)) => {
                    written.times.push(Instant::now());
                    written.acknowledged.push(key);
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Reply::Error(text)) => {
                    connection = None;
                    self.refused(&text, key, &mut written);
                }
                Ok(other) => written.unexpected.push(format!("{other:?}")),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if self.patience >= ANSWER_WITHIN {
                        written.unexpected.push(format!("no answer within {:?}", self.patience));
                    }
                    written.unknown.push(Instant::now());
                    connection = None;
                    self.leave();
                }
                Err(_) => {
                    written.unknown.push(Instant::now());
                    connection = None;
                    self.leave();
                }
            }
        }
        written
    }

    fn refused(&mut self, text: &str, key: String, written: &mut Written) {
        let mut words = text.split(' ');
        match words.next().unwrap_or_default() {
            "MOVED" => {
                written.refused.push((Instant::now(), key));
                let address = words.nth(1).unwrap_or_default();
                match self.addresses.iter().position(|known| known == address) {
                    Some(position) => self.current = position,
                    None => written.unexpected.push(text.to_string()),
                }
                // The master it names may be dying; without a pause this would be a hot loop.
                std::thread::sleep(PAUSE);
            }
            "CLUSTERDOWN" | "TRYAGAIN" | "LOADING" => {
                written.refused.push((Instant::now(), key));
                self.leave();
            }
            "UNCERTAIN" => {
                written.unknown.push(Instant::now());
                self.leave();
            }
            _ => written.unexpected.push(text.to_string()),
        }
    }

    fn leave(&mut self) {
        self.current = (self.current + 1) % self.addresses.len();
        std::thread::sleep(PAUSE);
    }
}
