//! Which model server a story has, and whether something is to be spoken in it. Pure.
//!
//! Invariant: as that of `plots.rs`: each choice draws from a fate of its own.

use devnet::sim::{
    books::Class,
    fate::Fate,
    model_server::{ApiMode, VOICE},
};

use crate::{
    plots::{millis, moment},
    scenario::{Event, Scenario},
    world::SPEECH_PORT,
};

/// How many stories of a hundred have a model server with OpenAI's interface.
const OPENAI: u64 = 30;

/// How many have a speech server.
const SPEAKING: u64 = 20;

/// How many others are asked for speech all the same.
const MUTE: u64 = 5;

/// Chooses for this seed.
pub(crate) fn choose(seed: u64, scenario: &mut Scenario) {
    speak_openai(&mut Fate::of(seed, "dialects", 0), scenario);
    speak(&mut Fate::of(seed, "speech", 0), scenario);
}

fn speak_openai(fate: &mut Fate, scenario: &mut Scenario) {
    if fate.percent(OPENAI) {
        scenario.api_mode = ApiMode::OpenAi;
        let setting = ("PIN_API_MODE", "openai".to_owned());
        scenario.settings.push(setting);
        if fate.percent(30) {
            // What has no model may be loading, or refuse everybody.
            let at = moment(fate, scenario);
            let later = at + millis(fate.within(1..=20_000));
            scenario.events.push((at, Event::OllamaHasModel(false)));
            scenario.events.push((later, Event::OllamaHasModel(true)));
        }
    }
}

/// Speech among the chats, alone and many at once.
fn speak(fate: &mut Fate, scenario: &mut Scenario) {
    let has_server = fate.percent(SPEAKING);
    if has_server {
        scenario.settings.extend([
            ("PIN_TTS_URL", format!("http://127.0.0.1:{SPEECH_PORT}")),
            ("PIN_TTS_MODELS", VOICE.to_owned()),
        ]);
    } else if !fate.percent(MUTE) {
        return;
    }
    let chats = scenario.events.iter();
    let chats = chats.filter(|(_, event)| matches!(event, Event::Ask(Class::Chat, _)));
    for _ in 0..chats.count() / 2 + 5 {
        let at = moment(fate, scenario);
        let at_once = if fate.percent(10) { 4 } else { 1 };
        let is_known = has_server && fate.percent(95);
        let class = if is_known {
            Class::Speech
        } else {
            Class::UnknownSpeech
        };
        for _ in 0..at_once {
            scenario.events.push((at, Event::Ask(class, false)));
        }
    }
}
