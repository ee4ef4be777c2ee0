//! Frames that nobody should send. All but two kinds of them leave the session up.

use std::time::Duration;

use async_tungstenite::tungstenite::{
    Bytes, Message,
    protocol::frame::{
        Frame, FrameHeader,
        coding::{Control, Data, OpCode},
    },
};
use serde_json::json;

use crate::{
    quick,
    support::{CLIENT, MODEL, Net, gateway, ollama},
};

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

#[tokio::test]
async fn what_cannot_be_read_or_makes_no_sense_leaves_the_session_up() {
    let net = Net::start(&[]).await;
    let deep = nested(10_000);
    let unclosed = "[".repeat(10_000);
    let long_id = format!(
        r#"{{"type":"INFERENCE_REQUEST","request_id":"{}"}}"#,
        "x".repeat(257)
    );
    let deep_value = format!(r#"{{"type":"PING","x":{deep}}}"#);
    let deep_objects = format!(
        r#"{{"type":"NEW","x":{}1{}}}"#,
        r#"{"a":"#.repeat(10_000),
        "}".repeat(10_000)
    );
    for frame in [
        "",
        " ",
        "\0",
        "hello",
        "{",
        "nul",
        "null",
        "42",
        "[]",
        r#""PING""#,
        r#"["PING"]"#,
        "{}",
        r#"{"type":null}"#,
        r#"{"type":7}"#,
        r#"{"type":["PING"]}"#,
        r#"{"type":"\ud800"}"#,
        r#"{"type":"PING"} {"type":"PING"}"#,
        r#"{"type":"NEW","x":{"y":[1,2]}}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"ERROR"}"#,
        r#"{"type":"ERROR","message":{"text":"x"}}"#,
        r#"{"type":"ERROR","message":"you are late"}"#,
        r#"{"type":"AUTH_SUCCESS","operator_id":7,"node_id":{}}"#,
        r#"{"type":"HEARTBEAT_ACK"}"#,
        r#"{"type":"MODEL_LIST_ACK","models":7}"#,
        r#"{"type":"RESULT_ACK"}"#,
        r#"{"type":"RESULT_ACK","request_id":7}"#,
        r#"{"type":"RESULT_ACK","request_id":"never sent"}"#,
        r#"{"type":"REGISTER_NODE_ACK"}"#,
        r#"{"type":"REGISTER_NODE_ACK","node_id":7,"alias":["x"]}"#,
        r#"{"type":"UPDATE_WALLET_ACK","success":"yes"}"#,
        r#"{"type":"CANCEL_REQUEST"}"#,
        r#"{"type":"CANCEL_REQUEST","request_id":{}}"#,
        r#"{"type":"CANCEL_REQUEST","request_id":"never seen"}"#,
        r#"{"type":"INFERENCE_REQUEST"}"#,
        r#"{"type":"INFERENCE_REQUEST","request_id":7,"payload":{}}"#,
        r#"{"type":"INFERENCE_REQUEST","request_id":""}"#,
        &long_id,
        r#"{"type":"TTS_REQUEST"}"#,
        r#"{"type":"INTERVIEW_REQUEST","prompts":7}"#,
        r#"{"type":"INTERVIEW_COMPLETE","tier":7}"#,
        r#"{"type":"INTERVIEW_FAILED","retry_after_seconds":"soon"}"#,
        r#"{"type":"INTERVIEW_FAILED","retry_after_seconds":-1}"#,
        r#"{"type":"INTERVIEW_FAILED","retry_after_seconds":1e999}"#,
        &deep,
        &unclosed,
        &deep_value,
        &deep_objects,
    ] {
        net.gateway.send_text(frame);
    }
    net.chat("one").outcome().await.result();
    assert_eq!(net.gateway.sessions().ever, 1);
    assert_eq!(net.gateway.sessions().open, 1);
    assert!(
        net.sidecar
            .metric("messages_received_total{message=\"unknown\"}")
            .await
            >= 15.0
    );
    assert_eq!(net.sidecar.metric("ignored_requests_total").await, 6.0);
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_refused_as_long_as_its_id_can() {
    let net = Net::start(&[]).await;
    let request = |rest: &str| format!(r#"{{"type":"INFERENCE_REQUEST","request_id":"r"{rest}"#);
    let deep = nested(10_000);
    for (frame, told) in [
        (
            request(r#","payload":{"model":"#),
            "invalid: the frame cannot be read: ",
        ),
        (
            request(r#","payload":{},"payload":{}}"#),
            "invalid: the frame cannot be read: ",
        ),
        (
            request(r#"} trailing"#),
            "invalid: the frame cannot be read: ",
        ),
        (request("}"), "invalid: "),
        (request(r#","payload":"x"}"#), "invalid: "),
        (request(&format!(r#","payload":{deep}}}"#)), "invalid: "),
    ] {
        let mut chat = net.gateway.listen_for("r");
        net.gateway.send_text(&frame);
        let outcome = chat.outcome().await;
        assert!(outcome.error().starts_with(told), "{}", outcome.error());
    }
    assert_eq!(net.gateway.sessions().ever, 1);
    assert_eq!(net.ollama.chats().ever, 0);
}

#[tokio::test]
async fn a_request_for_speech_that_cannot_be_read_is_refused_too() {
    let net = Net::start(&[]).await;
    net.gateway
        .send_text(r#"{"type":"TTS_REQUEST","request_id":"t","payload":"#);
    let error = net
        .gateway
        .wait_for(|frame| frame.is_from_agent("TTS_ERROR"))
        .await;
    assert_eq!(error.request_id(), "t");
}

#[tokio::test]
async fn a_payload_nested_deeper_than_the_stack_hurts_nobody() {
    let net = Net::start(&[]).await;
    let deep = nested(10_000);
    let payload = format!(
        r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"x"}}],"options":{{"stop":{deep}}},"x":{deep}}}"#
    );
    // Whether Ollama would take it is its own matter; that everything is still there is ours.
    let _ = net.gateway.chat_with_text(&payload).outcome().await;
    net.chat("one").outcome().await.result();
    assert_eq!(net.gateway.sessions().ever, 1);
}

#[tokio::test]
async fn binary_messages_are_ignored() {
    let net = Net::start(&[]).await;
    net.gateway
        .send_message(Message::binary(&b"{\"type\":\"PING\"}"[..]));
    net.gateway.send_message(Message::binary(&b"\xff\0"[..]));
    net.chat("one").outcome().await.result();
    assert_eq!(net.gateway.sessions().ever, 1);
    assert!(
        !net.gateway
            .frames()
            .iter()
            .any(|frame| frame.is_from_agent("PONG"))
    );
}

#[tokio::test]
async fn a_frame_in_fragments_with_a_ping_in_between_is_one_frame() {
    let net = Net::start(&[]).await;
    let request = json!({
        "type": "INFERENCE_REQUEST", "request_id": "r",
        "payload": {"model": MODEL, "messages": [{"role": "user", "content": "zwölf Boxkämpfer 🥊"}]},
    });
    let mut chat = net.gateway.listen_for("r");
    let text = request.to_string().into_bytes();
    // One byte each: also in the middle of a character.
    for (at, byte) in text.iter().enumerate() {
        let kind = if at == 0 { Data::Text } else { Data::Continue };
        net.gateway
            .send_message(raw(&[*byte], OpCode::Data(kind), at + 1 == text.len()));
        if at == text.len() / 2 {
            net.gateway.send_ping(b"now");
        }
    }
    chat.outcome().await.result();
    assert_eq!(
        net.asked()[0]["messages"][0]["content"],
        "zwölf Boxkämpfer 🥊"
    );
    net.gateway
        .wait_for(|frame| frame.is_from_agent("pong") && &frame.bytes[..] == b"now")
        .await;
}

/// Settings under which only a quick first attempt comes in time.
const SLOW: [(&str, &str); 3] = [
    ("PIN_MAX_FRAME_BYTES", "64KiB"),
    ("PIN_RECONNECT_MIN", "10m"),
    ("PIN_RECONNECT_MAX", "10m"),
];

#[tokio::test]
async fn a_frame_that_is_too_large_ends_the_session_with_1009_and_the_next_one_comes_at_once() {
    for bytes in [64 * 1024 + 1, 4 * 1024 * 1024] {
        let net = Net::with(CLIENT, gateway().await, ollama().await, &SLOW).await;
        net.gateway.send_text(&"x".repeat(bytes));
        let close = net
            .gateway
            .wait_for(|frame| frame.is_from_agent("close"))
            .await;
        assert_eq!(close.value["code"], 1009);
        net.gateway.wait_for_session(2).await;
        net.chat("one").outcome().await.result();
        assert_eq!(
            net.sidecar
                .metric("disconnects_total{reason=\"protocol\"}")
                .await,
            1.0
        );
    }
}

#[tokio::test]
async fn a_frame_of_exactly_the_size_that_is_allowed_is_read() {
    let net = Net::start(&[("PIN_MAX_FRAME_BYTES", "64KiB")]).await;
    let ping = r#"{"type":"PING","x":""}"#.len();
    net.gateway.send_text(&format!(
        r#"{{"type":"PING","x":"{}"}}"#,
        "x".repeat(64 * 1024 - ping)
    ));
    net.gateway
        .wait_for(|frame| frame.is_from_agent("PONG"))
        .await;
    assert_eq!(net.gateway.sessions().ever, 1);
}

#[tokio::test]
async fn text_that_is_not_utf8_ends_the_session_with_1007_and_the_next_one_comes_at_once() {
    let net = Net::with(CLIENT, gateway().await, ollama().await, &SLOW).await;
    net.gateway
        .send_message(raw(b"{\"type\":\"\xff\"}", OpCode::Data(Data::Text), true));
    let close = net
        .gateway
        .wait_for(|frame| frame.is_from_agent("close"))
        .await;
    assert_eq!(close.value["code"], 1007);
    net.gateway.wait_for_session(2).await;
    net.chat("one").outcome().await.result();
}

#[tokio::test]
async fn fragments_that_are_too_large_together_are_one_frame_that_is_too_large() {
    for kind in [Data::Text, Data::Binary] {
        let net = Net::with(CLIENT, gateway().await, ollama().await, &SLOW).await;
        let piece = [b'x'; 8 * 1024];
        net.gateway
            .send_message(raw(&piece, OpCode::Data(kind), false));
        for _ in 0..8 {
            net.gateway
                .send_message(raw(&piece, OpCode::Data(Data::Continue), false));
        }
        ends_with_and_comes_back(&net, 1009).await;
    }
}

#[tokio::test]
async fn half_a_character_is_not_utf8_wherever_the_text_is_cut() {
    let crab = "🦀".as_bytes();
    for (first, rest) in [
        (&crab[..3], &b""[..]),
        (&crab[..2], &b"x"[..]),
        (&b"\"\xed\xa0"[..], &b"\x80\""[..]),
    ] {
        let net = Net::with(CLIENT, gateway().await, ollama().await, &SLOW).await;
        net.gateway
            .send_message(raw(first, OpCode::Data(Data::Text), false));
        net.gateway
            .send_message(raw(rest, OpCode::Data(Data::Continue), true));
        ends_with_and_comes_back(&net, 1007).await;
    }
}

async fn ends_with_and_comes_back(net: &Net, code: u16) {
    let close = net
        .gateway
        .wait_for(|frame| frame.is_from_agent("close"))
        .await;
    assert_eq!(close.value["code"], code);
    net.gateway.wait_for_session(2).await;
    net.chat("one").outcome().await.result();
}

#[tokio::test]
async fn frames_that_rfc_6455_forbids_are_left_with_1002() {
    let header = |opcode| FrameHeader {
        opcode,
        ..FrameHeader::default()
    };
    let ping = header(OpCode::Control(Control::Ping));
    let text = header(OpCode::Data(Data::Text));
    for (header, bytes) in [
        (ping.clone(), 126),
        (
            FrameHeader {
                is_final: false,
                ..ping
            },
            1,
        ),
        (FrameHeader { rsv1: true, ..text }, 1),
        (header(OpCode::Control(Control::Reserved(11))), 1),
        (header(OpCode::Data(Data::Reserved(3))), 1),
    ] {
        let net = Net::with(CLIENT, gateway().await, ollama().await, &quick(&[])).await;
        net.gateway.send_message(Message::Frame(Frame::from_payload(
            header,
            vec![b'x'; bytes].into(),
        )));
        ends_with_and_comes_back(&net, 1002).await;
    }
}

#[tokio::test]
async fn what_ends_a_session_harms_no_chat_that_runs() {
    let not_utf8 = raw(b"\xff", OpCode::Data(Data::Text), true);
    let out_of_place = raw(b"x", OpCode::Data(Data::Continue), true);
    for message in [
        Message::text("x".repeat(64 * 1024 + 1)),
        not_utf8,
        out_of_place,
    ] {
        let settings = quick(&[("PIN_MAX_FRAME_BYTES", "64KiB")]);
        let net = Net::with(CLIENT, gateway().await, ollama().await, &settings).await;
        net.ollama
            .set_behaviour(|behaviour| behaviour.token_delay = Duration::from_millis(10));
        let mut running = [net.streamed("one"), net.chat("two")];
        net.ollama.wait_for_chats(2).await;
        net.gateway.send_message(message);
        net.gateway.wait_for_session(2).await;
        for chat in &mut running {
            chat.outcome().await.result();
        }
        assert_eq!(net.ollama.chats().ever, 2, "a chat was run twice");
        assert_eq!(net.gateway.books().bills(), 2);
    }
}

#[tokio::test]
async fn frames_that_may_not_be_read_are_forgiven_once_and_then_met_with_a_wait() {
    let net = Net::with(CLIENT, gateway().await, ollama().await, &SLOW).await;
    for session in 1..=2 {
        net.gateway.wait_for_session(session).await;
        net.gateway.send_text(&"x".repeat(64 * 1024 + 1));
    }
    net.gateway.wait_for_no_session().await;
    let pending = net
        .sidecar
        .wait_until_pending("larger than PIN_MAX_FRAME_BYTES")
        .await;
    assert!(pending[0].contains("Next attempt in "), "{pending:?}");
    assert_eq!(net.gateway.sessions().ever, 2);
}

#[tokio::test]
async fn a_peer_that_does_not_keep_to_websocket_is_left_with_1002() {
    let net = Net::with(CLIENT, gateway().await, ollama().await, &quick(&[])).await;
    net.gateway
        .send_message(raw(b"x", OpCode::Data(Data::Continue), true));
    let close = net
        .gateway
        .wait_for(|frame| frame.is_from_agent("close"))
        .await;
    assert_eq!(close.value["code"], 1002);
    net.gateway.wait_for_session(2).await;
}

fn raw(bytes: &[u8], opcode: OpCode, last: bool) -> Message {
    Message::Frame(Frame::message(Bytes::copy_from_slice(bytes), opcode, last))
}
