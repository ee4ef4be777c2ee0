//! What is too rare to happen by itself, or has to happen at one moment: plots that are woven into a story. Pure.
//!
//! Invariant: a plot draws from a fate of its name alone, so that a new one, or a change to one, leaves the stories that
//! have no part in it as they were.

use std::time::Duration;

use devnet::sim::{
    books::{Class, Limits},
    fate::Fate,
    manners::{Acks, Door, Farewell, Network},
    model_server::Temper,
    network::Asking,
    wire::Dialling,
};

use crate::scenario::{Event, Scenario};

/// How many stories of a hundred have the node drained, and opened again, on request.
const DRAINED: u64 = 20;

/// How many have it drained several times, or once and at once for good, or while the gateway is away.
const DRAINED_OFTEN: u64 = 15;

/// How many have a gateway that closes by itself while it is closed on.
const CROSSED: u64 = 20;

/// How many have a gateway that asks to be left alone for an odd time, and drains after that.
const SENT_AWAY: u64 = 8;

/// How many have a gateway that takes its time to acknowledge, and how many one that acknowledges what it has not read.
const LATE: u64 = 15;
const LYING: u64 = 15;

/// How many have nearly everything cancelled at the moments that matter to a drain.
const CANCELLED: u64 = 25;

/// How many have a gateway that makes answered requests again to the last.
const REPEATED: u64 = 20;

/// How many have a large waiting room, large answers and a gateway that does not take them.
const CROWDED: u64 = 4;

/// How many have a gateway that makes what has failed again at once, acknowledges the failure late, and breaks down before it
/// has read the answer.
const RETRIED: u64 = 8;

/// How many have a network behind the gateway, which interviews and probes.
const INTERVIEWED: u64 = 35;

/// How many have a gateway that loses its sessions again and again.
const FLAPPING: u64 = 6;

/// How many have a model server that takes time to load, evicts, restarts and loses its model.
const COLD: u64 = 15;

/// How many have a model that is to be kept loaded.
const PRELOADED: u64 = 50;

/// How many have one that takes longer than the network waits.
const SLOW: u64 = 2;

/// The codes of a gateway's Close (RFC 6455, section 7.4; 4401 and 4403 mean a refused login elsewhere); `None`: no code.
const CODES: &[Option<u16>] = &[
    Some(1000),
    Some(1000),
    Some(1000),
    None,
    Some(1001),
    Some(1001),
    Some(1002),
    Some(1003),
    Some(1007),
    Some(1008),
    Some(1011),
    Some(1012),
    Some(1013),
    Some(3000),
    Some(4000),
    Some(4401),
    Some(4403),
];

/// What a gateway may answer to how long it wants to be left alone, in JSON.
const ODD_TIMES: &[&str] = &[
    "0",
    "1e-9",
    "0.5",
    "7",
    "40",
    "259",
    "3600",
    "3601",
    "31536000",
    "1e18",
    "1e30",
    "1e999",
    "18446744073709551615",
    "-1",
    "-1e999",
    "\"7\"",
    "null",
];

/// The same in a `Retry-After`.
const ODD_HEADERS: &[&str] = &[
    "0",
    "3",
    "40",
    "3601",
    "18446744073709551616",
    "-1",
    "soon",
    "",
];

/// Weaves in every plot that this seed has a part in.
pub(crate) fn enter(seed: u64, scenario: &mut Scenario) {
    say_why(&mut Fate::of(seed, "closes", 0), scenario);
    drain(&mut Fate::of(seed, "drains", 0), scenario);
    drain_often(&mut Fate::of(seed, "more drains", 0), scenario);
    cross(&mut Fate::of(seed, "crossings", 0), scenario);
    send_away(&mut Fate::of(seed, "aways", 0), scenario);
    acknowledge_badly(&mut Fate::of(seed, "acknowledgements", 0), scenario);
    repeat_to_the_last(&mut Fate::of(seed, "last repeats", 0), scenario);
    retry(&mut Fate::of(seed, "retries", 0), scenario);
    interview(&mut Fate::of(seed, "interviews", 0), scenario);
    flap(&mut Fate::of(seed, "flaps", 0), scenario);
    chill(&mut Fate::of(seed, "cold", 0), scenario);
    if is_slow(seed) {
        wait_for_loads(&mut Fate::of(seed, "slow", 1), scenario);
    }
    if is_crowded(seed) {
        fill(&mut Fate::of(seed, "crowd", 2), scenario);
    }
    // Last, since it is about the drains of all the others.
    cancel_in_drains(&mut Fate::of(seed, "bursts", 0), scenario);
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A moment of the story.
pub(crate) fn moment(fate: &mut Fate, scenario: &Scenario) -> Duration {
    let length = u64::try_from(scenario.mended.as_millis()).unwrap_or(u64::MAX);
    millis(fate.within(500..=length))
}

/// When the story is drained.
fn drains_of(scenario: &Scenario) -> Vec<Duration> {
    let is_drain = |event: &Event| matches!(event, Event::Drain(_) | Event::Shutdown);
    let events = scenario.events.iter();
    let drains = events.filter(|(_, event)| is_drain(event));
    drains.map(|(at, _)| *at).collect()
}

fn farewell(fate: &mut Fate, reason: &'static str) -> Farewell {
    let code = fate.one_of(CODES);
    Farewell {
        // Without a code there is no place for a reason.
        reason: code.map_or("", |_| reason),
        code,
        is_deaf: fate.percent(50),
    }
}

/// Gives each Close of the gateway a code.
fn say_why(fate: &mut Fate, scenario: &mut Scenario) {
    for (_, event) in &mut scenario.events {
        match event {
            Event::Close(close) | Event::SendAway(_, close) => {
                *close = farewell(fate, close.reason);
            }
            Event::Door(Door::Slammed(_, close)) => *close = farewell(fate, close.reason),
            Event::Door(Door::Unavailable(words)) if fate.percent(50) => {
                *words = fate.one_of(ODD_HEADERS);
            }
            _ => {}
        }
    }
}

fn drain(fate: &mut Fate, scenario: &mut Scenario) {
    if fate.percent(DRAINED) {
        let at = moment(fate, scenario);
        let rest = fate.one_of(&[0, 1_000, 15_000]);
        scenario.events.push((at, Event::Drain(millis(rest))));
    }
}

fn drain_often(fate: &mut Fate, scenario: &mut Scenario) {
    if !fate.percent(DRAINED_OFTEN) {
        return;
    }
    let mut at = moment(fate, scenario);
    let streams = fate.percent(50);
    for _ in 0..fate.within(1..=4) {
        scenario.events.push((at, Event::Ask(Class::Chat, streams)));
    }
    let is_away = fate.percent(40);
    if is_away {
        let long = millis(fate.within(1..=40_000));
        scenario.events.push((at + millis(300), Event::Cut));
        scenario
            .events
            .push((at + millis(300), Event::Dialling(Dialling::Refused)));
        scenario
            .events
            .push((at + long, Event::Dialling(Dialling::Accepted)));
    }
    at += millis(fate.within(0..=2_000));
    for _ in 0..fate.within(1..=4) {
        let rest = fate.one_of(&[0, 0, 1_000, 15_000]);
        scenario.events.push((at, Event::Drain(millis(rest))));
        let gap = fate.one_of(&[0, 1, 50, 1_000, 5_000, 20_000]);
        at += millis(fate.within(0..=gap));
    }
    if fate.percent(60) {
        let most = if is_away { 8_000 } else { 300 };
        let after = millis(fate.within(0..=most));
        scenario.events.push((at + after, Event::Shutdown));
    }
}

fn cross(fate: &mut Fate, scenario: &mut Scenario) {
    if !fate.percent(CROSSED) {
        return;
    }
    if fate.percent(50) {
        let percent = fate.one_of(&[10, 30, 60]);
        scenario.manners.crosses = Some((percent, farewell(fate, "going away for maintenance")));
        return;
    }
    // An idle product closes as soon as it is told to drain; its Close is under way for the latency.
    let travel = u64::try_from(scenario.gateway.latency.as_millis()).unwrap_or(u64::MAX);
    for at in drains_of(scenario) {
        for _ in 0..fate.within(0..=2) {
            let before = millis(fate.within(0..=1_500));
            let ask = Event::Ask(Class::Chat, false);
            scenario.events.push((at.saturating_sub(before), ask));
        }
        let close = Event::Close(farewell(fate, ""));
        if fate.percent(50) {
            let after = millis(fate.within(0..=travel));
            scenario.events.push((at + after, close));
            continue;
        }
        // Or it waits two seconds for proof, which does not come from a gateway that does not read.
        let close = Event::Close(Farewell {
            code: fate.one_of(&[Some(1000), Some(1000), None, Some(1001)]),
            reason: "",
            is_deaf: true,
        });
        scenario.temper.token_millis = 20;
        scenario.temper.first_millis = 100;
        for _ in 0..scenario.limits.capacity {
            let before = millis(fate.within(0..=300));
            let ask = Event::Ask(Class::Chat, false);
            scenario.events.push((at.saturating_sub(before), ask));
        }
        let unread = at.saturating_sub(millis(fate.within(0..=300)));
        let after = millis(fate.within(2_000..=3_300));
        scenario.events.push((unread, Event::Reads(false)));
        scenario.events.push((at + after, close));
        if fate.percent(70) {
            // Then it cannot write its Close, and no Close that comes answers it.
            let stuck = at + millis(fate.within(1_200..=2_000));
            scenario.events.push((stuck, Event::Stuck(true)));
            scenario
                .events
                .push((at + millis(4_500), Event::Stuck(false)));
        }
        scenario
            .events
            .push((at + millis(4_500), Event::Reads(true)));
    }
    let close = Event::Close(farewell(fate, ""));
    let after = millis(fate.within(0..=travel));
    scenario.at_the_end.push((after, close));
}

fn send_away(fate: &mut Fate, scenario: &mut Scenario) {
    if !fate.percent(SENT_AWAY) {
        return;
    }
    let mut at = moment(fate, scenario);
    let away = Event::SendAway(fate.one_of(ODD_TIMES).to_owned(), farewell(fate, ""));
    scenario.events.push((at, away));
    for _ in 0..fate.within(0..=3) {
        at += millis(fate.within(0..=10_000));
        let rest = fate.one_of(&[0, 0, 1_000, 5_000]);
        scenario.events.push((at, Event::Drain(millis(rest))));
    }
    if fate.percent(30) {
        at += millis(fate.within(0..=10_000));
        scenario.events.push((at, Event::Shutdown));
    }
}

fn acknowledge_badly(fate: &mut Fate, scenario: &mut Scenario) {
    if fate.percent(LATE) {
        scenario.manners.late_millis = fate.one_of(&[500, 2_000, 5_000]);
        scenario.manners.ack_millis = fate.one_of(&[0, 2_000, 8_000]);
    }
    if fate.percent(LYING) {
        scenario.manners.acks = Acks::All;
        scenario.manners.lies = fate.one_of(&[10, 50, 100]);
    }
}

fn repeat_to_the_last(fate: &mut Fate, scenario: &mut Scenario) {
    scenario.manners.last_repeats = fate.percent(REPEATED);
}

fn retry(fate: &mut Fate, scenario: &mut Scenario) {
    if !fate.percent(RETRIED) {
        return;
    }
    scenario.manners.acks = Acks::All;
    scenario.manners.ack_millis = fate.one_of(&[1_000, 3_000]);
    scenario.manners.retries = 100;
    scenario.manners.repeats = 0;
    scenario.temper = Temper {
        tokens: 5,
        token_millis: 20,
        first_millis: 200,
        faults: 30,
        big: 0,
        big_token: 0,
        ..scenario.temper
    };
    for _ in 0..6 {
        let at = moment(fate, scenario);
        for _ in 0..6 {
            scenario.events.push((at, Event::Ask(Class::Chat, false)));
        }
        let deaf = at + millis(fate.within(100..=1_000));
        let broken = deaf + millis(fate.within(500..=3_000));
        scenario.events.push((deaf, Event::Reads(false)));
        scenario.events.push((broken, Event::Cut));
        scenario.events.push((broken, Event::Reads(true)));
    }
}

/// A network that interviews, and what can come between.
fn interview(fate: &mut Fate, scenario: &mut Scenario) {
    if !fate.percent(INTERVIEWED) {
        return;
    }
    scenario.manners.network = Network {
        interviews: fate.one_of(&[0, 50, 100]),
        fails: fate.one_of(&[0, 0, 30]),
        probe_every: fate.one_of(&[
            None,
            Some(Duration::from_secs(5)),
            Some(Duration::from_secs(20)),
        ]),
        judges: fate.percent(30),
        is_there: true,
    };
    for _ in 0..fate.within(1..=5) {
        let at = moment(fate, scenario);
        if fate.percent(50) {
            // All slots are taken, and somebody waits.
            let streams = fate.percent(50);
            for _ in 0..scenario.limits.capacity + 1 {
                let ask = Event::Ask(Class::Chat, streams);
                scenario.events.push((at.saturating_sub(millis(300)), ask));
            }
        }
        let asking = fate.one_of(&[
            Asking::Fair,
            Asking::Fair,
            Asking::Fair,
            Asking::Namesake,
            Asking::UnknownNode,
            Asking::UnknownModel,
            Asking::Odd,
            Asking::BadId,
        ]);
        scenario.events.push((at, Event::Interview(asking)));
        for _ in 0..fate.within(0..=3) {
            let after = fate.one_of(&[0, 1, 100, 3_000, 15_000]);
            let after = at + millis(fate.within(0..=after));
            meddle_with_interview(fate, scenario, after);
        }
    }
}

/// Something that happens while an interview is under way, with luck.
fn meddle_with_interview(fate: &mut Fate, scenario: &mut Scenario, at: Duration) {
    let long = millis(fate.within(1..=20_000));
    match fate.within(0..=9) {
        0 | 1 => scenario.events.push((at, Event::InterviewAgain)),
        2 => scenario.events.push((at, Event::Interview(Asking::Fair))),
        3 => {
            scenario.events.push((at, Event::Interview(Asking::Fair)));
            scenario.events.push((at, Event::Interview(Asking::Fair)));
        }
        4 => scenario.events.push((at, Event::CancelInterview)),
        5 => scenario.events.push((at, Event::OllamaCut)),
        6 => {
            let later = at + long;
            scenario.events.push((at, Event::Cut));
            scenario.events.push((later, Event::InterviewAgain));
        }
        7 => {
            let later = at + long;
            scenario.events.push((at, Event::Crash));
            let newer = Event::Interview(Asking::Fair);
            scenario.events.push((later, newer));
            scenario.events.push((later, Event::InterviewAgain));
        }
        8 => {
            let rest = fate.one_of(&[0, 1_000]);
            scenario.events.push((at, Event::Drain(millis(rest))));
        }
        _ => scenario.events.push((at, Event::Ask(Class::Chat, false))),
    }
}

/// Sessions that end soon after they began, one after the other, while somebody waits for answers.
fn flap(fate: &mut Fate, scenario: &mut Scenario) {
    if !fate.percent(FLAPPING) {
        return;
    }
    let mut at = moment(fate, scenario);
    let gap = fate.one_of(&[200, 2_000, 15_000]);
    let closes = fate.percent(50);
    for _ in 0..fate.within(10..=40) {
        scenario.events.push((at, Event::Ask(Class::Chat, false)));
        at += millis(fate.within(1..=gap));
        let end = if closes {
            Event::Close(farewell(fate, ""))
        } else {
            Event::Crash
        };
        scenario.events.push((at, end));
    }
}

/// A model server that takes its time to load, and does not keep what it has loaded.
fn chill(fate: &mut Fate, scenario: &mut Scenario) {
    if !fate.percent(COLD) {
        return;
    }
    scenario.temper.load_millis = fate.one_of(&[300, 2_000, 8_000]);
    scenario.temper.load_faults = fate.one_of(&[0, 0, 30]);
    for _ in 0..fate.within(0..=3) {
        let at = moment(fate, scenario);
        let later = at + millis(fate.within(1..=30_000));
        match fate.within(0..=3) {
            0 => scenario.events.push((at, Event::OllamaEvicts)),
            1 => {
                scenario.events.push((at, Event::OllamaHasModel(false)));
                scenario.events.push((later, Event::OllamaHasModel(true)));
            }
            _ => {
                let (away, back) = (Dialling::Refused, Dialling::Accepted);
                scenario.events.push((at, Event::OllamaCut));
                scenario.events.push((at, Event::OllamaDialling(away)));
                scenario.events.push((later, Event::OllamaDialling(back)));
            }
        }
    }
}

/// Whether a seed's model is to be kept loaded.
pub(crate) fn preloads(seed: u64) -> bool {
    Fate::of(seed, "preloads", 0).percent(PRELOADED)
}

/// Whether a seed's model server takes longer to load than the network waits.
pub(crate) fn is_slow(seed: u64) -> bool {
    Fate::of(seed, "slow", 0).percent(SLOW)
}

/// What that needs of the settings.
pub(crate) fn slow_down(limits: &mut Limits) {
    limits.request_timeout = Duration::from_secs(400);
    limits.token_timeout = Duration::from_secs(300);
}

fn wait_for_loads(fate: &mut Fate, scenario: &mut Scenario) {
    scenario.manners.network.is_there = true;
    scenario.temper.load_millis = fate.one_of(&[95_000, 150_000]);
    for _ in 0..2 {
        let at = moment(fate, scenario);
        scenario.events.push((at, Event::OllamaEvicts));
        scenario.events.push((at, Event::Ask(Class::Chat, false)));
    }
}

/// Whether a seed's waiting room is large, and full.
pub(crate) fn is_crowded(seed: u64) -> bool {
    Fate::of(seed, "crowd", 0).percent(CROWDED)
}

/// What that needs of the settings.
pub(crate) fn crowd(seed: u64, limits: &mut Limits) {
    let mut fate = Fate::of(seed, "crowd", 1);
    limits.queue = fate.one_of(&[20, 50]);
    limits.outbox_bytes = fate.one_of(&[64 * 1024, 1024 * 1024]);
    limits.orphan_grace = Duration::from_secs(30);
    limits.request_timeout = Duration::from_secs(fate.one_of(&[30, 60]));
}

fn fill(fate: &mut Fate, scenario: &mut Scenario) {
    scenario.manners.acks = Acks::Nothing;
    scenario.temper = Temper {
        tokens: 40,
        token_millis: 5,
        first_millis: 100,
        faults: 0,
        big: 80,
        big_token: 8_000,
        ..scenario.temper
    };
    for _ in 0..2 {
        let at = moment(fate, scenario);
        let streams = fate.percent(50);
        for _ in 0..60 {
            scenario.events.push((at, Event::Ask(Class::Chat, streams)));
        }
        let (most, begin, end) = match fate.within(0..=2) {
            0 => (30_000, Event::Reads(false), Event::Reads(true)),
            1 => (
                30_000,
                Event::Dialling(Dialling::Refused),
                Event::Dialling(Dialling::Accepted),
            ),
            // What is sent still arrives in time to keep the session, but chunks wait for longer than their job may.
            _ => {
                let rate = fate.one_of(&[8_000, 20_000]);
                (120_000, Event::Rate(Some(rate)), Event::Rate(None))
            }
        };
        let long = millis(fate.within(1_000..=most));
        if matches!(begin, Event::Dialling(_)) {
            scenario.events.push((at + millis(600), Event::Cut));
        }
        scenario.events.push((at + millis(600), begin));
        scenario.events.push((at + millis(600) + long, end));
    }
}

/// Has nearly everything cancelled as a drain begins, and as its time is over.
fn cancel_in_drains(fate: &mut Fate, scenario: &mut Scenario) {
    if !fate.percent(CANCELLED) {
        return;
    }
    if fate.percent(60) {
        // Jobs that outlast the drain, and frames that arrive in the very tick in which they are to.
        scenario.temper.tokens = 40;
        scenario.temper.token_millis = 1_000;
        scenario.gateway.jitter = Duration::ZERO;
    }
    let drains = drains_of(scenario);
    let (timeout, travel) = (scenario.limits.drain_timeout, scenario.gateway.latency);
    let streams = fate.percent(50);
    // So that it is read in the moment itself.
    let meeting = |at: Duration| at.saturating_sub(travel);
    for at in drains {
        for _ in 0..scenario.limits.capacity + 2 {
            let ask = Event::Ask(Class::Chat, streams);
            scenario.events.push((at.saturating_sub(millis(700)), ask));
        }
        if fate.percent(50) {
            scenario.events.push((meeting(at), Event::CancelMany));
        }
        if fate.percent(70) {
            scenario
                .events
                .push((meeting(at + timeout), Event::CancelMany));
        }
    }
    scenario
        .at_the_end
        .push((meeting(timeout), Event::CancelMany));
}
