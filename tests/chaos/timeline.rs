//! What happened when: faults, who was master, how many writes, and where none came through.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::faults::Kind;

/// A fault still counts for so long after its end: what it broke is still being mended.
const AFTERMATH_US: u64 = 2_000_000;

/// Microseconds since the run began, of a clock that no fault touches.
#[derive(Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    pub fn now_us(self) -> u64 {
        self.0.elapsed().as_micros() as u64
    }
}

/// A fault that struck.
pub struct Fault {
    pub kind: Kind,
    pub text: String,
    pub nodes: Vec<usize>,
    pub began_us: u64,
    /// None while it goes on.
    pub ended_us: Option<u64>,
}

impl Fault {
    /// It may have had to do with what happened in this span.
    fn overlaps(&self, from_us: u64, until_us: u64) -> bool {
        let end_us = self.ended_us.map_or(u64::MAX, |us| us + AFTERMATH_US);
        self.began_us <= until_us && from_us <= end_us
    }
}

/// A time without an acknowledged write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    pub from_us: u64,
    pub until_us: u64,
}

impl Gap {
    pub fn length_us(self) -> u64 {
        self.until_us - self.from_us
    }

    fn longer(self, other: Gap) -> Gap {
        if other.length_us() > self.length_us() { other } else { self }
    }
}

/// The longest gaps around one kind of fault.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gaps {
    pub struck: usize,
    /// Around those that struck while no other did; none if there was always another.
    pub alone: Option<Gap>,
    /// At all.
    pub any: Gap,
}

/// All of a run.
pub struct Timeline {
    pub clock: Clock,
    pub faults: Vec<Fault>,
    /// When what happened, as it was printed.
    pub lines: Vec<(u64, String)>,
}

impl Timeline {
    pub fn new(clock: Clock) -> Timeline {
        Timeline { clock, faults: Vec::new(), lines: Vec::new() }
    }

    /// Prints and keeps a line.
    pub fn say(&mut self, text: impl Into<String>) {
        let (at_us, text) = (self.clock.now_us(), text.into());
        println!("{:>8.2} s  {text}", at_us as f64 / 1e6);
        self.lines.push((at_us, text));
    }

    pub fn begin(&mut self, kind: Kind, text: &str, nodes: Vec<usize>) -> usize {
        self.say(format!("{:<22} {text}", kind.name()));
        let began_us = self.clock.now_us();
        self.faults.push(Fault { kind, text: text.to_string(), nodes, began_us, ended_us: None });
        self.faults.len() - 1
    }

    /// The first end counts.
    pub fn end(&mut self, fault: usize) {
        if self.faults[fault].ended_us.is_some() {
            return;
        }
        self.say(format!(
            "{:<22} over: {}",
            self.faults[fault].kind.name(),
            self.faults[fault].text
        ));
        self.faults[fault].ended_us = Some(self.clock.now_us());
    }

    /// Around every kind of fault that struck, given when writes were acknowledged, in order.
    pub fn gaps(&self, acknowledged_us: &[u64]) -> BTreeMap<Kind, Gaps> {
        let mut gaps: BTreeMap<Kind, Gaps> = BTreeMap::new();
        for fault in &self.faults {
            let around = all_gaps(acknowledged_us)
                .filter(|gap| fault.overlaps(gap.from_us, gap.until_us))
                .fold(Gap::default(), Gap::longer);
            let known = gaps.entry(fault.kind).or_default();
            known.struck += 1;
            known.any = known.any.longer(around);
            if self.is_alone(fault) {
                known.alone = Some(known.alone.unwrap_or_default().longer(around));
            }
        }
        gaps
    }

    /// No other fault went on, or had just ended, while this one and its aftermath did.
    fn is_alone(&self, fault: &Fault) -> bool {
        let until_us = fault.ended_us.map_or(u64::MAX, |us| us + AFTERMATH_US);
        let meets = |other: &&Fault| other.overlaps(fault.began_us, until_us);
        self.faults.iter().filter(meets).count() == 1
    }

    /// The longest gap with which no fault had to do.
    pub fn calm_gap(&self, acknowledged_us: &[u64]) -> Gap {
        let struck = |gap: &Gap| self.faults.iter().any(|f| f.overlaps(gap.from_us, gap.until_us));
        all_gaps(acknowledged_us).filter(|gap| !struck(gap)).fold(Gap::default(), Gap::longer)
    }
}

fn all_gaps(acknowledged_us: &[u64]) -> impl Iterator<Item = Gap> {
    acknowledged_us.windows(2).map(|pair| Gap { from_us: pair[0], until_us: pair[1] })
}

/// The longest of all.
pub fn longest_gap(acknowledged_us: &[u64]) -> Gap {
    all_gaps(acknowledged_us).fold(Gap::default(), Gap::longer)
}
