//! From a seed to a story: settings, weather, and what happens when. Pure.
//!
//! Invariant: a story is bounded. Whatever goes wrong in it is mended at its end, and then it goes on for as long as
//! any promise may need to be kept. `plots.rs` adds what is rare and has to meet: it draws from fates of its own, so that
//! a new plot leaves every story without it as it was.

use std::time::Duration;

use devnet::sim::{
    books::{Class, Limits},
    fate::Fate,
    manners::{Acks, Door, Farewell, Garbage, Manners},
    model_server::{ApiMode, Temper},
    network::Asking,
    wire::{Dialling, Weather},
};

use crate::{operator, plots, servers};

/// Something that happens.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Ask(Class, bool),
    Repeat,
    CancelUnanswered,
    CancelAny,
    CancelUnknown,
    /// Nearly everything.
    CancelMany,
    Cut,
    Lose(bool, bool),
    Hold(bool),
    /// The gateway's connection takes nothing more from the product.
    Stuck(bool),
    Dialling(Dialling),
    Rate(Option<u64>),
    Reads(bool),
    Close(Farewell),
    /// For so many seconds, in words of JSON.
    SendAway(String, Farewell),
    Crash,
    Repeats(u64),
    Door(Door),
    Send(Garbage),
    Poison,
    OllamaCut,
    OllamaDialling(Dialling),
    OllamaHold(bool),
    OllamaEvicts,
    /// The model is deleted, or there again.
    OllamaHasModel(bool),
    Interview(Asking),
    InterviewAgain,
    CancelInterview,
    Clock(i64),
    /// A drain on request, and so long a rest after it.
    Drain(Duration),
    /// For so long.
    Pause(Duration),
    /// The operator wants a session, whatever was asked for before.
    Resume,
    /// Files and models are read again.
    Reload,
    Shutdown,
}

impl Event {
    /// Whether it can keep an answer from being delivered.
    pub(crate) fn is_trouble(&self) -> bool {
        !matches!(
            self,
            Self::Ask(..)
                | Self::Repeat
                | Self::CancelUnanswered
                | Self::CancelAny
                | Self::CancelUnknown
                | Self::CancelMany
                | Self::Interview(_)
                | Self::InterviewAgain
                | Self::CancelInterview
                | Self::OllamaEvicts
                | Self::Repeats(_)
                | Self::Clock(_)
                | Self::Reload
                | Self::Shutdown
        )
    }
}

/// A story.
pub(crate) struct Scenario {
    pub(crate) client: &'static str,
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) limits: Limits,
    pub(crate) api_mode: ApiMode,
    pub(crate) gateway: Weather,
    pub(crate) ollama: Weather,
    pub(crate) manners: Manners,
    pub(crate) temper: Temper,
    /// What happens, and when, in order.
    pub(crate) events: Vec<(Duration, Event)>,
    /// What happens after the SIGTERM that ends a story without one of its own, and how long after.
    pub(crate) at_the_end: Vec<(Duration, Event)>,
    /// When all is mended.
    pub(crate) mended: Duration,
}

/// Frames larger than this may not be read.
const MAX_FRAME: usize = 64 * 1024;

/// How many stories of a hundred are about large answers and a gateway that does not read.
const CLOGGED: u64 = 10;

impl Scenario {
    /// The story of a seed; an hour of it, if `hour`.
    pub(crate) fn of(seed: u64, hour: bool) -> Self {
        let mut fate = Fate::new(seed);
        let mut limits = limits(&mut fate);
        limits.preloads = plots::preloads(seed);
        let is_crowded = plots::is_crowded(seed);
        if is_crowded {
            plots::crowd(seed, &mut limits);
        }
        if plots::is_slow(seed) {
            plots::slow_down(&mut limits);
        }
        let client = if limits.generation == 1 {
            "pin_sim"
        } else {
            "op_sim"
        };
        let settings = settings(&limits, &mut fate);
        let length = if hour {
            3_600
        } else {
            fate.one_of(&[60, 90, 120, 240])
        };
        let mut story = Story {
            fate,
            length: length * 1_000,
            events: Vec::new(),
        };
        let clogged = story.fate.percent(CLOGGED);
        story.tell(hour, clogged);
        let Story {
            mut fate, events, ..
        } = story;
        let mut scenario = Self {
            client,
            settings,
            limits,
            api_mode: ApiMode::Ollama,
            gateway: weather(&mut fate),
            ollama: weather(&mut fate),
            manners: manners(&mut fate),
            temper: temper(&mut fate, clogged),
            events,
            at_the_end: Vec::new(),
            mended: Duration::from_secs(length),
        };
        servers::choose(seed, &mut scenario);
        plots::enter(seed, &mut scenario);
        operator::act(seed, &mut scenario);
        scenario.events.sort_by_key(|(at, _)| *at);
        scenario
    }
}

fn limits(fate: &mut Fate) -> Limits {
    let secs = Duration::from_secs;
    let capacity = usize::try_from(fate.within(1..=4)).unwrap_or(1);
    let beat = fate.one_of(&[2, 5, 15, 15]);
    let outbox = fate.one_of(&[64 * 1024, 1024 * 1024, 32 * 1024 * 1024]);
    Limits {
        capacity,
        queue: usize::try_from(fate.within(0..=4)).unwrap_or(0),
        heartbeat_interval: secs(beat),
        heartbeat_timeout: secs(beat * 3),
        reconnect_max: secs(fate.one_of(&[5, 20, 60])),
        connect_timeout: secs(fate.one_of(&[2, 10])),
        orphan_grace: secs(fate.one_of(&[2, 10, 30, 30])),
        result_ttl: secs(fate.one_of(&[20, 600, 600])),
        request_timeout: secs(fate.one_of(&[30, 60])),
        token_timeout: secs(fate.one_of(&[5, 20])),
        drain_timeout: secs(fate.one_of(&[1, 10, 25])),
        outbox_bytes: outbox,
        answer_bytes: 400_000,
        generation: if fate.percent(40) { 1 } else { 2 },
        preloads: false,
    }
}

fn settings(limits: &Limits, fate: &mut Fate) -> Vec<(&'static str, String)> {
    let secs = |time: Duration| format!("{}s", time.as_secs());
    vec![
        ("PIN_CAPACITY", limits.capacity.to_string()),
        ("PIN_QUEUE", limits.queue.to_string()),
        (
            "PIN_QUEUE_TIMEOUT",
            format!("{}s", fate.one_of(&[1, 5, 30])),
        ),
        ("PIN_HEARTBEAT_INTERVAL", secs(limits.heartbeat_interval)),
        ("PIN_HEARTBEAT_TIMEOUT", secs(limits.heartbeat_timeout)),
        ("PIN_RECONNECT_MAX", secs(limits.reconnect_max)),
        ("PIN_CONNECT_TIMEOUT", secs(limits.connect_timeout)),
        ("PIN_ORPHAN_GRACE", secs(limits.orphan_grace)),
        ("PIN_RESULT_TTL", secs(limits.result_ttl)),
        ("PIN_REQUEST_TIMEOUT", secs(limits.request_timeout)),
        ("PIN_FIRST_TOKEN_TIMEOUT", secs(limits.token_timeout)),
        ("PIN_TOKEN_TIMEOUT", secs(limits.token_timeout)),
        ("PIN_DRAIN_TIMEOUT", secs(limits.drain_timeout)),
        ("PIN_OUTBOX_BYTES", limits.outbox_bytes.to_string()),
        ("PIN_MAX_FRAME_BYTES", MAX_FRAME.to_string()),
        (
            "PIN_PRELOAD_MODELS",
            if limits.preloads { "sim" } else { "none" }.to_owned(),
        ),
        (
            "PIN_SIGNATURE",
            fate.one_of(&["sha256", "hmac-sha256"]).to_owned(),
        ),
    ]
}

fn weather(fate: &mut Fate) -> Weather {
    let latency = fate.one_of(&[0, 1, 5, 20, 80, 200]);
    Weather {
        latency: Duration::from_millis(latency),
        jitter: Duration::from_millis(fate.one_of(&[0, 0, latency / 2, latency])),
        pieces: fate.one_of(&[None, None, None, Some(1), Some(7), Some(100)]),
        ..Weather::default()
    }
}

fn manners(fate: &mut Fate) -> Manners {
    Manners {
        acks: fate.one_of(&[Acks::All, Acks::All, Acks::Heartbeats, Acks::Nothing]),
        ack_millis: fate.one_of(&[0, 0, 50, 3_000]),
        doubles: fate.percent(10),
        strays: fate.percent(20),
        ping_every: fate.one_of(&[
            None,
            Some(Duration::from_secs(1)),
            Some(Duration::from_secs(10)),
        ]),
        repeats: fate.one_of(&[0, 50, 100]),
        ..Manners::default()
    }
}

fn temper(fate: &mut Fate, clogged: bool) -> Temper {
    if clogged {
        return Temper {
            tokens: 40,
            token_millis: 20,
            first_millis: 500,
            faults: 0,
            big: 60,
            big_token: 8_000,
            ..Temper::default()
        };
    }
    Temper {
        tokens: fate.one_of(&[1, 8, 20, 40]),
        token_millis: fate.one_of(&[0, 20, 100, 1_000]),
        first_millis: fate.one_of(&[0, 500, 4_000]),
        faults: fate.one_of(&[0, 5, 30]),
        big: fate.one_of(&[0, 5, 30]),
        big_token: fate.one_of(&[1_000, 8_000]),
        ..Temper::default()
    }
}

/// How a story is made up.
struct Story {
    fate: Fate,
    /// In milliseconds.
    length: u64,
    events: Vec<(Duration, Event)>,
}

impl Story {
    fn tell(&mut self, hour: bool, clogged: bool) {
        self.requests();
        if clogged {
            let (from, long) = (self.moment(), self.fate.within(5_000..=70_000));
            self.spell(from, from + long, Event::Reads(false), Event::Reads(true));
        }
        let most = if self.fate.percent(20) { 1 } else { 12 };
        let troubles = self.fate.within(0..=most) * if hour { 15 } else { 1 };
        for _ in 0..troubles {
            self.trouble();
        }
        if self.fate.percent(25) {
            let at = self.moment();
            self.at(at, Event::Shutdown);
        }
    }

    fn requests(&mut self) {
        let many = self.fate.one_of(&[10, 30, 60]) * self.length.div_ceil(600_000);
        for _ in 0..many {
            let at = self.moment();
            let at_once = if self.fate.percent(10) { 8 } else { 1 };
            let streams = self.fate.percent(60);
            for _ in 0..at_once {
                let class = match self.fate.within(0..=99) {
                    0..90 => Class::Chat,
                    90..94 => Class::Invalid,
                    94..98 => Class::UnknownModel,
                    _ => Class::BadId,
                };
                self.at(at, Event::Ask(class, streams));
            }
        }
        for _ in 0..many / 5 {
            let (repeat, cancel) = (self.moment(), self.moment());
            self.at(repeat, Event::Repeat);
            let which = self.fate.one_of(&[0, 0, 1, 2]);
            let event = [
                Event::CancelUnanswered,
                Event::CancelAny,
                Event::CancelUnknown,
            ];
            self.at(cancel, event[which].clone());
        }
    }

    fn trouble(&mut self) {
        let at = self.moment();
        let long = self.fate.one_of(&[100, 1_000, 5_000, 20_000, 50_000]);
        let until = at + self.fate.within(1..=long);
        match self.fate.within(0..=19) {
            0 | 1 => self.at(at, Event::Cut),
            2 => {
                let (up, down) = self
                    .fate
                    .one_of(&[(true, true), (true, false), (false, true)]);
                self.at(at, Event::Lose(up, down));
            }
            3 => self.spell(at, until, Event::Hold(true), Event::Hold(false)),
            4 => {
                let dialling = self.fate.one_of(&[Dialling::Refused, Dialling::Hangs]);
                self.at(at, Event::Cut);
                self.spell(
                    at,
                    until,
                    Event::Dialling(dialling),
                    Event::Dialling(Dialling::Accepted),
                );
            }
            5 => {
                let rate = self.fate.one_of(&[1_000, 20_000, 200_000]);
                self.spell(at, until, Event::Rate(Some(rate)), Event::Rate(None));
            }
            6 => self.spell(at, until, Event::Reads(false), Event::Reads(true)),
            7 => {
                let reason = self.fate.one_of(&["", "", "going away for maintenance"]);
                let farewell = Farewell {
                    reason,
                    ..Farewell::AWAY
                };
                self.at(at, Event::Close(farewell));
            }
            8 => {
                let seconds = self.fate.within(1..=20);
                self.at(at, Event::SendAway(seconds.to_string(), Farewell::AWAY));
            }
            9 | 10 => self.restart(at, until),
            11 => {
                self.at(at, Event::Crash);
                let door = self.fate.one_of(&[
                    Door::Refused,
                    Door::Unavailable("3"),
                    Door::Slammed(20, Farewell::AWAY),
                    Door::Slammed(3_000, Farewell::AWAY),
                ]);
                self.spell(at, until, Event::Door(door), Event::Door(Door::Open));
            }
            12..=14 => {
                let garbage = self.fate.one_of(&[
                    Garbage::NotJson,
                    Garbage::Nested,
                    Garbage::Binary,
                    Garbage::UnknownType,
                    Garbage::Large(MAX_FRAME + 1),
                    Garbage::NotUtf8,
                    Garbage::NoId,
                    Garbage::Error,
                ]);
                self.at(at, Event::Send(garbage));
            }
            15 => self.at(at, Event::Poison),
            16 => self.at(at, Event::OllamaCut),
            17 => {
                self.at(at, Event::OllamaCut);
                self.spell(
                    at,
                    until,
                    Event::OllamaDialling(Dialling::Refused),
                    Event::OllamaDialling(Dialling::Accepted),
                );
            }
            18 => self.spell(at, until, Event::OllamaHold(true), Event::OllamaHold(false)),
            _ => {
                let seconds = self.fate.one_of(&[-7_200, -30, 30, 7_200, 400]);
                self.spell(at, until, Event::Clock(seconds), Event::Clock(0));
            }
        }
    }

    /// The gateway dies and comes back, and remembers its requests or not.
    fn restart(&mut self, at: u64, until: u64) {
        let repeats = self.fate.one_of(&[0, 50, 100]);
        self.at(at, Event::Repeats(repeats));
        self.at(at, Event::Crash);
        self.spell(
            at,
            until,
            Event::Dialling(Dialling::Refused),
            Event::Dialling(Dialling::Accepted),
        );
    }

    fn moment(&mut self) -> u64 {
        self.fate.within(500..=self.length)
    }

    fn at(&mut self, millis: u64, event: Event) {
        self.events.push((Duration::from_millis(millis), event));
    }

    fn spell(&mut self, from: u64, until: u64, begin: Event, end: Event) {
        self.at(from, begin);
        self.at(until, end);
    }
}
