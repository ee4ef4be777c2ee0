//! The operator's policy for what the network may ask of the machine: which keys never reach Ollama, and how large a
//! context and an answer may be. The consumer decides about the chat, the operator about the hardware.
//!
//! Invariant: no spelling of a key gets past it, since a request whose keys could mean two things is refused before.

use crate::{
    backend::{
        Model,
        chat::HARDWARE_KEYS,
        object::{Object, Value},
    },
    config::PolicySettings,
};

impl PolicySettings {
    /// Applies the policy to a chat in Ollama's own words, keys checked.
    pub(super) fn apply<'a>(&self, chat: &mut Object<'a>, options: &mut Object<'a>, model: &Model) {
        if !self.allow_hardware_options {
            for key in HARDWARE_KEYS {
                chat.remove(key);
                options.remove(key);
            }
        }
        self.bound_context(options, model);
        self.bound_output(options, model);
    }

    fn bound_context(&self, options: &mut Object<'_>, model: &Model) {
        if let Some(cap) = self.max_context.or(model.context_length) {
            bound(options, "num_ctx", cap, |asked| asked > as_number(cap));
        }
        if !self.allow_hardware_options && is_covered(options, model) {
            options.remove("num_ctx");
        }
        // Last, so that it is there in every request: Ollama compares the options that a model was loaded with, so one
        // that comes and goes would make it load the model anew each time.
        if let Some(wanted) = self.max_context {
            apply_default(options, "num_ctx", wanted);
        }
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

/// Whether the context asked for is there already. Asking for it would only make Ollama load the model anew; and none
/// is ever loaded with more than it was made for.
fn is_covered(options: &Object<'_>, model: &Model) -> bool {
    let (Some(asked), Some(loaded)) = (options.number("num_ctx"), model.loaded_context) else {
        return false;
    };
    asked <= as_number(loaded)
        || model
            .context_length
            .is_some_and(|longest| loaded >= longest)
}

/// Tokens as JSON numbers have them; exact as far as any context will ever go.
fn as_number(tokens: u64) -> f64 {
    tokens as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn model(context_length: Option<u64>, loaded_context: Option<u64>) -> Model {
        Model {
            name: "m".into(),
            context_length,
            thinks: false,
            loaded_context,
        }
    }

    fn applied(policy: &PolicySettings, model: &Model, options: &str) -> String {
        let mut options = Object::parse(options).unwrap();
        policy.apply(&mut Object::default(), &mut options, model);
        let mut json = String::new();
        options.write(&mut json);
        json
    }

    #[test]
    fn a_larger_context_or_answer_is_lowered_to_what_the_model_was_made_for() {
        let model = model(Some(4096), None);
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
    fn an_endless_answer_ends_at_the_cap() {
        for asked in ["-1", "-2", "0", "-0.0", "0.5", "-1e99"] {
            let options = format!(r#"{{"num_predict":{asked}}}"#);
            assert_eq!(
                applied(&PolicySettings::default(), &model(Some(8), None), &options),
                r#"{"num_predict":8}"#
            );
        }
    }

    #[test]
    fn without_a_known_cap_nothing_is_touched() {
        let options = r#"{"num_ctx":1e99,"num_predict":-1}"#;
        assert_eq!(
            applied(&PolicySettings::default(), &model(None, None), options),
            options
        );
    }

    #[test]
    fn what_the_operator_set_also_applies_where_nothing_is_asked_for() {
        let policy = PolicySettings {
            max_context: Some(2048),
            max_output_tokens: Some(100),
            ..PolicySettings::default()
        };
        let model = model(Some(8192), None);
        assert_eq!(
            applied(&policy, &model, "{}"),
            r#"{"num_ctx":2048,"num_predict":100}"#
        );
        assert_eq!(
            applied(&policy, &model, r#"{"num_predict":null,"num_ctx":9000}"#),
            r#"{"num_predict":100,"num_ctx":2048}"#
        );
        assert_eq!(
            applied(&policy, &model, r#"{"num_predict":7,"num_ctx":512}"#),
            r#"{"num_predict":7,"num_ctx":512}"#
        );
    }

    #[test]
    fn a_context_that_is_there_already_does_not_make_ollama_load_the_model_anew() {
        let loaded = model(Some(8192), Some(4096));
        for (asked, is_kept) in [
            ("4096", false),
            ("1", false),
            ("4097", true),
            (r#""4096""#, true),
        ] {
            let options = format!(r#"{{"num_ctx":{asked}}}"#);
            let expected = if is_kept {
                options.clone()
            } else {
                "{}".to_owned()
            };
            assert_eq!(
                applied(&PolicySettings::default(), &loaded, &options),
                expected
            );
        }
        let operator = PolicySettings {
            max_context: Some(4096),
            ..PolicySettings::default()
        };
        for asked in ["{}", r#"{"num_ctx":100000}"#, r#"{"num_ctx":1}"#] {
            let always_the_same = r#"{"num_ctx":4096}"#;
            assert_eq!(applied(&operator, &loaded, asked), always_the_same);
        }
        let generous = PolicySettings {
            allow_hardware_options: true,
            ..PolicySettings::default()
        };
        assert_eq!(
            applied(&generous, &loaded, r#"{"num_ctx":4096}"#),
            r#"{"num_ctx":4096}"#
        );
    }
}
