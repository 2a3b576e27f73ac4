//! Clocks of a node that are wrong.
//!
//! The wall clock is libfaketime's: it reads from a file how far to be off, so it can jump while
//! the node runs, and at which rate to run. The boot clock, on which leases rest, is read past
//! libfaketime; its rate is the product's own test variable, a new one for each life, and where it
//! starts is a time namespace.

use std::path::{Path, PathBuf};

use anyhow::Context;
use arakoon::node::clock::TEST_DRIFT_VARIABLE;

/// What leases allow a clock to be off, in millionths, either way.
const DRIFT_PPM_MAX: i64 = 500;
/// Nodes believe to have been up for so long, at most.
const UPTIME_SECONDS_MAX: u64 = 10 * 24 * 3600;

/// One node's clocks.
pub struct Clocks {
    offset_file: PathBuf,
    library: PathBuf,
    wall_offset_ms: i64,
    uptime_seconds: u64,
    drift_ppm: i64,
}

impl Clocks {
    pub fn new(offset_file: PathBuf, rng: &mut fastrand::Rng) -> anyhow::Result<Clocks> {
        let mut clocks = Clocks {
            offset_file,
            library: library()?,
            wall_offset_ms: 0,
            uptime_seconds: rng.u64(..UPTIME_SECONDS_MAX),
            drift_ppm: 0,
        };
        clocks.set_wall(0)?;
        Ok(clocks)
    }

    /// The wall clock jumps to be so far off. A node sees it within a second.
    pub fn set_wall(&mut self, offset_ms: i64) -> anyhow::Result<()> {
        self.wall_offset_ms = offset_ms;
        let rate = 1.0 + self.drift_ppm as f64 / 1e6;
        // Renamed into place: libfaketime ends a process that reads half a line.
        let aside = self.offset_file.with_extension("new");
        std::fs::write(&aside, format!("{:+.3} x{rate:.6}\n", offset_ms as f64 / 1e3))?;
        std::fs::rename(&aside, &self.offset_file)?;
        Ok(())
    }

    /// Another rate for the life that begins: both ends of the bound are likely.
    pub fn new_rate(&mut self, rng: &mut fastrand::Rng) -> anyhow::Result<i64> {
        self.drift_ppm = match rng.u8(..4) {
            0 => -DRIFT_PPM_MAX,
            1 => DRIFT_PPM_MAX,
            _ => rng.i64(-DRIFT_PPM_MAX..=DRIFT_PPM_MAX),
        };
        self.set_wall(self.wall_offset_ms)?;
        Ok(self.drift_ppm)
    }

    /// Words that start a program under these clocks, in the same process.
    pub fn wrapper(&self) -> Vec<String> {
        vec![
            "unshare".into(),
            "--time".into(),
            "--boottime".into(),
            self.uptime_seconds.to_string(),
            "env".into(),
            format!("LD_PRELOAD={}", self.library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.offset_file.display()),
            "FAKETIME_CACHE_DURATION=1".into(),
            // Timers and file times stay right: only the wall clock is meant.
            "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
            "NO_FAKE_STAT=1".into(),
            format!("{TEST_DRIFT_VARIABLE}={}", self.drift_ppm),
        ]
    }
}

/// The variant of libfaketime for programs with threads; its place depends on the processor.
fn library() -> anyhow::Result<PathBuf> {
    let place = |library: &Path| library.join("faketime/libfaketimeMT.so.1");
    std::fs::read_dir("/usr/lib")
        .context("cannot look for libfaketime")?
        .filter_map(|entry| Some(place(&entry.ok()?.path())))
        .find(|path| path.is_file())
        .context("no libfaketimeMT.so.1 below /usr/lib; install Debian's package libfaketime")
}
