//! SCAN while keys come and go: each key that is there during the whole scan comes exactly once, no
//! key comes twice, and none that was never there or gone before.

use std::collections::{BTreeMap, BTreeSet};

use resp::Reply;

use super::history::Outcome;
use super::operation::scanned_member;
use super::{Checked, violation};

#[derive(Clone, Copy, Debug)]
struct Life {
    asked_set_us: u64,
    /// Acknowledged.
    set_us: Option<u64>,
    refused: bool,
    asked_delete_us: Option<u64>,
    /// Acknowledged.
    deleted_us: Option<u64>,
}

struct Scan {
    group: u32,
    asked_us: u64,
    seen: BTreeSet<u32>,
    /// What the next step sends; `None`: it is over.
    cursor: Option<String>,
    /// The connection that gave the cursor: its node must know it.
    given_on: Option<u64>,
}

/// All keys that are there to be scanned, and all scans.
#[derive(Default)]
pub struct Scans {
    lives: BTreeMap<(u32, u32), Life>,
    scans: Vec<Scan>,
    /// Scans that came to their end.
    pub completed: usize,
    /// Scans that ended because the node did not know the cursor any more.
    pub abandoned: usize,
}

impl Scans {
    /// Begins a scan; returns its number.
    pub fn begin(&mut self, group: u32, now_us: u64) -> usize {
        self.scans.push(Scan {
            group,
            asked_us: now_us,
            seen: BTreeSet::new(),
            cursor: Some("0".to_owned()),
            given_on: None,
        });
        self.scans.len() - 1
    }

    /// What the next step of a scan sends; `None`: it is over.
    pub fn next_step(&self, scan: usize) -> Option<(u32, String)> {
        let Scan { group, cursor, .. } = &self.scans[scan];
        Some((*group, cursor.clone()?))
    }

    /// The next key of a group.
    pub fn new_member(&self, group: u32) -> u32 {
        self.lives.range((group, 0)..=(group, u32::MAX)).next_back().map_or(0, |(key, _)| key.1 + 1)
    }

    /// A key that somebody may delete.
    pub fn deletable(&self, group: u32, choose: impl FnOnce(usize) -> usize) -> Option<u32> {
        let mut members = self.lives.range((group, 0)..=(group, u32::MAX));
        let free: Vec<u32> = members
            .by_ref()
            .filter(|(_, life)| life.asked_delete_us.is_none() && life.set_us.is_some())
            .map(|(key, _)| key.1)
            .collect();
        if free.is_empty() { None } else { Some(free[choose(free.len())]) }
    }

    pub fn ask_set(&mut self, group: u32, member: u32, now_us: u64) {
        let life = Life {
            asked_set_us: now_us,
            set_us: None,
            refused: false,
            asked_delete_us: None,
            deleted_us: None,
        };
        self.lives.insert((group, member), life);
    }

    pub fn ask_delete(&mut self, group: u32, member: u32, now_us: u64) {
        if let Some(life) = self.lives.get_mut(&(group, member)) {
            life.asked_delete_us = Some(now_us);
        }
    }

    pub fn heard_set(
        &mut self,
        group: u32,
        member: u32,
        outcome: &Outcome,
        heard_us: u64,
    ) -> Checked<()> {
        let Some(life) = self.lives.get_mut(&(group, member)) else { return Ok(()) };
        match outcome {
            Outcome::Unknown => {}
            Outcome::Refused => life.refused = true,
            Outcome::Reply(reply) if *reply == Reply::OK => life.set_us = Some(heard_us),
            Outcome::Reply(reply) => return violation("replies", format!("SET got {reply:?}")),
        }
        Ok(())
    }

    pub fn heard_delete(
        &mut self,
        group: u32,
        member: u32,
        outcome: &Outcome,
        heard_us: u64,
    ) -> Checked<()> {
        let Some(life) = self.lives.get_mut(&(group, member)) else { return Ok(()) };
        match outcome {
            Outcome::Unknown => {}
            // Still there, and nobody tries again.
            Outcome::Refused => life.asked_delete_us = Some(u64::MAX),
            Outcome::Reply(Reply::Integer(1)) => life.deleted_us = Some(heard_us),
            Outcome::Reply(reply) => {
                let what = format!("DEL of scan{group}:{member} got {reply:?}; {life:?}");
                return violation("nothing lost", what);
            }
        }
        Ok(())
    }

    /// A step that was not answered is sent again with the same cursor: a repeated cursor goes on
    /// from the same place.
    pub fn heard_step(
        &mut self,
        scan: usize,
        outcome: &Outcome,
        heard_us: u64,
        connection: u64,
    ) -> Checked<()> {
        let Outcome::Reply(reply) = outcome else { return Ok(()) };
        let group = self.scans[scan].group;
        if let Reply::Error(error) = reply {
            let known = self.scans[scan].given_on == Some(connection);
            if !error.contains("cursor") || known {
                return violation("replies", format!("SCAN got {error}"));
            }
            self.scans[scan].cursor = None;
            self.abandoned += 1;
            return Ok(());
        }
        let (cursor, keys) = match reply {
            Reply::Array(parts) => match &parts[..] {
                [Reply::Bulk(cursor), Reply::Array(keys)] => (cursor, keys),
                _ => return violation("replies", format!("SCAN got {reply:?}")),
            },
            _ => return violation("replies", format!("SCAN got {reply:?}")),
        };
        for key in keys {
            let member = match key {
                Reply::Bulk(key) => scanned_member(group, key),
                _ => None,
            };
            let Some(member) = member else {
                return violation("scan", format!("scan {scan} of group {group} saw {key:?}"));
            };
            if !self.scans[scan].seen.insert(member) {
                return violation("scan", format!("scan {scan} saw {member} twice"));
            }
        }
        let cursor = String::from_utf8_lossy(cursor).into_owned();
        if cursor != "0" {
            self.scans[scan].cursor = Some(cursor);
            self.scans[scan].given_on = Some(connection);
            return Ok(());
        }
        self.scans[scan].cursor = None;
        self.completed += 1;
        self.check(scan, heard_us)
    }

    /// A key whose setter was refused was not seen by any scan.
    pub fn check_refused(&self) -> Checked<()> {
        for (number, Scan { group, seen, .. }) in self.scans.iter().enumerate() {
            let refused = |member: &&u32| {
                self.lives.get(&(*group, **member)).is_some_and(|life| life.refused)
            };
            if let Some(member) = seen.iter().find(refused) {
                let what = format!("scan {number} saw {member}, whose setter was refused");
                return violation("refused is not applied", what);
            }
        }
        Ok(())
    }

    fn check(&self, scan: usize, ended_us: u64) -> Checked<()> {
        let Scan { group, asked_us, seen, .. } = &self.scans[scan];
        for (key, life) in self.lives.range((*group, 0)..=(*group, u32::MAX)) {
            let member = key.1;
            let there_before = life.set_us.is_some_and(|us| us < *asked_us);
            let there_after = life.asked_delete_us.is_none_or(|us| us > ended_us);
            if there_before && there_after && !seen.contains(&member) {
                let what = format!(
                    "scan {scan}, {asked_us} to {ended_us}, missed {member}, which was there: \
                     {life:?}"
                );
                return violation("scan", what);
            }
            let gone = life.deleted_us.is_some_and(|us| us < *asked_us)
                || life.refused
                || life.asked_set_us > ended_us;
            if seen.contains(&member) && gone {
                let what = format!("scan {scan} saw {member}, which was not there: {life:?}");
                return violation("scan", what);
            }
        }
        let unknown = seen.iter().find(|member| !self.lives.contains_key(&(*group, **member)));
        match unknown {
            None => Ok(()),
            Some(member) => violation("scan", format!("scan {scan} saw {member}, never set")),
        }
    }
}

#[test]
fn what_was_there_comes_once_and_what_was_not_never() {
    let reply = |cursor: &str, members: &[u32]| {
        let keys = members.iter().map(|member| Reply::bulk(format!("scan0:{member}"))).collect();
        Outcome::Reply(Reply::Array(vec![Reply::bulk(cursor.to_owned()), Reply::Array(keys)]))
    };
    // Keys 0 and 1 are there all the time, 2 was deleted before, 3 while the scan runs.
    let scan = |steps: &[(&str, &[u32])]| {
        let mut scans = Scans::default();
        for member in 0..4 {
            scans.ask_set(0, member, 0);
            scans.heard_set(0, member, &Outcome::Reply(Reply::OK), 1)?;
        }
        scans.ask_delete(0, 2, 2);
        scans.heard_delete(0, 2, &Outcome::Reply(Reply::Integer(1)), 3)?;
        let scan = scans.begin(0, 4);
        scans.ask_delete(0, 3, 5);
        for (cursor, members) in steps {
            scans.heard_step(scan, &reply(cursor, members), 6, 1)?;
        }
        Checked::Ok(())
    };
    assert!(scan(&[("7", &[0]), ("0", &[1])]).is_ok());
    assert!(scan(&[("0", &[0, 1, 3])]).is_ok());
    assert!(scan(&[("7", &[0])]).is_ok(), "not at its end yet");
    assert!(scan(&[("0", &[0])]).is_err(), "misses 1");
    assert!(scan(&[("7", &[0, 1]), ("0", &[1])]).is_err(), "1 twice");
    assert!(scan(&[("0", &[0, 1, 2])]).is_err(), "2 is gone");
    assert!(scan(&[("0", &[0, 1, 9])]).is_err(), "9 was never set");
}
