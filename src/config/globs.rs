//! Patterns over the names of models.
//!
//! Invariant: each pattern is one that some model's name matches, so that none stands there to no effect.

use std::fmt;

use wildmatch::WildMatch;

use super::{
    error::Invalid,
    field::Value,
    model_names::{DEFAULT_HOST, DEFAULT_NAMESPACE, is_letter, spelled_out},
    plain::Blanks,
};

/// Patterns with `*` and `?`, compared without regard to case.
#[derive(Clone, Default)]
pub struct ModelGlobs(Vec<Glob>);

#[derive(Clone)]
struct Glob {
    pattern: WildMatch,
    names: Names,
}

/// Which of a model's names a pattern is about: Ollama lists `x:latest`, and takes all of them.
#[derive(Clone, Copy)]
enum Names {
    /// `x:latest`.
    Listed,
    /// `library/x:latest`.
    WithNamespace,
    /// `registry.ollama.ai/library/x:latest`.
    WithHost,
}

impl ModelGlobs {
    /// Whether one of the patterns matches the model's full name. A pattern without a tag means the tag `latest` too,
    /// as everywhere in Ollama: `llama3` is `llama3:latest`, and so are `library/llama3` and
    /// `registry.ollama.ai/library/llama3`.
    pub fn matches(&self, model: &str) -> bool {
        self.0.iter().any(|glob| glob.matches(model))
    }

    /// Whether one of the patterns is this model's name itself, without a wildcard.
    pub fn names_in_full(&self, model: &str) -> bool {
        let mut names = self.0.iter().filter(|glob| !glob.has_wildcard());
        names.any(|glob| glob.matches(model))
    }
}

impl Glob {
    fn new(pattern: &str) -> Self {
        let lower = pattern.to_ascii_lowercase();
        let begins_with = |part| {
            let rest = lower.strip_prefix(part);
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        let names = if begins_with(DEFAULT_HOST) {
            Names::WithHost
        } else if begins_with(DEFAULT_NAMESPACE) {
            Names::WithNamespace
        } else {
            Names::Listed
        };
        let pattern = WildMatch::new_case_insensitive(pattern);
        Self { pattern, names }
    }

    fn matches(&self, listed: &str) -> bool {
        match self.names {
            Names::Listed => self.matches_tagged_or_not(listed),
            Names::WithNamespace => self.matches_tagged_or_not(&spelled_out(listed).0),
            Names::WithHost => self.matches_tagged_or_not(&spelled_out(listed).1),
        }
    }

    fn matches_tagged_or_not(&self, name: &str) -> bool {
        self.pattern.matches(name)
            || without_latest(name).is_some_and(|untagged| self.pattern.matches(untagged))
    }

    fn has_wildcard(&self) -> bool {
        let mut chars = self.pattern.pattern_chars().iter();
        chars.any(|c| is_wildcard(*c))
    }
}

fn is_wildcard(c: char) -> bool {
    matches!(c, '*' | '?')
}

/// The name without its tag, if that is `latest`.
fn without_latest(model: &str) -> Option<&str> {
    let (name, tag) = model.rsplit_once(':')?;
    tag.eq_ignore_ascii_case("latest").then_some(name)
}

/// Why no model's name matches this pattern, if none does: names are `host/namespace/model:tag`, of which the host may
/// have a port, and each part begins with a letter, a digit or `_`.
fn mistake(pattern: &str) -> Option<String> {
    let in_names = |c: char| is_letter(c) || is_wildcard(c) || matches!(c, '-' | '.' | ':' | '/');
    if let Some(c) = pattern.chars().find(|c| !in_names(*c)) {
        return Some(format!("has {c:?} in it, which no model's name has"));
    }
    let begins_well = |part: &str| part.starts_with(|c| is_letter(c) || is_wildcard(c));
    let wrong = !pattern.split([':', '/']).all(begins_well)
        || pattern.matches('/').count() > 2
        || pattern.matches(':').count() > 2;
    wrong.then(|| "is nothing that a model's name can be like".to_owned())
}

impl Value for ModelGlobs {
    const BLANKS: Blanks = Blanks::BesideCommas;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let patterns = text
            .split(',')
            .map(str::trim)
            .filter(|pattern| !pattern.is_empty());
        let mut globs = Vec::new();
        for pattern in patterns {
            if let Some(mistake) = mistake(pattern) {
                let reason = format!(
                    "{mistake}; write names or globs with commas between, such as {EXAMPLE}"
                );
                return Err(Invalid::value(pattern, reason));
            }
            globs.push(Glob::new(pattern));
        }
        if globs.is_empty() {
            return Err(Invalid::value(
                text,
                format_args!(
                    "has no pattern; write names or globs with commas between, such as {EXAMPLE}"
                ),
            ));
        }
        Ok(Self(globs))
    }
}

const EXAMPLE: &str = "llama3*,qwen3:8b";

impl fmt::Display for ModelGlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns: Vec<_> = self.0.iter().map(|glob| glob.pattern.pattern()).collect();
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

    #[test]
    fn the_registry_and_namespace_that_go_without_saying_may_be_said() {
        for pattern in [
            "library/llama3",
            "Library/llama3:*",
            "registry.ollama.ai/library/llama3:latest",
            "registry.ollama.ai/*",
            "library/*",
        ] {
            assert!(globs(pattern).matches("llama3:latest"), "{pattern}");
            assert!(
                !globs(pattern).matches("hf.co/a/llama3:latest"),
                "{pattern}"
            );
        }
        assert!(globs("registry.ollama.ai/library/llama3").names_in_full("llama3:latest"));
        assert!(globs("registry.ollama.ai/me/*").matches("me/llama3:8b"));
        assert!(!globs("library/*").matches("me/llama3:8b"));
        assert!(!globs("lib*").matches("llama3:latest"));
        assert!(!globs("*/*").matches("llama3:latest"));
    }

    #[test]
    fn a_pattern_that_no_models_name_matches_is_refused() {
        for pattern in [
            "\"private:*\"",
            "'private:*'",
            "private:",
            ":8b",
            "!private",
            "^llama",
            "llama3|qwen3",
            "llama3;qwen3",
            "{llama3",
            "[ab]*",
            "private#main",
            "https://hf.co/a/b",
            "a//b",
            "/a",
            ".*",
            "a/b/c/d",
            "a:b:c:d",
            "modell-\u{e4}",
            "private\u{feff}",
        ] {
            let refusal = ModelGlobs::parse(&format!("llama3,{pattern}")).unwrap_err();
            let refusal = refusal.to_string();
            assert!(refusal.starts_with(&format!("{pattern:?} ")), "{refusal}");
        }
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
            if let Ok(read) = ModelGlobs::parse(&text) {
                prop_assert_eq!(globs(&read.to_string()).to_string(), read.to_string());
            }
        }

        #[test]
        fn a_name_written_out_names_that_model_in_full(name in "([a-zA-Z0-9][a-zA-Z0-9._-]{0,9}/){0,2}[a-zA-Z0-9][a-zA-Z0-9._-]{0,9}") {
            let tagged = format!("{name}:latest");
            prop_assert!(globs(&name).names_in_full(&tagged));
            prop_assert!(globs(&name.to_uppercase()).matches(&name.to_lowercase()));
        }
    }
}
