//! The gateway, as a small scripted agent sees it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scripted;

use std::time::Duration;

use async_tungstenite::tungstenite::{self, Message};
use devnet::gateway::{AckId, Chunk, Deliveries, Gateway, Login, Sessions};
use futures_util::{SinkExt, StreamExt};
use scripted::{Agent, auth, now};
use serde_json::{Value, json};

async fn gateway() -> Gateway {
    Gateway::builder()
        .secret("op_test", "s3cret")
        .start()
        .await
        .unwrap()
}

async fn refusal(gateway: &Gateway, auth: Value) -> Value {
    let mut agent = Agent::connect(gateway).await.unwrap();
    agent.send(auth).await;
    let refusal = agent.next().await;
    assert!(matches!(agent.message().await, Some(Ok(Message::Close(_)))));
    refusal
}

#[tokio::test]
async fn a_wrong_login_is_told_why_and_closed() {
    let gateway = gateway().await;
    let wrong = |message: &str| json!({"type": "ERROR", "message": message});
    assert_eq!(
        refusal(&gateway, auth("op_test", "wrong", now())).await,
        wrong("Invalid signature")
    );
    assert_eq!(
        refusal(&gateway, auth("op_other", "s3cret", now())).await,
        wrong("Invalid signature")
    );
    assert_eq!(
        refusal(&gateway, auth("op_test", "s3cret", now() - 400)).await,
        wrong("Timestamp outside window")
    );
    assert_eq!(
        refusal(&gateway, json!({"type": "HEARTBEAT"})).await,
        wrong("Authentication required")
    );
    gateway.set_policy(|policy| policy.login = Login::Refuse("Operator suspended".to_owned()));
    assert_eq!(
        refusal(&gateway, auth("op_test", "s3cret", now())).await,
        wrong("Operator suspended")
    );
    assert_eq!(gateway.sessions(), Sessions::default());
}

#[tokio::test]
async fn frames_are_acknowledged_as_long_as_the_policy_says_so() {
    let gateway = Gateway::builder()
        .secret("op_test", "s3cret")
        .taken_alias("rig")
        .start()
        .await
        .unwrap();
    let mut agent = Agent::logged_in(&gateway).await;
    agent
        .send(json!({"type": "REGISTER_NODE", "alias": "rig", "models": ["a"]}))
        .await;
    let node = agent.next().await;
    assert_eq!(
        (&node["alias"], &node["created"], &node["models"]),
        (&json!("rig-a"), &json!(true), &json!(["a"]))
    );
    agent
        .send(json!({"type": "MODEL_LIST", "models": ["a"]}))
        .await;
    assert_eq!(agent.next().await["type"], "MODEL_LIST_ACK");
    assert_eq!(gateway.models(), ["a"]);
    gateway.set_policy(|policy| policy.acknowledge_heartbeats = false);
    agent.send(json!({"type": "HEARTBEAT"})).await;
    agent
        .send(json!({"type": "UPDATE_WALLET", "payout_address": "x"}))
        .await;
    assert_eq!(agent.next().await["type"], "UPDATE_WALLET_ACK");
    gateway
        .wait_for(|frame| frame.is_from_agent("HEARTBEAT"))
        .await;
}

#[tokio::test]
async fn an_answer_that_is_delivered_twice_is_billed_once() {
    let gateway = gateway().await;
    let mut agent = Agent::logged_in(&gateway).await;
    let mut chat = gateway.chat(json!({"model": "a"}));
    let request = agent.next().await;
    assert_eq!(
        (&request["type"], &request["payload"]["model"]),
        (&json!("INFERENCE_REQUEST"), &json!("a"))
    );

    let id = request["request_id"].clone();
    let chunk = json!({"type": "INFERENCE_CHUNK", "request_id": id, "index": 0, "delta": "hi", "kind": "content"});
    let result = json!({"message": {"content": "hi"}, "prompt_eval_count": 3, "eval_count": 2});
    let answer = json!({"type": "INFERENCE_RESPONSE", "request_id": id, "result": result});
    agent.send(chunk).await;
    for _ in 0..2 {
        agent.send(answer.clone()).await;
        assert_eq!(
            agent.next().await,
            json!({"type": "RESULT_ACK", "request_id": id})
        );
    }

    let outcome = chat.outcome().await;
    assert_eq!(
        outcome.chunks,
        [Chunk {
            index: Some(0),
            delta: "hi".to_owned(),
            kind: "content".to_owned()
        }]
    );
    assert_eq!((outcome.result(), outcome.text()), (&result, "hi"));
    let books = gateway.books();
    assert_eq!(
        books.deliveries(chat.id()),
        Deliveries {
            responses: 2,
            errors: 0
        }
    );
    assert_eq!(
        (
            books.bills(),
            books.bill(chat.id()).unwrap().completion_tokens
        ),
        (1, 2)
    );
}

#[tokio::test]
async fn an_upgrade_can_be_answered_with_a_status_and_a_time_to_come_back() {
    let gateway = gateway().await;
    let busy = Login::Http {
        status: 503,
        retry_after: Some("7".to_owned()),
        body: "later".to_owned(),
    };
    gateway.set_policy(|policy| policy.login = busy);
    let Err(tungstenite::Error::Http(answer)) = Agent::connect(&gateway).await else {
        panic!("upgraded")
    };
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (503, &"7".parse().unwrap())
    );
    assert!(answer.headers().contains_key("date"));
}

#[tokio::test]
async fn sessions_are_counted_and_can_be_closed_reset_and_refused() {
    let gateway = gateway().await;
    let mut first = Agent::logged_in(&gateway).await;
    gateway.close_sessions(4000, "maintenance");
    let Some(Ok(Message::Close(Some(close)))) = first.message().await else {
        panic!("not closed")
    };
    assert_eq!(
        (u16::from(close.code), close.reason.as_str()),
        (4000, "maintenance")
    );
    assert!(first.message().await.is_none());
    gateway.wait_for_no_session().await;

    let mut second = Agent::logged_in(&gateway).await;
    gateway.drop_sessions();
    assert!(second.message().await.unwrap().is_err());

    let mut third = Agent::logged_in(&gateway).await;
    gateway.stop().await;
    assert!(third.message().await.unwrap().is_err());
    assert!(Agent::connect(&gateway).await.is_err());
    gateway.start_again().await.unwrap();
    let _fourth = Agent::logged_in(&gateway).await;
    assert_eq!(
        gateway.sessions(),
        Sessions {
            open: 1,
            ever: 4,
            most: 1
        }
    );
}

#[tokio::test]
async fn pings_are_answered_only_while_the_gateway_reads() {
    let gateway = gateway().await;
    let mut agent = Agent::logged_in(&gateway).await;
    gateway.stop_reading();
    agent.0.send(Message::Ping("one".into())).await.unwrap();
    gateway.send(&json!({"type": "PING"}));
    assert_eq!(agent.next().await["type"], "PING");
    gateway.read_again();
    assert_eq!(
        agent.message().await.unwrap().unwrap(),
        Message::Pong("one".into())
    );

    gateway.send_ping(b"two");
    assert_eq!(
        agent.message().await.unwrap().unwrap(),
        Message::Ping("two".into())
    );
    agent.0.flush().await.unwrap();
    let pong = gateway.wait_for(|frame| frame.is_from_agent("pong")).await;
    assert_eq!(&pong.bytes[..], b"two");
}

#[tokio::test]
async fn pongs_closes_and_acknowledgements_can_be_withheld_repeated_delayed_and_wrong() {
    let gateway = gateway().await;
    let mut agent = Agent::logged_in(&gateway).await;
    let answer = json!({"type": "INFERENCE_ERROR", "request_id": "r", "error": "busy: x"});
    gateway.set_policy(|policy| {
        policy.answer_pings = false;
        policy.repeat_heartbeat_acks = true;
        policy.repeat_result_acks = true;
        policy.result_ack_delay = Duration::from_millis(20);
    });
    agent.0.send(Message::Ping("a".into())).await.unwrap();
    agent.send(answer.clone()).await;
    agent.send(json!({"type": "HEARTBEAT"})).await;
    for expected in [
        json!({"type": "HEARTBEAT_ACK"}),
        json!({"type": "HEARTBEAT_ACK"}),
        json!({"type": "RESULT_ACK", "request_id": "r"}),
        json!({"type": "RESULT_ACK", "request_id": "r"}),
    ] {
        assert_eq!(agent.next().await, expected);
    }
    gateway.set_policy(|policy| {
        policy.answer_pings = true;
        policy.answer_closes = false;
        policy.result_ack_delay = Duration::ZERO;
        policy.repeat_result_acks = false;
        policy.result_ack_id = AckId::Another;
    });
    agent.0.send(Message::Ping("b".into())).await.unwrap();
    let pong = agent.message().await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong("b".into()));
    agent.send(answer).await;
    assert_ne!(agent.next().await["request_id"], "r");
    agent.0.send(Message::Close(None)).await.unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(50), agent.0.next()).await;
    assert!(silence.is_err(), "{silence:?}");
}

#[tokio::test]
async fn a_poisoned_answer_ends_its_session_without_a_word_and_is_not_booked() {
    let gateway = gateway().await;
    gateway.set_policy(|policy| policy.poison = Some("bad".to_owned()));
    let mut agent = Agent::logged_in(&gateway).await;
    for id in ["good", "bad"] {
        agent
            .send(json!({"type": "INFERENCE_RESPONSE", "request_id": id, "result": {}}))
            .await;
    }
    assert_eq!(agent.next().await["request_id"], "good");
    assert!(!matches!(agent.message().await, Some(Ok(_))));
    assert_eq!(gateway.books().bills(), 1);
    assert_eq!(gateway.books().deliveries("bad"), Deliveries::default());
}

#[tokio::test]
async fn a_response_that_comes_again_is_compared_with_the_first() {
    let gateway = gateway().await;
    let mut agent = Agent::logged_in(&gateway).await;
    for (id, n) in [("same", 1), ("same", 1), ("other", 1), ("other", 2)] {
        agent
            .send(json!({"type": "INFERENCE_RESPONSE", "request_id": id, "result": {"n": n}}))
            .await;
        agent.next().await;
    }
    assert_eq!(gateway.books().altered(), ["other"]);
    assert_eq!(gateway.books().bills(), 2);
}

#[tokio::test]
async fn a_secret_can_be_changed_while_sessions_are_open() {
    let gateway = gateway().await;
    let mut open = Agent::logged_in(&gateway).await;
    gateway.set_secret("op_test", "another");
    assert_eq!(
        refusal(&gateway, auth("op_test", "s3cret", now())).await["message"],
        "Invalid signature"
    );
    let mut agent = Agent::connect(&gateway).await.unwrap();
    agent.send(auth("op_test", "another", now())).await;
    assert_eq!(agent.next().await["type"], "AUTH_SUCCESS");
    open.send(json!({"type": "HEARTBEAT"})).await;
    assert_eq!(open.next().await["type"], "HEARTBEAT_ACK");
}

#[tokio::test]
async fn a_client_may_have_several_sessions_or_only_its_newest() {
    let gateway = gateway().await;
    let mut first = Agent::logged_in(&gateway).await;
    let mut second = Agent::logged_in(&gateway).await;
    assert_eq!(gateway.sessions().open, 2);
    gateway.set_policy(|policy| policy.one_session_each = true);
    let mut third = Agent::logged_in(&gateway).await;
    for older in [&mut first, &mut second] {
        assert!(matches!(older.message().await, Some(Ok(Message::Close(_)))));
    }
    third.send(json!({"type": "HEARTBEAT"})).await;
    assert_eq!(third.next().await["type"], "HEARTBEAT_ACK");
}
