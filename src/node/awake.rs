//! Keeps the processors awake while a few updates are on their way.
//!
//! One thread after the other works for an update, and in between the processors may have nothing to
//! do. A virtual machine gives such a processor back, and to get it again takes longer than most of
//! these steps. So there is a keeper for each processor: a thread that does nothing, of the class
//! that only runs where nothing else wants to (`SCHED_IDLE`), and where it runs counts as idle for
//! every thread that wakes. Keepers rest once nothing has been on its way for [`LINGER_US`].
//!
//! They rest as well while many wait (`Proposals::leaves_processors_idle`). A thread may wait for a
//! processor that another one has, and a processor that becomes idle takes it over; one that a keeper
//! keeps awake never becomes idle.
//!
//! Invariant: a keeper never holds a lock. Whoever waited for it would wait until its processor has
//! nothing else to do.
//!
//! Left out: machines with many processors, where it would take more power than it saves time; and
//! processes with a quota of processor time, which the keepers would use up.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use thread_priority::ThreadPriority;
use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

use super::clock;

/// So long after the last step keepers stay: a closed loop of one client is faster, and what comes
/// later than that does not gain much by it.
const LINGER_US: u64 = 300;
/// A keeper looks at the clock once in so many rounds,
const ROUNDS: usize = 32;
/// and tells what it took once in so many looks.
const LOOKS: u32 = 256;
/// With more processors than these none is kept awake.
const PROCESSORS_MAX: usize = 8;

/// When a node keeps the processors awake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAwake {
    /// Never.
    No,
    /// While it leads: other nodes run on this machine, and one node's keepers are enough.
    AsLeader,
    /// As leader and as follower.
    Yes,
}

/// The keepers of a node.
pub(super) struct Awake {
    when: KeepAwake,
    keepers: Arc<Keepers>,
}

#[derive(Default)]
struct Keepers {
    /// On the boot clock.
    until_us: AtomicU64,
    all: Vec<Keeper>,
    stopping: AtomicBool,
}

#[derive(Default)]
struct Keeper {
    rests: AtomicBool,
    /// Processor time that it took.
    taken_us: AtomicU64,
    thread: OnceLock<Thread>,
}

impl Awake {
    /// Starts the keepers, one for each processor that this process may use.
    pub fn start(when: KeepAwake) -> io::Result<Awake> {
        let processors = if when == KeepAwake::No { Vec::new() } else { processors()? };
        let all = processors.iter().map(|_| Keeper::default()).collect();
        let keepers = Arc::new(Keepers { all, ..Keepers::default() });
        for (position, processor) in processors.into_iter().enumerate() {
            let keepers = keepers.clone();
            // Nobody waits for its end: on a busy machine that may take a while.
            thread::Builder::new().name("awake".to_string()).spawn(
                move || match become_idle_on(processor) {
                    Ok(()) => keepers.keep(&keepers.all[position]),
                    Err(error) => tracing::debug!(processor, error, "is not kept awake"),
                },
            )?;
        }
        Ok(Awake { when, keepers })
    }

    /// Says for how long keepers have run, all together: nobody else wanted to.
    pub fn taken(&self) -> impl Fn() -> Duration + Send + use<> {
        let keepers = self.keepers.clone();
        move || keepers.taken()
    }

    /// Something is on its way, or just was.
    pub fn note(&self, now_us: u64, leads: bool) {
        if self.when == KeepAwake::Yes || leads {
            self.keepers.until_us.store(now_us + LINGER_US, Ordering::SeqCst);
            self.keepers.call();
        }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.keepers.stopping.store(true, Ordering::SeqCst);
        self.keepers.call();
    }
}

impl Keeper {
    fn tell_time(&self) {
        let taken = clock_gettime(ClockId::ThreadCPUTime);
        let taken_us = taken.tv_sec as u64 * 1_000_000 + taken.tv_nsec as u64 / 1000;
        self.taken_us.store(taken_us, Ordering::Relaxed);
    }
}

impl Keepers {
    fn taken(&self) -> Duration {
        Duration::from_micros(
            self.all.iter().map(|it| it.taken_us.load(Ordering::Relaxed)).sum::<u64>(),
        )
    }

    fn call(&self) {
        for keeper in &self.all {
            // The second look is for the others who call: one of them is enough.
            if keeper.rests.load(Ordering::SeqCst)
                && keeper.rests.swap(false, Ordering::SeqCst)
                && let Some(thread) = keeper.thread.get()
            {
                thread.unpark();
            }
        }
    }

    fn keep(&self, own: &Keeper) {
        let _ = own.thread.set(thread::current());
        while !self.stopping.load(Ordering::SeqCst) {
            for look in 1_u32.. {
                if clock::boot_us() >= self.until_us.load(Ordering::Relaxed) {
                    break;
                }
                for _ in 0..ROUNDS {
                    std::hint::spin_loop();
                }
                if look % LOOKS == 0 {
                    own.tell_time();
                }
            }
            own.tell_time();
            // Before the last look, so that whoever notes something after it calls.
            own.rests.store(true, Ordering::SeqCst);
            if clock::boot_us() >= self.until_us.load(Ordering::SeqCst)
                && !self.stopping.load(Ordering::SeqCst)
            {
                thread::park();
            }
            own.rests.store(false, Ordering::SeqCst);
        }
    }
}

/// The processors to keep awake.
fn processors() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|it| allowed.is_set(*it)).collect();
    // Fewer than these: there is a quota.
    let usable = thread::available_parallelism()?.get();
    let keeps = usable >= all.len() && all.len() <= PROCESSORS_MAX;
    Ok(if keeps { all } else { Vec::new() })
}

/// Binds this thread to a processor, to run there when nothing else does.
fn become_idle_on(processor: usize) -> Result<(), String> {
    let mut only = CpuSet::new();
    only.set(processor);
    sched_setaffinity(None, &only).map_err(|error| error.to_string())?;
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy)
        .map_err(|error| format!("{error:?}"))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}: not within 30 s");
            thread::yield_now();
        }
    }

    #[test]
    fn keepers_rest_and_are_called_and_end() {
        let awake = Awake::start(KeepAwake::Yes).expect("threads start");
        let keepers = awake.keepers.clone();
        let all_rest = |rest: bool| {
            move |it: &Keepers| it.all.iter().all(|k| k.rests.load(Ordering::SeqCst) == rest)
        };
        for _ in 0..20 {
            wait_until("all rest", || all_rest(true)(&keepers));
            // As long as this test likes.
            let far_us = clock::boot_us() + 60_000_000;
            awake.note(far_us, false);
            wait_until("all are awake", || all_rest(false)(&keepers));
            let before = keepers.taken();
            wait_until("one says what it took", || keepers.taken() > before);
            keepers.until_us.store(0, Ordering::SeqCst);
        }
        drop(awake);
        wait_until("all end", || Arc::strong_count(&keepers) == 1);
    }

    #[test]
    fn one_node_of_many_on_a_machine_keeps_it_awake_only_as_leader() {
        let awake = Awake::start(KeepAwake::AsLeader).expect("threads start");
        awake.note(1_000, false);
        assert_eq!(awake.keepers.until_us.load(Ordering::SeqCst), 0);
        awake.note(1_000, true);
        assert_eq!(awake.keepers.until_us.load(Ordering::SeqCst), 1_000 + LINGER_US);
        let never = Awake::start(KeepAwake::No).expect("no threads start");
        assert!(never.keepers.all.is_empty());
    }
}
