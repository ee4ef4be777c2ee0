//! A streamed chat whose session breaks: chunks are a courtesy, the answer has it all.

use devnet::{
    gateway::Outcome,
    ollama::{ModelShape, Ollama},
};

use super::*;

/// The chunks of this id on one connection: index, kind and text.
fn chunks(net: &Net, connection: u64, id: &str) -> Vec<(u64, String, String)> {
    let text = |frame: &Frame, name: &str| frame.value[name].as_str().unwrap().to_owned();
    told(&net.gateway, connection)
        .iter()
        .filter(|frame| frame.name() == "INFERENCE_CHUNK" && frame.request_id() == id)
        .map(|frame| {
            let index = frame.value["index"].as_u64().unwrap();
            (index, text(frame, "kind"), text(frame, "delta"))
        })
        .collect()
}

/// Waits until the chunks of this id on one connection have so many characters.
async fn wait_for_chunks(net: &Net, connection: u64, id: &str, characters: usize) {
    let mut seen = 0;
    let mut length = 0;
    while length < characters {
        let wanted = |frame: &Frame| {
            frame.connection == connection
                && frame.is_from_agent("INFERENCE_CHUNK")
                && frame.request_id() == id
        };
        let (at, chunk) = net.gateway.wait_for_since(seen, wanted).await;
        seen = at + 1;
        length += chunk.value["delta"].as_str().unwrap().len();
    }
}

/// Each token is a word of nine letters and the space before it.
const WORDS: &str = "aaaaaaaaa bbbbbbbbb ccccccccc";

/// A streamed chat whose session was cut after five tokens, on its second session, with ten tokens made.
async fn cut_in_the_middle() -> (Net, Proxy, Chat) {
    let (net, network) = start(&[]).await;
    net.ollama.pause_at(5);
    let mut payload = chat(WORDS);
    payload["stream"] = json!(true);
    let chat = net.gateway.chat_with_id("one", payload);
    wait_for_chunks(&net, 1, "one", 49).await;
    go_away(&net, &network).await;
    net.ollama.pause_at(10);
    come_back(&net, &network, 2).await;
    round_trip(&net.gateway).await;
    (net, network, chat)
}

#[tokio::test]
async fn it_streams_on_only_after_it_is_asked_for_again_and_first_tells_all_so_far() {
    let (net, _network, mut chat) = cut_in_the_middle().await;
    net.ollama.pause_at(15);
    round_trip(&net.gateway).await;
    assert!(
        told(&net.gateway, 2).is_empty(),
        "{:?}",
        told(&net.gateway, 2)
    );
    let mut payload = support::chat(WORDS);
    payload["stream"] = json!(true);
    let _repeat = net.gateway.chat_with_id("one", payload);
    wait_for_chunks(&net, 2, "one", 149).await;
    net.ollama.go_on();
    let outcome = chat.outcome().await;

    let chunks = chunks(&net, 2, "one");
    let first = &chunks[0].2;
    assert!(outcome.text().starts_with(first.as_str()));
    assert!(first.len() >= 49, "only {first:?} at first");
    assert_all_of_it(&chunks, &outcome);
    assert_eq!(net.ollama.chats().ever, 1);
    assert_eq!(net.gateway.books().deliveries("one").responses, 1);
}

fn assert_all_of_it(chunks: &[(u64, String, String)], outcome: &Outcome) {
    let indices: Vec<u64> = chunks.iter().map(|chunk| chunk.0).collect();
    assert_eq!(indices, (0..chunks.len() as u64).collect::<Vec<_>>());
    let message = &outcome.result()["choices"][0]["message"];
    for kind in ["content", "thinking"] {
        let streamed: String = chunks
            .iter()
            .filter(|chunk| chunk.1 == kind)
            .map(|chunk| chunk.2.as_str())
            .collect();
        assert_eq!(streamed, message[kind].as_str().unwrap_or_default());
    }
}

#[tokio::test]
async fn nobody_who_does_not_ask_again_is_sent_chunks() {
    let (net, _network, mut chat) = cut_in_the_middle().await;
    net.ollama.go_on();
    chat.outcome().await.result();
    assert_eq!(answered(&net.gateway, 2), ["one"]);
    assert!(chunks(&net, 2, "one").is_empty());
    assert_eq!(net.ollama.chats().ever, 1);
}

#[tokio::test]
async fn a_chat_that_thinks_goes_on_with_one_chunk_a_kind() {
    let thinks = ModelShape {
        capabilities: vec!["completion", "thinking"],
        ..ModelShape::default()
    };
    let ollama = Ollama::builder()
        .model(MODEL, thinks)
        .start()
        .await
        .unwrap();
    let gateway = gateway().await;
    let net = Net::with(CLIENT, gateway, ollama, &QUICK).await;
    // Four tokens of thinking and two of content.
    net.ollama.pause_at(6);
    let mut payload = chat(WORDS);
    payload["stream"] = json!(true);
    let mut chat = net.gateway.chat_with_id("one", payload.clone());
    let thoughts = "Let me think.".len();
    wait_for_chunks(&net, 1, "one", thoughts + 19).await;
    net.gateway.drop_sessions();
    net.gateway.wait_for_session(2).await;
    let _repeat = net.gateway.chat_with_id("one", payload);
    wait_for_chunks(&net, 2, "one", thoughts + 19).await;
    let mut first: Vec<_> = chunks(&net, 2, "one");
    first.sort_by(|one, other| other.1.cmp(&one.1));
    let texts: Vec<_> = first.iter().map(|chunk| (&*chunk.1, &*chunk.2)).collect();
    assert_eq!(
        texts,
        [("thinking", "Let me think."), ("content", &WORDS[..19])]
    );
    net.ollama.go_on();
    let outcome = chat.outcome().await;
    assert_all_of_it(&chunks(&net, 2, "one"), &outcome);
    assert_eq!(net.ollama.chats().ever, 1);
}
