//! How much of a speech server's answer is taken, and how long it is waited for.

use std::time::Duration;

use super::{support::chat, *};

const TOO_LARGE: &str = "too_large: the audio is larger than PIN_MAX_RESULT_BYTES in base64";

#[tokio::test]
async fn audio_whose_base64_is_larger_than_a_result_may_be_is_given_up_while_it_is_read() {
    let speaking = Speaking::start(&[("PIN_MAX_RESULT_BYTES", "1MiB")]).await;
    speaking
        .speech
        .fail_next(SPEECH, 1, Fault::Garbage { bytes: u64::MAX });
    let endless = speaking.ask(json!({})).await;
    assert_eq!(endless.unwrap_err(), TOO_LARGE);
    let request = speaking.speech.wait_for_request(SPEECH).await;
    request.wait_until_left().await;

    // Three quarters of it fit, and not a byte more.
    let most = 3 * (1024 * 1024 / 4);
    speaking
        .speech
        .fail_next(SPEECH, 1, Fault::Garbage { bytes: most });
    let largest = speaking.ask(json!({})).await.unwrap();
    assert_eq!(largest["bytes"], most);
    assert_eq!(largest["audio_b64"].as_str().unwrap().len(), 1024 * 1024);
    speaking
        .speech
        .fail_next(SPEECH, 1, Fault::Garbage { bytes: most + 1 });
    assert_eq!(speaking.ask(json!({})).await.unwrap_err(), TOO_LARGE);
    // One that announces as much is not even read.
    let announced = "x".repeat(1024 * 1024);
    speaking
        .speech
        .fail_next(SPEECH, 1, Fault::answer(200, "audio/wav", &announced));
    assert_eq!(speaking.ask(json!({})).await.unwrap_err(), TOO_LARGE);
    speaking.ask(json!({})).await.unwrap();
}

#[tokio::test]
async fn a_page_without_an_end_is_no_more_than_a_page() {
    let speaking = Speaking::start(&[("PIN_MAX_RESULT_BYTES", "1KiB")]).await;
    let page = format!("<html>{}", "x".repeat(10 * 1024 * 1024));
    speaking
        .speech
        .fail_next(SPEECH, 1, Fault::answer(200, "text/html", &page));
    let error = speaking.ask(json!({})).await.unwrap_err();
    assert_eq!(
        error,
        "backend: the speech server answered with HTML and no audio"
    );
}

#[tokio::test]
async fn silence_before_the_first_byte_and_between_two_has_a_limit_each() {
    let settings = [
        ("PIN_FIRST_TOKEN_TIMEOUT", "300ms"),
        ("PIN_TOKEN_TIMEOUT", "100ms"),
    ];
    let speaking = Speaking::start(&settings).await;
    for fault in [Fault::HangBeforeHeaders, Fault::Hang { after: 0 }] {
        speaking.speech.fail_next(SPEECH, 1, fault);
        let error = speaking.ask(json!({})).await.unwrap_err();
        assert_eq!(
            error,
            "timeout: the speech server sent no audio within 300ms"
        );
    }
    speaking
        .speech
        .fail_next(SPEECH, 1, Fault::Hang { after: 3 });
    let error = speaking.ask(json!({})).await.unwrap_err();
    assert_eq!(
        error,
        "timeout: the speech server sent no more audio for 100ms"
    );
    speaking.speech.wait_until_idle().await;
}

#[tokio::test]
async fn a_clip_that_comes_slowly_is_waited_for_until_the_time_of_its_request_is_over() {
    let settings = [("PIN_TOKEN_TIMEOUT", "10s"), ("PIN_REQUEST_TIMEOUT", "1s")];
    let speaking = Speaking::start(&settings).await;
    let pause = Duration::from_millis(20);
    speaking
        .speech
        .fail_next(SPEECH, 1, Fault::Slow { piece: 4, pause });
    speaking.ask(json!({})).await.unwrap();
    speaking.speech.fail_next(
        SPEECH,
        1,
        Fault::Slow {
            piece: 1,
            pause: pause * 10,
        },
    );
    let error = speaking.ask(json!({})).await.unwrap_err();
    assert_eq!(error, "timeout: not answered within 1s");
    speaking.speech.wait_until_idle().await;
}

#[tokio::test]
async fn speech_takes_a_slot_and_a_place_in_the_waiting_room_as_a_chat_does() {
    let speaking = Speaking::start(&[("PIN_CAPACITY", "1"), ("PIN_QUEUE", "1")]).await;
    let net = &speaking.net;
    speaking.speech.pause_at(0);
    let mut running = speaking.say("one");
    speaking.speech.wait_for_chats(1).await;
    let mut waiting = speaking.say("two");
    let busy = net.gateway.chat(chat("three")).outcome().await;
    assert_eq!(busy.error(), "busy: all slots and places to wait are taken");
    let busy = speaking.say("four").outcome().await;
    assert_eq!(busy.error(), "busy: all slots and places to wait are taken");
    assert_eq!(net.sidecar.metric("requests_running").await, 1.0);
    assert_eq!(net.sidecar.metric("requests_waiting").await, 1.0);
    speaking.speech.go_on();
    running.outcome().await.result();
    waiting.outcome().await.result();
    assert_eq!(speaking.speech.chats().most, 1);
}

#[tokio::test]
async fn what_waits_to_be_spoken_counts_towards_the_bytes_of_the_waiting_room() {
    let settings = [
        ("PIN_CAPACITY", "1"),
        ("PIN_QUEUE", "9"),
        ("PIN_QUEUE_BYTES", "1KiB"),
    ];
    let speaking = Speaking::start(&settings).await;
    speaking.speech.pause_at(0);
    let _running = speaking.say(&"long ".repeat(1000));
    speaking.speech.wait_for_chats(1).await;
    let _waiting = speaking.say(&"x".repeat(600));
    let busy = speaking.say(&"x".repeat(600)).outcome().await;
    assert_eq!(busy.error(), "busy: all slots and places to wait are taken");
    speaking.speech.go_on();
}
