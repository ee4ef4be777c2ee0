//! Rate-limited log lines: what happens again and again is told when it is new, and then only summed up.
//!
//! Invariant: however often something happens, it has a handful of lines an hour. The first is told at once, and so is
//! the first of another kind; what is told later says how often it was since the beginning, and the end is told once it
//! is one: what comes back within half a minute was never gone.

use std::time::Duration;

use tokio::time::Instant;

/// When an outage is summed up: so long after its first line, then so long after the line before.
const OUTAGE_SUMS: &[Duration] = &[Duration::from_secs(60), Duration::from_secs(600)];

/// The same for what may happen thousands of times a second.
const FLOOD_SUMS: &[Duration] = &[
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
];

/// What has been gone for so long has ended. As long as it takes a session to be healthy.
pub const SETTLED: Duration = Duration::from_secs(30);

/// A flood has ended when nothing came for so long: longer than any of its sums is waited for.
const QUIET: Duration = Duration::from_secs(90);

/// Kinds that are told apart in one run. More of them are only counted: what differs each time is no news.
const MAX_KINDS: usize = 8;

/// Writes a line of the log if a throttle lets it through, with how often it has happened:
/// `throttled!(warn, throttle.seen(kind), [%field, field,] "message")`. With `warn or debug` what is not let through is
/// written at level `debug`.
macro_rules! throttled {
    ($level:ident, $told:expr, [$($field:tt)*] $($message:tt)+) => {
        if let Some(told) = $told {
            tracing::$level!($($field)* attempts = told.attempts, since_s = told.since_s, $($message)+);
        }
    };
    ($level:ident or debug, $told:expr, [$($field:tt)*] $($message:tt)+) => {
        match $told {
            Some(told) => tracing::$level!($($field)* attempts = told.attempts, since_s = told.since_s, $($message)+),
            None => tracing::debug!($($field)* $($message)+),
        }
    };
}

pub(crate) use throttled;

/// What a line says of how often something happened; nothing, where it is the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occurrences {
    /// How often, since the beginning.
    pub attempts: Option<u64>,
    /// How long ago the beginning was, in seconds.
    pub since_s: Option<u64>,
}

/// Decides which of many occurrences are told. Kinds are whatever makes one worth a line of its own.
#[derive(Debug)]
pub struct LogThrottle<K> {
    sums: &'static [Duration],
    /// `None`: it goes on until it is said to be gone.
    ends_after: Option<Duration>,
    run: Option<Run<K>>,
}

#[derive(Debug)]
struct Run<K> {
    kinds: Vec<K>,
    attempts: u64,
    began: Instant,
    last: Instant,
    /// Since when it has not been seen, once somebody said that it is gone.
    gone_since: Option<Instant>,
    /// Sums so far.
    summed: usize,
    sum_due: Instant,
    /// Whether something happened that no line has counted.
    is_untold: bool,
    end: End,
}

/// What was told of a run's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It has not been seen to be gone.
    Untold,
    /// It was told, and nothing has happened since.
    Occurrences,
    /// It was told, and it came back. The next end is told once it has settled.
    Retracted,
}

impl<K: PartialEq> LogThrottle<K> {
    /// For what lasts until it is mended, such as a gateway that is away.
    pub const fn outage() -> Self {
        Self {
            sums: OUTAGE_SUMS,
            ends_after: None,
            run: None,
        }
    }

    /// For what comes in floods and just stops coming, such as requests that are too many.
    pub const fn flood() -> Self {
        Self {
            sums: FLOOD_SUMS,
            ends_after: Some(QUIET),
            run: None,
        }
    }

    /// It has happened. `None`: not worth a line.
    pub fn seen(&mut self, kind: K) -> Option<Occurrences> {
        let now = Instant::now();
        self.run = self
            .run
            .take()
            .filter(|run| !run.has_ended(self.ends_after, now));
        let Some(run) = &mut self.run else {
            self.run = Some(Run::new(kind, now, self.sums));
            return Some(Occurrences::default());
        };
        run.attempts += 1;
        run.last = now;
        run.is_untold = true;
        run.gone_since = None;
        if run.end == End::Occurrences {
            run.end = End::Retracted;
        }
        if !run.kinds.contains(&kind) && run.kinds.len() < MAX_KINDS {
            run.kinds.push(kind);
            return Some(run.tell(now));
        }
        self.sum()
    }

    /// It does not happen just now. Gives what there is to tell of its end, if anything; may be asked as often as you
    /// like, and is to be asked again once [`SETTLED`] is over.
    pub fn gone(&mut self) -> Option<Occurrences> {
        let now = Instant::now();
        let run = self.run.as_mut()?;
        let has_settled = *run.gone_since.get_or_insert(now) + SETTLED <= now;
        let is_told = match run.end {
            End::Untold => true,
            End::Occurrences => false,
            End::Retracted => has_settled,
        };
        let told = is_told.then(|| run.tell(now));
        if is_told {
            run.end = End::Occurrences;
        }
        if has_settled {
            self.run = None;
        }
        told
    }

    /// Whether it happens, or has not been gone for long enough to be over.
    pub fn is_on(&self) -> bool {
        self.run.is_some()
    }

    /// When [`LogThrottle::sum`] will have something to tell, as far as is known now.
    pub fn sum_due(&self) -> Option<Instant> {
        self.run
            .as_ref()
            .filter(|run| run.is_untold)
            .map(|run| run.sum_due)
    }

    /// The sum, if one is due: for what ends without a last occurrence that could tell it.
    pub fn sum(&mut self) -> Option<Occurrences> {
        let now = Instant::now();
        let run = self
            .run
            .as_mut()
            .filter(|run| run.is_untold && run.sum_due <= now)?;
        run.summed += 1;
        run.sum_due = now + pause(self.sums, run.summed);
        Some(run.tell(now))
    }

    /// What no line has told yet, due or not: for the end of the process.
    pub fn rest(&mut self) -> Option<Occurrences> {
        let run = self.run.as_mut().filter(|run| run.is_untold)?;
        Some(run.tell(Instant::now()))
    }
}

impl<K> Run<K> {
    fn new(kind: K, now: Instant, sums: &[Duration]) -> Self {
        Self {
            kinds: vec![kind],
            attempts: 1,
            began: now,
            last: now,
            gone_since: None,
            summed: 0,
            sum_due: now + pause(sums, 0),
            is_untold: false,
            end: End::Untold,
        }
    }

    fn has_ended(&self, ends_after: Option<Duration>, now: Instant) -> bool {
        self.gone_since.is_some_and(|since| since + SETTLED <= now)
            || ends_after.is_some_and(|after| self.last + after <= now)
    }

    fn tell(&mut self, now: Instant) -> Occurrences {
        self.is_untold = false;
        Occurrences {
            attempts: Some(self.attempts),
            since_s: Some((now - self.began).as_secs()),
        }
    }
}

fn pause(sums: &[Duration], summed: usize) -> Duration {
    sums.get(summed)
        .or(sums.last())
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    const FIRST: Occurrences = Occurrences {
        attempts: None,
        since_s: None,
    };

    fn told(attempts: u64, since_s: u64) -> Option<Occurrences> {
        Some(Occurrences {
            attempts: Some(attempts),
            since_s: Some(since_s),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_of_an_hour_is_told_at_once_and_then_at_growing_intervals() {
        let mut outage = LogThrottle::outage();
        let mut lines = Vec::new();
        for second in 0..3_600 {
            if let Some(told) = outage.seen("away") {
                lines.push((second, told));
            }
            advance(SECOND).await;
        }
        assert_eq!(lines.remove(0), (0, FIRST));
        let sums: Vec<_> = lines.iter().map(|(second, _)| *second).collect();
        assert_eq!(sums, [60, 660, 1_260, 1_860, 2_460, 3_060]);
        assert_eq!(Some(lines[0].1), told(61, 60));
        assert_eq!(outage.gone(), told(3_600, 3_600));
        assert_eq!(outage.gone(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn another_kind_of_failure_is_told_at_once_and_only_once() {
        let mut outage = LogThrottle::outage();
        assert_eq!(outage.seen("dns"), Some(FIRST));
        advance(SECOND).await;
        assert_eq!(outage.seen("dns"), None);
        assert_eq!(outage.seen("tcp"), told(3, 1));
        for _ in 0..10 {
            assert_eq!((outage.seen("dns"), outage.seen("tcp")), (None, None));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_that_differ_each_time_are_no_news_for_ever() {
        let mut outage = LogThrottle::outage();
        let lines = (0..1_000).filter_map(|n| outage.seen(n)).count();
        assert_eq!(lines, MAX_KINDS);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_and_goes_is_told_to_be_gone_once_it_is() {
        let mut outage = LogThrottle::outage();
        assert_eq!(outage.seen("broke"), Some(FIRST));
        assert_eq!(outage.gone(), told(1, 0), "the first end is told at once");
        for _ in 0..40 {
            advance(SECOND).await;
            assert_eq!((outage.seen("broke"), outage.gone()), (None, None));
        }
        assert_eq!(outage.gone(), None, "it was up a moment ago, too");
        advance(SETTLED).await;
        assert_eq!(outage.gone(), told(41, 70));
        assert_eq!(outage.seen("broke"), Some(FIRST), "it is a new one");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_and_goes_once_a_minute_is_not_told_once_a_minute() {
        let mut outage = LogThrottle::outage();
        let mut lines = 0;
        for _ in 0..60 {
            lines += usize::from(outage.seen("broke").is_some());
            advance(55 * SECOND).await;
            lines += usize::from(outage.gone().is_some());
            advance(5 * SECOND).await;
        }
        assert!(lines <= 10, "{lines}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_gone_for_long_begins_anew_though_nobody_asked() {
        let mut outage = LogThrottle::outage();
        outage.seen("broke");
        outage.gone();
        advance(SETTLED).await;
        assert_eq!(outage.seen("broke"), Some(FIRST));
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_flood_the_first_is_told_and_the_rest_is_summed_though_no_more_comes() {
        let mut flood = LogThrottle::flood();
        assert_eq!(flood.sum_due(), None);
        assert_eq!(flood.seen(()), Some(FIRST));
        assert_eq!(flood.sum_due(), None, "all is told");
        for _ in 1..20_000 {
            assert_eq!(flood.seen(()), None);
        }
        assert_eq!(flood.sum(), None, "it is not due yet");
        assert_eq!(flood.sum_due(), Some(Instant::now() + SECOND));
        advance(SECOND).await;
        assert_eq!(flood.sum(), told(20_000, 1));
        assert_eq!(
            (flood.sum(), flood.sum_due(), flood.rest()),
            (None, None, None)
        );
        flood.seen(());
        assert_eq!(flood.sum_due(), Some(Instant::now() + 10 * SECOND));
        assert_eq!(flood.rest(), told(20_001, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_that_has_run_dry_is_new_when_it_comes_back() {
        let mut flood = LogThrottle::flood();
        flood.seen(());
        advance(QUIET).await;
        assert_eq!(flood.seen(()), Some(FIRST));
    }
}
