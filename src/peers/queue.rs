//! Frames that wait to be written to one node on one channel.
//!
//! Open only while connected: what would wait for a dead node is stale by the time it is back, and
//! the protocol sends again what matters. Bytes count until they are written, not until they are
//! taken.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::frame::HEADER_BYTES;

/// How much is taken, and written, at once.
const BATCH_BYTES: usize = 1024 * 1024;

#[derive(Debug, Default)]
struct State {
    open: bool,
    frames: VecDeque<Bytes>,
    /// Of waiting and taken frames, headers included.
    bytes: usize,
    dropped_frames: u64,
}

#[derive(Debug)]
pub(super) struct Queue {
    bytes_max: usize,
    state: Mutex<State>,
    filled: Notify,
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Queue {
        Queue { bytes_max, state: Mutex::new(State::default()), filled: Notify::new() }
    }

    /// False: dropped, because there is no connection or no room. Never waits.
    pub(super) fn push(&self, frame: Bytes) -> bool {
        let mut state = self.state.lock();
        let bytes = state.bytes + HEADER_BYTES + frame.len();
        if !state.open || (bytes > self.bytes_max && state.bytes > 0) {
            state.dropped_frames += 1;
            return false;
        }
        state.bytes = bytes;
        state.frames.push_back(frame);
        let was_empty = state.frames.len() == 1;
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
        true
    }

    /// Waits for frames and takes those that were put first. Cancel safe.
    pub(super) async fn take(&self) -> Vec<Bytes> {
        loop {
            let batch = self.take_waiting();
            if !batch.is_empty() {
                return batch;
            }
            self.filled.notified().await;
        }
    }

    /// What waits right now, up to a batch.
    pub(super) fn take_waiting(&self) -> Vec<Bytes> {
        let mut state = self.state.lock();
        let mut bytes = 0;
        let count = state
            .frames
            .iter()
            .take_while(|frame| {
                let fits = bytes == 0 || bytes + frame.len() <= BATCH_BYTES;
                bytes += frame.len() + HEADER_BYTES;
                fits
            })
            .count();
        state.frames.drain(..count).collect()
    }

    /// The taken frames are written.
    pub(super) fn written(&self, batch: &[Bytes]) {
        let bytes: usize = batch.iter().map(|frame| frame.len() + HEADER_BYTES).sum();
        let mut state = self.state.lock();
        assert!(bytes <= state.bytes, "wrote {bytes} bytes of {} in the queue", state.bytes);
        state.bytes -= bytes;
    }

    /// A connection is there.
    pub(super) fn open(&self) {
        self.state.lock().open = true;
    }

    /// The connection is lost, and with it everything that waited or was being written.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.open = false;
        state.dropped_frames += state.frames.len() as u64;
        state.frames = VecDeque::new();
        state.bytes = 0;
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.lock().open
    }

    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    pub(super) fn dropped_frames(&self) -> u64 {
        self.state.lock().dropped_frames
    }
}
