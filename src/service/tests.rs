//! Which stage follows which, and who hears of it, on a clock that jumps.

#![allow(clippy::unwrap_used)]

use futures_util::FutureExt as _;
use tokio::time::advance;

use super::*;

struct At(u64);

impl WallClock for At {
    fn unix_seconds(&self) -> u64 {
        self.0
    }
}

const NOW: u64 = 1_704_499_200;

const CLEAN: Rest = Rest { undelivered: 0 };
const TWO_LEFT: Rest = Rest { undelivered: 2 };
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
/// A process has ended by then, counted from when it was told to.
const PROMISED: Duration = Duration::from_secs(30);

fn service() -> Service {
    Service::new(DRAIN_TIMEOUT, Arc::new(At(NOW)), Arc::new(Metrics::new()))
}

#[test]
fn whoever_asks_for_a_drain_hears_when_it_is_over_however_many_ask() {
    let service = service();
    let mut first = Box::pin(service.request_drain());
    let second = service.request_drain();
    assert_eq!(first.as_mut().now_or_never(), None);
    service.drained(TWO_LEFT);
    assert_eq!(first.now_or_never(), Some(TWO_LEFT));
    assert_eq!(second.now_or_never(), Some(TWO_LEFT));
    // It has drained already.
    assert_eq!(service.request_drain().now_or_never(), Some(TWO_LEFT));
}

#[test]
fn a_drained_node_opens_again() {
    let service = service();
    assert_eq!(service.reopen(), Connecting::Now, "it is open");
    let drained = service.request_drain();
    service.drained(CLEAN);
    assert_eq!(service.reopen(), Connecting::Now);
    assert_eq!(service.stage(), Stage::Open);
    // Whoever had asked hears of it though it is open again.
    assert_eq!(drained.now_or_never(), Some(CLEAN));
    // The next drain is another one.
    assert_eq!(service.request_drain().now_or_never(), None);
}

#[test]
fn a_node_that_is_opened_and_drained_again_at_once_does_both() {
    let service = service();
    drop(service.request_drain());
    service.drained(CLEAN);
    assert_eq!(service.reopen(), Connecting::Now);
    let drained = service.request_drain();
    // Nobody had looked in between.
    assert_eq!(service.stages().rested().now_or_never(), Some(()));
    assert_eq!(service.stages().draining().now_or_never(), Some(()));
    service.drained(CLEAN);
    assert_eq!(drained.now_or_never(), Some(CLEAN));
}

#[test]
fn a_process_that_ends_is_never_opened_again() {
    let service = service();
    let drained = service.request_drain();
    service.end();
    assert_eq!(service.reopen(), Connecting::Never);
    assert_eq!(service.pause(None), None);
    service.drained(CLEAN);
    assert_eq!(service.stage(), Stage::Ended);
    assert_eq!(drained.now_or_never(), Some(CLEAN));
    service.end();
    assert_eq!(service.reopen(), Connecting::Never);
    assert_eq!(service.stage(), Stage::Ended);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_told_to_end_in_the_middle_of_a_drain_has_no_more_time_than_any_other() {
    for before in [0, 1, 20, 25, 29].map(Duration::from_secs) {
        let service = service();
        let _asked = service.request_drain();
        advance(before).await;
        let told = Instant::now();
        let cut = service.stage().drain().map(|drain| drain.jobs_until);
        service.end();
        let drain = service.stage().drain();
        assert_eq!(
            drain.map(|drain| drain.jobs_until),
            cut,
            "jobs gain nothing"
        );
        let until = drain.map(|drain| drain.until);
        assert!(until <= Some(told + PROMISED), "{before:?}");
        assert!(until >= Some(told + DELIVERY), "{before:?}: a last chance");
        service.end();
        assert_eq!(service.stage().drain(), drain, "told twice");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_is_moved_counts_for_whoever_waits_for_it_already() {
    let service = service();
    let _asked = service.request_drain();
    let stages = service.stages();
    let mut overdue = Box::pin(stages.overdue());
    advance(DRAIN_TIMEOUT + DELIVERY / 2).await;
    assert!(overdue.as_mut().now_or_never().is_none());
    service.end();
    advance(DELIVERY / 2).await;
    assert!(overdue.as_mut().now_or_never().is_none(), "it was moved");
    let began = Instant::now();
    overdue.await;
    assert_eq!(began.elapsed(), DELIVERY / 2);
}

#[test]
fn the_gauge_is_1_from_the_beginning_of_a_drain_until_the_node_is_open_again() {
    let service = service();
    let gauge = || service.metrics.draining.get();
    assert_eq!(gauge(), 0);
    let _asked = service.request_drain();
    assert_eq!(gauge(), 1);
    service.drained(CLEAN);
    assert_eq!(gauge(), 1);
    service.reopen();
    assert_eq!(gauge(), 0);
}

#[test]
fn who_wants_it_back_in_the_middle_of_a_drain_has_it_as_soon_as_it_has_drained() {
    let service = service();
    let drained = service.request_drain();
    assert_eq!(service.reopen(), Connecting::OnceDrained);
    service.drained(CLEAN);
    assert_eq!(service.stage(), Stage::Open);
    assert_eq!(drained.now_or_never(), Some(CLEAN), "the hook is answered");
    // The next drain is not opened for what was asked before.
    drop(service.request_drain());
    service.drained(CLEAN);
    assert_eq!(service.stage(), Stage::Drained);
}

#[test]
fn a_signal_in_the_middle_of_a_drain_ends_the_process_whoever_wanted_it_back() {
    for wanted_first in [true, false] {
        let service = service();
        drop(service.request_drain());
        if wanted_first {
            assert_eq!(service.reopen(), Connecting::OnceDrained);
        }
        service.end();
        assert_eq!(service.reopen(), Connecting::Never);
        service.drained(CLEAN);
        assert_eq!(service.stage(), Stage::Ended);
    }
}

#[test]
fn of_a_drain_a_pause_and_a_wish_for_a_session_the_last_one_counts() {
    let service = service();
    assert!(service.pause(None).is_some());
    assert_eq!(service.reopen(), Connecting::OnceDrained);
    assert!(service.paused().is_none());
    assert!(service.pause(None).is_some());
    drop(service.request_drain());
    service.drained(CLEAN);
    assert_eq!(service.stage(), Stage::Drained);
    assert!(service.paused().is_some(), "a drain takes no pause back");
    assert_eq!(service.reopen(), Connecting::Now);
    assert!(service.paused().is_none());
}

#[test]
fn a_restart_of_ollama_ends_a_drain_on_request_and_no_pause() {
    let service = service();
    assert!(service.pause(None).is_some());
    service.drained(CLEAN);
    assert!(!service.backend_restarted());
    assert_eq!(service.reopen(), Connecting::Now);
    drop(service.request_drain());
    service.drained(CLEAN);
    assert!(service.backend_restarted());
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_counted_from_when_it_was_asked_for_and_a_later_one_replaces_it() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let service = service();
    let pause = service.pause(Some(HOUR)).unwrap();
    assert_eq!((pause.since, pause.until.unwrap().0), (NOW, NOW + 3_600));
    let stages = service.stages();
    let mut over = Box::pin(stages.pause_over());
    advance(HOUR / 2).await;
    service.drained(CLEAN);
    assert!(over.as_mut().now_or_never().is_none());
    assert!(service.pause(Some(HOUR)).is_some());
    let began = Instant::now();
    over.await;
    assert_eq!(began.elapsed(), HOUR);
    assert!(service.pause(None).is_some());
    assert!(
        stages.pause_over().now_or_never().is_none(),
        "without an end"
    );
    assert!(service.pause(Some(Duration::MAX)).is_some());
    assert!(stages.pause_over().now_or_never().is_none(), "as good as");
}
