//! Patterns over the names of models.
//!
//! Invariant: each pattern is one that some model's name matches, so that none stands there to no effect.

use std::fmt;

use wildmatch::WildMatch;

use super::{
    error::Invalid,
    field::Value,
    model_names::{full_name, is_letter, spelled_out, tag_of},
    plain::Blanks,
};

/// Names, and patterns with `*` and `?`, compared without regard to case.
#[derive(Clone, Default)]
pub struct ModelGlobs(Vec<Glob>);

/// Globs as a setting has them. `DENIES`: they name what is not offered.
pub(super) struct Globs<const DENIES: bool>(pub(super) ModelGlobs);

#[derive(Clone)]
struct Glob {
    written: String,
    models: Models,
}

#[derive(Clone)]
enum Models {
    /// The one of this name, spelled out and in lower case.
    One(String),
    /// All whose names match.
    Many {
        pattern: WildMatch,
        /// Whether the longer spellings of a name are looked at beside the one that Ollama lists.
        spelled_out: bool,
    },
}

impl ModelGlobs {
    /// Whether one of them is, or matches, the model's name as Ollama lists it. Without a tag they mean the tag `latest`
    /// too, as everywhere in Ollama: `llama3` is `llama3:latest`, and so are `library/llama3` and
    /// `registry.ollama.ai/library/llama3`.
    pub fn matches(&self, model: &str) -> bool {
        self.0.iter().any(|glob| glob.matches(model))
    }

    /// Whether one of them is this model's name itself, without a wildcard.
    pub fn names_in_full(&self, model: &str) -> bool {
        let mut names = self
            .0
            .iter()
            .filter(|glob| matches!(glob.models, Models::One(_)));
        names.any(|glob| glob.matches(model))
    }

    /// Whether one of them is a path.
    pub(super) fn has_path(&self) -> bool {
        self.0.iter().any(Glob::is_path)
    }

    /// Those without a wildcard, as they were written.
    pub fn full_names(&self) -> impl Iterator<Item = &str> {
        let names = self
            .0
            .iter()
            .filter(|glob| matches!(glob.models, Models::One(_)));
        names.map(|glob| glob.written.as_str())
    }

    fn parse(text: &str, denies: bool) -> Result<Self, Invalid> {
        let patterns = text.split(',').map(str::trim);
        let patterns = patterns.filter(|pattern| !pattern.is_empty());
        let globs: Vec<_> = patterns
            .map(|pattern| Glob::parse(pattern, denies))
            .collect::<Result<_, _>>()?;
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

impl Glob {
    fn parse(written: &str, denies: bool) -> Result<Self, Invalid> {
        if let Some(name) = name_of_path(written).filter(|_| !denies) {
            let models = Models::One(in_full(&full_name(name)?));
            let written = written.to_owned();
            return Ok(Self { written, models });
        }
        if let Some(mistake) = mistake(written) {
            let reason =
                format!("{mistake}; write names or globs with commas between, such as {EXAMPLE}");
            return Err(Invalid::value(written, reason));
        }
        let models = if written.contains(is_wildcard) {
            Models::Many {
                pattern: WildMatch::new_case_insensitive(written),
                spelled_out: is_about_longer_spellings(written, denies),
            }
        } else {
            Models::One(in_full(&full_name(written)?))
        };
        let written = written.to_owned();
        Ok(Self { written, models })
    }

    /// Whether it is a path, as servers of OpenAI's interface have for a name.
    fn is_path(&self) -> bool {
        name_of_path(&self.written).is_some()
    }

    fn matches(&self, listed: &str) -> bool {
        match &self.models {
            Models::One(name) => *name == in_full(listed),
            Models::Many {
                pattern,
                spelled_out: false,
            } => matches_tagged_or_not(pattern, listed),
            Models::Many { pattern, .. } => {
                let (with_namespace, with_host) = spelled_out(listed);
                let mut spellings = [listed, &with_namespace, &with_host].into_iter();
                spellings.any(|name| matches_tagged_or_not(pattern, name))
            }
        }
    }
}

/// Whether a pattern with wildcards is compared with `library/x` and `registry.ollama.ai/library/x` too, where Ollama lists
/// `x`. Only where it says something of who made the model: `l*` is about `llama3`. What is denied is denied under every
/// spelling. What is allowed has an owner that goes without saying only where the pattern has a letter of where models come
/// from: `*/x` may mean those with an owner in the list.
fn is_about_longer_spellings(pattern: &str, denies: bool) -> bool {
    let says_something = |owner: &str| owner.contains(|c| c != '/' && !is_wildcard(c));
    match pattern.rsplit_once('/') {
        Some((owner, _)) => denies || says_something(owner),
        None => denies && pattern.to_ascii_lowercase().starts_with("registry."),
    }
}

/// A name as nobody writes it, so that two that mean one model are alike.
fn in_full(name: &str) -> String {
    let mut full = spelled_out(name).1.to_ascii_lowercase();
    if tag_of(&full).is_none() {
        full.push_str(":latest");
    }
    full
}

fn matches_tagged_or_not(pattern: &WildMatch, name: &str) -> bool {
    pattern.matches(name) || without_latest(name).is_some_and(|untagged| pattern.matches(untagged))
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

/// The last part of an absolute path, which is the name by which a model of that id is offered.
fn name_of_path(written: &str) -> Option<&str> {
    let path = written
        .strip_prefix('/')
        .filter(|path| !path.contains(is_wildcard))?;
    path.rsplit('/').find(|part| !part.is_empty())
}

impl<const DENIES: bool> Value for Globs<DENIES> {
    const BLANKS: Blanks = Blanks::BesideCommas;

    fn parse(text: &str) -> Result<Self, Invalid> {
        ModelGlobs::parse(text, DENIES).map(Self)
    }
}

impl<const DENIES: bool> fmt::Display for Globs<DENIES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const EXAMPLE: &str = "llama3*,qwen3:8b";

impl fmt::Display for ModelGlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns: Vec<_> = self.0.iter().map(|glob| glob.written.as_str()).collect();
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
        ModelGlobs::parse(text, false).unwrap()
    }

    fn denied(text: &str) -> ModelGlobs {
        ModelGlobs::parse(text, true).unwrap()
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
        assert!(ModelGlobs::parse(" , ,", false).is_err());
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
    }

    #[test]
    fn a_glob_may_be_about_the_longer_spellings_of_a_name() {
        for pattern in [
            "*/library/x",
            "registry.*/library/x",
            "libr*/x",
            "*brary/?",
            "*/library/*",
            "registry.ollama.ai/*/x:latest",
        ] {
            for globs in [globs(pattern), denied(pattern)] {
                assert!(globs.matches("x:latest"), "{pattern}");
                assert!(
                    !globs.matches("me/x:latest") || pattern.contains("/*/"),
                    "{pattern}"
                );
                assert!(!globs.names_in_full("x:latest"), "{pattern}");
            }
        }
        assert!(globs("*/me/x").matches("me/x:latest"));
        assert!(!globs("*/me/x").matches("x:latest"));
    }

    #[test]
    fn a_deny_takes_a_wildcard_for_any_owner_and_an_allow_for_one_that_is_listed() {
        for (pattern, listed) in [
            ("*/*", "llama3:8b"),
            ("*/x", "x:latest"),
            ("*/*/*", "me/x:8b"),
        ] {
            assert!(denied(pattern).matches(listed), "{pattern}");
            assert!(!globs(pattern).matches(listed), "{pattern}");
        }
        assert!(denied("registry.ollama.ai*").matches("llama3:8b"));
        for both in [globs("*/*"), denied("*/*")] {
            assert!(both.matches("me/x:8b") && both.matches("hf.co/me/x:8b"));
        }
        for short in ["l*", "r*", "*b*y*"] {
            assert!(!denied(short).matches("x:latest"), "{short}");
        }
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
            "hf.co/model",
            "registry.ollama.ai/x",
            "x:y:z",
            "x:a/b",
            &"x".repeat(100),
        ] {
            let refusal = ModelGlobs::parse(&format!("llama3,{pattern}"), true).unwrap_err();
            let refusal = refusal.to_string();
            assert!(refusal.starts_with(&format!("{pattern:?} ")), "{refusal}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_and_no_name_panics(text in ".*", model in ".*") {
            if let Ok(globs) = ModelGlobs::parse(&text, false) {
                let _ = (globs.matches(&model), globs.names_in_full(&model));
            }
        }

        #[test]
        fn patterns_are_read_back_as_they_are_shown(text in "[a-z*?:.]{1,9}(,[a-z*?:.]{1,9}){0,3}") {
            if let Ok(read) = ModelGlobs::parse(&text, false) {
                prop_assert_eq!(globs(&read.to_string()).to_string(), read.to_string());
            }
        }

        #[test]
        fn a_name_written_out_names_that_model_in_full(name in "(([a-zA-Z0-9][a-zA-Z0-9._-]{0,9}/)?[a-zA-Z0-9][a-zA-Z0-9_-]{0,9}/)?[a-zA-Z0-9][a-zA-Z0-9._-]{0,9}") {
            let tagged = format!("{name}:latest");
            prop_assert!(globs(&name).names_in_full(&tagged));
            prop_assert!(globs(&name.to_uppercase()).matches(&name.to_lowercase()));
        }
    }
}
