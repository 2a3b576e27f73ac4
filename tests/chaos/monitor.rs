//! Asks every node again and again what it says of itself, each from a thread of its own, so that
//! one that stalls hides none of the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arakoon::cli::info::Report;

const ASKED_EVERY: Duration = Duration::from_millis(200);
const ANSWER_WITHIN: Duration = Duration::from_millis(800);
/// What was said longer ago is no answer to "now".
pub const FRESH: Duration = Duration::from_secs(2);

type Said = Mutex<Option<(Instant, Report)>>;

/// The latest answers.
pub struct Monitor {
    said: Arc<Vec<Said>>,
    mismatch: Arc<Mutex<Option<String>>>,
    stop: Arc<AtomicBool>,
}

impl Monitor {
    pub fn start(addresses: Vec<String>) -> Monitor {
        let said: Arc<Vec<Said>> = Arc::new(addresses.iter().map(|_| Said::default()).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let mismatch = Arc::new(Mutex::new(None));
        for (seat, address) in addresses.into_iter().enumerate() {
            let (said, stop, mismatch) = (said.clone(), stop.clone(), mismatch.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let report = Report::ask(&address, ANSWER_WITHIN).ok();
                    let differs = report.as_ref().map(|report| report.text("head_mismatch"));
                    if let Some(at) = differs.filter(|text| !matches!(*text, "" | "0")) {
                        let what = format!("n{} reports HEAD MISMATCH at {at}", seat + 1);
                        lock(&mismatch).get_or_insert(what);
                    }
                    *lock(&said[seat]) = report.map(|report| (Instant::now(), report));
                    std::thread::sleep(ASKED_EVERY);
                }
            });
        }
        Monitor { said, mismatch, stop }
    }

    /// Two nodes have different data at one index.
    pub fn complaint(&self) -> Option<String> {
        lock(&self.mismatch).clone()
    }

    /// What a node said a moment ago.
    pub fn report(&self, seat: usize) -> Option<Report> {
        let said = lock(&self.said[seat]).clone();
        said.filter(|(at, _)| at.elapsed() < FRESH).map(|(_, report)| report)
    }

    /// The index that the master knows to be chosen.
    pub fn chosen(&self) -> Option<u64> {
        (0..self.said.len()).find_map(|seat| {
            let report = self.report(seat).filter(Report::is_master)?;
            report.has_quorum().then(|| report.number("chosen_index"))?
        })
    }

    /// A node votes, and has applied all up to this index.
    pub fn is_current(&self, seat: usize, index: u64) -> bool {
        self.report(seat).is_some_and(|report| {
            matches!(report.text("part"), "master" | "replica")
                && report.number("applied_index").is_some_and(|applied| applied >= index)
        })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
