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
            let mut makers_in_order = makers.iter().peekable();
            while let Some((version, maker)) = makers_in_order.next() {
                if *version == 0 {
                    let what = format!("{maker} made version 0 of {object:?}");
                    return Err(Violation { check: "each version made once", what });
                }
                if let Some((_, next)) = makers_in_order.peek() {
                    after[place[maker]].push(place[*next]);
                }
            }
            for (version, reader) in readers {
                if let Some((_, maker)) = makers.range(..=*version).next_back() {
                    after[place[maker]].push(place[reader]);
                }
                if let Some((_, next)) = makers.range(version + 1..).next() {
                    after[place[reader]].push(place[next]);
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
