//! What is made of a speech server's answer.

use data_encoding::BASE64;
use devnet::speech::clip;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// What comes of this fault.
async fn with_fault(speaking: &Speaking, fault: Fault) -> Result<Value, String> {
    speaking.speech.fail_next(SPEECH, 1, fault);
    speaking.ask(json!({"response_format": "flac"})).await
}

#[tokio::test]
async fn a_clip_comes_in_base64_with_the_format_and_the_content_type_that_the_answer_shows() {
    let speaking = Speaking::start(&[]).await;
    for (format, content_type) in [
        ("wav", "audio/wav"),
        ("pcm", "audio/pcm_s16le"),
        ("mp3", "audio/mpeg"),
        ("opus", "audio/ogg"),
        ("flac", "audio/flac"),
        ("aac", "audio/aac"),
    ] {
        let result = speaking
            .ask(json!({"response_format": format}))
            .await
            .unwrap();
        let audio = clip("hello", format);
        assert_eq!(
            result,
            json!({
                "model": "kokoro", "voice": "default", "format": format, "content_type": content_type,
                "bytes": audio.len(), "audio_b64": BASE64.encode(&audio),
            })
        );
    }
}

#[tokio::test]
async fn a_server_that_gives_another_format_than_was_asked_for_is_taken_at_what_it_gives() {
    let speaking = Speaking::start(&[]).await;
    for (content_type, format, told) in [
        ("audio/wav", "wav", "audio/wav"),
        ("audio/x-wav; rate=24000", "wav", "audio/x-wav; rate=24000"),
        ("audio/mp3", "mp3", "audio/mp3"),
        // It is flac by its first bytes, and was asked for as such.
        (
            "application/octet-stream",
            "flac",
            "application/octet-stream",
        ),
        ("", "flac", "audio/flac"),
    ] {
        let result = with_fault(&speaking, Fault::ContentType(content_type))
            .await
            .unwrap();
        assert_eq!(
            (&result["format"], &result["content_type"]),
            (&json!(format), &json!(told))
        );
    }
}

#[tokio::test]
async fn a_clip_in_pieces_is_the_same_clip() {
    let speaking = Speaking::start(&[]).await;
    for piece in [1, 2, 5] {
        let pause = std::time::Duration::ZERO;
        let result = with_fault(&speaking, Fault::Slow { piece, pause })
            .await
            .unwrap();
        assert_eq!(result["audio_b64"], BASE64.encode(&clip("hello", "flac")));
    }
}

#[tokio::test]
async fn what_is_no_clip_is_a_failure_whatever_its_status_and_content_type_say() {
    let speaking = Speaking::start(&[]).await;
    for (content_type, body, told) in [
        (
            "text/html; charset=utf-8",
            "<!doctype html>",
            "the speech server answered with HTML and no audio",
        ),
        (
            "audio/mpeg",
            "<!DOCTYPE html><html>",
            "the speech server answered with HTML and no audio",
        ),
        (
            "application/json",
            r#"{"error":"Unexpected endpoint or method"}"#,
            "Unexpected endpoint or method",
        ),
        (
            "audio/wav",
            r#"{"error":{"message":"no such voice"}}"#,
            "no such voice",
        ),
        (
            "application/json",
            r#"{"ok":true}"#,
            "the speech server answered with JSON and no audio",
        ),
        (
            "text/plain",
            "done",
            "the speech server answered with text and no audio",
        ),
        (
            "text/event-stream",
            "data: {}\n\n",
            "the speech server answered with an event stream and no audio",
        ),
        ("audio/wav", "", "the answer is empty"),
        ("", "", "the answer is empty"),
    ] {
        let error = with_fault(&speaking, Fault::answer(200, content_type, body))
            .await
            .unwrap_err();
        assert_eq!(error, format!("backend: {told}"), "{content_type} {body}");
    }
    let cut = with_fault(&speaking, Fault::Cut { after: 3 })
        .await
        .unwrap_err();
    assert_eq!(
        cut,
        "backend: the connection broke in the middle of the answer"
    );
    let cut = with_fault(&speaking, Fault::Cut { after: 0 })
        .await
        .unwrap_err();
    assert_eq!(
        cut,
        "backend: the connection broke in the middle of the answer"
    );
}

#[tokio::test]
async fn a_status_that_is_no_success_is_told_in_the_servers_own_words() {
    let speaking = Speaking::start(&[]).await;
    for (status, body, told) in [
        (
            400,
            r#"{"error":{"message":"bad voice","code":null}}"#,
            "rejected: bad voice",
        ),
        (413, r#"{"error":"too long"}"#, "rejected: too long"),
        (
            422,
            r#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#,
            "rejected: field required",
        ),
        (
            400,
            r#"{"detail":{"error":"unknown_voice","message":"no voice af"}}"#,
            "rejected: no voice af",
        ),
        (
            400,
            r#"{"detail":{"error":{"message":"no model x"}}}"#,
            "rejected: no model x",
        ),
        (
            503,
            r#"{"detail":"Model not loaded"}"#,
            "backend: Model not loaded",
        ),
        (
            404,
            r#"{"message":"no such path","code":404}"#,
            "backend: no such path",
        ),
        (500, "Internal Server Error", "backend: HTTP 500"),
        (422, "cannot say \"hello\"", "rejected: HTTP 422"),
        (201, "ID3", "backend: HTTP 201"),
        (206, "RIFF", "backend: HTTP 206"),
        (
            502,
            "<html>bad gateway at 10.0.0.1</html>",
            "backend: HTTP 502",
        ),
        (503, "", "backend: HTTP 503"),
        (401, "{}", "backend: HTTP 401"),
        (307, "", "backend: HTTP 307"),
        (204, "", "backend: HTTP 204"),
        (
            500,
            r#"{"error":"cannot open /home/ann/voices/af.onnx at http://10.0.0.1:8880/x"}"#,
            "backend: cannot open … at …",
        ),
    ] {
        let error = with_fault(&speaking, Fault::answer(status, "application/json", body)).await;
        assert_eq!(error.unwrap_err(), told, "{status} {body}");
    }
    let refused = speaking
        .ask(json!({"response_format": "midi"}))
        .await
        .unwrap_err();
    assert!(
        refused.starts_with("rejected: invalid request field 'response_format'"),
        "{refused}"
    );
}

#[tokio::test]
async fn the_password_of_the_url_is_in_no_error_in_whatever_form_the_server_repeats_it() {
    for client in [CLIENT, support::DESKTOP] {
        let speech = SpeechServer::start().await.unwrap();
        let url = format!("http://ann:pa%2Fss%2Bw%20rd@{}", speech.addr());
        let settings = [&[("PIN_TTS_URL", url.as_str())], &MODELS[..]].concat();
        let net = Net::with(client, gateway().await, ollama().await, &settings).await;
        let speaking = Speaking { net, speech };
        speaking.wait_for_list("tts:tts-1").await;
        let words = r#"{"error":{"message":"ann 'pa/ss+w rd' 'pa%2fss%2Bw%20rd' 'ann:pa/ss+w rd' 'YW5uOnBhL3NzK3cgcmQ=' Basic YW5uOnBhL3NzK3cgcmQ="}}"#;
        for (status, content_type) in [
            (500, "application/json"),
            (200, "application/json"),
            (200, "audio/wav"),
        ] {
            let error = with_fault(&speaking, Fault::answer(status, content_type, words)).await;
            let told = "backend: ann '…' '…' '…' '…' Basic …";
            assert_eq!(error.unwrap_err(), told, "{client} {status} {content_type}");
        }
    }
}

/// A server may close its connection behind an answer without having said so: what goes out in that moment is lost.
#[tokio::test]
async fn each_clip_is_asked_for_over_a_connection_of_its_own() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: 4\r\nKeep-Alive: timeout=5\r\n\r\nRIFF";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"}") && !request.starts_with(b"GET ") {
                    if connection.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                connection.write_all(ANSWER).await.unwrap();
                // Whatever comes over this one is answered by its end.
                let _ = connection.read_u8().await;
            });
        }
    });
    let settings = [&[("PIN_TTS_URL", url.as_str())], &MODELS[..]].concat();
    let net = Net::with(CLIENT, gateway().await, ollama().await, &settings).await;
    wait_for_list(&net.gateway, "tts:tts-1").await;
    for text in ["one", "two", "three"] {
        net.gateway.speech(speech(text)).outcome().await.result();
    }
}
