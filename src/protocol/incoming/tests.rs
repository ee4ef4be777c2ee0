//! What is read of a frame, whatever the gateway sends.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::any_json;

fn request_id(id: &str) -> RequestId {
    RequestId::new(id).unwrap()
}

#[test]
fn every_type_of_the_protocol_is_read_as_itself() {
    for message in GatewayMessage::ALL {
        let text = format!(r#"{{"type":"{message}","request_id":"r","interview_id":"i"}}"#);
        assert_eq!(FromGateway::read(&text).unwrap().0, *message);
    }
}

#[test]
fn a_payload_is_lent_byte_for_byte_whatever_surrounds_it() {
    let text = r#"{ "new":[{}], "payload" : {"b":1e400,"a":"\u00e9"} ,"request_id":"a\nb","type":"INFERENCE_REQUEST"}"#;
    let FromGateway::Request {
        operation: Operation::Chat,
        request_id: id,
        payload,
    } = FromGateway::read(text).unwrap().1
    else {
        panic!("not a request");
    };
    assert_eq!(id, request_id("a\nb"));
    assert_eq!(payload.unwrap().get(), r#"{"b":1e400,"a":"\u00e9"}"#);
}

#[test]
fn a_request_that_breaks_off_can_still_be_refused() {
    for text in [
        r#"{"type":"INFERENCE_REQUEST","request_id":"r","payload":{"model""#,
        r#"{"type":"INFERENCE_REQUEST","request_id":"r","payload":{},"payload":{}}"#,
        r#"{"type":"INFERENCE_REQUEST","request_id":"r","payload":{}} tail"#,
    ] {
        let unreadable = FromGateway::read(text).unwrap_err();
        assert_eq!(unreadable.operation, Some(Operation::Chat));
        assert_eq!(unreadable.request_id, Some(request_id("r")));
    }
}

#[test]
fn what_is_no_frame_is_an_error_and_no_panic() {
    for text in [
        "",
        "null",
        "[]",
        "7",
        "{}",
        r#"{"type":7}"#,
        r#"{"type":null}"#,
        "{\"type\":\"PING\"",
        "\u{0}",
    ] {
        assert!(FromGateway::read(text).is_err(), "{text}");
    }
}

#[test]
fn an_id_that_is_empty_huge_or_no_text_is_no_id() {
    for id in [
        "\"\"".into(),
        format!("\"{}\"", "x".repeat(257)),
        "7".into(),
        "null".into(),
    ] {
        let text = format!(r#"{{"type":"INFERENCE_REQUEST","request_id":{id},"payload":{{}}}}"#);
        assert_eq!(
            FromGateway::read(&text).unwrap_err().request_id,
            None,
            "{id}"
        );
    }
}

#[test]
fn nesting_that_is_ten_thousand_deep_is_only_data() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let text =
        format!(r#"{{"type":"INFERENCE_REQUEST","request_id":"r","x":{deep},"payload":{deep}}}"#);
    assert!(FromGateway::read(&text).is_ok());
}

#[test]
fn a_time_to_stay_away_is_read_from_any_json() {
    for (json, expected) in [
        ("1.5", Some(1.5)),
        ("18446744073709551616", Some(1e20)),
        ("1e999", Some(f64::INFINITY)),
        ("-1e-9", None),
        ("-1e999", None),
        (r#""60""#, None),
        ("null", None),
        ("true", None),
        ("[60]", None),
    ] {
        let raw: &RawValue = serde_json::from_str(json).unwrap();
        let expected = expected.and_then(RetryAfter::from_secs_f64);
        assert_eq!(seconds(raw), expected, "{json}");
    }
}

#[test]
fn fields_of_the_wrong_type_count_as_missing() {
    let (_, frame) =
        FromGateway::read(r#"{"type":"INTERVIEW_FAILED","reason":5,"retry_after_seconds":"soon"}"#)
            .unwrap();
    assert!(
        matches!(frame, FromGateway::InterviewFailed { retry_after: None, reason, .. } if reason.is_empty())
    );
    let (_, frame) =
        FromGateway::read(r#"{"type":"INTERVIEW_FAILED","retry_after_seconds":-1}"#).unwrap();
    assert!(matches!(
        frame,
        FromGateway::InterviewFailed {
            retry_after: None,
            ..
        }
    ));
}

/// Fields of a frame with any values, each key once, in any order.
fn fields() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    const KEYS: [&str; 14] = [
        "request_id",
        "interview_id",
        "required_models",
        "node_id",
        "alias",
        "message",
        "reason",
        "success",
        "tier",
        "retry_after_seconds",
        "payload",
        "new",
        "Type",
        "",
    ];
    prop::sample::subsequence(KEYS.to_vec(), 0..=KEYS.len())
        .prop_shuffle()
        .prop_flat_map(|keys| {
            let values = prop::collection::vec(any_json::value(), keys.len());
            values.prop_map(move |values| keys.clone().into_iter().zip(values).collect())
        })
}

fn frame(fields: &[(&str, String)]) -> String {
    let fields: Vec<_> = fields
        .iter()
        .map(|(key, value)| format!("\"{key}\" :\n{value}"))
        .collect();
    format!("{{ {} }}", fields.join("\t, "))
}

fn field<'a>(fields: &'a [(&str, String)], name: &str) -> Option<&'a str> {
    let field = fields.iter().find(|(key, _)| *key == name);
    field.map(|(_, value)| value.as_str())
}

/// The id as any JSON library reads it.
fn expected_id(message: GatewayMessage, fields: &[(&str, String)]) -> Option<RequestId> {
    let is_interview = message == GatewayMessage::InterviewRequest;
    let key = if is_interview {
        "interview_id"
    } else {
        "request_id"
    };
    let id: String = serde_json::from_str(field(fields, key)?).ok()?;
    let id = (!id.is_empty() && id.len() <= 256).then(|| request_id(&id))?;
    Some(if is_interview { id.of_interview() } else { id })
}

proptest! {
    #[test]
    fn no_text_makes_reading_panic(text in "\\PC*|[{}\\[\\]\",:a-z0-9\\\\ ]{0,60}") {
        let _ = FromGateway::read(&text);
    }

    #[test]
    fn an_object_of_a_known_type_is_a_frame_unless_it_lacks_an_id_that_it_needs(
        message in prop::sample::select(GatewayMessage::ALL),
        mut fields in fields(),
        at in any::<prop::sample::Index>(),
    ) {
        fields.insert(at.index(fields.len() + 1), ("type", format!("\"{message}\"")));
        let text = frame(&fields);
        let id = expected_id(message, &fields);
        let needs_id = message.operation().is_some() || message == GatewayMessage::CancelRequest;
        match FromGateway::read(&text) {
            Ok((kind, frame)) => {
                prop_assert_eq!(kind, message);
                prop_assert!(id.is_some() || !needs_id);
                match frame {
                    FromGateway::Request { request_id, payload, .. } => {
                        prop_assert_eq!(Some(request_id), id);
                        let is_interview = message == GatewayMessage::InterviewRequest;
                        let expected = if is_interview { Some(&*text) } else { field(&fields, "payload") };
                        prop_assert_eq!(payload.as_deref().map(RawValue::get), expected);
                    }
                    FromGateway::CancelRequest { request_id } => prop_assert_eq!(Some(request_id), id),
                    FromGateway::ResultAck { request_id } => prop_assert_eq!(request_id, id),
                    _ => {}
                }
            }
            Err(unreadable) => {
                prop_assert!(needs_id && id.is_none());
                prop_assert_eq!(unreadable.message, message);
                prop_assert_eq!(unreadable.request_id, None);
            }
        }
    }

    #[test]
    fn wherever_a_request_breaks_off_behind_its_id_it_can_be_refused(
        id in "[a-z\"\\\\é🦀\n]{1,20}",
        payload in any_json::value(),
        cut in any::<prop::sample::Index>(),
        tail in "\\PC{0,3}",
    ) {
        let quoted = serde_json::Value::from(&*id).to_string();
        let head = format!(r#"{{"type":"INFERENCE_REQUEST","request_id":{quoted}"#);
        let text = format!(r#"{head},"payload":{payload}}}"#);
        let mut end = head.len() + cut.index(text.len() - head.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let broken = format!("{}{tail}", &text[..end]);
        let read = FromGateway::read(&broken);
        let id = match &read {
            Ok((_, FromGateway::Request { request_id, .. })) => Some(request_id),
            Ok(_) => None,
            Err(unreadable) => unreadable.request_id.as_ref(),
        };
        prop_assert_eq!(id.map(RequestId::as_str), Some(&*id_of(&quoted)), "{}", broken);
    }

    #[test]
    fn an_id_is_1_to_256_bytes_whatever_they_are(id in "[ -~é漢🦀\u{0}]{0,4}|[ -~]{250,260}|[é漢🦀]{60,130}") {
        let quoted = serde_json::Value::from(&*id).to_string();
        let text = format!(r#"{{"type":"CANCEL_REQUEST","request_id":{quoted}}}"#);
        match FromGateway::read(&text) {
            Ok((_, FromGateway::CancelRequest { request_id })) => {
                prop_assert!((1..=256).contains(&id.len()));
                prop_assert_eq!(request_id.as_str(), id);
            }
            Ok(other) => prop_assert!(false, "{:?}", other),
            Err(_) => prop_assert!(!(1..=256).contains(&id.len())),
        }
    }
}

fn id_of(quoted: &str) -> String {
    serde_json::from_str(quoted).unwrap()
}
