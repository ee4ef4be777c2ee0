//! Runs one seed from its first event to its verdict.
//!
//! Invariant: nothing in here waits for real time, and nothing outlives the run: its runtime ends with it.

mod events;

use std::{
    cell::Cell, collections::BTreeMap, convert::Infallible, panic::PanicHookInfo, sync::Arc,
    time::Duration,
};

use devnet::sim::{
    books::{Books, Gauges},
    fate::Fate,
    gateway::Gateway,
    last_look::Ending,
    manners::Network,
    model_server::{ApiMode, ModelServer, Temper},
    trace::Trace,
    wire::Link,
};
use pin_sidecar::{
    relay::{Outcome, Relay, World},
    reload::Reload,
    service::{Service, Stage},
    telemetry::Metrics,
};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    scenario::{Event, Scenario},
    world::{SECRET, WireDialer, WrongClock, config},
};

/// Between two looks of the books.
const LOOK: Duration = Duration::from_secs(1);

/// What a drain may take beyond `PIN_DRAIN_TIMEOUT` (delivery rules, "Drain").
const DRAIN_SLACK: Duration = Duration::from_secs(5);

/// How long an idle sidecar may take to drain.
const IDLE_DRAIN: Duration = Duration::from_secs(1);

/// How one seed went.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// Each breach of a rule, a sentence.
    pub breaches: Vec<String>,
    /// The same for two runs of one seed.
    pub trace_hash: u64,
    /// What happened, where it was to be kept.
    pub trace: Vec<String>,
    /// How long it was, in virtual time.
    pub virtual_time: Duration,
    /// How often what happened, by the model's and by the product's counts.
    pub counts: BTreeMap<String, u64>,
}

thread_local! {
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// Runs a seed. `trace`: keep what happened.
pub fn run(seed: u64, trace: bool) -> Verdict {
    run_scenario(seed, Scenario::of(seed, false), trace)
}

/// The same for an hour of virtual time.
pub fn run_hour(seed: u64, trace: bool) -> Verdict {
    run_scenario(seed, Scenario::of(seed, true), trace)
}

/// Counts panics by thread, beside what else is done about them.
pub fn count_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
        PANICS.with(|panics| panics.set(panics.get() + 1));
        before(panic);
    }));
}

fn run_scenario(seed: u64, scenario: Scenario, trace: bool) -> Verdict {
    let panics_before = PANICS.with(Cell::get);
    #[expect(
        clippy::expect_used,
        reason = "a runtime without I/O has nothing that could fail"
    )]
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O starts");
    let mut verdict = runtime.block_on(async { Run::start(seed, scenario, trace).whole().await });
    drop(runtime);
    if PANICS.with(Cell::get) > panics_before {
        verdict.breaches.push("something panicked".to_owned());
    }
    verdict
}

/// A run under way.
struct Run {
    seed: u64,
    scenario: Scenario,
    began: Instant,
    trace: Trace,
    books: Books,
    gateway_link: Link,
    ollama_link: Link,
    gateway: Gateway,
    model_server: ModelServer,
    /// Since when Ollama is not there.
    ollama_away: Cell<Option<Instant>>,
    clock: Arc<WrongClock>,
    metrics: Arc<Metrics>,
    service: Arc<Service>,
    reload: Arc<Reload>,
    _reloading: AbortOnDrop,
    shutdown: Option<oneshot::Sender<()>>,
    relay: JoinHandle<Outcome>,
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<Infallible>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Run {
    fn start(seed: u64, scenario: Scenario, keep: bool) -> Self {
        let trace = Trace::new(keep);
        trace.say(format_args!("{:?}", scenario.limits));
        trace.say(format_args!("{:?}", scenario.settings));
        let fate = |name| Fate::of(seed, name, 0);
        let (gateway_link, arrivals) = Link::new(
            "gateway",
            scenario.gateway.clone(),
            fate("gateway link"),
            trace.clone(),
        );
        let (ollama_link, asks) = Link::new(
            "ollama",
            scenario.ollama.clone(),
            fate("ollama link"),
            trace.clone(),
        );
        let books = Books::new(
            scenario.limits.clone(),
            gateway_link.clone(),
            ollama_link.clone(),
        );
        if scenario.api_mode == ApiMode::OpenAi {
            books.count("stories with OpenAI's interface");
        }
        let gateway = Gateway::start(
            (scenario.client.to_owned(), SECRET.to_owned()),
            gateway_link.clone(),
            arrivals,
            books.clone(),
            trace.clone(),
            fate("gateway"),
            scenario.manners.clone(),
        );
        let model_server = ModelServer::start(
            seed,
            scenario.api_mode,
            ollama_link.clone(),
            asks,
            books.clone(),
            trace.clone(),
            scenario.temper.clone(),
        );
        let clock = WrongClock::new();
        let dial = Arc::new(WireDialer {
            gateway: gateway_link.clone(),
            ollama: ollama_link.clone(),
            limit: scenario.limits.connect_timeout,
        });
        let world = World {
            gateway: Arc::clone(&dial) as Arc<_>,
            backend: dial,
            clock: Arc::clone(&clock) as Arc<_>,
            random: fastrand::Rng::with_seed(seed),
        };
        #[expect(
            clippy::expect_used,
            reason = "the secret is a value among the settings"
        )]
        let relay = Relay::new(world, config(scenario.client, &scenario.settings))
            .expect("the secret is there");
        let (metrics, service) = (relay.metrics(), relay.service());
        let shown = Arc::clone(&metrics);
        books.watch_outbox(move || shown.outbox_bytes.get());
        let reload = Arc::new(relay.reload(None));
        let reloading = Arc::clone(&reload);
        let reloading = AbortOnDrop(tokio::spawn(async move { reloading.run().await }));
        let (shutdown, told) = oneshot::channel();
        let relay = tokio::spawn(relay.run(async { drop(told.await) }));
        Self {
            seed,
            scenario,
            began: Instant::now(),
            trace,
            books,
            gateway_link,
            ollama_link,
            gateway,
            model_server,
            ollama_away: Cell::new(None),
            clock,
            metrics,
            service,
            reload,
            _reloading: reloading,
            shutdown: Some(shutdown),
            relay,
        }
    }

    async fn whole(mut self) -> Verdict {
        let mut events = std::mem::take(&mut self.scenario.events);
        let shutdown = events
            .iter()
            .position(|(_, event)| matches!(event, Event::Shutdown));
        let in_drain = shutdown.map(|at| events.split_off(at));
        for (at, event) in events {
            self.look_until(self.began + at).await;
            self.happens(&event);
        }
        let outcome = match in_drain {
            Some(in_drain) => {
                let at = in_drain.first().map_or(Duration::ZERO, |(at, _)| *at);
                self.look_until(self.began + at).await;
                self.drain(in_drain).await
            }
            None => {
                self.mend();
                self.settle().await;
                self.prove_slots().await;
                self.close(None);
                let events = self.events_at_the_end();
                self.drain(events).await
            }
        };
        self.close(Some(outcome));
        self.verdict()
    }

    /// What is to happen after a SIGTERM now.
    fn events_at_the_end(&mut self) -> Vec<(Duration, Event)> {
        let now = self.began.elapsed();
        std::mem::take(&mut self.scenario.at_the_end)
            .into_iter()
            .map(|(after, event)| (now + after, event))
            .collect()
    }

    /// Lets time pass, the books looking on.
    async fn look_until(&self, moment: Instant) {
        while Instant::now() < moment {
            sleep_until(moment.min(Instant::now() + LOOK)).await;
            self.books.look(self.gauges());
        }
    }

    fn gauges(&self) -> Gauges {
        Gauges {
            running: self.metrics.requests_running.get(),
            waiting: self.metrics.requests_waiting.get(),
            undelivered: self.metrics.undelivered_results.get(),
            outbox_bytes: self.metrics.outbox_bytes.get(),
        }
    }

    /// Waits for as long as any promise may take to be kept.
    async fn settle(&self) {
        let limits = &self.scenario.limits;
        self.look_until(self.began + self.scenario.mended).await;
        // A session that had ended long ago may only now be seen to have.
        self.look_until(Instant::now() + LOOK).await;
        let patience = Duration::from_secs(800);
        let patience = patience_from(self.books.away_until()) + patience;
        while !self.is_connected() && Instant::now() < patience {
            self.look_until(Instant::now() + LOOK).await;
        }
        if !self.is_connected() {
            self.books.breach(
                "gateway",
                "5 (reconnecting)",
                "no session, though all is mended",
            );
        }
        let longest = limits.request_timeout + limits.heartbeat_timeout + Duration::from_secs(40);
        let until = Instant::now() + longest;
        // A gateway that hears nothing hangs up after a minute.
        let rest = Instant::now() + Duration::from_secs(70);
        while Instant::now() < until {
            self.look_until(Instant::now() + LOOK).await;
            let gauges = self.gauges();
            if Instant::now() > rest && gauges.running + gauges.waiting + gauges.undelivered == 0 {
                break;
            }
        }
    }

    /// Once nothing is left to do, as many chats as there are slots begin at once: what has ended holds none.
    async fn prove_slots(&self) {
        /// A probe, and what a chat may take.
        const REST: Duration = Duration::from_secs(30);
        if !self.scenario.manners.network.is_there {
            return;
        }
        self.gateway
            .behave(|manners| manners.network = Network::default());
        self.look_until(Instant::now() + REST).await;
        let gauges = self.gauges();
        if !self.is_calm() || self.books.is_draining() {
            return;
        }
        if gauges.running > 0 && self.books.is_idle() {
            let what = format!("{gauges:?}, and nothing runs at the model server");
            self.books.breach("gauges", "3 (capacity)", &what);
        }
        if gauges.running + gauges.waiting + gauges.undelivered > 0 {
            return;
        }
        self.model_server.become_like(Temper {
            faults: 0,
            big: 0,
            tokens: 5,
            token_millis: 50,
            ..self.scenario.temper.clone()
        });
        self.books.count("stories whose slots were counted");
        let chats = self.gateway.ask_at_once(self.scenario.limits.capacity);
        let travel = (self.gateway_link.latency() + self.ollama_link.latency()) * 8;
        self.look_until(Instant::now() + LOOK + travel).await;
        let left = self.books.not_begun(&chats);
        if self.is_calm() && !left.is_empty() {
            let what = format!("{left:?} of {chats:?} find no slot, though all are free");
            self.books.breach("slots", "3 (capacity)", &what);
        }
        self.look_until(Instant::now() + REST).await;
    }

    /// Whether there is a session: the gateway knows of one, and it is not one that the product has given up already.
    fn is_connected(&self) -> bool {
        self.gateway.has_session() && self.gateway_link.open() > 0
    }

    /// How many answers the product says it dropped for this reason.
    fn dropped(&self, reason: &str) -> u64 {
        let text = self.metrics.render();
        let series = format!("pin_sidecar_results_dropped_total{{reason=\"{reason}\"}} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&series)?.parse().ok())
            .unwrap_or(0)
    }

    /// The books' last look, before the process is told to end or after it has.
    fn close(&self, ended: Option<Option<Outcome>>) {
        let dropped = ended == Some(Some(Outcome::Dropped));
        let is_over = ended.is_some();
        let delivers = is_over || self.gateway.is_well();
        let undelivered = u64::try_from(self.gauges().undelivered).unwrap_or(0);
        self.books.close(Ending {
            expired: self.dropped("expired"),
            rejected: self.dropped("rejected"),
            held: if delivers { 0 } else { undelivered },
            dropped,
            is_over,
        });
    }

    /// SIGTERM, what happens meanwhile, and what became of it; `None`: it did not end.
    async fn drain(&mut self, events: Vec<(Duration, Event)>) -> Option<Outcome> {
        let gauges = self.gauges();
        let calm = self.is_calm() && !events.iter().any(|(_, event)| event.is_trouble());
        let idle = calm
            && self.gateway.lets_go()
            && gauges.running + gauges.waiting + gauges.undelivered == 0;
        self.trace.say(format_args!("SIGTERM, {gauges:?}"));
        let was_draining = self.books.is_draining();
        match self.service.stage() {
            Stage::Draining(_) => self.books.count("SIGTERM during a drain on request"),
            Stage::Drained => self.books.count("SIGTERM after a drain on request"),
            Stage::Open | Stage::Ended => {}
        }
        self.books.ending();
        let began = Instant::now();
        drop(self.shutdown.take());
        let limit = self.scenario.limits.drain_timeout + DRAIN_SLACK;
        let outcome = self.joined(began + limit, events).await;
        let took = began.elapsed();
        self.trace
            .say(format_args!("drained in {took:?}: {outcome:?}"));
        let Some(outcome) = outcome else {
            let what = format!("it is not over after {took:?}, or has panicked");
            self.books.breach("drain", "drain", &what);
            self.relay.abort();
            return None;
        };
        if idle && took > IDLE_DRAIN + self.gateway_link.latency() * 2 {
            let what = format!("idle, and it took {took:?}");
            self.books.breach("drain", "drain", &what);
        }
        // It may have been told to stay away in the moment in which it was told to end.
        let is_away = self.books.away_until().is_some_and(|until| until > began);
        // What was lost in a drain that had begun before counts as lost in this one.
        if calm && !is_away && !was_draining && outcome == Outcome::Dropped {
            let what = "all was well, and yet something was dropped";
            self.books.breach("drain", "drain", what);
        }
        let gave_up = self.dropped("shutdown") > 0 && took < limit - DRAIN_SLACK;
        if gave_up && self.books.was_cut_off() && !was_draining {
            let what = format!("gave up after {took:?}, though its session was cut off");
            self.books.breach("drain", "drain", &what);
        }
        // What was closed last is still under way, and may wait for a gateway that does not read.
        self.gateway.read(true);
        sleep(LOOK).await;
        if self.gateway_link.open() + self.ollama_link.open() > 0 {
            self.books
                .breach("drain", "drain", "connections are left open");
        }
        Some(outcome)
    }

    /// Waits for the relay's end, but not for ever, while other things happen.
    async fn joined(
        &mut self,
        deadline: Instant,
        events: Vec<(Duration, Event)>,
    ) -> Option<Outcome> {
        for (at, event) in events {
            let at = (self.began + at).min(deadline);
            if let Ok(joined) = timeout_at(at, &mut self.relay).await {
                return joined.ok();
            }
            self.happens(&event);
        }
        timeout_at(deadline, &mut self.relay).await.ok()?.ok()
    }

    /// Whether somebody who drains now has nothing in the way.
    fn is_calm(&self) -> bool {
        let calm_for = self.gateway_link.calm_since().elapsed();
        self.gateway.has_session()
            && self.gateway.is_well()
            && self.gateway_link.is_free()
            && !self.books.is_half_open()
            && calm_for > self.scenario.limits.heartbeat_timeout + DRAIN_SLACK
    }

    fn verdict(self) -> Verdict {
        let mut counts: BTreeMap<_, _> = self
            .books
            .counts()
            .into_iter()
            .map(|(name, count)| (format!("model: {name}"), count))
            .collect();
        for line in self.metrics.render().lines() {
            let Some((name, value)) = line
                .strip_prefix("pin_sidecar_")
                .and_then(|line| line.rsplit_once(' '))
            else {
                continue;
            };
            let counted =
                name.contains("_total") && !name.contains("bytes") && !name.contains("tokens");
            if let (true, Ok(value)) = (counted, value.parse::<u64>()) {
                counts.insert(name.to_owned(), value);
            }
        }
        Verdict {
            seed: self.seed,
            breaches: self.books.violations(),
            trace_hash: self.trace.hash(),
            trace: self.trace.lines(),
            virtual_time: self.began.elapsed(),
            counts,
        }
    }
}

/// Now, or when the product may be expected back.
fn patience_from(away: Option<Instant>) -> Instant {
    let now = Instant::now();
    away.map_or(now, |away| away.max(now))
}
