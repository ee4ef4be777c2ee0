//! What the operator does in a story: pauses, and files that are read again.
//!
//! Invariant: a pause is over before the story is mended or soon after, so that all promises can be looked at.

use std::time::Duration;

use devnet::sim::{fate::Fate, wire::Dialling};

use crate::{
    plots::moment,
    scenario::{Event, Scenario},
};

/// Of a hundred stories, how many have a pause, and in how many files are read again.
const PAUSED: u64 = 15;
const READ_AGAIN: u64 = 20;

/// Weaves it in.
pub(crate) fn act(seed: u64, scenario: &mut Scenario) {
    pause(&mut Fate::of(seed, "pauses", 0), scenario);
    read_again(&mut Fate::of(seed, "reloads", 0), scenario);
}

fn pause(fate: &mut Fate, scenario: &mut Scenario) {
    if !fate.percent(PAUSED) {
        return;
    }
    let mut at = moment(fate, scenario);
    for _ in 0..fate.within(1..=3) {
        let length = fate.one_of(&[1, 1_000, 10_000, 60_000]);
        let length = Duration::from_millis(length);
        scenario.events.push((at, Event::Pause(length)));
        if fate.percent(40) {
            let early = fate.millis(0..=15_000);
            scenario.events.push((at + early, Event::Resume));
        }
        if fate.percent(30) {
            // A restart of Ollama ends a drain, and no pause.
            let away = at + fate.millis(0..=10_000);
            let back = away + fate.millis(1_000..=5_000);
            let refused = Event::OllamaDialling(Dialling::Refused);
            let accepted = Event::OllamaDialling(Dialling::Accepted);
            scenario.events.push((away, refused));
            scenario.events.push((back, accepted));
        }
        let gap = fate.one_of(&[0, 1, 1_000, 40_000]);
        at += fate.millis(0..=gap);
    }
}

fn read_again(fate: &mut Fate, scenario: &mut Scenario) {
    if fate.percent(READ_AGAIN) {
        for _ in 0..fate.within(1..=5) {
            let at = moment(fate, scenario);
            scenario.events.push((at, Event::Reload));
        }
    }
}
