//! The session behind a connection, on a node that runs.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use resp::{DecodeError, Request};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::connection::{self, ConnectionHandler};
use super::node::NodeBackend;
use super::places::Place;
use super::refusal::Refusal;
use super::registry::Client;
use super::session::{Session, Step};
use super::shared::Shared;
use crate::node::{self, Outcome};

/// A session and its connection.
pub struct SessionHandler {
    session: Session,
    client: Arc<Client>,
    backend: Arc<NodeBackend>,
    shared: Arc<Shared>,
    place: Place,
}

impl SessionHandler {
    /// For a client that has just connected.
    pub fn new(shared: Arc<Shared>, client: Arc<Client>, backend: Arc<NodeBackend>) -> Self {
        let local = backend.own_address().to_owned();
        let session =
            Session::new(shared.clone(), client.id(), client.address().to_string(), local)
                .connected(client.clone());
        SessionHandler { session, client, backend, shared, place: Place::Workers }
    }
}

/// Waits for what the session cannot go on without.
pub enum Ticket {
    /// The outcome of a submission.
    Outcome(oneshot::Receiver<Outcome>),
    /// A moment to pass.
    Pause(Pin<Box<Sleep>>),
}

impl Future for Ticket {
    /// `None`: the pause is over.
    type Output = Option<Outcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Outcome>> {
        match &mut *self {
            // Dropped unanswered: the driver ended in between, and nobody knows.
            Ticket::Outcome(outcome) => Pin::new(outcome)
                .poll(context)
                .map(|outcome| Some(outcome.unwrap_or(Err(node::Refusal::Uncertain)))),
            Ticket::Pause(pause) => pause.as_mut().poll(context).map(|()| None),
        }
    }
}

impl ConnectionHandler for SessionHandler {
    type Ticket = Ticket;

    fn handle(
        &mut self,
        requests: &mut VecDeque<Request>,
        out: &mut BytesMut,
    ) -> connection::Step<Ticket> {
        let step = self.session.handle(requests, out, &*self.backend);
        self.client.set_readonly(
            self.session.is_read_only()
                || self.session.is_subscribed()
                || self.session.is_monitor(),
        );
        match step {
            Step::Idle => connection::Step::Idle,
            Step::Close => connection::Step::Close,
            Step::Pause(pause) => {
                connection::Step::Wait(Ticket::Pause(Box::pin(tokio::time::sleep(pause))))
            }
            Step::Submit(submission) => {
                let outcome = self.backend.submit(submission, self.place);
                connection::Step::Wait(Ticket::Outcome(outcome))
            }
        }
    }

    fn resume(&mut self, outcome: Option<Outcome>, out: &mut BytesMut) {
        if let Some(outcome) = outcome {
            self.session.complete(outcome.map_err(Refusal::from), out);
        }
    }

    fn may_leave_workers(&self) -> bool {
        !self.session.is_subscribed() && !self.session.is_monitor()
    }

    fn moved_to(&mut self, place: Place) {
        self.place = place;
    }

    fn on_read(&self, bytes: usize) {
        self.shared.counters.read(bytes);
    }

    fn on_written(&self, bytes: usize) {
        self.shared.counters.wrote(bytes);
    }

    fn deliver(&mut self, out: &mut BytesMut) {
        self.session.deliver(out);
    }

    fn on_decode_error(&mut self, error: DecodeError, out: &mut BytesMut) {
        error.reply().encode(self.session.protocol(), out);
    }
}
