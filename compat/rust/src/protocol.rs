//! What a client tells the driver: JSON lines. See compat/README.md.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::{Debug, Display};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub type Outcome = Result<(), Box<dyn Error>>;

/// How long a value may take to expire that should after 200 ms.
pub const EXPIRES_WITHIN: Duration = Duration::from_secs(5);

pub fn nodes() -> Vec<(String, u16)> {
    let text = variable("ARAKOON_NODES");
    text.split(',').map(address).collect()
}

pub fn master() -> (String, u16) {
    address(&variable("ARAKOON_MASTER"))
}

/// The master's name for Sentinel clients.
pub fn name() -> String {
    variable("ARAKOON_NAME")
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by the driver"))
}

fn address(text: &str) -> (String, u16) {
    let (host, port) = text.rsplit_once(':').expect("the driver gives host:port");
    (host.into(), port.parse().expect("the driver gives a port"))
}

pub fn binary() -> Vec<u8> {
    (0..=255).chain([13, 10, 0]).collect()
}

pub fn large() -> Vec<u8> {
    (0..8u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

pub fn say(line: &Value) {
    println!("{line}");
}

pub fn report(feature: &str, protocol: u8, outcome: &Outcome) {
    report_alone(&format!("{feature}, RESP{protocol}"), outcome);
}

/// For what does not depend on the protocol's version.
pub fn report_alone(feature: &str, outcome: &Outcome) {
    let detail = outcome.as_ref().err().map_or(String::new(), ToString::to_string);
    let detail: String = detail.chars().take(300).collect();
    say(&json!({"feature": feature, "ok": outcome.is_ok(), "detail": detail}));
}

pub fn same<T: PartialEq + Debug>(left: T, right: T) -> Outcome {
    if left == right {
        return Ok(());
    }
    let cut = |text: String| text.chars().take(80).collect::<String>();
    let (left, right) = (cut(format!("{left:?}")), cut(format!("{right:?}")));
    Err(format!("{left} instead of {right}").into())
}

/// Appends tokens to one string, each once as far as we know. So afterwards the string says what was
/// applied, and what the library applied twice.
pub struct Writes {
    number: u64,
    acknowledged: Vec<String>,
    failed: Vec<String>,
    errors: HashMap<String, u64>,
    last: Instant,
    gap: Duration,
}

impl Writes {
    pub fn new() -> Self {
        thread::spawn(|| {
            let _ = std::io::stdin().read_line(&mut String::new());
            STOPPED.store(true, Ordering::Relaxed);
        });
        Self {
            number: 0,
            acknowledged: Vec::new(),
            failed: Vec::new(),
            errors: HashMap::new(),
            last: Instant::now(),
            gap: Duration::ZERO,
        }
    }

    /// The next token, until the driver says that the master was killed long enough ago.
    pub fn next(&mut self) -> Option<String> {
        self.number += 1;
        (!STOPPED.load(Ordering::Relaxed)).then(|| format!("{};", self.number))
    }

    /// Notes what became of a token; true: it is worth a pause.
    pub fn done<E: Display>(&mut self, token: String, result: Result<i64, E>) -> bool {
        if let Err(error) = result {
            self.failed.push(token);
            let kind = error.to_string().chars().take(60).collect();
            *self.errors.entry(kind).or_default() += 1;
            return true;
        }
        self.acknowledged.push(token);
        self.gap = self.gap.max(self.last.elapsed());
        self.last = Instant::now();
        if self.acknowledged.len() == 50 {
            say(&json!({"event": "writing"}));
        }
        false
    }

    pub fn judge(self, text: &str) {
        let mut found: HashMap<&str, u64> = HashMap::new();
        for token in text.split_inclusive(';') {
            *found.entry(token).or_default() += 1;
        }
        let lost = self.acknowledged.iter().filter(|it| !found.contains_key(it.as_str()));
        let applied = self.failed.iter().filter(|it| found.contains_key(it.as_str()));
        say(&json!({"failover": {
            "acknowledged": self.acknowledged.len(),
            "lost": lost.count(),
            "failed": self.failed.len(),
            "failed_but_applied": applied.count(),
            "applied_twice": found.values().map(|count| count - 1).sum::<u64>(),
            "gap_ms": self.gap.as_millis() as u64,
            "errors": self.errors,
        }}));
    }
}

static STOPPED: AtomicBool = AtomicBool::new(false);
