//! Patterns over the names of models.

use std::fmt;

use wildmatch::WildMatch;

use super::{error::Invalid, field::Value};

/// Patterns with `*` and `?`, compared without regard to case.
#[derive(Clone, Default)]
pub struct ModelGlobs(Vec<WildMatch>);

impl ModelGlobs {
    /// Whether one of the patterns matches the model's full name. A pattern without a tag means the tag `latest` too,
    /// as everywhere in Ollama: `llama3` is `llama3:latest`.
    pub fn matches(&self, model: &str) -> bool {
        let untagged = without_latest(model);
        self.0.iter().any(|pattern| {
            pattern.matches(model) || untagged.is_some_and(|name| pattern.matches(name))
        })
    }

    /// Whether one of the patterns is this model's name itself, without a wildcard.
    pub fn names_in_full(&self, model: &str) -> bool {
        let untagged = without_latest(model);
        self.0
            .iter()
            .filter(|pattern| {
                !pattern
                    .pattern_chars()
                    .iter()
                    .any(|c| matches!(c, '*' | '?'))
            })
            .any(|pattern| {
                pattern.matches(model) || untagged.is_some_and(|name| pattern.matches(name))
            })
    }
}

/// The name without its tag, if that is `latest`.
fn without_latest(model: &str) -> Option<&str> {
    let (name, tag) = model.rsplit_once(':')?;
    tag.eq_ignore_ascii_case("latest").then_some(name)
}

impl Value for ModelGlobs {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let patterns = text
            .split(',')
            .map(str::trim)
            .filter(|pattern| !pattern.is_empty());
        let globs: Vec<_> = patterns.map(WildMatch::new_case_insensitive).collect();
        if globs.is_empty() {
            return Err(Invalid::value(
                text,
                "has no pattern; write names or globs with commas between, such as llama3*,qwen3:8b",
            ));
        }
        Ok(Self(globs))
    }
}

impl fmt::Display for ModelGlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns: Vec<_> = self.0.iter().map(WildMatch::pattern).collect();
        f.write_str(&patterns.join(","))
    }
}

impl fmt::Debug for ModelGlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn globs(text: &str) -> ModelGlobs {
        ModelGlobs::parse(text).unwrap()
    }

    #[test]
    fn models_are_picked_by_globs_without_regard_to_case() {
        let allowed = globs("Llama3*, qwen3:8b ,,phi?");
        for model in ["llama3:latest", "LLAMA3.2:3b", "Qwen3:8B", "phi4:latest"] {
            assert!(allowed.matches(model), "{model}");
        }
        for model in ["qwen3:14b", "my-llama3:latest", "phi4:14b", ""] {
            assert!(!allowed.matches(model), "{model}");
        }
        assert!(globs("*").matches("anything:at-all"));
        assert!(!ModelGlobs::default().matches("anything"));
    }

    #[test]
    fn only_a_pattern_without_wildcard_names_a_model_in_full() {
        let allowed = globs("*,Nomic-Embed-Text,bge-m3:567m,all-*");
        assert!(allowed.names_in_full("nomic-embed-text:latest"));
        assert!(allowed.names_in_full("BGE-M3:567m"));
        assert!(!allowed.names_in_full("all-minilm:latest"));
        assert!(!allowed.names_in_full("nomic-embed-text:v1.5"));
        assert!(globs("llama3:latest").names_in_full("llama3:latest"));
    }

    #[test]
    fn a_list_of_nothing_is_refused() {
        assert!(ModelGlobs::parse(" , ,").is_err());
    }

    proptest! {
        #[test]
        fn no_pattern_and_no_name_panics(text in ".*", model in ".*") {
            if let Ok(globs) = ModelGlobs::parse(&text) {
                let _ = (globs.matches(&model), globs.names_in_full(&model));
            }
        }

        #[test]
        fn patterns_are_read_back_as_they_are_shown(text in "[a-z*?:.]{1,9}(,[a-z*?:.]{1,9}){0,3}") {
            prop_assert_eq!(globs(&text).to_string(), globs(&globs(&text).to_string()).to_string());
        }

        #[test]
        fn a_name_written_out_names_that_model_in_full(name in "[a-zA-Z0-9._/-]{1,20}") {
            let tagged = format!("{name}:latest");
            prop_assert!(globs(&name).names_in_full(&tagged));
            prop_assert!(globs(&name.to_uppercase()).matches(&name.to_lowercase()));
        }
    }
}
