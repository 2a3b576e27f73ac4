//! The thread for the connections whose turns are short (`server/places.rs`).
//!
//! It does the work of one processor. Where that is not enough and others have nothing to do, as when
//! the clients are on other machines, everybody goes back to the workers for a while.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::places::{Place, Places};

/// How often somebody looks whether it is enough.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A thread that works so much of the time
const BUSY: f64 = 0.9;
/// while so many processors do nothing
const IDLE_PROCESSORS: f64 = 0.3;
/// so many times in a row is not enough.
const LOOKS: u32 = 2;
/// How long everybody is with the workers then; twice as long after each further time, up to
const AWAY: Duration = Duration::from_secs(10);
/// this.
const AWAY_MAX: Duration = Duration::from_secs(320);

/// The thread. It ends, with all that runs there, soon after this is dropped.
pub struct ShortTurns {
    runtime: Handle,
    may_end: Arc<Notify>,
}

impl ShortTurns {
    /// Starts it.
    ///
    /// # Errors
    /// The operating system has no thread for us.
    pub fn start() -> io::Result<ShortTurns> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, may_end) = (runtime.handle().clone(), Arc::<Notify>::default());
        let end = may_end.clone();
        thread::Builder::new()
            .name("short turns".to_owned())
            .spawn(move || runtime.block_on(end.notified()))?;
        Ok(ShortTurns { runtime: handle, may_end })
    }

    /// Tokio on that thread.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

impl Drop for ShortTurns {
    fn drop(&mut self) {
        // Nobody waits for it: it may be in a read from a disk that does not answer.
        self.may_end.notify_one();
    }
}

/// Opens and closes the thread to connections, for ever. To be run elsewhere. `kept_awake`: for how
/// long this process' keepers have kept processors from being idle (`node/awake.rs`).
pub async fn watch(places: Places, kept_awake: impl Fn() -> Duration) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let metrics = places.runtime(Place::ShortTurns).metrics();
    let mut crowding = Crowding::default();
    let mut before: Option<(Instant, Duration, Duration)> = None;
    loop {
        look.tick().await;
        let (now, busy) = (Instant::now(), metrics.worker_total_busy_duration(0));
        let Some(idle) = idle_time() else {
            // Without this figure nobody can say that one thread is not enough.
            places.open_short_turns(true);
            before = None;
            continue;
        };
        let idle = idle + kept_awake();
        if let Some((then, busy_before, idle_before)) = before {
            let elapsed = (now - then).as_secs_f64();
            let part = |time: Duration| time.as_secs_f64() / elapsed;
            let busy = part(busy.saturating_sub(busy_before));
            let idle = part(idle.saturating_sub(idle_before));
            places.open_short_turns(crowding.is_open(now, busy, idle));
        }
        before = Some((now, busy, idle));
    }
}

/// For how long processors of this machine had nothing to do, all together.
fn idle_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks = idle_ticks(&stat, thread::available_parallelism().ok()?.get())?;
    Some(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

/// `None` where that says something about more processors than this process may use.
fn idle_ticks(stat: &str, usable: usize) -> Option<u64> {
    let mut lines = stat.lines();
    // cpu user nice system idle iowait ...; a processor that waits for a disk could do something else.
    let all: Vec<&str> = lines.next()?.split_ascii_whitespace().collect();
    let processors = lines.take_while(|line| line.starts_with("cpu")).count();
    let ticks = |column: usize| all.get(column)?.parse::<u64>().ok();
    (processors <= usable).then_some(ticks(4)? + ticks(5)?)
}

/// Whether one thread is enough.
#[derive(Default)]
struct Crowding {
    /// Looks in a row that said it is not.
    crowded: u32,
    closed_until: Option<Instant>,
    last_away: Duration,
}

impl Crowding {
    /// `busy`: how much of the time the thread had something to do. `idle`: how many processors had
    /// not, on average.
    fn is_open(&mut self, now: Instant, busy: f64, idle: f64) -> bool {
        if self.closed_until.is_some_and(|until| now < until) {
            return false;
        }
        self.crowded = if busy >= BUSY && idle >= IDLE_PROCESSORS { self.crowded + 1 } else { 0 };
        if self.crowded < LOOKS {
            return true;
        }
        self.crowded = 0;
        let soon_again = self.closed_until.is_some_and(|until| now < until + AWAY);
        let away = if soon_again { (self.last_away * 2).min(AWAY_MAX) } else { AWAY };
        (self.last_away, self.closed_until) = (away, Some(now + away));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For how long it was closed, when it is looked at so long.
    fn closed(
        crowding: &mut Crowding,
        from: Instant,
        looks: u32,
        busy: f64,
        idle: f64,
    ) -> Duration {
        let closed = |look: &u32| !crowding.is_open(from + LOOK_EVERY * *look, busy, idle);
        LOOK_EVERY * (0..looks).filter(closed).count() as u32
    }

    #[test]
    fn it_is_closed_while_one_thread_is_not_enough_and_ever_longer() {
        let (mut crowding, mut now) = (Crowding::default(), Instant::now());
        for (busy, idle) in [(1.0, 0.1), (0.5, 1.5)] {
            assert_eq!(closed(&mut crowding, now, 100, busy, idle), Duration::ZERO);
        }
        assert_eq!(closed(&mut crowding, now, LOOKS - 1, 1.0, 1.0), Duration::ZERO);
        assert_eq!(closed(&mut crowding, now, 1, 1.0, 0.0), Duration::ZERO, "not in a row");
        let mut away = AWAY;
        for _ in 0..10 {
            let looks = LOOKS + (away.as_millis() / LOOK_EVERY.as_millis()) as u32 - 1;
            assert_eq!(closed(&mut crowding, now, looks, 1.0, 1.0), away);
            now += LOOK_EVERY * looks;
            away = (away * 2).min(AWAY_MAX);
        }
        now += AWAY_MAX + AWAY;
        assert_eq!(closed(&mut crowding, now, LOOKS, 1.0, 1.0), LOOK_EVERY);
        assert_eq!(crowding.last_away, AWAY, "it was enough for a while");
    }

    #[test]
    fn how_long_processors_were_idle() {
        let stat = "cpu  5 1 6 70 8 0 9 0 0 0\ncpu0 3 0 3 40 4 0 5 0 0 0\ncpu1 2 1 3 30 4 0 4 0 0 0\n\
                    intr 17\n";
        assert_eq!(idle_ticks(stat, 2), Some(78));
        assert_eq!(idle_ticks(stat, 1), None, "of the other as well");
        assert_eq!(idle_ticks("cpu  5 1 6", 2), None);
        let usable = thread::available_parallelism().expect("it is known").get();
        let here = std::fs::read_to_string("/proc/stat").expect("Linux has it");
        assert!(idle_ticks(&here, usable.max(1 << 20)).is_some());
    }

    #[tokio::test]
    async fn a_thread_that_is_not_enough_is_closed_to_all() {
        let thread = ShortTurns::start().expect("a thread starts");
        let here = Handle::current();
        let places = Places::new(here.clone(), thread.runtime().clone(), here, 0);
        let busy = thread.runtime().spawn(async {
            loop {
                let until = std::time::Instant::now() + Duration::from_millis(1);
                while std::time::Instant::now() < until {}
                tokio::task::yield_now().await;
            }
        });
        // As many as one likes.
        let began = std::time::Instant::now();
        let watch = tokio::spawn(watch(places.clone(), move || began.elapsed() * 8));
        let deadline = Instant::now() + Duration::from_secs(30);
        while places.short_turns_are_open() && idle_time().is_some() {
            assert!(Instant::now() < deadline, "not closed within 30 s");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        busy.abort();
        watch.abort();
    }

    #[tokio::test]
    async fn what_runs_there_ends_with_it() {
        let thread = ShortTurns::start().expect("a thread starts");
        let name = thread.runtime().spawn(async { thread::current().name().map(str::to_owned) });
        assert_eq!(name.await.expect("it runs").as_deref(), Some("short turns"));
        let forever = thread.runtime().spawn(std::future::pending::<()>());
        drop(thread);
        assert!(forever.await.expect_err("it was ended").is_cancelled());
    }
}
