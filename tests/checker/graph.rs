//! Strict serializability as the absence of cycles: which operation must come before which, by the
//! versions they saw and made and by real time.
//!
//! Per object: the maker of a version comes before its readers and the maker of the next; a reader
//! comes before the maker of the next. By time: what was answered before another was asked comes
//! before it. Real time goes through a chain of moments, so that there are few edges.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checked, Violation};

/// Something with versions: its kind and its number.
pub type Object = (char, u32);

/// What an operation did to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It saw this version.
    Read(u64),
    /// It made this version.
    Write(u64),
}

#[derive(Default)]
struct Versions {
    makers: BTreeMap<u64, usize>,
    readers: Vec<(u64, usize)>,
}

/// All that is known of a history's order.
#[derive(Default)]
pub struct Graph {
    objects: BTreeMap<Object, Versions>,
    made: BTreeMap<(usize, Object), u64>,
    /// Asked, and answered if that is known.
    times: BTreeMap<usize, (u64, Option<u64>)>,
    /// What is known to come before what for another reason.
    orders: Vec<(usize, usize)>,
}

impl Graph {
    pub fn access(&mut self, op: usize, object: Object, access: Access) -> Checked<()> {
        let versions = self.objects.entry(object).or_default();
        match access {
            Access::Read(version) => versions.readers.push((version, op)),
            Access::Write(version) => {
                let known = *versions.makers.entry(version).or_insert(op);
                let first = *self.made.entry((op, object)).or_insert(version);
                if known != op || first != version {
                    let what = format!(
                        "version {version} of {object:?} was made by {known} and by {op}, which \
                         made version {first}"
                    );
                    return Err(Violation { check: "each version made once", what });
                }
            }
        }
        Ok(())
    }

    pub fn wrote(&self, op: usize, object: Object) -> bool {
        self.made.contains_key(&(op, object))
    }

    /// How many versions of an object, up to the latest that anyone saw or made, nobody is known to
    /// have made.
    pub fn unaccounted(&self, object: Object) -> u64 {
        let Some(Versions { makers, readers }) = self.objects.get(&object) else { return 0 };
        let seen = readers.iter().map(|(version, _)| *version).max().unwrap_or(0);
        let latest = makers.keys().next_back().copied().unwrap_or(0).max(seen);
        latest.saturating_sub(makers.len() as u64)
    }

    /// Whether it is among those that are ordered.
    pub fn knows(&self, op: usize) -> bool {
        self.times.contains_key(&op)
    }

    /// When it was asked and answered. The first answer told counts.
    pub fn time(&mut self, op: usize, asked_us: u64, heard_us: Option<u64>) {
        self.times.entry(op).or_insert((asked_us, heard_us));
    }

    /// One operation comes before another, whatever their times say.
    pub fn order(&mut self, before: usize, after: usize) {
        self.orders.push((before, after));
    }

    /// Whether there is an order of all operations that fits.
    pub fn check(&self, describe: impl Fn(usize) -> String) -> Checked<()> {
        let ops: Vec<usize> = self.times.keys().copied().collect();
        let place: BTreeMap<usize, usize> =
            ops.iter().enumerate().map(|(place, op)| (*op, place)).collect();
        let mut after: Vec<Vec<usize>> = vec![Vec::new(); ops.len()];
        for (object, Versions { makers, readers }) in &self.objects {
            let known = |(version, maker): (&u64, &usize)| (*version, place[maker]);
            let mut makers: BTreeMap<u64, usize> = makers.iter().map(known).collect();
            // Somebody made what was read. Who was not answered is not known, nor when; but it comes
            // before its readers and behind those of what was there before.
            for (version, _) in readers {
                if *version > 0 && !makers.contains_key(version) {
                    makers.insert(*version, after.len());
                    after.push(Vec::new());
                }
            }
            if makers.contains_key(&0) {
                let what = format!("version 0 of {object:?} was made");
                return Err(Violation { check: "each version made once", what });
            }
            let in_order: Vec<usize> = makers.values().copied().collect();
            in_order.windows(2).for_each(|pair| after[pair[0]].push(pair[1]));
            for (version, reader) in readers {
                if let Some((_, maker)) = makers.range(..=*version).next_back() {
                    after[*maker].push(place[reader]);
                }
                if let Some((_, next)) = makers.range(version + 1..).next() {
                    after[place[reader]].push(*next);
                }
            }
        }
        for (first, second) in &self.orders {
            after[place[first]].push(place[second]);
        }
        self.add_time(&ops, &mut after);
        match unordered(&after) {
            None => Ok(()),
            Some(cycle) => {
                let text: Vec<String> = cycle
                    .iter()
                    .filter_map(|place| ops.get(*place))
                    .map(|op| format!("{op}: {}", describe(*op)))
                    .collect();
                let what = format!("no order fits these:\n{}", text.join("\n"));
                Err(Violation { check: "strict serializability", what })
            }
        }
    }

    fn add_time(&self, ops: &[usize], after: &mut Vec<Vec<usize>>) {
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for (place, op) in ops.iter().enumerate() {
            let (asked_us, heard_us) = self.times[op];
            // Asked before answered at one time: they overlap.
            moments.push((asked_us, false, place));
            moments.extend(heard_us.map(|us| (us, true, place)));
        }
        moments.sort_unstable();
        let mut now = None;
        for (_, answered, place) in moments {
            if answered {
                let next = after.len();
                after.push(Vec::new());
                after[place].push(next);
                if let Some(now) = now.replace(next) {
                    let now: usize = now;
                    after[now].push(next);
                }
            } else if let Some(now) = now {
                after[now].push(place);
            }
        }
    }
}

/// A cycle, if there is one; found by taking away all that has nothing before it.
fn unordered(after: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut before = vec![0u32; after.len()];
    after.iter().flatten().for_each(|next| before[*next] += 1);
    let mut free: Vec<usize> = (0..after.len()).filter(|node| before[*node] == 0).collect();
    let mut taken = 0;
    while let Some(node) = free.pop() {
        taken += 1;
        for next in &after[node] {
            before[*next] -= 1;
            if before[*next] == 0 {
                free.push(*next);
            }
        }
    }
    if taken == after.len() {
        return None;
    }
    // What is left has something before it that is left too: going back from anywhere ends in a
    // cycle.
    let mut previous = vec![usize::MAX; after.len()];
    for (node, nexts) in after.iter().enumerate() {
        if before[node] > 0 {
            nexts.iter().for_each(|next| previous[*next] = node);
        }
    }
    let mut node = (0..after.len()).find(|node| before[*node] > 0)?;
    let mut seen = BTreeSet::new();
    while seen.insert(node) {
        node = previous[node];
    }
    let mut cycle = vec![node];
    let mut at = previous[node];
    while at != node {
        cycle.push(at);
        at = previous[at];
    }
    cycle.reverse();
    Some(cycle)
}

#[test]
fn an_old_value_after_a_newer_one_was_acknowledged_is_a_cycle() {
    let check = |read: Access, asked_us: u64| {
        let mut graph = Graph::default();
        let object = ('l', 0);
        for (op, access, times) in
            [(0, Access::Write(1), (0, 1)), (1, Access::Write(2), (2, 3)), (2, read, (asked_us, 9))]
        {
            graph.access(op, object, access).expect("versions are made once");
            graph.time(op, times.0, Some(times.1));
        }
        graph.check(|op| op.to_string()).map_err(|violation| violation.check)
    };
    assert_eq!(check(Access::Read(2), 4), Ok(()));
    assert_eq!(check(Access::Read(1), 4), Err("strict serializability"));
    // Asked before the newer one was answered, it may stand before it.
    assert_eq!(check(Access::Read(1), 3), Ok(()));
}

#[test]
fn reads_of_two_objects_must_fit_one_moment() {
    let check = |first: u64, second: u64| {
        let mut graph = Graph::default();
        for (op, accesses) in [
            (0, [(('l', 0), Access::Write(1)), (('l', 1), Access::Write(1))]),
            (1, [(('l', 0), Access::Write(2)), (('l', 1), Access::Write(2))]),
            (2, [(('l', 0), Access::Read(first)), (('l', 1), Access::Read(second))]),
        ] {
            for (object, access) in accesses {
                graph.access(op, object, access).expect("versions are made once");
            }
            graph.time(op, 0, None);
        }
        graph.check(|op| op.to_string()).is_ok()
    };
    assert!(check(0, 0) && check(1, 1) && check(2, 2));
    assert!(!check(1, 2) && !check(2, 1) && !check(0, 1));
}

#[test]
fn what_was_read_does_not_go_away_though_its_maker_is_not_known() {
    let check = |versions: [u64; 2]| {
        let mut graph = Graph::default();
        for (op, version) in versions.into_iter().enumerate() {
            graph.access(op, ('o', 0), Access::Read(version)).expect("reads are no makers");
            graph.time(op, 10 * op as u64, Some(10 * op as u64 + 1));
        }
        assert_eq!(graph.unaccounted(('o', 0)), *versions.iter().max().expect("two"));
        graph.check(|op| op.to_string()).is_ok()
    };
    assert!(check([0, 1]) && check([1, 1]) && check([4, 5]));
    assert!(!check([1, 0]) && !check([5, 4]));
}

#[test]
fn a_given_order_counts_and_no_version_is_made_twice() {
    let mut graph = Graph::default();
    for (op, version) in [(0, 2), (1, 1)] {
        graph.access(op, ('l', 0), Access::Read(version)).expect("reads are no makers");
        graph.time(op, 0, None);
    }
    graph.access(2, ('l', 0), Access::Write(2)).expect("made once");
    graph.time(2, 0, None);
    assert!(graph.check(|op| op.to_string()).is_ok());
    // A connection that saw the second version must not see the first one afterwards.
    graph.order(0, 1);
    assert!(graph.check(|op| op.to_string()).is_err());
    assert!(graph.access(3, ('l', 0), Access::Write(2)).is_err());
}
