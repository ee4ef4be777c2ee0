//! What a history tells, by a clock of the test's own.

#![allow(clippy::unwrap_used)]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::time::advance;

use super::*;
use crate::{
    admin::History as Shown,
    clock::WallClock,
    config::{AdmissionSettings, OutboxSettings},
    inference::Admission,
    node::{Nodes, tests::nodes},
    outbox::Outbox,
    protocol::{Code, Operation},
    service::{Rest, Service},
    session::StatusBoard,
    shared::Shared,
    telemetry::{ErrorSource, Metrics, RecentError, ServerOutage},
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: u64 = 86_400;
/// Noon of 2026-11-27 in UTC.
const NOON: u64 = 1_795_780_800;

/// A history that is looked at in the place of a data path's.
struct Bench {
    history: History,
    wall: u64,
    totals: Totals,
}

impl Bench {
    fn at(wall: u64) -> Self {
        Self {
            history: History::new(wall),
            wall,
            totals: Totals::default(),
        }
    }

    async fn look(&mut self, is_up: bool, trouble: Option<&str>) {
        advance(SECOND).await;
        self.wall += 1;
        let look = Look {
            now: Instant::now(),
            wall: self.wall,
            is_up,
            load: Load::default(),
            trouble: trouble.map(|why| Trouble {
                why: (!why.is_empty()).then(|| why.to_owned()),
            }),
        };
        self.history.look(look, || self.totals);
    }

    async fn up(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.look(true, None).await;
        }
    }

    async fn down(&mut self, seconds: u64, why: &str) {
        for _ in 0..seconds {
            self.look(false, Some(why)).await;
        }
    }

    /// A request comes every second, and earns a cent.
    async fn busy(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.totals.requests += 1;
            self.totals.tokens += 10;
            self.totals.usd += 0.01;
            self.up(1).await;
        }
    }

    fn all(&self) -> Shown {
        self.history.read(self.wall, 0)
    }
}

#[tokio::test(start_paused = true)]
async fn every_five_seconds_there_is_a_point_with_what_happened_in_them() {
    let mut bench = Bench::at(NOON);
    bench.up(5).await;
    bench.totals = Totals {
        requests: 3,
        failures: 1,
        tokens: 40,
        usd: 0.5,
    };
    bench.history.busy(Load {
        running: 2,
        waiting: 1,
    });
    bench.history.busy(Load::default());
    bench.history.first_token(Duration::from_millis(300));
    bench.history.first_token(Duration::from_millis(100));
    bench.up(3).await;
    bench.down(4, "gone").await;
    let shown = bench.all();
    assert_eq!((shown.fine.step, shown.coarse.step), (5, 120));
    let quiet = admin::Point {
        at: NOON + 5,
        up_seconds: 5,
        ..admin::Point::default()
    };
    let busy = admin::Point {
        at: NOON + 10,
        running: 2,
        waiting: 1,
        requests: 3,
        failures: 1,
        tokens: 40,
        first_token_p50_ms: Some(100),
        first_token_p95_ms: Some(300),
        up_seconds: 3,
        usd: 0.5,
    };
    assert_eq!(shown.fine.points, [quiet, busy]);
    assert_eq!(shown.coarse.points, []);
    bench.up(108).await;
    let shown = bench.all();
    let all = admin::Point {
        at: NOON + 120,
        up_seconds: 116,
        ..busy
    };
    assert_eq!(shown.coarse.points, [all], "the two minutes as a whole");
    assert_eq!(shown.fine.points.len(), 24);
    assert_eq!((shown.now, shown.known_since), (NOON + 120, NOON));
}

#[tokio::test(start_paused = true)]
async fn who_asks_again_gets_the_points_that_are_new_and_all_days() {
    let mut bench = Bench::at(NOON);
    bench.up(600).await;
    let first = bench.all();
    let last = first.fine.points.last().unwrap().at;
    bench.up(10).await;
    let next = bench.history.read(bench.wall, last);
    let at: Vec<_> = next.fine.points.iter().map(|point| point.at).collect();
    assert_eq!(at, [last + 5, last + 10]);
    assert_eq!(next.coarse.points, []);
    assert_eq!(next.days[0].known_seconds, 610);
    let confused = bench.history.read(bench.wall, bench.wall + 3_600);
    assert_eq!(confused.fine.points.len(), 122, "the clock was set back");
}

#[tokio::test(start_paused = true)]
async fn an_hour_two_days_and_four_hundred_sums_are_kept_and_take_no_more_than_is_promised() {
    let mut bench = Bench::at(NOON);
    for _ in 0..2 {
        bench.up(DAY + 600).await;
        bench.down(10, &"x".repeat(10_000)).await;
    }
    for day in 0..500 {
        bench.wall += DAY;
        for _ in 0..600 {
            bench.history.first_token(SECOND);
        }
        bench.up(5).await;
        bench.down(6, &format!("{day} {}", "é".repeat(1_000))).await;
        bench.history.judged(Verdict {
            at: day,
            node: "node-1".to_owned(),
            tier: "high",
            accuracy: None,
            tokens_per_second: None,
        });
    }
    let shown = bench.all();
    assert_eq!(shown.fine.points.len(), 720);
    assert_eq!(shown.coarse.points.len(), 1_440);
    assert_eq!(shown.days.len(), 400);
    assert_eq!(shown.outages.len(), 20);
    assert!(shown.outages[0].why.starts_with("499 "), "newest first");
    assert!(shown.outages.iter().all(|outage| outage.why.len() < 1_000));
    assert_eq!(shown.interviews.len(), 20);
    assert_eq!(shown.interviews[0].at, 499, "newest first");
    let records = lock(&bench.history.records);
    let held = records.fine.bytes() + records.coarse.bytes() + records.days.bytes();
    assert!(held < 125_000, "{held} bytes");
}

#[tokio::test(start_paused = true)]
async fn a_point_is_read_from_the_counters_once_in_five_looks_and_at_no_other_time() {
    let history = History::new(NOON);
    let mut read = 0;
    for second in 1..=3_600 {
        advance(SECOND).await;
        for _ in 0..100 {
            history.first_token(SECOND);
        }
        let look = Look {
            now: Instant::now(),
            wall: NOON + second,
            is_up: true,
            load: Load::default(),
            trouble: None,
        };
        history.look(look, || {
            read += 1;
            Totals::default()
        });
    }
    assert_eq!(read, 720);
}

#[tokio::test(start_paused = true)]
async fn a_day_of_utc_has_the_sums_of_its_own_seconds() {
    let midnight = NOON + DAY / 2;
    let mut bench = Bench::at(midnight - 60);
    bench.busy(60).await;
    bench.down(10, "gone").await;
    bench.busy(20).await;
    let [first, second] = &bench.all().days[..] else {
        panic!("{:?}", bench.all().days);
    };
    assert_eq!(
        (first.date.as_str(), first.from),
        ("2026-11-27", midnight - DAY)
    );
    assert_eq!((first.known_seconds, first.up_seconds), (60, 60));
    assert_eq!((first.requests, first.tokens), (60, 600));
    assert!((first.usd - 0.6).abs() < 1e-9, "{first:?}");
    assert_eq!(
        (second.date.as_str(), second.from),
        ("2026-11-28", midnight)
    );
    assert_eq!((second.known_seconds, second.up_seconds), (30, 20));
    assert_eq!(second.requests, 20);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_loses_no_sum_and_makes_nothing_negative() {
    let mut bench = Bench::at(NOON);
    bench.busy(3_600).await;
    bench.wall -= 3_600;
    bench.busy(1_800).await;
    assert_are_in_order(&bench.all());
    bench.busy(1_800).await;
    bench.wall += 40 * DAY;
    bench.busy(100).await;
    bench.wall = 10;
    bench.busy(100).await;
    bench.wall = NOON + 7_200;
    bench.busy(100).await;
    let shown = bench.all();
    let sum = |of: fn(&admin::Day) -> u64| shown.days.iter().map(of).sum::<u64>();
    assert_eq!(sum(|day| day.requests), 7_500);
    assert_eq!(sum(|day| day.known_seconds), 7_500);
    assert_eq!(sum(|day| day.up_seconds), 7_500);
    let usd: f64 = shown.days.iter().map(|day| day.usd).sum();
    assert!((usd - 75.0).abs() < 1e-6, "{usd}");
    let dates: Vec<_> = shown.days.iter().map(|day| day.date.as_str()).collect();
    assert_eq!(dates, ["1970-01-01", "2026-11-27", "2027-01-06"]);
    assert_are_in_order(&shown);
}

/// Points are labelled one after the other, and none with what is yet to come.
fn assert_are_in_order(shown: &Shown) {
    for series in [&shown.fine, &shown.coarse] {
        let at: Vec<_> = series.points.iter().map(|point| point.at).collect();
        assert!(at.is_sorted_by(|a, b| a < b), "{at:?}");
        assert!(at.last().is_none_or(|last| *last <= shown.now), "{at:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_that_the_clock_tells_twice_is_no_longer_than_a_day() {
    let mut bench = Bench::at(NOON - DAY / 2);
    for _ in 0..2 {
        bench.up(DAY).await;
        bench.wall -= DAY;
    }
    let day = &bench.all().days[0];
    assert_eq!((day.known_seconds, day.up_seconds), (DAY, DAY));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_measured_is_no_point_and_no_known_second_and_what_was_counted_is_kept() {
    let mut bench = Bench::at(NOON);
    bench.up(10).await;
    // The machine stands still.
    advance(Duration::from_secs(300)).await;
    bench.wall += 300;
    bench.totals.requests = 7;
    bench.up(6).await;
    let shown = bench.all();
    let at: Vec<_> = shown.fine.points.iter().map(|point| point.at).collect();
    assert_eq!(at, [NOON + 5, NOON + 10, NOON + 316]);
    assert_eq!(shown.days[0].known_seconds, 15);
    assert_eq!(shown.days[0].requests, 7);
}

#[tokio::test(start_paused = true)]
async fn an_outage_has_its_length_and_the_first_sentence_that_told_why() {
    let mut bench = Bench::at(NOON);
    bench.up(10).await;
    bench.down(3, "").await;
    assert_eq!(bench.all().outages, [], "not yet");
    bench.down(3, "It is refused.").await;
    let lasting = admin::Outage {
        from: NOON + 11,
        to: None,
        why: "It is refused.".to_owned(),
    };
    assert_eq!(bench.all().outages, std::slice::from_ref(&lasting));
    bench.down(60, "The network is down.").await;
    bench.up(5).await;
    let over = admin::Outage {
        to: Some(NOON + 77),
        ..lasting
    };
    assert_eq!(bench.all().outages, std::slice::from_ref(&over));
    bench.down(4, "It broke.").await;
    bench.up(5).await;
    assert_eq!(bench.all().outages, [over], "a session that is back soon");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_as_long_as_it_was_wherever_the_clock_was_set() {
    for (before, after) in [(10, NOON), (NOON + DAY, NOON)] {
        let mut bench = Bench::at(before);
        bench.down(100, "The clock is wrong.").await;
        bench.wall = after;
        bench.down(20, "The clock is wrong.").await;
        bench.up(1).await;
        let [outage] = &bench.all().outages[..] else {
            panic!("{:?}", bench.all().outages);
        };
        let length = outage.to.unwrap() - outage.from;
        assert!((119..=121).contains(&length), "{outage:?}");
        assert_eq!(outage.to, Some(NOON + 21));
    }
}

/// Says what it is told to, and goes with the test's seconds.
#[derive(Default)]
struct Wall(AtomicU64);

impl WallClock for Wall {
    fn unix_seconds(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something to look at, which is open and has a session.
struct Watched {
    observer: Observer,
    service: Service,
    wall: Arc<Wall>,
}

impl Watched {
    fn new(nodes: Nodes) -> Self {
        let metrics = Arc::new(Metrics::new());
        metrics.session_up.set(1);
        let wall = Arc::new(Wall(AtomicU64::new(NOON)));
        let long = Duration::from_secs(600);
        let outbox = OutboxSettings {
            max_bytes: 1 << 20,
            result_ttl: long,
        };
        let admission = AdmissionSettings {
            queue: 1,
            queue_bytes: 1 << 20,
            queue_timeout: long,
        };
        let service = Service::new(long, Arc::clone(&wall) as _, Arc::clone(&metrics));
        let admission = Admission::new(nodes.slots(), admission);
        let shared = Shared {
            nodes,
            outbox: Arc::new(Outbox::new(outbox, Arc::clone(&metrics))),
            recent_errors: Arc::default(),
            history: Arc::new(History::new(NOON)),
            clock: Arc::clone(&wall) as _,
            metrics,
        };
        Self {
            observer: Observer {
                shared,
                status: Arc::<StatusBoard>::default(),
                stages: service.stages(),
                admission: Arc::new(admission),
                server_outages: ServerOutages::default(),
            },
            service,
            wall,
        }
    }

    async fn look(&self, seconds: u64) {
        for _ in 0..seconds {
            advance(SECOND).await;
            self.wall.0.fetch_add(1, Ordering::Relaxed);
            self.observer.look();
        }
    }

    fn session_is(&self, is_up: bool) {
        let up = &self.observer.shared.metrics.session_up;
        up.set(i64::from(is_up));
    }

    fn why_lost(&self, why: &str) {
        let why = why.to_owned();
        let status = &self.observer.status;
        status.update(|status| status.why_lost = Some(why));
    }

    fn outages(&self) -> Vec<(u64, Option<u64>, String)> {
        let history = &self.observer.shared.history;
        let outages = history.read(self.wall.unix_seconds(), 0).outages;
        let short = |outage: admin::Outage| {
            let to = outage.to.map(|to| to - NOON);
            (outage.from - NOON, to, outage.why)
        };
        outages.into_iter().map(short).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_a_drain_and_the_end_are_no_outages_and_a_session_that_is_away_is() {
    let watched = Watched::new(nodes(&[("node-1", 1, &["a:latest"])]).await);
    watched.look(10).await;
    watched.service.pause(None).unwrap();
    watched.session_is(false);
    watched.look(100).await;
    watched.service.drained(Rest::default());
    watched.look(100).await;
    assert_eq!(watched.outages(), [], "it was paused");
    watched.service.reopen();
    watched.look(4).await;
    watched.session_is(true);
    watched.look(10).await;
    assert_eq!(watched.outages(), [], "it took a moment to come back");
    watched.session_is(false);
    watched.why_lost("The gateway closed the session.");
    watched.look(20).await;
    drop(watched.service.request_drain());
    watched.look(100).await;
    watched.service.drained(Rest::default());
    watched.service.end();
    watched.look(100).await;
    let why = "The gateway closed the session.".to_owned();
    assert_eq!(watched.outages(), [(225, Some(245), why)]);
}

#[tokio::test(start_paused = true)]
async fn a_first_login_that_takes_long_is_an_outage_from_the_start() {
    let watched = Watched::new(nodes(&[("node-1", 1, &["a:latest"])]).await);
    watched.session_is(false);
    watched.look(7).await;
    let why = "No session with the gateway yet.".to_owned();
    assert_eq!(watched.outages(), [(1, None, why)]);
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_model_to_offer_is_out_though_its_session_is_up() {
    let watched = Watched::new(nodes(&[("node-1", 1, &[])]).await);
    watched.look(30).await;
    assert_eq!(watched.outages(), [(1, None, "none of 0".to_owned())]);
    let history = &watched.observer.shared.history;
    let points = history.read(NOON + 30, 0).fine.points;
    assert!(
        points.iter().all(|point| point.up_seconds == 5),
        "{points:?}"
    );
    let one_has = nodes(&[("node-1", 1, &[]), ("node-2", 1, &["a:latest"])]).await;
    let watched = Watched::new(one_has);
    watched.look(30).await;
    assert_eq!(watched.outages(), []);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_a_server_is_one_of_the_last_errors_and_not_while_the_node_is_paused() {
    let watched = Watched::new(nodes(&[("node-1", 1, &[])]).await);
    let errors = || watched.observer.shared.recent_errors.list();
    watched.service.pause(None).unwrap();
    watched.look(10).await;
    assert_eq!(errors(), []);
    watched.service.drained(Rest::default());
    watched.service.reopen();
    watched.look(10).await;
    let what = ErrorSource::ModelServer(ServerOutage::NoModels);
    let at = NOON + 11;
    assert_eq!(errors(), [RecentError { what, at }]);
}

#[tokio::test(start_paused = true)]
async fn points_have_what_the_metrics_count() {
    let watched = Watched::new(nodes(&[("node-1", 1, &["a:latest"])]).await);
    let metrics = &watched.observer.shared.metrics;
    watched.look(5).await;
    let (chat, interview) = (Operation::Chat, Operation::Interview);
    metrics.requests_total.of(Some("a:latest"), chat).inc_by(3);
    metrics.requests_total.of(None, interview).inc();
    for (operation, code) in [(chat, Code::Busy), (interview, Code::Timeout)] {
        metrics.request_failures_total.of(operation, code).inc();
    }
    metrics.generation_tokens_total.of(None).inc_by(7);
    metrics.earnings_estimate_usd_total.of(None).inc_by(0.25);
    metrics
        .earnings_estimate_usd_total
        .of(Some("a:latest"))
        .inc_by(0.5);
    watched.look(5).await;
    let history = watched.observer.shared.history.read(NOON + 10, 0);
    let last = history.fine.points[1];
    assert_eq!((last.requests, last.failures, last.tokens), (4, 2, 7));
    assert_eq!(last.usd, 0.75);
    assert_eq!(history.days[0].usd, 0.75);
}
