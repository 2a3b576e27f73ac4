//! What became of submissions: each is answered exactly once, and this notices when not.

use std::sync::{Arc, Mutex};

use arakoon::node::Outcome;
use arakoon::node::environment::Respond;

/// Whose submission, when and where.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    pub connection: usize,
    /// By the node's boot clock.
    pub read_at_us: u64,
    /// True time.
    pub asked_at_us: u64,
}

/// `None`: dropped without an answer.
type Given = (Ticket, Option<Outcome>);

/// Answers that came out of drivers and appliers and have not been looked at yet.
#[derive(Clone, Default)]
pub struct Answers {
    list: Arc<Mutex<Vec<Given>>>,
}

struct Responder {
    ticket: Ticket,
    answers: Answers,
    answered: bool,
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered {
            self.answers.push(self.ticket, None);
        }
    }
}

impl Answers {
    fn push(&self, ticket: Ticket, outcome: Option<Outcome>) {
        self.list.lock().expect("no holder panics").push((ticket, outcome));
    }

    pub fn take(&self) -> Vec<(Ticket, Option<Outcome>)> {
        std::mem::take(&mut self.list.lock().expect("no holder panics"))
    }

    pub fn respond(&self, ticket: Ticket) -> Respond {
        let mut responder = Responder { ticket, answers: self.clone(), answered: false };
        Box::new(move |outcome| {
            responder.answered = true;
            responder.answers.push(responder.ticket, Some(outcome));
        })
    }
}
