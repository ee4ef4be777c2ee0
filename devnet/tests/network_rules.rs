//! What a network does by clocks and rules of its own, as a scripted agent sees it in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scripted;

use std::time::Duration;

use async_tungstenite::tungstenite::{self, Message};
use devnet::{
    gateway::{ChatEvent, Gateway, InterviewState, Policy, ProbeCounts, Standing, Tier},
    sim::{
        fate::Fate,
        trace::Trace,
        wire::{End, Link, Weather},
    },
};
use futures_util::StreamExt;
use scripted::{CLIENT, SECRET, auth, now};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const ALIAS: &str = "rig";

type Agent = scripted::Agent<End>;

/// A gateway at the end of a wire.
struct Net {
    gateway: Gateway,
    link: Link,
}

impl Net {
    fn new(policy: impl FnOnce(&mut Policy)) -> Self {
        let weather = Weather {
            latency: Duration::ZERO,
            ..Weather::default()
        };
        let (link, arrivals) = Link::new("net", weather, Fate::of(1, "net", 0), Trace::new(false));
        let gateway = Gateway::builder()
            .secret(CLIENT, SECRET)
            .secret("pin_test", SECRET)
            .policy(Policy::network_rules)
            .policy(|policy| {
                // A scripted agent says nothing by itself.
                policy.ping_every = None;
                policy.silence_limit = None;
            })
            .policy(policy)
            .start_on_wire(arrivals);
        Self { gateway, link }
    }

    async fn connect(&self) -> Result<Agent, tungstenite::Error> {
        Agent::upgrade(&self.gateway, self.link.dial().await?).await
    }

    async fn log_in(&self) -> Agent {
        self.connect().await.unwrap().log_in(CLIENT).await
    }

    /// An agent that is logged in and registered, with what it was then told.
    async fn register(&self) -> (Agent, Value) {
        let mut agent = self.log_in().await;
        register(&mut agent, "ollama").await;
        let told = agent.next().await;
        (agent, told)
    }

    /// An agent whose node has passed.
    async fn in_good_standing(&self) -> Agent {
        let (mut agent, request) = self.register().await;
        agent.send(result(&request, 40)).await;
        assert_eq!(agent.next().await["type"], "RESULT_ACK");
        assert_eq!(agent.next().await["type"], "INTERVIEW_COMPLETE");
        agent
    }

    fn standing(&self) -> Standing {
        self.gateway.members()[0].standing
    }
}

async fn register(agent: &mut Agent, mode: &str) {
    let node = json!({
        "type": "REGISTER_NODE", "alias": ALIAS, "models": ["a", "b"], "capacity": 1, "apiMode": mode,
    });
    agent.send(node).await;
    assert_eq!(agent.next().await["type"], "REGISTER_NODE_ACK");
}

/// What an agent of this speed says to an interview.
fn result(request: &Value, tokens_per_second: u64) -> Value {
    let prompts = request["prompts"].as_array().unwrap();
    let results: Vec<Value> = prompts
        .iter()
        .map(|prompt| {
            json!({
                "prompt_id": prompt["id"], "response": "yes", "ttft_ms": 40, "total_ms": 1000,
                "tokens_generated": tokens_per_second,
            })
        })
        .collect();
    json!({
        "type": "INTERVIEW_RESULT", "interview_id": request["interview_id"], "model": request["model"],
        "results": results,
    })
}

async fn closed(agent: &mut Agent) -> bool {
    matches!(agent.message().await, Some(Ok(Message::Close(_))))
}

#[tokio::test(start_paused = true)]
async fn a_new_node_is_interviewed_and_a_good_one_is_let_be() {
    let net = Net::new(|_| {});
    let (mut agent, request) = net.register().await;
    assert_eq!(request["type"], "INTERVIEW_REQUEST");
    assert_eq!(
        (&request["model"], &request["timeout_ms"]),
        (&json!("a"), &json!(60_000))
    );
    assert_eq!(request["prompts"].as_array().unwrap().len(), 5);
    assert_eq!(net.standing(), Standing::Interviewing);

    agent.send(result(&request, 40)).await;
    let id = &request["interview_id"];
    assert_eq!(
        agent.next().await,
        json!({"type": "RESULT_ACK", "request_id": id})
    );
    let complete = agent.next().await;
    assert_eq!(
        (
            &complete["tier"],
            &complete["accuracy"],
            &complete["tokens_per_sec"]
        ),
        (&json!("elite"), &json!(1.0), &json!(40.0))
    );
    let node = &net.gateway.members()[0];
    assert_eq!(
        (node.standing, node.tier),
        (Standing::Good, Some(Tier::Elite))
    );
    let verdict = net.gateway.until_interview(|_| true).await.state;
    let InterviewState::Judged(verdict) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(verdict.first_token, Some(Duration::from_millis(40)));

    drop(agent);
    let mut agent = net.log_in().await;
    register(&mut agent, "ollama").await;
    agent.send(json!({"type": "HEARTBEAT"})).await;
    assert_eq!(agent.next().await["type"], "HEARTBEAT_ACK");
    net.gateway
        .set_policy(|policy| policy.interviews.as_mut().unwrap().every_registration = true);
    register(&mut agent, "ollama").await;
    assert_eq!(agent.next().await["type"], "INTERVIEW_REQUEST");
}

#[tokio::test(start_paused = true)]
async fn an_interview_can_be_asked_for_and_goes_by_the_nodes_interface_and_model() {
    let net = Net::new(|policy| policy.interviews = None);
    let mut agent = net.log_in().await;
    assert_eq!(net.gateway.interview(ALIAS), None);
    agent
        .send(json!({
            "type": "REGISTER_NODE", "alias": ALIAS, "models": ["a", "b"], "apiMode": "openai", "interviewModel": "b",
        }))
        .await;
    let node_id = agent.next().await["node_id"].clone();
    assert_eq!(net.standing(), Standing::Good);
    let id = net.gateway.interview(ALIAS).unwrap();
    let request = agent.next().await;
    assert_eq!(
        (
            &request["interview_id"],
            &request["node_id"],
            &request["model"]
        ),
        (&json!(id), &node_id, &json!("b"))
    );
    assert_eq!(request["prompts"].as_array().unwrap().len(), 7);
    agent.send(result(&request, 25)).await;
    assert_eq!(agent.next().await["type"], "RESULT_ACK");
    assert_eq!(agent.next().await["tier"], "high", "25 of 30");
}

#[tokio::test(start_paused = true)]
async fn an_agent_of_generation_1_is_interviewed_at_its_first_list_of_models() {
    let net = Net::new(|_| {});
    let mut agent = net.connect().await.unwrap().log_in("pin_test").await;
    for (models, told) in [
        (json!([]), None),
        (json!(["a"]), Some("INTERVIEW_REQUEST")),
        (json!(["a", "b"]), None),
    ] {
        agent
            .send(json!({"type": "MODEL_LIST", "models": models}))
            .await;
        assert_eq!(agent.next().await["type"], "MODEL_LIST_ACK");
        if let Some(told) = told {
            assert_eq!(agent.next().await["type"], told);
        }
    }
    agent.send(json!({"type": "HEARTBEAT"})).await;
    assert_eq!(agent.next().await["type"], "HEARTBEAT_ACK");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_failed_is_turned_away_until_its_time_is_over_and_in_the_end_for_good() {
    let net = Net::new(|_| {});
    for failures in 1..=3 {
        let (mut agent, request) = net.register().await;
        agent.send(result(&request, 3)).await;
        assert_eq!(agent.next().await["type"], "RESULT_ACK");
        let failed = agent.next().await;
        assert_eq!(
            (&failed["type"], &failed["reason"]),
            (&json!("INTERVIEW_FAILED"), &json!("too_slow"))
        );
        assert!(closed(&mut agent).await);

        sleep(Duration::from_secs(59)).await;
        let mut early = net.connect().await.unwrap();
        early.send(auth(CLIENT, SECRET, now())).await;
        let refusal = early.next().await;
        let expected = if failures < 3 {
            assert_eq!(failed["retry_after_seconds"], 259);
            ("recently_failed", json!(200))
        } else {
            ("retry_budget_exhausted", Value::Null)
        };
        assert_eq!(
            (
                refusal["reason"].as_str().unwrap(),
                refusal["retry_after_seconds"].clone()
            ),
            expected
        );
        assert!(closed(&mut early).await);
        sleep(Duration::from_secs(200)).await;
    }
    assert_eq!(net.standing(), Standing::Failed(None));
    assert_eq!(net.gateway.sessions().ever, 3);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_failed_beside_a_good_one_is_told_so_and_the_session_stays() {
    let net = Net::new(|_| {});
    let (mut agent, request) = net.register().await;
    agent.send(result(&request, 3)).await;
    drop(agent);
    let mut agent = net.log_in_with_another_node().await;
    register(&mut agent, "ollama").await;
    assert_eq!(agent.next().await["reason"], "recently_failed");
    agent.send(json!({"type": "HEARTBEAT"})).await;
    assert_eq!(agent.next().await["type"], "HEARTBEAT_ACK");
}

impl Net {
    /// Logs in with a node that is let in without an interview; the login of an operator all of whose nodes have failed
    /// would be refused.
    async fn log_in_with_another_node(&self) -> Agent {
        let mut rules = None;
        self.gateway
            .set_policy(|policy| rules = policy.interviews.take());
        let mut agent = self.log_in().await;
        agent
            .send(json!({"type": "REGISTER_NODE", "alias": "other", "models": ["c"]}))
            .await;
        assert_eq!(agent.next().await["type"], "REGISTER_NODE_ACK");
        self.gateway.set_policy(|policy| policy.interviews = rules);
        agent
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_that_does_not_come_in_time_is_a_failure() {
    let net = Net::new(|_| {});
    let begun = Instant::now();
    let (mut agent, _) = net.register().await;
    let failed = agent.0.next().await.unwrap().unwrap();
    assert!(
        failed.to_text().unwrap().contains("\"timeout\""),
        "{failed:?}"
    );
    assert_eq!(begun.elapsed().as_secs(), 300);
    assert!(closed(&mut agent).await);
    let states: Vec<_> = net
        .gateway
        .interviews()
        .into_iter()
        .map(|one| one.state)
        .collect();
    assert_eq!(states, [InterviewState::TimedOut]);
}

#[tokio::test(start_paused = true)]
async fn an_interview_whose_session_broke_is_begun_anew() {
    let net = Net::new(|_| {});
    let (agent, first) = net.register().await;
    drop(agent);
    net.gateway.wait_for_no_session().await;
    assert_eq!(net.standing(), Standing::New);
    let (_agent, second) = net.register().await;
    assert_eq!(second["type"], "INTERVIEW_REQUEST");
    assert_ne!(second["interview_id"], first["interview_id"]);
    let states: Vec<_> = net
        .gateway
        .interviews()
        .into_iter()
        .map(|one| one.state)
        .collect();
    assert_eq!(states, [InterviewState::Broken, InterviewState::Running]);
}

#[tokio::test(start_paused = true)]
async fn the_result_of_an_interview_that_broke_is_judged_once_whenever_it_comes() {
    let net = Net::new(|_| {});
    let (agent, first) = net.register().await;
    drop(agent);
    let (mut agent, second) = net.register().await;
    for (request, told) in [(&first, 2), (&first, 1), (&second, 1)] {
        agent.send(result(request, 40)).await;
        for frame in ["RESULT_ACK", "INTERVIEW_COMPLETE"].into_iter().take(told) {
            assert_eq!(agent.next().await["type"], frame);
        }
    }
    assert_eq!(net.standing(), Standing::Good);
    let states: Vec<_> = net
        .gateway
        .interviews()
        .into_iter()
        .map(|one| one.state)
        .collect();
    assert!(
        matches!(
            states[..],
            [InterviewState::Judged(_), InterviewState::Superseded]
        ),
        "{states:?}"
    );
    let books = net.gateway.books();
    let results =
        |request: &Value| books.interview_results(request["interview_id"].as_str().unwrap());
    assert_eq!((results(&first), results(&second)), (2, 1));
    assert!(books.altered().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_in_good_standing_is_probed_and_loses_reputation_by_what_it_misses() {
    let net = Net::new(|policy| policy.probes.as_mut().unwrap().every = Duration::from_secs(60));
    let mut agent = net.in_good_standing().await;
    agent
        .send(json!({"type": "MODEL_LIST", "models": ["b", "a"]}))
        .await;
    assert_eq!(agent.next().await["type"], "MODEL_LIST_ACK");

    let begun = Instant::now();
    let mut probe = async || -> Value {
        let message = agent.0.next().await.unwrap().unwrap();
        let probe: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        let payload = json!({"model": "b", "messages": [{"role": "user", "content": "ping"}], "max_tokens": 5});
        assert_eq!(probe["payload"], payload);
        let answer =
            json!({"type": "INFERENCE_RESPONSE", "request_id": probe["request_id"], "result": {}});
        if begun.elapsed() < Duration::from_secs(90) {
            agent.send(answer).await;
            assert_eq!(agent.next().await["type"], "RESULT_ACK");
        }
        probe
    };
    for minute in 1..=2 {
        probe().await;
        assert_eq!(begun.elapsed().as_secs(), 60 * minute);
    }
    assert_eq!(net.gateway.reputation(ALIAS), Some(100));
    sleep(Duration::from_millis(9_999)).await;
    assert_eq!(net.gateway.reputation(ALIAS), Some(100));
    sleep(Duration::from_millis(2)).await;
    assert_eq!(net.gateway.reputation(ALIAS), Some(95));
    let counts = ProbeCounts {
        sent: 2,
        answered: 1,
        missed: 1,
    };
    assert_eq!(net.gateway.members()[0].probes, counts);
    assert_eq!(net.gateway.books().bills(), 0, "a probe is not paid");
}

#[tokio::test(start_paused = true)]
async fn each_error_lowers_a_reputation_once_and_answers_raise_it() {
    let net = Net::new(|_| {});
    let mut agent = net.in_good_standing().await;
    let mut reputations = Vec::new();
    for answers in [
        &[("INFERENCE_ERROR", "busy: x")][..],
        &[
            ("INFERENCE_ERROR", "backend: x"),
            ("INFERENCE_ERROR", "backend: x"),
        ],
        &[("INFERENCE_RESPONSE", "")],
    ] {
        let chat = net.gateway.chat(json!({"model": "a"}));
        assert_eq!(agent.next().await["request_id"], chat.id());
        for (name, error) in answers {
            agent
                .send(json!({"type": name, "request_id": chat.id(), "error": error, "result": {}}))
                .await;
            assert_eq!(agent.next().await["type"], "RESULT_ACK");
        }
        reputations.push(net.gateway.reputation(ALIAS).unwrap());
    }
    assert_eq!(reputations, [95, 90, 91]);
    assert_eq!(net.gateway.reputation("another"), None);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_chunk_for_90_seconds_is_given_up_and_not_paid() {
    let net = Net::new(|policy| {
        policy.probes = None;
        policy.cancel_given_up = true;
    });
    let mut agent = net.in_good_standing().await;
    let mut chat = net.gateway.chat(json!({"model": "a", "stream": true}));
    let id = chat.id().to_owned();
    assert_eq!(agent.next().await["type"], "INFERENCE_REQUEST");
    sleep(Duration::from_secs(60)).await;
    let begun = Instant::now();
    agent
        .send(json!({"type": "INFERENCE_CHUNK", "request_id": id, "index": 0, "delta": "x"}))
        .await;
    assert!(matches!(chat.event().await, Some(ChatEvent::Chunk(_))));
    assert!(matches!(chat.event().await, Some(ChatEvent::GivenUp(_))));
    assert_eq!(begun.elapsed().as_secs(), 90);
    assert_eq!(
        agent.next().await,
        json!({"type": "CANCEL_REQUEST", "request_id": id})
    );
    assert_eq!(net.gateway.reputation(ALIAS), Some(90));

    agent
        .send(json!({"type": "INFERENCE_RESPONSE", "request_id": id, "result": {}}))
        .await;
    assert_eq!(agent.next().await["type"], "RESULT_ACK");
    let books = net.gateway.books();
    assert_eq!((books.given_up(), books.bills()), (vec![id.as_str()], 0));
    assert_eq!(books.deliveries(&id).responses, 1);
    assert_eq!(net.gateway.reputation(ALIAS), Some(90), "it came too late");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_answered_or_cancelled_is_not_given_up() {
    let net = Net::new(|policy| policy.probes = None);
    let mut agent = net.in_good_standing().await;
    let chats = [
        net.gateway.chat(json!({"model": "a"})),
        net.gateway.chat(json!({"model": "a"})),
    ];
    agent
        .send(json!({"type": "INFERENCE_RESPONSE", "request_id": chats[0].id(), "result": {}}))
        .await;
    net.gateway.cancel(chats[1].id());
    net.gateway
        .wait_for(|frame| frame.is_from_gateway("CANCEL_REQUEST"))
        .await;
    sleep(Duration::from_secs(200)).await;
    assert!(net.gateway.books().given_up().is_empty());
    assert_eq!(net.gateway.reputation(ALIAS), Some(100));
}

#[tokio::test(start_paused = true)]
async fn the_eleventh_connection_in_a_minute_is_answered_with_429() {
    let net = Net::new(|_| {});
    for _ in 0..10 {
        net.connect().await.unwrap();
    }
    let Err(tungstenite::Error::Http(refusal)) = net.connect().await else {
        panic!("let in")
    };
    assert_eq!(refusal.status(), 429);
    sleep(Duration::from_secs(60)).await;
    net.connect().await.unwrap();
    let attempts = net.gateway.attempts();
    let refused: Vec<bool> = attempts.iter().map(|attempt| attempt.refused).collect();
    assert_eq!(refused, [[false; 10].as_slice(), &[true, false]].concat());
    assert!(attempts[11].at - attempts[0].at >= Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_leaves_two_pings_unanswered_is_closed() {
    let net = Net::new(|policy| policy.ping_every = Some(Duration::from_secs(30)));
    let mut agent = net.log_in().await;
    let begun = Instant::now();
    let mut heard = Vec::new();
    while let Some(Ok(message)) = agent.0.next().await {
        heard.push((begun.elapsed().as_secs(), message.is_close()));
        if heard.len() == 1 {
            agent.send(json!({"type": "PONG"})).await;
        }
    }
    assert_eq!(heard, [(30, false), (60, false), (90, false), (120, true)]);
}
