//! Names of models, as an operator writes them for Ollama to pull or to keep loaded.
//!
//! Invariant: each name is one that Ollama takes, written as it lists the model once it has it, and there are so few of
//! them that each may be a metric's label.

use std::{fmt, sync::Arc};

use super::{SpeechModel, error::Invalid, field::Value, plain::Blanks};

/// How many models one machine is told to pull, at most: beyond what anybody's disk holds.
const MOST: usize = 64;

/// The longest name, in bytes: what a metric's label may have.
const LONGEST: usize = 256;

/// The longest namespace, model and tag that Ollama takes, in bytes (its `types/model/name.go`).
const LONGEST_PART: usize = 80;

/// Where Ollama pulls from unless a name says otherwise; it lists such models without it.
const DEFAULT_HOST: &str = "registry.ollama.ai";
const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";

const NOT_A_NAME: &str = "is not a model's name; write it as in ollama pull, such as llama3.2, qwen3:8b or hf.co/owner/model:Q4_K_M";

/// Names in the order given, each once.
pub(super) struct ModelNames(pub(super) Vec<Arc<str>>);

impl Value for ModelNames {
    const BLANKS: Blanks = Blanks::BesideCommas;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let mut names: Vec<Arc<str>> = Vec::new();
        for written in text.split(',') {
            let name = full_name(written.trim())?;
            if !names.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
                names.push(name.into());
            }
        }
        if names.len() > MOST {
            let sentence = format!("has {} names; write at most {MOST}", names.len());
            return Err(Invalid::new(sentence));
        }
        Ok(Self(names))
    }
}

impl fmt::Display for ModelNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// The model to interview: as Ollama lists it, but without the tag `latest` where none was written, since the network is
/// told what the operator calls it.
pub(super) struct InterviewModel(pub(super) String);

impl Value for InterviewModel {
    fn parse(text: &str) -> Result<Self, Invalid> {
        refuse_speech(
            text,
            "is a speech model; write the name of a chat model, since there is no interview for speech",
        )?;
        let mut name = full_name(text)?;
        if tag_of(text).is_none() {
            name.truncate(name.len() - 1 - DEFAULT_TAG.len());
        }
        Ok(Self(name))
    }
}

impl fmt::Display for InterviewModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn refuse_speech(written: &str, reason: &str) -> Result<(), Invalid> {
    if SpeechModel::is_name_of_one(written) {
        return Err(Invalid::value(written, reason));
    }
    Ok(())
}

/// What is chosen where nobody names models, and what names none.
const AUTO: &str = "auto";
const NONE: &str = "none";

/// Which models are kept loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreloadModels {
    /// The interview model, else one that is loaded already, else none.
    Auto,
    /// These, in this order; perhaps none.
    Named(Vec<Arc<str>>),
}

impl Value for PreloadModels {
    const BLANKS: Blanks = Blanks::BesideCommas;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let is = |word: &str| text.eq_ignore_ascii_case(word);
        if is(AUTO) {
            return Ok(Self::Auto);
        }
        if is(NONE) {
            return Ok(Self::Named(Vec::new()));
        }
        for written in text.split(',').map(str::trim) {
            if [AUTO, NONE].contains(&written) {
                return Err(Invalid::value(
                    written,
                    "stands alone; write it without names, or names without it",
                ));
            }
            // No model server loads one.
            refuse_speech(
                written,
                "is a speech model; write names of chat models, which alone are kept loaded",
            )?;
        }
        Ok(Self::Named(ModelNames::parse(text)?.0))
    }
}

impl fmt::Display for PreloadModels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => AUTO,
            Self::Named(names) if names.is_empty() => NONE,
            Self::Named(names) => return f.write_str(&names.join(",")),
        })
    }
}

/// The name as Ollama lists the model: with a tag, and without the registry and the namespace that go without saying.
pub(super) fn full_name(written: &str) -> Result<String, Invalid> {
    if let Some(mistake) = mistake(written) {
        return Err(Invalid::value(written, mistake));
    }
    let (path, tag) = tag_of(written).unwrap_or((written, DEFAULT_TAG));
    let (owner, model) = path.rsplit_once('/').unwrap_or((DEFAULT_NAMESPACE, path));
    let (host, namespace) = owner.rsplit_once('/').unwrap_or((DEFAULT_HOST, owner));
    if !(is_host(host) && is_part(namespace, "") && is_part(model, ".") && is_part(tag, ".")) {
        return Err(Invalid::value(written, NOT_A_NAME));
    }
    Ok(if !host.eq_ignore_ascii_case(DEFAULT_HOST) {
        format!("{host}/{namespace}/{model}:{tag}")
    } else if !namespace.eq_ignore_ascii_case(DEFAULT_NAMESPACE) {
        format!("{namespace}/{model}:{tag}")
    } else {
        format!("{model}:{tag}")
    })
}

/// The name without its tag, and that, if it has one: a colon before a slash is a host's port.
pub(super) fn tag_of(written: &str) -> Option<(&str, &str)> {
    let parts = written.rsplit_once(':');
    parts.filter(|(_, tag)| !tag.contains('/'))
}

/// Both longer spellings of a name that a model server lists: with its namespace, and with its registry too.
pub(super) fn spelled_out(listed: &str) -> (String, String) {
    let with_namespace = if listed.contains('/') {
        listed.to_owned()
    } else {
        format!("{DEFAULT_NAMESPACE}/{listed}")
    };
    let with_host = if with_namespace.matches('/').count() > 1 {
        with_namespace.clone()
    } else {
        format!("{DEFAULT_HOST}/{with_namespace}")
    };
    (with_namespace, with_host)
}

/// What is so plainly wrong that it deserves a word of its own.
fn mistake(written: &str) -> Option<&'static str> {
    let has = |wrong: fn(char) -> bool| written.contains(wrong);
    if written.is_empty() {
        Some("is no name; write names with one comma between them, such as llama3.2,qwen3:8b")
    } else if has(char::is_whitespace) {
        Some("has a blank in it; write names with commas between them")
    } else if has(|c| matches!(c, '*' | '?')) {
        Some("is a pattern; write the names of models in full")
    } else if written.contains("://") {
        Some("has a scheme; write it without, such as hf.co/owner/model")
    } else if written.contains('@') {
        Some("has a digest; write the model's name and tag alone")
    } else if written.len() > LONGEST {
        Some("is too long for a model's name")
    } else {
        None
    }
}

fn is_part(text: &str, punctuation: &str) -> bool {
    text.len() <= LONGEST_PART && is_spelled_as(text, punctuation)
}

fn is_host(text: &str) -> bool {
    is_spelled_as(text, ".:")
}

/// What each part of a name begins with, and has most of.
pub(super) fn is_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_spelled_as(text: &str, punctuation: &str) -> bool {
    text.starts_with(is_letter)
        && text
            .chars()
            .all(|c| is_letter(c) || c == '-' || punctuation.contains(c))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(text: &str) -> String {
        ModelNames::parse(text).unwrap().to_string()
    }

    fn refusal(text: &str) -> String {
        ModelNames::parse(text).err().unwrap().to_string()
    }

    #[test]
    fn names_become_those_that_ollama_lists() {
        for (written, listed) in [
            ("llama3.2", "llama3.2:latest"),
            ("qwen3:8b", "qwen3:8b"),
            ("library/llama3.2", "llama3.2:latest"),
            ("registry.ollama.ai/library/llama3.2:1b", "llama3.2:1b"),
            ("Registry.Ollama.AI/someone/model", "someone/model:latest"),
            ("someone/model:v1.5-q4_0", "someone/model:v1.5-q4_0"),
            (
                "hf.co/Owner/Model-GGUF:Q4_K_M",
                "hf.co/Owner/Model-GGUF:Q4_K_M",
            ),
            ("library/library/a", "library/library/a:latest"),
            (
                "127.0.0.1:5000/library/tiny",
                "127.0.0.1:5000/library/tiny:latest",
            ),
        ] {
            assert_eq!(names(written), listed);
        }
    }

    #[test]
    fn the_order_is_kept_and_a_name_that_comes_twice_counts_once() {
        assert_eq!(
            names(" b , a:latest,B:latest,a,c:1b "),
            "b:latest,a:latest,c:1b"
        );
    }

    #[test]
    fn what_is_no_name_is_told_with_what_is_wrong_with_it() {
        for (written, words) in [
            ("a,,b", "\"\" is no name"),
            ("a,", "\"\" is no name"),
            ("a b", "\"a b\" has a blank in it"),
            ("llama*", "\"llama*\" is a pattern"),
            ("qwen?:8b", "is a pattern"),
            ("https://hf.co/a/b", "has a scheme"),
            ("a@sha256:abc", "has a digest"),
            ("a:", "is not a model's name"),
            (":8b", "is not a model's name"),
            ("-a", "is not a model's name"),
            ("a/b/c/d", "is not a model's name"),
            ("hf.co/model", "is not a model's name"),
            ("ä", "is not a model's name"),
            ("a//b", "is not a model's name"),
        ] {
            let refusal = refusal(written);
            assert!(refusal.contains(words), "{written}: {refusal}");
        }
        assert!(refusal(&"a".repeat(81)).contains("is not a model's name"));
        let long = format!("{}/b/c", "a".repeat(260));
        assert!(refusal(&long).contains("is too long"));
    }

    #[test]
    fn there_may_be_so_many_and_no_more() {
        let list = |n: usize| {
            let names: Vec<_> = (0..n).map(|n| format!("m{n}")).collect();
            names.join(",")
        };
        assert_eq!(ModelNames::parse(&list(MOST)).unwrap().0.len(), MOST);
        assert_eq!(refusal(&list(MOST + 1)), "has 65 names; write at most 64");
    }

    #[test]
    fn what_is_kept_loaded_is_found_out_or_named_or_nothing() {
        let preload = |text| PreloadModels::parse(text).map_err(|error| error.to_string());
        assert_eq!(preload("Auto"), Ok(PreloadModels::Auto));
        assert_eq!(preload("none"), Ok(PreloadModels::Named(Vec::new())));
        for (written, shown) in [
            ("auto", "auto"),
            ("none", "none"),
            ("qwen3:8b, llama3.2", "qwen3:8b,llama3.2:latest"),
            ("auto:latest", "auto:latest"),
        ] {
            assert_eq!(preload(written).unwrap().to_string(), shown);
        }
        for (written, words) in [
            ("auto,llama3.2", "\"auto\" stands alone"),
            ("llama3.2, none", "\"none\" stands alone"),
            ("tts:kokoro", "\"tts:kokoro\" is a speech model"),
            ("llama*", "is a pattern"),
            ("llama3.2,", "is no name"),
        ] {
            let refusal = preload(written).unwrap_err();
            assert!(refusal.contains(words), "{written}: {refusal}");
        }
    }

    #[test]
    fn no_speech_model_is_named_for_interviews_which_there_are_none_of() {
        let named = |text| InterviewModel::parse(text).map_err(|error| error.to_string());
        for written in ["tts:kokoro", "TTS:Kokoro"] {
            let refusal = named(written).err().unwrap();
            assert!(refusal.contains("no interview for speech"), "{refusal}");
        }
        assert_eq!(named("tts-llama:8b").unwrap().0, "tts-llama:8b");
    }

    proptest! {
        #[test]
        fn names_are_read_back_as_they_are_shown(text in "[a-z0-9_.:/-]{1,30}(,[a-z]{1,9}){0,3}") {
            if let Ok(read) = ModelNames::parse(&text) {
                prop_assert_eq!(names(&read.to_string()), read.to_string());
            }
        }
    }
}
