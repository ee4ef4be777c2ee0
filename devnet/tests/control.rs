//! The port through which a gateway is chatted through and broken.
#![allow(clippy::unwrap_used)]

mod scripted;

use std::sync::Arc;

use devnet::{
    control::{self, Controlled, Refusal, act_on_gateway},
    gateway::Gateway,
    http,
};
use scripted::{Agent, CLIENT, SECRET};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

/// A gateway alone, to which no agent has come.
struct Lonely(Arc<Gateway>);

impl Controlled for Lonely {
    const HELP: &'static str = "what there is";

    fn gateway(&self) -> &Arc<Gateway> {
        &self.0
    }

    fn model(&self) -> Option<String> {
        self.0.models().into_iter().next()
    }

    async fn act(&self, path: &str) -> Result<(), Refusal> {
        act_on_gateway(&self.0, path).await
    }
}

/// A gateway that lets nobody in, and where its control port is.
async fn start() -> (Arc<Gateway>, String) {
    serve(Gateway::builder().start().await.unwrap()).await
}

async fn serve(gateway: Gateway) -> (Arc<Gateway>, String) {
    let gateway = Arc::new(gateway);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let lonely = Lonely(Arc::clone(&gateway));
    tokio::spawn(async move { control::serve(&listener, &lonely).await });
    (gateway, url)
}

#[tokio::test]
async fn a_gateway_is_stopped_and_started_by_name() {
    let (gateway, url) = start().await;
    for (verb, listens) in [("stop", false), ("start", true)] {
        let answer = http::post(&format!("{url}/gateway/{verb}"), "").await;
        assert_eq!(answer.unwrap().status, 200);
        assert_eq!(TcpStream::connect(gateway.addr()).await.is_ok(), listens);
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_told_by_its_status() {
    let (_gateway, url) = start().await;
    let post = async |path: &str, body: &'static str| {
        let answer = http::post(&format!("{url}{path}"), body).await.unwrap();
        (answer.status, answer.text())
    };
    assert_eq!(post("/nope", "").await, (404, "what there is\n".to_owned()));
    assert_eq!(post("/chat", "hi").await.0, 400);
    let early = post("/gateway/interview", "").await;
    assert_eq!(
        early,
        (503, "no node with a model is registered\n".to_owned())
    );
    let early = post("/chat", r#"{"prompt": "hi"}"#).await;
    assert_eq!(early, (503, "no sidecar has a model\n".to_owned()));
    let early = post("/chat", r#"{"model": "m", "messages": []}"#).await;
    assert_eq!(early, (503, "no sidecar is logged in\n".to_owned()));
}

#[tokio::test]
async fn a_node_is_interviewed_when_that_is_asked_for_and_shown_with_its_standing() {
    let gateway = Gateway::builder().secret(CLIENT, SECRET).start().await;
    let (gateway, url) = serve(gateway.unwrap()).await;
    let mut agent = Agent::logged_in(&gateway).await;
    agent
        .send(json!({"type": "REGISTER_NODE", "alias": "rig", "models": ["a"]}))
        .await;
    assert_eq!(agent.next().await["type"], "REGISTER_NODE_ACK");
    let get = async |path: &str| http::get(&format!("{url}{path}")).await.unwrap().json();
    assert_eq!(get("/nodes").await[0]["standing"], "good");

    let asked = http::post(&format!("{url}/gateway/interview"), "").await;
    assert_eq!(asked.unwrap().status, 200);
    assert_eq!(agent.next().await["type"], "INTERVIEW_REQUEST");
    let node = &get("/nodes").await[0];
    assert_eq!(
        (&node["alias"], &node["standing"]),
        (&json!("rig"), &json!("interviewing"))
    );
    let books = get("/books").await;
    assert_eq!(
        (&books["interviews"], &books["reputation"]),
        (
            &json!({"asked": 1, "results": 0, "judged": 0}),
            &json!({"rig": 100})
        )
    );
}

#[tokio::test]
async fn the_books_of_a_new_gateway_are_empty_and_closed_to_web_pages() {
    let (_gateway, url) = start().await;
    let books = http::get(&format!("{url}/books")).await.unwrap().json();
    assert_eq!(
        (&books["sessions"]["ever"], &books["responses"]),
        (&0.into(), &0.into())
    );
    let page = [("origin", "http://example.com")];
    let answer = http::post_with(&format!("{url}/gateway/stop"), &page, "").await;
    assert_eq!(answer.unwrap().status, 403);
}
