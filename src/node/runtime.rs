//! A real node: the driver on one thread, and a thread for each kind of work that may block.
//!
//! | thread | does | is told by | tells the driver |
//! |---|---|---|---|
//! | driver | [`Driver::step`], what the other nodes send and get, appends and syncs of a quick disk,
//!   clients that only update (`server/places.rs`) | its inbox | |
//! | log | append and sync when the driver leaves it to it, collapse (`node/saving.rs`) | its jobs | `Saved`, `Collapsed` |
//! | apply | writes to the store, answers clients (`node/applying.rs`; a leader's driver does it itself
//!   for small entries) | `StoreJob` | `Applied`, `HeadInstalled` |
//! | read | reads the log for catch-up, serves and keeps parts of heads | `ReadJob` | `Read`, `HeadChunkKept` |
//! | head | writes heads, at its own pace (`node/chores.rs`) | `Frozen` | `HeadWritten`, `HeadFailed` |
//! | drain | moves layers to the engine | the clock | |
//! | housekeeping | prepares log segments, watches the disk | the clock | `DiskNearlyFull` |
//! | awake | nothing, so that processors stay awake (`node/awake.rs`) | the driver | |
//!
//! A failing disk ends the process at once ([`Fatal`]); nothing is retried.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::applier::Frozen;
use super::applying::Applying;
use super::awake::{Awake, KeepAwake};
use super::chores::{self, DiskPlace};
use super::disk_watch::DiskWatch;
use super::driver::Driver;
use super::environment::{Input, ReadPurpose};
use super::handle::Handle;
use super::head_plan::HeadSize;
use super::heads::HeadDirectory;
use super::inbox::Inbox;
use super::mailbox::Mailbox;
use super::message::{HeadName, NodeMessage};
use super::proposals::Gather;
use super::recovery::OpenedNode;
use super::refusal::Refusal;
use super::saving::Saving;
use super::world::World;
use super::{clock, draining};
use crate::disk::Disk;
use crate::paxos::{Incarnation, NodeId};
use crate::store::Store;
use crate::transaction_log::{LogError, Reader};

/// Bytes of entries that one read of the log returns, roughly.
const READ_BYTES: usize = 1 << 20;
/// How long an entry waits for more submissions at most,
const GATHER_MAX: Duration = Duration::from_micros(500);
/// and for the next one.
const GATHER_GAP_MAX: Duration = Duration::from_micros(100);

/// What takes longer is told at the level `debug`, under [`SLOW_TARGET`].
const SLOW: Duration = Duration::from_millis(50);
/// `--log arakoon::slow=debug` tells what clients waited for: the disk, the store, or the machine.
const SLOW_TARGET: &str = "arakoon::slow";

/// Does a piece of work, and tells if it was slow.
pub(super) fn timed<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    let took = began.elapsed();
    if took >= SLOW {
        tracing::debug!(target: SLOW_TARGET, ms = took.as_millis() as u64, "{what}");
    }
    result
}

/// Sends messages to other nodes; the real one is `peers::Peers`.
pub trait Outbox: Send {
    /// Sends, perhaps in vain; never waits.
    fn send(&self, to: NodeId, message: &NodeMessage);
}

/// Called with what makes it impossible to go on; ends the process.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// What a node needs besides what it recovered.
pub struct Surroundings {
    /// The node's directory.
    pub directory: PathBuf,
    /// The files.
    pub disk: Arc<dyn Disk>,
    /// The other nodes.
    pub outbox: Box<dyn Outbox>,
    /// Closes clients that are not in READONLY mode.
    pub close_clients: Arc<dyn Fn() + Send + Sync>,
    /// Told of every change of the master that this node knows of, and of its loss.
    pub master_changed: Arc<dyn Fn(Option<NodeId>) + Send + Sync>,
    /// Bytes of log kept below what could be dropped.
    pub log_keep_bytes: u64,
    /// Bytes that must stay free on the disk, beside what memory still has to bring to it; below
    /// that updates are refused.
    pub disk_reserve_bytes: u64,
    /// When processors without work are kept awake.
    pub keep_awake: KeepAwake,
    /// Ends the process.
    pub fatal: Fatal,
}

pub(super) enum ReadJob {
    Log(ReadPurpose),
    Serve { to: NodeId, partial: Option<HeadName>, offset_bytes: u64 },
    Keep(super::message::HeadChunk),
    HeadWritten(HeadName, HeadSize),
}

/// How the driver ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As asked.
    Stopped,
    /// The cluster knows a later life of this seat.
    Outlived(Incarnation),
}

/// What all threads share.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) inbox: Arc<Inbox>,
    pub(super) saving: Arc<Saving>,
    pub(super) applying: Arc<Applying>,
    pub(super) read_jobs: Arc<Mailbox<ReadJob>>,
    pub(super) frozen: Arc<Mailbox<Frozen>>,
    pub(super) stopping: Arc<AtomicBool>,
    /// The driver goes on only when more is applied.
    pub(super) applied_is_awaited: Arc<AtomicBool>,
    /// This node's log is on disk up to here, and says what the replica says; what the store may drain.
    /// Written by the driver before it hands out what is to be applied: when the log is to lose its end,
    /// this falls before what comes in its place can be applied.
    pub(super) log_durable: Arc<AtomicU64>,
    pub(super) store: Store,
    pub(super) heads: HeadDirectory,
    pub(super) disk_watch: DiskWatch,
    pub(super) fatal: Fatal,
}

/// A node that runs.
pub struct Node {
    handle: Handle,
    common: Common,
    driver: JoinHandle<Ended>,
    /// Of the driver's thread, see [`Node::beside_driver`].
    beside_driver: tokio::runtime::Handle,
    kept_awake: Arc<dyn Fn() -> Duration + Send + Sync>,
    has_ended: Arc<AtomicBool>,
    /// The driver's thread goes on for those beside the driver until this is told.
    may_go: Arc<Notify>,
    workers: Vec<JoinHandle<()>>,
}

impl Node {
    /// Starts the threads.
    ///
    /// # Errors
    /// The operating system has no thread for us.
    pub fn start(opened: OpenedNode, surroundings: Surroundings) -> std::io::Result<Node> {
        let OpenedNode { log, heads, store, applier, start } = opened;
        let (reader, drained_log, preparer) = (log.reader(), log.reader(), log.preparer());
        let counts = applier.counts();
        let (inbox, fatal) = (Arc::<Inbox>::default(), surroundings.fatal);
        let log_durable = Arc::new(AtomicU64::new(start.recovered.last.0));
        let saving = Saving::new(log, inbox.clone(), fatal.clone(), surroundings.log_keep_bytes);
        let common = Common {
            inbox,
            saving: Arc::new(saving),
            applying: Arc::new(Applying::new(applier)),
            read_jobs: Arc::default(),
            frozen: Arc::default(),
            stopping: Arc::default(),
            applied_is_awaited: Arc::new(AtomicBool::new(true)),
            log_durable,
            store: store.clone(),
            heads,
            disk_watch: DiskWatch::default(),
            fatal,
        };
        let handle =
            Handle::new(common.inbox.clone(), store, Arc::new(clock::boot_us)).with_counts(counts);
        let shared_outbox = Arc::new(parking_lot::Mutex::new(surroundings.outbox));
        let mut workers = Vec::new();
        let mut spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.to_string()).spawn(work).map(|it| workers.push(it))
        };
        let shared = common.clone();
        spawn("log", Box::new(move || shared.saving.run(&shared.store)))?;
        let shared = common.clone();
        spawn("apply", Box::new(move || shared.applying.run(&shared)))?;
        let (shared, outbox) = (common.clone(), shared_outbox.clone());
        spawn("read", Box::new(move || run_read(&reader, &shared, &outbox)))?;
        let shared = common.clone();
        spawn("head", Box::new(move || chores::run_head(&shared)))?;
        let shared = common.clone();
        let head_every_bytes = start.head_every_bytes;
        let Surroundings { directory, disk, disk_reserve_bytes: reserve_bytes, .. } = surroundings;
        let place = DiskPlace { disk, directory, reserve_bytes };
        let drained_place = place.clone();
        spawn(
            "drain",
            Box::new(move || {
                draining::run(&drained_log, head_every_bytes, &drained_place, &shared);
            }),
        )?;
        let shared = common.clone();
        spawn(
            "housekeeping",
            Box::new(move || chores::run_housekeeping(&preparer, &place, &shared)),
        )?;
        let awake = Awake::start(surroundings.keep_awake)?;
        let kept_awake = Arc::new(awake.taken());
        let mut world = World {
            common: common.clone(),
            awake,
            handle: handle.clone(),
            saves: Vec::new(),
            to_apply: Vec::new(),
            has_sent: false,
            outbox: shared_outbox,
            close_clients: surroundings.close_clients,
            master: None,
            master_changed: surroundings.master_changed,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let beside_driver = runtime.handle().clone();
        let (has_ended, may_go) = (Arc::<AtomicBool>::default(), Arc::<Notify>::default());
        let (ended, gone) = (has_ended.clone(), may_go.clone());
        let driver = thread::Builder::new().name("driver".to_string()).spawn(move || {
            runtime.block_on(async {
                let how = run_driver(Driver::new(start), &mut world).await;
                ended.store(true, Ordering::SeqCst);
                gone.notified().await;
                how
            })
        })?;
        Ok(Node { handle, common, driver, beside_driver, kept_awake, has_ended, may_go, workers })
    }

    /// For the connections of clients.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Tokio on the driver's thread, for the connections to the other nodes, and for those of clients
    /// while they do nothing that could take long: what they send then costs no change of threads. It
    /// goes on until [`Node::join`].
    pub fn beside_driver(&self) -> &tokio::runtime::Handle {
        &self.beside_driver
    }

    /// Says for how long processors were kept awake that had nothing to do, all together.
    pub fn kept_awake(&self) -> Arc<dyn Fn() -> Duration + Send + Sync> {
        self.kept_awake.clone()
    }

    /// Where messages from other nodes go.
    pub fn inbox(&self) -> Arc<Inbox> {
        self.common.inbox.clone()
    }

    /// Hands over what is led; [`Node::join`] then returns.
    pub fn stop(&self) {
        self.common.inbox.push(Input::Stop);
    }

    /// Whether the driver has ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    /// Waits for the driver's end, then stops the other threads and closes the store.
    pub fn join(self) -> Ended {
        self.may_go.notify_one();
        let ended = self.driver.join().expect("a panic ends the process");
        self.common.stopping.store(true, Ordering::SeqCst);
        // What was handed out is still done: the log first, since the store may not pass it.
        self.common.saving.close();
        self.common.applying.close();
        self.common.read_jobs.close();
        self.common.frozen.close();
        for worker in self.workers {
            worker.join().expect("a panic ends the process");
        }
        // The log's thread has done all that it was told, so all that is applied is in the log.
        let durable = self.common.saving.last().0;
        if let Err(error) = self.common.store.close(durable) {
            tracing::warn!(%error, "the store was not closed cleanly; it is checked at the start");
        }
        ended
    }
}

async fn run_driver(driver: Driver, world: &mut World) -> Ended {
    let mut inputs = Vec::new();
    let ended = drive(driver, &mut inputs, world).await;
    // What came after the last step was not proposed; what still comes finds the inbox closed.
    world.common.inbox.close();
    inputs.clear();
    world.common.inbox.take(&mut inputs);
    for input in inputs {
        if let Input::Submission(submission) = input {
            (submission.respond)(Err(Refusal::TryAgain("the master hands over")));
        }
    }
    ended
}

async fn drive(mut driver: Driver, inputs: &mut Vec<Input>, world: &mut World) -> Ended {
    let mut tick = tokio::time::interval(Duration::from_micros(driver.tick_every_us()));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut soon = tokio::time::interval(Duration::from_micros(driver.tick_soon_us()));
    soon.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let inbox = world.common.inbox.clone();
    let mut logged = driver.replica().last().index;
    loop {
        let now_us = clock::boot_us();
        driver.step(now_us, inputs.drain(..), world);
        let before = std::mem::replace(&mut logged, driver.replica().last().index);
        let on_its_way = logged > before || driver.has_in_flight() || driver.gathers().is_some();
        if on_its_way && driver.leaves_processors_idle() {
            world.awake.note(now_us, driver.replica().is_leader());
        }
        inbox.expect_submissions(driver.submissions_awaited());
        world.common.applied_is_awaited.store(driver.awaits_applied(), Ordering::SeqCst);
        let leads = driver.replica().is_leader();
        world.save_now(driver.is_crowded()).await;
        if let Err(error) = world.apply_now(leads).await {
            (world.common.fatal)(&format!("the store failed: {error}"));
        }
        if let Some(above) = driver.outlived() {
            return Ended::Outlived(above);
        }
        if driver.stopped() {
            return Ended::Stopped;
        }
        if let Some(missing) = driver.gathers() {
            gather(&inbox, missing).await;
        } else if inbox.is_pressing() {
            // There may always be more; what the other nodes send and get must not wait for that.
            tokio::task::yield_now().await;
        } else {
            tokio::select! {
                biased;
                () = inbox.wait() => {}
                _ = tick.tick() => {}
                _ = soon.tick(), if driver.is_waiting() => {}
            }
        }
        inbox.take(inputs);
    }
}

/// Lets those go first who are about to submit: an entry of a few submissions costs as much as one of
/// many. Nothing that somebody waits for is on its way meanwhile. Ends when so many have come, when nobody
/// comes any more, or when it takes too long.
async fn gather(inbox: &Inbox, missing: Gather) {
    // First those who are to be told an outcome: only then can they come back.
    tokio::task::yield_now().await;
    let longest = Duration::from_micros(missing.longest_us).min(GATHER_MAX);
    let began = Instant::now();
    let (mut seen, mut last_came) = (inbox.submissions(), began);
    while inbox.gathers(missing) {
        // Those on this thread, and those on others.
        tokio::task::yield_now().await;
        thread::yield_now();
        let now = Instant::now();
        let here = inbox.submissions();
        if here != seen {
            (seen, last_came) = (here, now);
        }
        if now - last_came >= GATHER_GAP_MAX || now - began >= longest {
            break;
        }
    }
}

fn run_read(reader: &Reader, common: &Common, outbox: &parking_lot::Mutex<Box<dyn Outbox>>) {
    let mut jobs = Vec::new();
    while common.read_jobs.take(&mut jobs) {
        for job in jobs.drain(..) {
            if let Err(error) = read(job, reader, common, outbox) {
                return (common.fatal)(&error);
            }
        }
    }
}

fn read(
    job: ReadJob,
    reader: &Reader,
    common: &Common,
    outbox: &parking_lot::Mutex<Box<dyn Outbox>>,
) -> Result<(), String> {
    match job {
        ReadJob::Log(purpose) => {
            let (from, to) = purpose.range();
            let entries = match reader.read(from, to, READ_BYTES) {
                Ok(entries) => entries,
                // Dropped meanwhile; the replica asks again or sends a head.
                Err(LogError::Gone { .. }) => Vec::new(),
                Err(error) => return Err(format!("the transaction log cannot be read: {error}")),
            };
            common.inbox.push(Input::Read(purpose, entries));
        }
        ReadJob::Serve { to, partial, offset_bytes } => {
            match common.heads.serve(partial, offset_bytes) {
                Ok(Some(chunk)) => outbox.lock().send(to, &NodeMessage::HeadChunk(chunk)),
                Ok(None) => {}
                // It may have been replaced by a newer one just now; the other asks again.
                Err(error) => tracing::warn!(%error, "a head cannot be served"),
            }
        }
        ReadJob::Keep(chunk) => {
            let kept_bytes = common.heads.keep(&chunk).map_err(|error| error.to_string())?;
            let (name, size_bytes) = (chunk.name, chunk.size_bytes);
            common.inbox.push(Input::HeadChunkKept { name, kept_bytes, size_bytes });
        }
        ReadJob::HeadWritten(name, size) => {
            common.inbox.push(Input::HeadWritten { name, size });
        }
    }
    Ok(())
}
