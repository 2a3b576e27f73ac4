//! What becomes of requests: replies in line, the outcomes of submissions, refusals.

use bytes::{Bytes, BytesMut};
use resp::Reply;

use super::{Gathered, Session, Taken};
use crate::command::batch::{Item, Items};
use crate::command::connection::Connection;
use crate::command::table::{self, Kind, Spec};
use crate::planted::{Bug, plants};
use crate::server::{Backend, Refusal, Submission, refusal};
use crate::store::StoreError;

impl Session {
    /// Encodes the replies that the submission brought. `outcome`: one reply for each item.
    pub fn complete(&mut self, outcome: Result<Vec<Reply>, Refusal>, out: &mut BytesMut) {
        let submission = self.submitted.take();
        // The connection's task answers each submission once; anything else is a broken invariant.
        let submission = submission.expect("an outcome without a submission");
        let gathered = std::mem::take(&mut self.gathered);
        match outcome {
            Ok(replies) => {
                let (count, expected) = (replies.len(), submission.count as usize);
                assert_eq!(count, expected, "replies to a submission of {expected} items");
                self.count_outcome(&gathered, &Ok(&replies), &submission);
                self.encode_replies(gathered, replies, out);
            }
            Err(refusal) => {
                if let Reply::Error(text) = refusal.reply(None) {
                    self.count_outcome(&gathered, &Err(&text), &submission);
                }
                self.encode_refusals(gathered, &refusal, submission, out);
            }
        }
    }

    pub(super) fn encode_replies(
        &mut self,
        mut gathered: Vec<Gathered>,
        replies: Vec<Reply>,
        out: &mut BytesMut,
    ) {
        let mut replies = replies.into_iter();
        for waiting in gathered.drain(..) {
            if let Gathered::Known(reply) = waiting {
                self.send(&reply, out);
                continue;
            }
            let reply = replies.next().expect("as many replies as items, counted by the caller");
            match waiting {
                Gathered::Transaction(layout, _) => {
                    let reply = self.finish_transaction(layout, reply);
                    self.encode_counted(reply, out);
                }
                Gathered::Item(_) => self.encode_counted(reply, out),
                Gathered::Clock if plants(Bug::ReplyOfClockItemSent) => {
                    self.send(&reply, out);
                }
                Gathered::Clock | Gathered::Known(_) => (),
            }
        }
        // Its room is used again.
        self.gathered = gathered;
    }

    pub(super) fn encode_refusals(
        &mut self,
        gathered: Vec<Gathered>,
        refusal: &Refusal,
        submission: Submission,
        out: &mut BytesMut,
    ) {
        let mut items = Items::new(submission.items, submission.count);
        for waiting in gathered {
            if let Gathered::Known(reply) = waiting {
                self.send(&reply, out);
                continue;
            }
            if let Gathered::Transaction(layout, _) = &waiting {
                self.unselect(layout);
            }
            let item = items.next_item().ok().flatten();
            let item = item.expect("this session encoded the items itself");
            if let Gathered::Clock = waiting {
                if let Some(retry) = &mut self.retry {
                    retry.refusal = Some(for_a_read(refusal.clone()));
                }
                continue;
            }
            let call = match &item {
                Item::Command(call) => Some(call),
                Item::Transaction { calls, .. } => calls.iter().find(|call| has_key(&call.args)),
                Item::Clock { .. } | Item::Head => None,
            };
            let key = call.and_then(|call| first_key(&call.args));
            self.send(&self.refuse(refusal, key), out);
        }
    }

    /// Answers in line: at once, or behind the writes that are gathered.
    pub(super) fn emit(&mut self, reply: Reply, out: &mut BytesMut) -> Taken {
        self.count_reply(&reply);
        if self.gathered.is_empty() {
            self.send(&reply, out);
        } else {
            self.gathered.push(Gathered::Known(reply));
        }
        Taken::Done
    }

    /// A request that is none. It spoils an open transaction.
    pub(super) fn reject(
        &mut self,
        spec: Option<&Spec>,
        reply: Reply,
        out: &mut BytesMut,
    ) -> Taken {
        if let Some(spec) = spec
            && matches!(spec.kind, Kind::Connection(Connection::Exec))
            && let Reply::Error(text) = &reply
        {
            self.transaction = None;
            self.watches.clear();
            let reason = text.strip_prefix("ERR ").unwrap_or(text);
            let text = format!("EXECABORT Transaction discarded because of: {reason}");
            return self.emit(Reply::error(text), out);
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.aborted = true;
        }
        self.emit(reply, out)
    }

    /// What the client is told, in the words that it understands.
    pub(super) fn refuse(&self, refusal: &Refusal, key: Option<&[u8]>) -> Reply {
        match refusal {
            Refusal::Moved { address } if self.redirects => refusal::redirect(address),
            refusal => refusal.reply(key),
        }
    }

    /// The store cannot answer: the node stops, and this client is told nothing it could mistake
    /// for an answer.
    pub(super) fn store_failed(&mut self, error: StoreError, backend: &dyn Backend) -> Taken {
        backend.store_failed(error);
        Taken::Close
    }
}

fn has_key(args: &[Bytes]) -> bool {
    first_key(args).is_some()
}

fn first_key(args: &[Bytes]) -> Option<&[u8]> {
    let spec = args.first().and_then(|name| table::find(name))?;
    spec.check_arity(args).ok()?;
    spec.keys_of(args).next().map(|key| &key[..])
}

/// A read changes nothing, so it cannot be uncertain.
pub(super) fn for_a_read(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Uncertain => Refusal::ClusterDown("mastership was lost while reading".into()),
        other => other,
    }
}

/// As Redis: the arguments up to a total of 128 bytes.
pub(super) fn unknown_command(args: &[Bytes]) -> Reply {
    let shown = |bytes: &[u8], limit: usize| {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]).into_owned();
        text.replace(['\r', '\n'], " ")
    };
    let mut list = String::new();
    for argument in &args[1..] {
        if list.len() >= 128 {
            break;
        }
        list.push_str(&format!("'{}' ", shown(argument, 128 - list.len())));
    }
    let name = shown(&args[0], 128);
    Reply::error(format!("ERR unknown command '{name}', with args beginning with: {list}"))
}
