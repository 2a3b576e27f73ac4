//! A session that is talked to, and its node.

use std::collections::VecDeque;
use std::sync::Arc;

use arakoon::server::{Session, Shared, Step, Submission};
use bytes::{Bytes, BytesMut};
use resp::{Reply, ReplyDecoder, Request};

use super::node::OneNode;

/// A client of its own node.
pub struct Client {
    /// The node.
    pub node: Arc<OneNode>,
    session: Session,
}

impl Client {
    /// One that has just connected.
    pub fn new() -> Client {
        let shared = Arc::new(Shared::new(0));
        let session = Session::new(shared, 1, String::new(), String::new());
        Client { node: Arc::new(OneNode::new(1_000_000)), session }
    }

    /// One request, and its reply.
    pub fn ask(&mut self, words: &[&[u8]]) -> Reply {
        let arguments = words.iter().map(|word| Bytes::copy_from_slice(word)).collect();
        let mut replies = self.send(vec![Request { arguments }]).1;
        replies.pop().unwrap_or_else(|| panic!("no reply to {words:?}"))
    }

    /// The submissions that the requests became, and their replies.
    pub fn send(&mut self, requests: Vec<Request>) -> (Vec<Submission>, Vec<Reply>) {
        let (mut requests, mut out) = (VecDeque::from(requests), BytesMut::new());
        let mut submissions = Vec::new();
        loop {
            match self.session.handle(&mut requests, &mut out, &*self.node) {
                Step::Submit(submission) => {
                    submissions.push(submission.clone());
                    self.session.complete(self.node.propose(submission), &mut out);
                }
                Step::Idle if !requests.is_empty() => (),
                Step::Pause(_) => panic!("nothing here waits"),
                Step::Idle | Step::Close => break,
            }
        }
        let mut decoder = ReplyDecoder::new(1 << 26, 1 << 20);
        let mut replies = Vec::new();
        while let Some(reply) = decoder.decode(&mut out).expect("RESP") {
            replies.push(reply);
        }
        (submissions, replies)
    }
}

/// A request of words without spaces.
pub fn request(line: &str) -> Request {
    let arguments = line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes()));
    Request { arguments: arguments.collect() }
}

/// Whether it is an error that says so.
pub fn is_error(reply: &Reply, part: &str) -> bool {
    matches!(reply, Reply::Error(text) if text.contains(part))
}
