//! Whether the engine may be believed after a restart.
//!
//! The trust file lies outside of the engine, in the directory of the transaction log. It holds
//! what the engine must at least have applied (the floor), and how the last run began and ended.
//! Anything that does not fit means: wipe the engine, rebuild from head and log.
//!
//! Layout, integers little-endian: magic `ARKTRUST`, version u8, floor u64, clean stop u8, engine
//! name, boot id and mark (each u16 length and bytes), CRC32C u32 of all before it. A mark that is
//! not empty says why the engine must not be believed.

use std::fs;

use super::rows::StoreError;
use super::small_file::SmallFile;

const MAGIC: &[u8; 8] = b"ARKTRUST";
const VERSION: u8 = 1;

/// Why the engine is not believed and has to be rebuilt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// The engine has lost what it had synced.
    #[error("the engine has applied {applied}, below the floor {floor}")]
    BelowFloor {
        /// The engine's marker.
        applied: u64,
        /// What it had synced.
        floor: u64,
    },
    /// The engine's directory is missing or empty.
    #[error("the engine is empty, but had applied {floor}")]
    Emptied {
        /// What it had synced.
        floor: u64,
    },
    /// The engine cannot be opened, or panics while it is.
    #[error("the engine does not open: {0}")]
    OpenFailed(String),
    /// The last opening was killed half way.
    #[error("the engine's last opening was interrupted")]
    Leftover,
    /// The machine went down without the node stopping in order.
    #[error("the machine restarted without the node having been stopped")]
    BootChanged,
    /// Another engine than the one configured was used last.
    #[error("the last engine was {before}")]
    OtherEngine {
        /// The name of the engine used last.
        before: String,
    },
    /// The trust file is damaged, or missing although the engine is not empty.
    #[error("the trust file is {0}")]
    NoTrustFile(&'static str),
    /// An earlier run found damage, or was rebuilding.
    #[error("{0}")]
    Marked(String),
    /// A layer was being drained, and the journal to finish it with is not there.
    #[error("a layer was half drained and its journal does not fit: {0}")]
    HalfDrained(String),
}

/// The running machine's boot id; changes with every boot.
pub fn boot_id() -> std::io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// What the trust file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TrustState {
    /// The engine had synced the state at this index.
    pub floor: u64,
    /// The last run closed the store.
    pub clean_stop: bool,
    pub engine: String,
    pub boot_id: String,
    /// Why the engine must not be believed; empty when nothing is known against it.
    pub mark: String,
}

/// What reading the trust file gives.
pub(super) enum TrustRead {
    Missing,
    Damaged,
    Found(TrustState),
}

impl TrustState {
    pub fn read(file: &dyn SmallFile) -> Result<TrustRead, StoreError> {
        Ok(match file.read()? {
            None => TrustRead::Missing,
            Some(bytes) => TrustState::decode(&bytes).map_or(TrustRead::Damaged, TrustRead::Found),
        })
    }

    pub fn write(&self, file: &dyn SmallFile) -> Result<(), StoreError> {
        Ok(file.replace(&self.encode())?)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.floor.to_le_bytes());
        bytes.push(u8::from(self.clean_stop));
        for text in [&self.engine, &self.boot_id, &self.mark] {
            let mut length = text.len().min(usize::from(u16::MAX));
            while !text.is_char_boundary(length) {
                length -= 1;
            }
            bytes.extend_from_slice(&(length as u16).to_le_bytes());
            bytes.extend_from_slice(&text.as_bytes()[..length]);
        }
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<TrustState> {
        let (body, checksum) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let rest = body.strip_prefix(MAGIC)?;
        let (&VERSION, rest) = rest.split_first()? else { return None };
        let (floor, rest) = rest.split_first_chunk::<8>()?;
        let (clean_stop, mut rest) = rest.split_first()?;
        let mut text = || {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (text, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            rest = after;
            String::from_utf8(text.to_vec()).ok()
        };
        let (engine, boot_id, mark) = (text()?, text()?, text()?);
        Some(TrustState {
            floor: u64::from_le_bytes(*floor),
            clean_stop: *clean_stop != 0,
            engine,
            boot_id,
            mark,
        })
    }

    /// What speaks against the engine before it is opened.
    pub fn against(&self, engine: &str, boot_id: &str) -> Option<Distrust> {
        if !self.mark.is_empty() {
            return Some(Distrust::Marked(self.mark.clone()));
        }
        if self.engine != engine {
            return Some(Distrust::OtherEngine { before: self.engine.clone() });
        }
        if self.boot_id != boot_id && !self.clean_stop {
            return Some(Distrust::BootChanged);
        }
        None
    }
}
