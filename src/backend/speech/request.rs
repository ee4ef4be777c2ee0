//! A request for speech: what it asks for, and what the server is asked for in its place.
//!
//! Invariant: of what the consumer wrote only the model's name, the text, the voice, the format and the speed reach the
//! server, each checked; no other key does.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    backend::{
        chat::invalid,
        object::{Object, string},
    },
    config::SpeechModel,
    protocol::Failure,
};

/// The format of a request that names none (protocol, "Frames from the gateway").
const FORMAT: &str = "mp3";

/// The voice of a request that names none: whichever the operator or the server chooses.
const VOICE: &str = "default";

/// What a request for speech says.
pub struct SpeechRequest {
    /// The model, as it was written.
    model: String,
    /// The text, as JSON.
    input: Box<RawValue>,
    /// The voice; `None` where the operator or the server is to choose.
    voice: Option<String>,
    format: String,
    /// A JSON number.
    speed: Option<Box<RawValue>>,
}

/// What the server is asked for.
#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    input: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    voice: Option<&'a str>,
    response_format: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<&'a RawValue>,
}

impl SpeechRequest {
    /// Reads a payload.
    ///
    /// # Errors
    /// `invalid`: no JSON object, a key that is written twice, no model, no text in `input`, or a voice, format or speed
    /// of another type than theirs.
    pub fn read(payload: &str) -> Result<Self, Failure> {
        let top =
            Object::parse(payload).map_err(|error| invalid(format!("the payload is {error}")))?;
        if top.has_duplicates() {
            return Err(invalid("a key is written twice"));
        }
        let model = text(&top, "model")?.ok_or_else(|| invalid("no model is named"))?;
        text(&top, "input")?.ok_or_else(|| invalid("input is missing or blank"))?;
        let voice = text(&top, "voice")?;
        Ok(Self {
            model,
            input: raw(&top, "input")?,
            voice: voice.filter(|voice| !voice.eq_ignore_ascii_case(VOICE)),
            format: text(&top, "response_format")?.unwrap_or_else(|| FORMAT.to_owned()),
            speed: speed(&top)?,
        })
    }

    /// The model that it asks for, as it was written.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The name that the model would be offered by: with `tts:`, which requests leave out.
    pub fn offered_name(&self) -> String {
        if SpeechModel::is_name_of_one(&self.model) {
            self.model.clone()
        } else {
            format!("{}{}", SpeechModel::PREFIX, self.model)
        }
    }

    /// The voice that it asks for, `default` where it does not say.
    pub(super) fn voice(&self) -> &str {
        self.voice.as_deref().unwrap_or(VOICE)
    }

    /// The format that it asks for.
    pub(super) fn format(&self) -> &str {
        &self.format
    }

    /// What the server is asked for. `voice`: that of requests which leave it to the operator.
    pub(super) fn body(&self, model: &SpeechModel, voice: Option<&str>) -> Bytes {
        let body = Body {
            model: &model.served,
            input: &self.input,
            voice: self.voice.as_deref().or(voice),
            response_format: &self.format,
            speed: self.speed.as_deref(),
        };
        // Texts and JSON that was read cannot fail to be written.
        serde_json::to_vec(&body).unwrap_or_default().into()
    }
}

/// A key's text; `None` where it is missing, null or blank.
fn text(top: &Object<'_>, name: &str) -> Result<Option<String>, Failure> {
    let Some(given) = top.given(name) else {
        return Ok(None);
    };
    let text = string(given).ok_or_else(|| invalid(format!("{name} is no text")))?;
    Ok((!text.trim().is_empty()).then(|| text.into_owned()))
}

fn raw(top: &Object<'_>, name: &str) -> Result<Box<RawValue>, Failure> {
    let given: Result<&RawValue, _> = serde_json::from_str(top.given(name).unwrap_or("null"));
    let copied = given.and_then(to_raw_value);
    copied.map_err(|_| invalid(format!("{name} cannot be read")))
}

fn speed(top: &Object<'_>) -> Result<Option<Box<RawValue>>, Failure> {
    if !top.has("speed") {
        return Ok(None);
    }
    match top.number("speed") {
        Some(speed) if speed.is_finite() => raw(top, "speed").map(Some),
        Some(_) | None => Err(invalid("speed is no number")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::any_json;

    fn model(served: &str) -> SpeechModel {
        SpeechModel {
            name: "tts:kokoro".into(),
            served: served.into(),
        }
    }

    fn asked(payload: &str, voice: Option<&str>) -> String {
        let request = SpeechRequest::read(payload).unwrap();
        String::from_utf8(request.body(&model("Kokoro"), voice).to_vec()).unwrap()
    }

    fn refusal(payload: &str) -> String {
        SpeechRequest::read(payload).err().unwrap().text()
    }

    #[test]
    fn five_keys_reach_the_server_and_no_other() {
        let payload = r#"{"stream":true,"model":"KOKORO","input":"\u00e9\n","voice":"af","response_format":"wav","speed":1.250,
            "instructions":"x","stream_format":"sse","Model":"other","download_format":"exe"}"#;
        assert_eq!(
            asked(payload, Some("operator's")),
            r#"{"model":"Kokoro","input":"\u00e9\n","voice":"af","response_format":"wav","speed":1.250}"#
        );
    }

    #[test]
    fn the_format_is_always_sent_and_voice_and_speed_only_where_there_are_any() {
        assert_eq!(
            asked(r#"{"model":"kokoro","input":"x"}"#, None),
            r#"{"model":"Kokoro","input":"x","response_format":"mp3"}"#
        );
        for absent in [r#""""#, r#"" ""#, "null", r#""default""#, r#""Default""#] {
            let payload = format!(
                r#"{{"model":"kokoro","input":"x","voice":{absent},"response_format":" ","speed":null}}"#
            );
            assert_eq!(
                asked(&payload, None),
                r#"{"model":"Kokoro","input":"x","response_format":"mp3"}"#
            );
            assert_eq!(
                asked(&payload, Some("anna.wav")),
                r#"{"model":"Kokoro","input":"x","voice":"anna.wav","response_format":"mp3"}"#
            );
        }
    }

    #[test]
    fn a_model_is_offered_with_the_prefix_whether_a_request_has_it_or_not() {
        for (written, offered) in [
            ("kokoro", "tts:kokoro"),
            ("tts:kokoro", "tts:kokoro"),
            ("TTS:kokoro", "TTS:kokoro"),
            ("tts", "tts:tts"),
            ("ttsé", "tts:ttsé"),
        ] {
            let payload = json!({"model": written, "input": "x"}).to_string();
            let request = SpeechRequest::read(&payload).unwrap();
            assert_eq!(request.offered_name(), offered);
            assert_eq!(request.model(), written);
        }
    }

    #[test]
    fn what_asks_for_no_speech_is_invalid_and_told_with_what_is_wrong() {
        for (payload, told) in [
            ("", "the payload is not a JSON object"),
            ("[]", "the payload is not a JSON object"),
            (r#"{"input":"x"}"#, "no model is named"),
            (r#"{"model":" ","input":"x"}"#, "no model is named"),
            (r#"{"model":7,"input":"x"}"#, "model is no text"),
            (r#"{"model":"m"}"#, "input is missing or blank"),
            (r#"{"model":"m","input":null}"#, "input is missing or blank"),
            (
                r#"{"model":"m","input":" \n"}"#,
                "input is missing or blank",
            ),
            (r#"{"model":"m","input":["x"]}"#, "input is no text"),
            (r#"{"model":"m","input":"\ud83d"}"#, "input is no text"),
            (r#"{"model":"m","input":"x","voice":1}"#, "voice is no text"),
            (
                r#"{"model":"m","input":"x","response_format":{}}"#,
                "response_format is no text",
            ),
            (
                r#"{"model":"m","input":"x","speed":"1"}"#,
                "speed is no number",
            ),
            (
                r#"{"model":"m","input":"x","speed":true}"#,
                "speed is no number",
            ),
            (
                r#"{"model":"m","input":"x","speed":1e999}"#,
                "speed is no number",
            ),
            (
                r#"{"model":"m","input":"x","input":"y"}"#,
                "a key is written twice",
            ),
            (
                r#"{"model":"m","input":"x","z":1,"\u007a":1}"#,
                "a key is written twice",
            ),
        ] {
            assert_eq!(refusal(payload), format!("invalid: {told}"), "{payload}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_the_server_gets_one_json_object_of_known_keys(
            model in any_json::value(), input in any_json::value(), voice in any_json::value(),
            format in any_json::value(), speed in any_json::value(), more in any_json::value(),
        ) {
            let payload = format!(
                r#"{{"more":{more},"model":{model},"input":{input},"voice":{voice},"response_format":{format},"speed":{speed}}}"#
            );
            if let Ok(request) = SpeechRequest::read(&payload) {
                let body = request.body(&SpeechModel { name: "tts:m".into(), served: "m".into() }, None);
                let body: Value = serde_json::from_slice(&body).unwrap();
                let known = ["model", "input", "voice", "response_format", "speed"];
                prop_assert!(body.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())));
                prop_assert!(body["input"].is_string());
            }
        }
    }
}
