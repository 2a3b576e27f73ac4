//! How many files and connections the operating system lets this process have.

use std::os::fd::AsFd;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::places::seats_for;

/// Files that are not clients: the store's, of which it keeps up to 256 open and opens more while it
/// merges; the log, heads, the other nodes.
const OTHER_FILES: u64 = 600;

/// Raises the limit as far as needed and allowed; how many of the `wanted` clients then fit.
pub fn clients_allowed(wanted: usize) -> usize {
    let needed = needed(wanted);
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
    let allowed = room(current);
    tracing::warn!(
        open_files_max = current,
        "room for {allowed} clients instead of {wanted}; raise the limit (ulimit -n)"
    );
    allowed
}

/// Open files with so many clients. Those beside the driver take two.
fn needed(clients: usize) -> u64 {
    (clients + seats_for(clients)) as u64 + OTHER_FILES
}

/// Makes the table of open files as large as it may become with so many clients. To be called before
/// there are other threads: with them each growth waits until every processor has passed a point of
/// rest, tens of milliseconds and more, for which a thread that accepts clients stands still.
pub fn make_room(clients: usize) {
    // Without it all works, only slower.
    let last = i32::try_from(needed(clients) - 1).unwrap_or(i32::MAX);
    drop(fcntl_dupfd_cloexec(std::io::stderr().as_fd(), last));
}

/// Clients that fit when there may be so many files.
fn room(open_files_max: u64) -> usize {
    let left = usize::try_from(open_files_max.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
    // However low the limit is, someone must be able to connect and ask.
    left.saturating_sub(seats_for(left)).max(16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FjallEngine;

    #[test]
    fn clients_leave_room_for_the_store() {
        for open_files_max in [1024, 4096] {
            let clients = room(open_files_max as u64);
            let left = open_files_max - clients - seats_for(clients);
            assert!(left >= 2 * FjallEngine::OPEN_FILES_MAX, "{left} of {open_files_max}");
        }
        assert_eq!(room(100), 16);
    }
}
