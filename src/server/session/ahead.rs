//! Reads that follow each other in a pipeline share one view and one look at the lease.
//!
//! When the first of them is read, those behind it in the queue are read as well, and what they answer
//! waits here until each comes to its turn. All of them had arrived when the view was taken, and no
//! update is between them, so each may be answered from it. What a request answers is thrown away when
//! the request itself turns out to be refused or held back.

use std::collections::VecDeque;

use bytes::Bytes;
use resp::{Reply, Request};

use crate::command::table::{self, Kind, Read, Spec};
use crate::store::keyspace::View;
use crate::store::{Rows, StoreError};

/// The view is held no longer than so many short reads take: it holds the next entry up.
const READS_MAX: usize = 32;
/// What waits here is no more than this, and one reply.
const BYTES_MAX: usize = 64 << 10;
/// The most arguments of such a read, its name included,
const ARGUMENTS_MAX: usize = 4;
/// and the most bytes of them.
const ARGUMENT_BYTES_MAX: usize = 1 << 10;

/// What one request answers.
pub(super) struct Answer {
    pub reply: Reply,
    /// Keys found, and missed.
    pub looked_up: (u64, u64),
}

/// The answers of the requests behind the one at hand, in their order.
#[derive(Default)]
pub(super) struct Ahead {
    answers: VecDeque<Answer>,
    /// Of the request at hand.
    at_hand: Option<Answer>,
    /// So many requests are to be read alone: of a run that ended too early.
    alone: usize,
}

impl Ahead {
    /// The next request is at hand.
    pub fn next(&mut self) {
        self.at_hand = self.answers.pop_front();
        if self.at_hand.is_none() {
            self.alone = self.alone.saturating_sub(1);
        }
    }

    /// The answer of the request at hand, if it was read ahead.
    pub fn take(&mut self) -> Option<Answer> {
        self.at_hand.take()
    }

    /// Forgets them: the next request is not the one that the first of them was read for.
    pub fn clear(&mut self) {
        self.answers.clear();
        self.at_hand = None;
        self.alone = 0;
    }

    /// Whether the request at hand begins a run, if it may.
    pub fn may_begin(&self) -> bool {
        self.alone == 0
    }

    /// Reads ahead what is behind the request at hand, which `view` has just answered. Stops before
    /// anything that needs more than this view.
    pub fn read(&mut self, run: &Run, view: &View, rows: &dyn Rows) -> Result<(), StoreError> {
        let mut bytes = 0;
        let mut before = view.hits_and_misses();
        rows.refuse_to_wait();
        for (read, args, _) in run.0.iter().skip(1) {
            let reply = match read(view, args) {
                Ok(reply) => reply,
                Err(StoreError::NotInMemory | StoreError::WouldWait) => {
                    // Most likely so are the others, and their rows were touched already.
                    self.alone = run.0.len() - 1 - self.answers.len();
                    break;
                }
                Err(error) => return Err(error),
            };
            if view.met_due() || view.exceeded().is_some() {
                break;
            }
            let now = view.hits_and_misses();
            let looked_up = (now.0 - before.0, now.1 - before.1);
            before = now;
            bytes += bytes_of(&reply);
            self.answers.push_back(Answer { reply, looked_up });
            if bytes >= BYTES_MAX {
                break;
            }
        }
        Ok(())
    }
}

/// Reads that follow each other and are sure to be short.
pub(super) struct Run<'a>(Vec<(Read, &'a [Bytes], &'a Spec)>);

impl<'a> Run<'a> {
    /// Those that the queue begins with; none if it is only one.
    pub fn of(requests: &'a VecDeque<Request>) -> Run<'a> {
        let mut run = Vec::new();
        let mut known: Option<(&Bytes, &Spec)> = None;
        for request in requests.iter().take(READS_MAX) {
            let args = &request.arguments[..];
            let Some(name) = args.first() else { break };
            let spec = match known {
                Some((last, spec)) if last == name => Some(spec),
                _ => table::find(name),
            };
            let Some(spec) = spec.filter(|spec| is_short(spec, args)) else { break };
            let Kind::Read(read) = spec.kind else { break };
            known = Some((name, spec));
            run.push((read, args, spec));
        }
        Run(run)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.len() < 2
    }

    /// Has the store fetch their rows together.
    pub fn touch(&self, view: &View) {
        view.touch(
            self.0.iter().flat_map(|(_, args, spec)| spec.keys_of(args)).map(|key| &key[..]),
        );
    }
}

/// Whether this looks at a few keys, at no more of each than it answers, and is well formed.
fn is_short(spec: &Spec, args: &[Bytes]) -> bool {
    args.len() <= ARGUMENTS_MAX
        && args.iter().map(Bytes::len).sum::<usize>() <= ARGUMENT_BYTES_MAX
        && spec.flags.contains(&"fast")
        && spec.check_arity(args).is_ok()
}

fn bytes_of(reply: &Reply) -> usize {
    match reply {
        Reply::Bulk(bytes) => bytes.len(),
        Reply::Array(parts) => parts.iter().map(bytes_of).sum(),
        _ => 0,
    }
}
