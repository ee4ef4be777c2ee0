//! The settings of a speech server.

use super::*;

#[test]
fn a_speech_server_has_an_address_and_models_or_nothing_is_said_of_it() {
    const URL: (&str, &str) = ("PIN_TTS_URL", "http://localhost:8880");
    const MODELS: (&str, &str) = ("PIN_TTS_MODELS", "kokoro");
    assert!(config(&[]).speech.is_none());
    assert!(
        config(&[("PIN_TTS_URL", ""), ("PIN_TTS_VOICE", " ")])
            .speech
            .is_none()
    );
    assert_eq!(
        config(&[URL, MODELS, ("PIN_TTS_VOICE", "")])
            .speech
            .unwrap()
            .voice,
        None
    );
    let without_url = "set, and PIN_TTS_URL is not; set that too, to where the speech server is";
    for (settings, told) in [
        (&[MODELS][..], format!("PIN_TTS_MODELS: {without_url}")),
        (&[("PIN_TTS_VOICE", "v")], format!("PIN_TTS_VOICE: {without_url}")),
        (&[("PIN_TTS_MODEL_MAP", "a=b")], format!("PIN_TTS_MODEL_MAP: {without_url}")),
        (
            &[URL],
            "PIN_TTS_URL: set, and PIN_TTS_MODELS is not; name there the speech models to offer".to_owned(),
        ),
        (
            &[URL, MODELS, ("PIN_TTS_MODEL_MAP", "KOKORO=a,other=b")],
            r#"PIN_TTS_MODEL_MAP: "other" is not among PIN_TTS_MODELS, which are kokoro; add it there or take it out here"#
                .to_owned(),
        ),
    ] {
        assert_eq!(errors(settings), [told]);
    }
}

#[test]
fn the_url_of_speech_itself_is_refused_with_what_to_leave_out() {
    for base in ["http://h:8880", "http://h:8880/v1", "http://h:8880/tts/v1/"] {
        let base = ("PIN_TTS_URL", base);
        assert!(config(&[base, ("PIN_TTS_MODELS", "k")]).speech.is_some());
    }
    for written in [
        "http://ann:pw@h:8880/v1/audio/speech",
        "http://ann:pw@h:8880/v1/audio/speech/",
        "http://ann:pw@h:8880/audio/speech",
    ] {
        let told = errors(&[("PIN_TTS_URL", written), ("PIN_TTS_MODELS", "k")]);
        let shown = written.trim_end_matches('/').replace("ann:pw", "…");
        let helps = "ends with /audio/speech, which the sidecar adds by itself; leave that out";
        assert_eq!(told, [format!("PIN_TTS_URL: {shown} {helps}")]);
    }
}
