//! Between the network's rules and its connections: tells the rules what happens, and does what they say, also what they
//! say when time has passed.
//!
//! Invariant: no lock is held while something is sent.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Gateway,
    attempts::Attempt,
    frame::{Frame, Sender},
    hub::Hub,
    network::{Interview, Interviews, Member, Network, Order, Registration},
    nodes::Node,
    policy::Policy,
    session::{close, text},
};
use crate::journal::lock;

/// What a gateway does by itself, until it is dropped.
pub(super) async fn keep(hub: Arc<Hub>) {
    let mut policy = hub.policy.subscribe();
    let mut news = hub.news.subscribe();
    loop {
        let due = {
            let policy = policy.borrow_and_update();
            news.borrow_and_update();
            lock(&hub.network).due(&policy)
        };
        tokio::select! {
            // Neither fails: the hub has the senders.
            _ = policy.changed() => continue,
            _ = news.changed() => continue,
            () = until(due) => {}
        }
        hub.with_network(Network::fire);
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Hub {
    /// Changes what the network knows, and does what follows from that.
    fn with_network(&self, change: impl FnOnce(&mut Network, &Policy, Instant) -> Vec<Order>) {
        let orders = {
            let policy = self.policy.borrow();
            change(&mut lock(&self.network), &policy, Instant::now())
        };
        orders.into_iter().for_each(|order| self.perform(order));
        self.news.send_replace(());
    }

    fn perform(&self, order: Order) {
        match order {
            Order::Send(connection, frame) => self.send_over(connection, text(&frame)),
            Order::Close(connection) => {
                self.send_over(connection, close(1000, "interview failed"));
            }
            Order::GiveUp(id, after) => self.give_up(&id, after),
        }
    }

    /// Tells a request's consumer.
    fn give_up(&self, id: &str, after: Duration) {
        self.book_as_given_up(id);
        let error = format!("given up: nothing came for {} s", after.as_secs());
        let told = json!({"type": Frame::GIVEN_UP, "request_id": id, "error": error});
        self.deliver(&Arc::new(Frame::new(0, Sender::Gateway, text(&told))));
        if self.policy.borrow().cancel_given_up {
            self.send(text(&json!({"type": "CANCEL_REQUEST", "request_id": id})));
        }
    }

    /// A connection has ended.
    pub(super) fn ended(&self, connection: u64) {
        self.with_network(|network, _, _| {
            network.ended(connection);
            Vec::new()
        });
    }

    pub(super) fn registered(&self, connection: u64, operator: &str, node: Node, frame: &Value) {
        let asks = Registration::read(frame, node, operator, connection);
        self.with_network(|network, policy, now| network.register(asks, policy, now));
    }

    pub(super) fn listed(&self, connection: u64, operator: &str, models: &[String]) {
        self.with_network(|network, policy, now| {
            network.list(connection, operator, models, policy, now)
        });
    }

    pub(super) fn interview_result(&self, connection: u64, result: &Value) {
        self.with_network(|network, _, now| network.result(connection, result, now));
    }

    /// What an operator is told instead of being let in, if it is not.
    pub(super) fn turn_away(&self, operator: &str) -> Option<Value> {
        let policy = self.policy.borrow();
        lock(&self.network).turn_away(operator, &policy, Instant::now())
    }

    /// To the newest session; false if there is none.
    pub(super) fn send_frame(&self, request: &Value) -> bool {
        if request["type"] == "INFERENCE_REQUEST" {
            let id = request["request_id"].as_str().unwrap_or_default();
            self.note_request(id, request["payload"]["model"].as_str().unwrap_or_default());
        } else if request["type"] == "CANCEL_REQUEST" {
            let id = request["request_id"].as_str().unwrap_or_default();
            lock(&self.network).cancelled(id);
        }
        self.send(text(request))
    }

    /// A request goes to the newest session, if there is one.
    pub(super) fn note_request(&self, id: &str, model: &str) {
        let Some(connection) = self.newest_session() else {
            return;
        };
        let policy = self.policy.borrow();
        lock(&self.network).sent(id, connection, model, &policy, Instant::now());
        if policy.give_up_after.is_some() {
            self.news.send_replace(());
        }
    }

    pub(super) fn heard(&self, id: &str) {
        lock(&self.network).heard(id, Instant::now());
    }

    pub(super) fn answered(&self, answer: &Frame) {
        let well = matches!(answer.name(), "INFERENCE_RESPONSE" | "TTS_RESPONSE");
        let policy = self.policy.borrow();
        lock(&self.network).answered(answer.request_id(), well, &policy);
    }
}

/// What a network knows, and does by itself.
impl Gateway {
    /// The nodes that ever registered, in the order of their aliases.
    pub fn members(&self) -> Vec<Member> {
        lock(&self.hub.network).members()
    }

    /// A node's reputation, in points; `None` if no node has this alias.
    pub fn reputation(&self, alias: &str) -> Option<u32> {
        let members = self.members();
        let node = members.into_iter().find(|node| node.alias == alias);
        node.map(|node| node.reputation)
    }

    /// Interviews a node now, also one in good standing; gives the interview's id. `None` if the node is not on a
    /// session, or has no model. Without [`Policy::interviews`] the interview is an ordinary one.
    pub fn interview(&self, alias: &str) -> Option<String> {
        let mut begun = None;
        self.hub.with_network(|network, policy, now| {
            let usual = Interviews::default;
            let rules = policy.interviews.clone().unwrap_or_else(usual);
            let (id, orders) = network.interview(alias, &rules, now).unzip();
            begun = id;
            orders.unwrap_or_default()
        });
        begun
    }

    /// Interviews so far, the last few thousand, in the order in which they were asked for.
    pub fn interviews(&self) -> Vec<Interview> {
        lock(&self.hub.network).interviews().cloned().collect()
    }

    /// The first interview, of the past or the future, that matches, as it is then; waits for it as long as that takes.
    pub async fn until_interview(&self, what: impl Fn(&Interview) -> bool) -> Interview {
        let mut news = self.hub.news.subscribe();
        loop {
            let found = lock(&self.hub.network)
                .interviews()
                .find(|one| what(one))
                .cloned();
            if let Some(found) = found {
                return found;
            }
            // Cannot fail: the hub has the sender.
            let _ = news.changed().await;
        }
    }

    /// The last few thousand attempts to connect, refused ones too, in their order.
    pub fn attempts(&self) -> Vec<Attempt> {
        lock(&self.hub.attempts).all()
    }
}
