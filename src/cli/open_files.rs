//! How many files and connections the operating system lets this process have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are not clients: the log, heads, the store, the other nodes.
const OTHER_FILES: u64 = 200;

/// Raises the limit as far as needed and allowed; how many of the `wanted` clients then fit.
pub fn clients_allowed(wanted: usize) -> usize {
    let needed = wanted as u64 + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    let enough = |current: Option<u64>| current.is_none_or(|current| current >= needed);
    let mut current = limit.current;
    if !enough(current) {
        // None is "no limit".
        let raised = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
        let rlimit = Rlimit { current: Some(raised), maximum: limit.maximum };
        if setrlimit(Resource::Nofile, rlimit).is_ok() {
            current = Some(raised);
        }
    }
    let Some(current) = current.filter(|_| !enough(current)) else { return wanted };
    // However low the limit is, someone must be able to connect and ask.
    let allowed = current.saturating_sub(OTHER_FILES).max(16) as usize;
    tracing::warn!(
        open_files_max = current,
        "room for {allowed} clients instead of {wanted}; raise the limit (ulimit -n)"
    );
    allowed
}
