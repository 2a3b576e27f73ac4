//! What happened lately, for people, and a hash of all that happened, for comparing runs.

use std::collections::VecDeque;

const LINES_KEPT: usize = 150;

/// One event: when, where, what, and two numbers that the kind gives a meaning.
#[derive(Clone, Copy)]
struct Line {
    at_us: u64,
    node: u8,
    what: &'static str,
    numbers: (u64, u64),
}

/// The trace of one run.
pub struct Trace {
    lines: VecDeque<Line>,
    hash: u64,
    events: u64,
    /// Print each line at once.
    pub live: bool,
}

impl Line {
    fn text(&self) -> String {
        let Line { at_us, node, what, numbers } = self;
        let place = match node {
            254.. => "--".to_owned(),
            node => format!("n{}", node + 1),
        };
        let seconds = *at_us as f64 / 1e6;
        format!("{seconds:12.6} {place} {what} {} {}\n", numbers.0, numbers.1)
    }
}

impl Trace {
    pub fn new() -> Trace {
        Trace {
            lines: VecDeque::with_capacity(LINES_KEPT),
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            live: false,
        }
    }

    pub fn note(&mut self, at_us: u64, node: usize, what: &'static str, numbers: (u64, u64)) {
        self.events += 1;
        self.mix(at_us);
        self.mix(node as u64);
        self.mix(what.len() as u64 ^ u64::from(what.as_bytes()[0]) << 8);
        self.mix(numbers.0);
        self.mix(numbers.1);
        if self.lines.len() == LINES_KEPT {
            self.lines.pop_front();
        }
        let line = Line { at_us, node: node as u8, what, numbers };
        if self.live {
            print!("{}", line.text());
        }
        self.lines.push_back(line);
    }

    /// Adds something to the hash only.
    pub fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    /// The last events, a line each.
    pub fn text(&self) -> String {
        self.lines.iter().map(Line::text).collect()
    }
}
