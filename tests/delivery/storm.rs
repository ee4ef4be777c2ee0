//! Many chats over a network that breaks again and again, in every way it knows.

use devnet::network::Storm;
use serde_json::Value;

use super::*;

const CHATS: usize = 120;

const SETTINGS: [(&str, &str); 2] = [("PIN_CAPACITY", "8"), ("PIN_QUEUE", "200")];

fn id(n: usize) -> String {
    format!("chat-{n}")
}

fn payload(n: usize) -> Value {
    let mut payload = chat(&id(n));
    payload["stream"] = json!(n.is_multiple_of(2));
    payload
}

/// Whoever sits behind the gateway: asks for whatever is not answered, again in each new session.
async fn keep_asking(gateway: &Gateway) {
    let mut session = 1;
    loop {
        gateway.wait_for_session(session).await;
        session = gateway.sessions().ever + 1;
        let books = gateway.books();
        for n in (0..CHATS).filter(|n| books.bill(&id(*n)).is_none()) {
            gateway.try_request(&id(n), &payload(n));
        }
    }
}

async fn all_answered(chats: &mut [Chat]) {
    for chat in chats {
        let outcome = loop {
            match chat.event().await.unwrap() {
                devnet::gateway::ChatEvent::Chunk(_) => {}
                answer => break answer,
            }
        };
        let right = matches!(outcome, devnet::gateway::ChatEvent::Response(_));
        assert!(right, "{}: {outcome:?}", chat.id());
    }
}

/// Every chat is answered, run once and billed once, and the node is as good as new.
async fn rides_out(seed: u64) {
    let (net, network) = start(&[&IMPATIENT[..], &SETTINGS].concat()).await;
    net.ollama
        .set_behaviour(|behaviour| behaviour.token_delay = std::time::Duration::from_millis(25));
    let mut chats: Vec<Chat> = (0..CHATS).map(|n| net.gateway.listen_for(&id(n))).collect();
    let storm = network.weather(Storm {
        seed,
        troubles: 25,
        calm: 20..250,
        trouble: 0..600,
        bytes: 1..20_000,
    });
    let all = async {
        let (weather, ()) = tokio::join!(storm, all_answered(&mut chats));
        weather.unwrap();
    };
    tokio::select! {
        () = all => {}
        () = keep_asking(&net.gateway) => {}
    }
    wait_for_undelivered(&net, 0).await;
    let ids: Vec<String> = (0..CHATS).map(id).collect();
    assert_once(&net, &ids.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(net.ollama.chats().running, 0);
    assert!(
        net.gateway.sessions().ever > 5,
        "{:?}",
        net.gateway.sessions()
    );
    for reason in ["expired", "cancelled", "rejected", "superseded"] {
        assert_eq!(dropped(&net, reason).await, 0.0, "{reason}");
    }
    assert_eq!(
        net.sidecar.drain().await,
        pin_sidecar::relay::Outcome::Drained
    );
}

#[tokio::test]
async fn a_storm_is_ridden_out() {
    rides_out(1).await;
}

#[tokio::test]
async fn another_storm_is_ridden_out() {
    rides_out(2).await;
}

#[tokio::test]
async fn a_third_storm_is_ridden_out() {
    rides_out(3).await;
}
