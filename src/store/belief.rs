//! Whether an engine that is opened can be believed, and bringing it to the end of an entry.

use super::drain::Drainer;
use super::engine::{Engine, EngineChoice};
use super::local_rows::{DRAINING, MARKER, index_of};
use super::rows::StoreError;
use super::sealed::unseal;
use super::small_file::SmallFile;
use super::trust::Distrust;
use super::{drain, journal};

type Believed = Result<(Box<dyn Engine>, Drainer, u64), Distrust>;

/// Opens the engine and brings it to an entry boundary, or says why it cannot be believed.
pub(super) fn believe(
    choice: &EngineChoice,
    journal: &dyn SmallFile,
    floor: u64,
    trust_missing: bool,
) -> Result<Believed, StoreError> {
    let result = choice.open().and_then(|engine| {
        let mut empty = true;
        engine.scan(&[], None, false, &mut |_, _| {
            empty = false;
            false
        })?;
        if empty && floor > 0 {
            return Ok(Err(Distrust::Emptied { floor }));
        }
        if !empty && trust_missing {
            return Ok(Err(Distrust::NoTrustFile("missing")));
        }
        match finish_draining(&*engine, journal, empty)? {
            Ok(applied) if applied < floor => Ok(Err(Distrust::BelowFloor { applied, floor })),
            Ok(applied) => {
                let drainer = Drainer::new(&*engine)?;
                Ok(Ok((engine, drainer, applied)))
            }
            Err(distrust) => Ok(Err(distrust)),
        }
    });
    match result {
        // A machine's trouble, like a full disk or a lock held by another process, says nothing
        // against the engine.
        Err(StoreError::Io(error))
            if !matches!(
                error.kind(),
                std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData
            ) =>
        {
            Err(StoreError::Io(error))
        }
        Err(error) => Ok(Err(Distrust::OpenFailed(error.to_string()))),
        Ok(believed) => Ok(believed),
    }
}

/// Finishes an interrupted draining from its journal; the marker, or why there cannot be one.
fn finish_draining(
    engine: &dyn Engine,
    journal_file: &dyn SmallFile,
    empty: bool,
) -> Result<Result<u64, Distrust>, StoreError> {
    let index_at = |row: &[u8]| -> Result<Option<u64>, StoreError> {
        let Some(sealed) = engine.get(row)? else { return Ok(None) };
        let index = index_of(&unseal(row, &sealed)?);
        index.map(Some).ok_or_else(|| StoreError::Damaged("a local row is no index".into()))
    };
    let draining = index_at(DRAINING)?;
    let marker = index_at(MARKER)?;
    if marker.is_none() && draining.is_none() && !empty {
        return Ok(Err(Distrust::HalfDrained("rows without a marker".into())));
    }
    let mut marker = marker.unwrap_or(0);
    match journal_file.read()?.and_then(journal::decode) {
        Some(journal) if journal.end > marker => {
            if journal.from != marker {
                let what = format!("it leads from {} on, not {marker}", journal.from);
                return Ok(Err(Distrust::HalfDrained(what)));
            }
            drain::apply_journal(engine, &journal)?;
            marker = journal.end;
        }
        _ if draining.is_some() => {
            return Ok(Err(Distrust::HalfDrained("it is not complete".into())));
        }
        // Complete and done, or cut short before the first row went to the engine.
        _ => {}
    }
    journal_file.remove()?;
    Ok(Ok(marker))
}
