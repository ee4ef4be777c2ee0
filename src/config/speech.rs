//! What an operator says of the speech server: the names to offer, what the server calls them, and the voice.
//!
//! Invariant: each name is one word that may be a metric's label, without the prefix by which the network knows speech
//! models, and there are few of them.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    BackendUrl, SpeechModel, SpeechSettings, error::Invalid, field::Value, plain::Blanks,
    value::is_word,
};

/// What the network puts before the names of speech models.
const PREFIX: &str = SpeechModel::PREFIX;

/// How many models are offered, at most: no server speaks with so many.
const MOST: usize = 64;

/// The longest name, in bytes: with the prefix it fits into what a metric's label may have.
const LONGEST: usize = 256 - PREFIX.len();

/// The longest voice, in bytes. Some servers take a file's name for one.
const LONGEST_VOICE: usize = 256;

/// Names to offer, in the order given, each once.
pub(super) struct SpeechModels(pub(super) Vec<Arc<str>>);

impl Value for SpeechModels {
    const BLANKS: Blanks = Blanks::BesideCommas;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let mut names: Vec<Arc<str>> = Vec::new();
        for written in text.split(',').map(str::trim) {
            check_offered(written)?;
            if !names
                .iter()
                .any(|known| known.eq_ignore_ascii_case(written))
            {
                names.push(written.into());
            }
        }
        few(names.len(), "names")?;
        Ok(Self(names))
    }
}

impl fmt::Display for SpeechModels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// What the server calls models that are offered by another name: pairs of both, each offered name once.
pub(super) struct SpeechModelMap(pub(super) Vec<(Arc<str>, Arc<str>)>);

impl SpeechModelMap {
    /// What the server calls this model.
    pub(super) fn served(&self, offered: &str) -> Option<&Arc<str>> {
        let mut pairs = self.0.iter();
        let (_, served) = pairs.find(|(name, _)| name.eq_ignore_ascii_case(offered))?;
        Some(served)
    }
}

impl Value for SpeechModelMap {
    const BLANKS: Blanks = Blanks::BesideCommas;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let mut map = Self(Vec::new());
        for written in text.split(',').map(str::trim) {
            let (offered, served) = written.split_once('=').ok_or_else(|| {
                let reason =
                    "is no pair; write offered=served with commas between pairs, such as kokoro=hexgrad/Kokoro-82M";
                Invalid::value(written, reason)
            })?;
            check_offered(offered)?;
            check_word(served)?;
            if map.served(offered).is_some() {
                return Err(Invalid::value(
                    offered,
                    "is mapped twice; keep one of its pairs",
                ));
            }
            map.0.push((offered.into(), served.into()));
        }
        few(map.0.len(), "pairs")?;
        Ok(map)
    }
}

impl fmt::Display for SpeechModelMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.0.iter();
        let pairs: Vec<_> = pairs
            .map(|(offered, served)| format!("{offered}={served}"))
            .collect();
        f.write_str(&pairs.join(","))
    }
}

/// A voice, as the server calls it.
pub(super) struct Voice(pub(super) String);

impl Value for Voice {
    const BLANKS: Blanks = Blanks::Anywhere;

    fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() > LONGEST_VOICE {
            return Err(Invalid::new(format!(
                "is longer than {LONGEST_VOICE} bytes; write the name of a voice"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All that is set of the speech server.
pub(super) struct Values {
    pub(super) url: Option<BackendUrl>,
    pub(super) models: Option<SpeechModels>,
    pub(super) voice: Option<Voice>,
    pub(super) map: Option<SpeechModelMap>,
    pub(super) connect_timeout: Duration,
    pub(super) refresh_interval: Duration,
}

impl Values {
    /// The speech server, if there is one.
    pub(super) fn settings(self) -> Option<SpeechSettings> {
        let (url, models) = self.url.zip(self.models)?;
        let map = self.map;
        let served = |offered: &Arc<str>| {
            let served = map.as_ref().and_then(|map| map.served(offered));
            Arc::clone(served.unwrap_or(offered))
        };
        let model = |offered: &Arc<str>| SpeechModel {
            name: format!("{PREFIX}{offered}").into(),
            served: served(offered),
        };
        Some(SpeechSettings {
            url: url.without_version(),
            models: models.0.iter().map(model).collect(),
            voice: self.voice.map(|voice| voice.0),
            connect_timeout: self.connect_timeout,
            refresh_interval: self.refresh_interval,
        })
    }
}

/// Refuses what cannot be the name of a model that is offered.
fn check_offered(written: &str) -> Result<(), Invalid> {
    let mistake = if SpeechModel::is_name_of_one(written) {
        "has the prefix tts: already; write the name without it, since the network is told it with it anyway"
    } else if written.contains('=') {
        "has a = in it; write names here, and what the server calls them in PIN_TTS_MODEL_MAP"
    } else if written.contains(['*', '?']) {
        "is a pattern; write the names of speech models in full"
    } else {
        return check_word(written);
    };
    Err(Invalid::value(written, mistake))
}

fn check_word(written: &str) -> Result<(), Invalid> {
    let mistake = if written.is_empty() {
        "is no name; write names with one comma between them, such as kokoro,tts-1"
    } else if !is_word(written) {
        "has a blank, a quote or a # in it; write names with commas between them"
    } else if written.len() > LONGEST {
        "is too long for a model's name"
    } else {
        return Ok(());
    };
    Err(Invalid::value(written, mistake))
}

fn few(count: usize, what: &str) -> Result<(), Invalid> {
    if count > MOST {
        let sentence = format!("has {count} {what}; write at most {MOST}");
        return Err(Invalid::new(sentence));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refusal<V: Value>(text: &str) -> String {
        V::read(text).err().unwrap().to_string()
    }

    #[test]
    fn names_keep_their_spelling_and_order_and_one_that_comes_twice_counts_once() {
        let names = SpeechModels::read("Kokoro, tts-1,hexgrad/Kokoro-82M,kokoro").unwrap();
        assert_eq!(names.to_string(), "Kokoro,tts-1,hexgrad/Kokoro-82M");
    }

    #[test]
    fn what_is_no_name_is_told_with_what_is_wrong_with_it() {
        for (written, words) in [
            ("tts:kokoro", "\"tts:kokoro\" has the prefix tts: already"),
            ("a,TTS:b", "\"TTS:b\" has the prefix tts: already"),
            ("a,,b", "\"\" is no name"),
            ("a,", "\"\" is no name"),
            ("a=b", "\"a=b\" has a = in it"),
            ("kokoro*", "is a pattern"),
            ("a b", "has a blank in it"),
            ("a#b", "has a blank, a quote or a # in it"),
        ] {
            let refusal = refusal::<SpeechModels>(written);
            assert!(refusal.contains(words), "{written}: {refusal}");
        }
        let long = "a".repeat(LONGEST + 1);
        assert!(refusal::<SpeechModels>(&long).contains("is too long"));
        let many: Vec<_> = (0..=MOST).map(|n| format!("m{n}")).collect();
        let many = refusal::<SpeechModels>(&many.join(","));
        assert_eq!(many, "has 65 names; write at most 64");
    }

    #[test]
    fn a_map_says_what_the_server_calls_a_model_whatever_the_case_of_its_name() {
        let map = SpeechModelMap::read("kokoro=hexgrad/Kokoro-82M, voice=/m/a=b.onnx").unwrap();
        assert_eq!(&**map.served("Kokoro").unwrap(), "hexgrad/Kokoro-82M");
        assert_eq!(&**map.served("voice").unwrap(), "/m/a=b.onnx");
        assert!(map.served("other").is_none());
        let shown = "kokoro=hexgrad/Kokoro-82M,voice=/m/a=b.onnx";
        assert_eq!(map.to_string(), shown);
    }

    #[test]
    fn what_is_no_map_is_told_with_what_is_wrong_with_it() {
        for (written, words) in [
            ("kokoro", "\"kokoro\" is no pair"),
            ("a=b,", "\"\" is no pair"),
            ("=b", "\"\" is no name"),
            ("a=", "\"\" is no name"),
            ("tts:a=b", "\"tts:a\" has the prefix"),
            ("a=b,A=c", "\"A\" is mapped twice"),
        ] {
            let refusal = refusal::<SpeechModelMap>(written);
            assert!(refusal.contains(words), "{written}: {refusal}");
        }
    }

    #[test]
    fn a_voice_may_be_the_name_of_a_file() {
        let voice = Voice::read("My Voice (warm).wav").unwrap();
        assert_eq!(voice.to_string(), "My Voice (warm).wav");
        let long = "v".repeat(LONGEST_VOICE + 1);
        assert!(refusal::<Voice>(&long).contains("is longer than 256 bytes"));
    }
}
