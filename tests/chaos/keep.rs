//! Where a run has its files, and what is kept of one that failed.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::enclosure::run;
use crate::load::Record;
use crate::timeline::Timeline;

/// Directories of runs begin with this; the pid of the runner follows.
const PREFIX: &str = "arakoon-chaos-";

/// A directory for logs, clocks and mount points; gone at the end of the run.
pub struct RunDirectory(PathBuf);

impl RunDirectory {
    /// Makes it, and removes those of runs that were killed.
    pub fn make() -> anyhow::Result<RunDirectory> {
        let parent = std::env::temp_dir();
        for entry in std::fs::read_dir(&parent).context("the temporary directory")?.flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                // Their disks were mounted in namespaces that are gone: only empty places are left.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(RunDirectory(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Copies everything to below `target`, with history, timeline and page; says where.
    pub fn keep(
        &self,
        seed: u64,
        timeline: &Timeline,
        record: &Record,
        page: &str,
    ) -> anyhow::Result<PathBuf> {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos");
        std::fs::create_dir_all(&parent)?;
        let kept = parent.join(format!("seed-{seed}-{}", std::process::id()));
        let (from, to) = (self.0.to_str(), kept.to_str());
        let (from, to) = from.zip(to).context("paths in UTF-8")?;
        run(&["cp", "-a", from, to])?;
        let mut lines = String::new();
        for (us, text) in &timeline.lines {
            writeln!(lines, "{:>8.2} s  {text}", *us as f64 / 1e6)?;
        }
        std::fs::write(kept.join("timeline.txt"), lines)?;
        let mut history = String::new();
        for (number, op) in record.history.ops.iter().enumerate() {
            writeln!(history, "{number}: {op:?}")?;
        }
        std::fs::write(kept.join("history.txt"), history)?;
        std::fs::write(kept.join("page.html"), page)?;
        Ok(kept)
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} stays behind: {error}", self.0.display());
        }
    }
}
