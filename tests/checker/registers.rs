//! Registers that are overwritten: whether each key's operations fit some order, searched as Wing
//! and Gong do, with Lowe's memory of states that were tried ("Testing for linearizability", 2017).
//!
//! A range of keys that are set and deleted together is a register as well.
//!
//! What was not answered may have taken effect at any time after it was asked, or never.

use std::collections::{BTreeMap, HashSet};

use resp::Reply;

use super::operation::{Kind, number, range_keys, range_value};
use super::{Checked, Violation};

/// A register: of one key, or of a range of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Register {
    Key(u32),
    Range(u32),
}

/// The register that an operation is about.
pub fn register(kind: &Kind) -> Option<Register> {
    match kind {
        Kind::Put { key } | Kind::Look { key } | Kind::Exchange { key } | Kind::Delete { key } => {
            Some(Register::Key(*key))
        }
        Kind::FillRange { key } | Kind::LookAtRange { key, .. } | Kind::ClearRange { key, .. } => {
            Some(Register::Range(*key))
        }
        _ => None,
    }
}

/// What an operation did to a register and saw of it. A value is the number of its setter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Set it.
    Put(usize),
    /// Saw it.
    Look(Option<usize>),
    /// Set it and saw what was there; `None` inside: not known what it saw.
    Exchange(usize, Option<Option<usize>>),
    /// Deleted it, and whether something was there, if that is known.
    Delete(Option<bool>),
}

/// What a reply says; `None` if it makes no sense.
pub fn action(kind: &Kind, op: usize, reply: &Reply) -> Option<Action> {
    let value = |reply: &Reply| match reply {
        Reply::Null => Some(None),
        Reply::Bulk(_) => Some(Some(number(reply)? as usize)),
        _ => None,
    };
    match (kind, reply) {
        (Kind::Put { .. }, reply) if *reply == Reply::OK => Some(Action::Put(op)),
        (Kind::Look { .. }, reply) => Some(Action::Look(value(reply)?)),
        (Kind::Exchange { .. }, reply) => Some(Action::Exchange(op, Some(value(reply)?))),
        (Kind::Delete { .. }, Reply::Integer(count @ 0..=1)) => {
            Some(Action::Delete(Some(*count == 1)))
        }
        (Kind::FillRange { .. }, reply) if *reply == Reply::OK => Some(Action::Put(op)),
        (Kind::LookAtRange { key, whole }, reply) => {
            let seen = range_value(*key, *whole, reply)?;
            Some(Action::Look(seen.map(|op| op as usize)))
        }
        // All of it or nothing was there.
        (Kind::ClearRange { key, .. }, Reply::Integer(count)) => match *count {
            0 => Some(Action::Delete(Some(false))),
            count if count == i64::from(range_keys(*key)) => Some(Action::Delete(Some(true))),
            _ => None,
        },
        _ => None,
    }
}

/// What an operation that was not answered may have done.
pub fn unanswered(kind: &Kind, op: usize) -> Option<(Register, Action)> {
    let action = match kind {
        Kind::Put { .. } | Kind::FillRange { .. } => Action::Put(op),
        Kind::Exchange { .. } => Action::Exchange(op, None),
        Kind::Delete { .. } | Kind::ClearRange { .. } => Action::Delete(None),
        _ => return None,
    };
    Some((register(kind)?, action))
}

impl Action {
    /// The register afterwards, if this fits what it was.
    fn apply(self, before: Option<usize>) -> Option<Option<usize>> {
        match self {
            Action::Put(value) => Some(Some(value)),
            Action::Look(seen) => (seen == before).then_some(before),
            Action::Exchange(value, seen) => {
                seen.is_none_or(|seen| seen == before).then_some(Some(value))
            }
            Action::Delete(found) => {
                found.is_none_or(|found| found == before.is_some()).then_some(None)
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Done {
    op: usize,
    action: Action,
    asked_us: u64,
    /// `None`: not answered.
    heard_us: Option<u64>,
}

/// States that a search looks at before it gives up on a key: what takes long has many unanswered
/// operations. A key that was given up is counted, not taken for right.
const STATES_MAX: usize = 300_000;

/// All registers.
#[derive(Default)]
pub struct Registers {
    keys: BTreeMap<Register, Vec<Done>>,
    /// Keys whose search was given up.
    pub undecided: usize,
}

impl Registers {
    pub fn add(
        &mut self,
        key: Register,
        op: usize,
        action: Action,
        asked_us: u64,
        heard_us: Option<u64>,
    ) {
        self.keys.entry(key).or_default().push(Done { op, action, asked_us, heard_us });
    }

    pub fn check(&mut self, describe: impl Fn(usize) -> String) -> Checked<()> {
        for (key, done) in &mut self.keys {
            done.sort_by_key(|done| (done.asked_us, done.op));
            match search(done) {
                Search::Found => {}
                Search::GivenUp => self.undecided += 1,
                Search::Impossible(fits) => {
                    let text: Vec<String> = done
                        .iter()
                        .map(|done| format!("{}: {}", done.op, describe(done.op)))
                        .collect();
                    let what = format!(
                        "register {key:?}: no order fits more than {fits} of these:\n{}",
                        text.join("\n")
                    );
                    return Err(Violation { check: "linearizable register", what });
                }
            }
        }
        Ok(())
    }
}

enum Search {
    Found,
    GivenUp,
    /// So many operations fit at most.
    Impossible(usize),
}

/// Which operations have been given a place; those before `done_below` all have.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Placed {
    done_below: usize,
    beyond: Vec<usize>,
    register: Option<usize>,
}

impl Placed {
    fn has(&self, place: usize) -> bool {
        place < self.done_below || self.beyond.binary_search(&place).is_ok()
    }

    fn with(&self, place: usize, register: Option<usize>) -> Placed {
        let mut next = Placed { register, ..self.clone() };
        if let Err(at) = next.beyond.binary_search(&place) {
            next.beyond.insert(at, place);
        }
        while next.beyond.first() == Some(&next.done_below) {
            next.beyond.remove(0);
            next.done_below += 1;
        }
        next
    }
}

/// Depth first. `done` is sorted by when each was asked.
fn search(done: &[Done]) -> Search {
    let answered = done.iter().filter(|done| done.heard_us.is_some()).count();
    let start = Placed { done_below: 0, beyond: Vec::new(), register: None };
    let mut seen = HashSet::from([start.clone()]);
    let mut stack = vec![(start, 0)];
    let mut most = 0;
    while let Some((placed, count)) = stack.pop() {
        most = most.max(count);
        if count == answered {
            return Search::Found;
        }
        if seen.len() > STATES_MAX {
            return Search::GivenUp;
        }
        // An operation may come next if none that is left was answered before it was asked.
        let left = || (placed.done_below..done.len()).filter(|place| !placed.has(*place));
        let first_heard_us =
            left().filter_map(|place| done[place].heard_us).min().unwrap_or(u64::MAX);
        let next: Vec<usize> =
            left().take_while(|place| done[*place].asked_us <= first_heard_us).collect();
        // The earliest is tried first, so it is pushed last.
        for place in next.into_iter().rev() {
            let Done { action, heard_us, .. } = done[place];
            let Some(register) = action.apply(placed.register) else { continue };
            if heard_us.is_none() && register == placed.register {
                continue; // As if it had not happened.
            }
            let next = placed.with(place, register);
            if seen.insert(next.clone()) {
                stack.push((next, count + usize::from(heard_us.is_some())));
            }
        }
    }
    Search::Impossible(most)
}

#[test]
fn the_search_accepts_what_fits_and_refuses_what_does_not() {
    let check = |steps: &[(Action, u64, Option<u64>)]| {
        let mut registers = Registers::default();
        for (op, (action, asked_us, heard_us)) in steps.iter().enumerate() {
            registers.add(Register::Key(0), op, *action, *asked_us, *heard_us);
        }
        registers.check(|op| op.to_string()).map_err(|violation| violation.check)
    };
    use Action::{Delete, Exchange, Look, Put};
    let no = Err("linearizable register");
    assert_eq!(check(&[(Put(0), 0, Some(1)), (Look(Some(0)), 2, Some(3))]), Ok(()));
    // An old value after a newer one was acknowledged.
    let old = [(Put(0), 0, Some(1)), (Put(1), 2, Some(3)), (Look(Some(0)), 4, Some(5))];
    assert_eq!(check(&old), no);
    // Overlapping writes may take effect in either order, but only in one.
    let either = |first, second| {
        check(&[
            (Put(0), 0, Some(9)),
            (Put(1), 0, Some(9)),
            (Look(Some(first)), 10, Some(11)),
            (Look(Some(second)), 12, Some(13)),
        ])
    };
    assert_eq!((either(0, 0), either(1, 1)), (Ok(()), Ok(())));
    assert_eq!((either(0, 1), either(1, 0)), (no, no));
    // What was not answered may take effect late, once.
    let late = [
        (Put(0), 0, None),
        (Put(1), 1, Some(2)),
        (Look(Some(1)), 3, Some(4)),
        (Look(Some(0)), 5, Some(6)),
    ];
    assert_eq!(check(&late), Ok(()));
    let twice = [late[0], late[1], late[3], (Look(Some(1)), 7, Some(8)), late[3]];
    assert_eq!(check(&twice), no);
    // Two exchanges cannot see the same value, and a delete finds what was put.
    let exchanges = |seen| {
        check(&[
            (Put(0), 0, Some(1)),
            (Exchange(1, Some(Some(0))), 2, Some(5)),
            (Exchange(2, Some(Some(seen))), 2, Some(5)),
        ])
    };
    assert_eq!((exchanges(1), exchanges(0)), (Ok(()), no));
    let delete = |found| check(&[(Put(0), 0, Some(1)), (Delete(Some(found)), 2, Some(3))]);
    assert_eq!((delete(true), delete(false)), (Ok(()), no));
}

#[test]
fn replies_that_make_no_sense_are_seen() {
    assert_eq!(action(&Kind::Put { key: 0 }, 1, &Reply::Null), None);
    assert_eq!(action(&Kind::Delete { key: 0 }, 1, &Reply::Integer(2)), None);
}
