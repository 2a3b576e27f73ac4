//! What can go wrong with the log. All of it is a storage error (the node stops), except
//! [`LogError::Gone`] and a [`LogError::Full`] of the preparer.

use std::io;
use std::path::{Path, PathBuf};

use crate::paxos::Position;

/// A failure of the transaction log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No room for the next segment. From the preparer this is a warning: the segment in use still
    /// takes records.
    #[error("the disk is full: cannot {action} {}; free some space there", path.display())]
    Full {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
    },
    /// Bytes that were synced are gone or changed.
    #[error(
        "the transaction log is damaged: {} at byte {offset}: {reason}. This node no longer knows \
         what it promised, so it must not go on. Check the disk; then, while a majority of the \
         cluster runs without this node, move the directory {} away and start the node again: it \
         comes back as a new incarnation and fetches the data from the others",
        file.display(), file.parent().unwrap_or(Path::new(".")).display()
    )]
    Damaged {
        /// Which segment.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The log belongs to someone else.
    #[error(
        "{} belongs to node {found_node:?} of cluster {found_cluster:?}, but this is node \
         {wanted_node:?} of cluster {wanted_cluster:?}: correct the directory, name or cluster id \
         in the configuration",
        directory.display()
    )]
    Foreign {
        /// The log's directory.
        directory: PathBuf,
        /// The cluster id on disk.
        found_cluster: String,
        /// The node name on disk.
        found_node: String,
        /// The cluster id configured.
        wanted_cluster: String,
        /// The node name configured.
        wanted_node: String,
    },
    /// Written by a version of this program that knows more.
    #[error("{} has format version {found}, this program reads up to {known}", file.display())]
    Version {
        /// Which segment.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The highest one known here.
        known: u32,
    },
    /// There is no log to open.
    #[error("there is no transaction log in {}", .0.display())]
    Empty(PathBuf),
    /// There is a log already where one should be created.
    #[error("there is a transaction log in {} already", .0.display())]
    NotEmpty(PathBuf),
    /// A cluster id or node name that does not fit.
    #[error("cluster id and node name may have 1024 bytes each")]
    IdentityTooLong,
    /// The entry was dropped: the log starts after `base`.
    #[error("the log starts after index {}", base.index)]
    Gone {
        /// The last entry before the log.
        base: Position,
    },
    /// A write or sync failed before; nothing can be relied on until the log is opened again.
    #[error("the transaction log failed before and must be opened again")]
    Poisoned,
}

impl LogError {
    /// Wraps an error of the operating system; a full disk becomes [`LogError::Full`].
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> LogError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                LogError::Full { action, path: path.to_owned() }
            }
            _ => LogError::Io { action, path: path.to_owned(), source },
        }
    }

    pub(super) fn damaged(file: &Path, offset: u64, reason: impl Into<String>) -> LogError {
        LogError::Damaged { file: file.to_owned(), offset, reason: reason.into() }
    }
}
