//! The operator's policy for what the network may ask of the machine: which keys never reach Ollama, and how large a
//! context and an answer may be. The consumer decides about the chat, the operator about the hardware.
//!
//! Invariant: no spelling of a key gets past it, since a request whose keys could mean two things is refused before.

use super::contexts::{Contexts, SentContext};
use crate::{
    backend::{
        Model,
        chat::HARDWARE_KEYS,
        object::{Object, Value},
    },
    config::PolicySettings,
};

/// The largest context that is asked for where a model does not say what it was made for: Ollama makes nonsense of numbers
/// beyond its integers.
const LARGEST_CONTEXT: u64 = u32::MAX as u64;

impl PolicySettings {
    /// Applies the policy to a chat in Ollama's own words, keys checked. Gives the context that it now carries, unless
    /// that is the operator's.
    pub(super) fn apply<'a>(
        &self,
        chat: &mut Object<'a>,
        options: &mut Object<'a>,
        model: &Model,
        contexts: &Contexts,
    ) -> Option<SentContext> {
        if !self.allow_hardware_options {
            for key in HARDWARE_KEYS {
                chat.remove(key);
                options.remove(key);
            }
        }
        self.bound_output(options, model);
        self.set_context(options, model, contexts)
    }

    /// Gives a request the context that it is to carry, and tells it unless it is the operator's.
    pub(super) fn set_context(
        &self,
        options: &mut Object<'_>,
        model: &Model,
        contexts: &Contexts,
    ) -> Option<SentContext> {
        let asked = options.number("num_ctx");
        if asked.is_none() && options.has("num_ctx") {
            // What is no number stays: Ollama refuses it in its own words.
            return None;
        }
        let wish = asked.map(|tokens| self.within(tokens, model));
        let sent = match (self.max_context, self.allow_hardware_options) {
            (Some(_), false) => None,
            (None, false) => contexts.at_least(&model.name, wish),
            (operators, true) => contexts.exactly(&model.name, wish.or(operators)),
        };
        let tokens = sent.as_ref().map(SentContext::tokens).or(self.max_context);
        match tokens {
            Some(tokens) if asked == Some(as_number(tokens)) => {}
            Some(tokens) => options.set("num_ctx", Value::Json(tokens.to_string())),
            None if asked.is_some() => options.remove("num_ctx"),
            None => {}
        }
        sent
    }

    /// A consumer's context as it may be.
    fn within(&self, tokens: f64, model: &Model) -> u64 {
        let cap = self.max_context.or(model.context_length);
        whole(tokens).min(cap.unwrap_or(LARGEST_CONTEXT))
    }

    fn bound_output(&self, options: &mut Object<'_>, model: &Model) {
        if let Some(cap) = self.max_output_tokens.or(model.context_length) {
            // To Ollama 0 and less mean: without end. It cuts fractions off, so 0.5 is 0.
            bound(options, "num_predict", cap, |asked| {
                asked < 1.0 || asked > as_number(cap)
            });
        }
        if let Some(wanted) = self.max_output_tokens {
            apply_default(options, "num_predict", wanted);
        }
    }
}

/// Replaces a number that is out of bounds. What is no number stays: Ollama refuses it in its own words.
fn bound(
    options: &mut Object<'_>,
    key: &'static str,
    cap: u64,
    is_beyond: impl FnOnce(f64) -> bool,
) {
    if options.number(key).is_some_and(is_beyond) {
        options.set(key, Value::Json(cap.to_string()));
    }
}

/// Sets what the operator wants where the consumer wants nothing.
fn apply_default(options: &mut Object<'_>, key: &'static str, wanted: u64) {
    if !options.has(key) {
        options.set(key, Value::Json(wanted.to_string()));
    }
}

/// Tokens as JSON numbers have them; exact as far as any context will ever go.
fn as_number(tokens: u64) -> f64 {
    tokens as f64
}

/// Ollama cuts fractions off; less than nothing is nothing here.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(tokens: f64) -> u64 {
    tokens as u64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn model(context_length: Option<u64>) -> Model {
        Model {
            context_length,
            ..Model::named("m")
        }
    }

    fn applied(policy: &PolicySettings, model: &Model, options: &str) -> String {
        let mut options = Object::parse(options).unwrap();
        let contexts = Contexts::default();
        policy.apply(&mut Object::default(), &mut options, model, &contexts);
        let mut json = String::new();
        options.write(&mut json);
        json
    }

    #[test]
    fn a_larger_context_or_answer_is_lowered_to_what_the_model_was_made_for() {
        let model = model(Some(4096));
        for (asked, applied_as) in [
            ("4096", "4096"),
            ("4096.0", "4096.0"),
            ("4.096e3", "4.096e3"),
            ("4097", "4096"),
            ("1e99", "4096"),
            ("1e999", "4096"),
            ("123456789012345678901234567890", "4096"),
            (r#""9999""#, r#""9999""#),
            ("[9999]", "[9999]"),
            ("null", "null"),
        ] {
            let options = |value| format!(r#"{{"num_ctx":{value},"num_predict":{value}}}"#);
            assert_eq!(
                applied(&PolicySettings::default(), &model, &options(asked)),
                options(applied_as),
                "{asked}"
            );
        }
    }

    #[test]
    fn a_context_that_would_cut_every_later_request_short_is_left_out() {
        let policy = PolicySettings::default();
        for asked in ["511", "511.9", "0", "-1", "-1e99", "4"] {
            let options = format!(r#"{{"num_ctx":{asked},"seed":1}}"#);
            assert_eq!(applied(&policy, &model(None), &options), r#"{"seed":1}"#);
        }
        let options = r#"{"num_ctx":512}"#;
        assert_eq!(applied(&policy, &model(Some(8192)), options), options);
        assert_eq!(applied(&policy, &model(Some(256)), options), "{}");
    }

    #[test]
    fn an_endless_answer_ends_at_the_cap() {
        for asked in ["-1", "-2", "0", "-0.0", "0.5", "-1e99"] {
            let options = format!(r#"{{"num_predict":{asked}}}"#);
            assert_eq!(
                applied(&PolicySettings::default(), &model(Some(8)), &options),
                r#"{"num_predict":8}"#
            );
        }
    }

    #[test]
    fn without_a_known_cap_only_nonsense_is_lowered() {
        let policy = PolicySettings::default();
        let options = r#"{"num_ctx":1000000,"num_predict":-1}"#;
        assert_eq!(applied(&policy, &model(None), options), options);
        let nonsense = r#"{"num_ctx":1e99}"#;
        assert_eq!(
            applied(&policy, &model(None), nonsense),
            r#"{"num_ctx":4294967295}"#
        );
    }

    #[test]
    fn what_the_operator_set_also_applies_where_nothing_is_asked_for() {
        let policy = PolicySettings {
            max_context: Some(2048),
            max_output_tokens: Some(100),
            ..PolicySettings::default()
        };
        let model = model(Some(8192));
        for (asked, applied_as) in [
            ("{}", r#"{"num_predict":100,"num_ctx":2048}"#),
            (
                r#"{"num_predict":null,"num_ctx":9000}"#,
                r#"{"num_predict":100,"num_ctx":2048}"#,
            ),
            // A smaller context would be another load.
            (
                r#"{"num_predict":7,"num_ctx":512}"#,
                r#"{"num_predict":7,"num_ctx":2048}"#,
            ),
        ] {
            assert_eq!(applied(&policy, &model, asked), applied_as);
        }
    }

    #[test]
    fn consumers_who_may_choose_the_hardware_choose_the_context_within_the_caps() {
        let model = model(Some(8192));
        for (max_context, asked, applied_as) in [
            (None, r#"{"num_ctx":100}"#, r#"{"num_ctx":100}"#),
            (None, r#"{"num_ctx":9000}"#, r#"{"num_ctx":8192}"#),
            (None, "{}", "{}"),
            (Some(2048), r#"{"num_ctx":100}"#, r#"{"num_ctx":100}"#),
            (Some(2048), r#"{"num_ctx":9000}"#, r#"{"num_ctx":2048}"#),
            (Some(2048), "{}", r#"{"num_ctx":2048}"#),
        ] {
            let policy = PolicySettings {
                allow_hardware_options: true,
                max_context,
                ..PolicySettings::default()
            };
            assert_eq!(applied(&policy, &model, asked), applied_as);
        }
    }
}
