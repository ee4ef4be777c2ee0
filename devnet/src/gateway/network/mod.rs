//! What a network knows of its nodes and does about them by itself: it interviews new ones, probes those in good
//! standing, gives up requests of which nothing comes, and keeps each node's reputation.
//!
//! Pure: it is told what happens and when, and says what is to be done. Invariants: a node has at most one interview
//! whose result would be judged and that runs on its session; an interview is judged at most once.

mod interview;
mod interviewing;
mod member;
mod reputation;
mod requests;
mod traffic;

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

use super::policy::Policy;
use interview::ApiMode;
use requests::Requests;

pub use interview::{Interview, InterviewState, Interviews, Speeds, Tier, Verdict};
pub use member::{Member, ProbeCounts, Standing};
pub(super) use member::{Registration, models};
pub use reputation::Reputation;
pub(super) use requests::is_probe;

#[derive(Debug, Default)]
pub(super) struct Network {
    /// By alias.
    members: BTreeMap<String, Member>,
    /// In the order in which they were asked for, with what held then.
    interviews: Vec<(Interview, Terms)>,
    asked: u64,
    requests: Requests,
}

/// By what an interview is judged, whatever the policy becomes meanwhile.
#[derive(Debug)]
struct Terms {
    rules: Interviews,
    mode: ApiMode,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Order {
    /// Send this frame over this connection.
    Send(u64, Value),
    /// Close this connection.
    Close(u64),
    /// Tell a request's consumer that it is given up after so long.
    GiveUp(String, Duration),
}

impl Network {
    pub(super) fn members(&self) -> Vec<Member> {
        self.members.values().cloned().collect()
    }

    pub(super) fn interviews(&self) -> impl Iterator<Item = &Interview> {
        self.interviews.iter().map(|(interview, _)| interview)
    }

    /// What an operator is told instead of being let in; `None` where one of its nodes may be interviewed or is good.
    pub(super) fn turn_away(&self, operator: &str, policy: &Policy, now: Instant) -> Option<Value> {
        policy.interviews.as_ref()?;
        let nodes = self.members.values();
        let nodes = nodes.filter(|node| node.operator == operator);
        let refusals: Option<Vec<_>> = nodes.map(|node| node.barred(now)).collect();
        let soonest = refusals?
            .into_iter()
            .min_by_key(|(left, _)| left.unwrap_or(Duration::MAX));
        soonest.map(|(_, refusal)| refusal)
    }

    /// A node registers: it is let in, interviewed or turned away.
    pub(super) fn register(
        &mut self,
        asks: Registration,
        policy: &Policy,
        now: Instant,
    ) -> Vec<Order> {
        let (alias, connection) = (asks.node.alias.clone(), asks.connection);
        self.let_in(asks, policy.reputation.start, now);
        let Some(node) = self.members.get_mut(&alias) else {
            return Vec::new();
        };
        let Some(rules) = &policy.interviews else {
            node.standing = Standing::Good;
            return Vec::new();
        };
        if let Some((_, refusal)) = node.barred(now) {
            node.connection = None;
            let mut orders = vec![Order::Send(connection, refusal)];
            if !self.others_serve(connection) {
                orders.push(Order::Close(connection));
            }
            return orders;
        }
        match node.standing {
            Standing::Interviewing => Vec::new(),
            Standing::Good if !rules.every_registration => Vec::new(),
            Standing::Good | Standing::New | Standing::Failed(_) => {
                let begun = self.interview(&alias, rules, now);
                begun.map_or_else(Vec::new, |(_, orders)| orders)
            }
        }
    }

    /// The node is on this session, and on no other any more.
    fn let_in(&mut self, asks: Registration, reputation: u32, now: Instant) {
        let known = self.members.get(&asks.node.alias);
        if known.is_some_and(|node| node.connection != Some(asks.connection)) {
            self.leave(&asks.node.alias);
        }
        let node = self
            .members
            .entry(asks.node.alias.clone())
            .or_insert_with(|| Member::new(&asks, reputation, now));
        node.update(asks, now);
    }

    /// A session's models have changed. An agent of generation 1, which registers no node, is one by its first list.
    pub(super) fn list(
        &mut self,
        connection: u64,
        operator: &str,
        models: &[String],
        policy: &Policy,
        now: Instant,
    ) -> Vec<Order> {
        let mut nodes = self
            .members
            .values_mut()
            .filter(|node| node.connection == Some(connection));
        match (nodes.next(), nodes.next()) {
            (None, _) if operator.starts_with("pin_") && !models.is_empty() => {
                let asks = Registration::of_desktop(operator, connection, models);
                return self.register(asks, policy, now);
            }
            (None, _) => {}
            (Some(only), None) => only.models = models.to_vec(),
            (Some(first), Some(second)) => {
                for node in [first, second].into_iter().chain(nodes) {
                    let has = |model: &&String| models.contains(model);
                    node.models = node.registered.iter().filter(has).cloned().collect();
                }
            }
        }
        Vec::new()
    }

    /// A session has ended.
    pub(super) fn ended(&mut self, connection: u64) {
        let aliases: Vec<String> = self.on(connection).map(|node| node.alias.clone()).collect();
        aliases.iter().for_each(|alias| self.leave(alias));
    }

    /// A node is not on its session any more.
    fn leave(&mut self, alias: &str) {
        self.requests.forget_probes(alias);
        for (interview, _) in &mut self.interviews {
            if interview.alias == alias && interview.state == InterviewState::Running {
                interview.state = InterviewState::Broken;
            }
        }
        if let Some(node) = self.members.get_mut(alias) {
            node.connection = None;
            if node.standing == Standing::Interviewing {
                node.standing = Standing::New;
            }
        }
    }

    fn others_serve(&self, connection: u64) -> bool {
        self.on(connection)
            .any(|node| matches!(node.standing, Standing::Good | Standing::Interviewing))
    }

    /// The nodes that are registered over this connection.
    fn on(&self, connection: u64) -> impl Iterator<Item = &Member> {
        let nodes = self.members.values();
        nodes.filter(move |node| node.connection == Some(connection))
    }

    /// When [`fire`](Network::fire) has something to do next, if ever.
    pub(super) fn due(&self, policy: &Policy) -> Option<Instant> {
        let interviews = self.interviews.iter().filter_map(|(interview, terms)| {
            let is_open = interview.state.is_open();
            is_open.then(|| interview.asked + terms.rules.limit(interview.prompts))
        });
        let probes = policy.probes.iter().flat_map(|probes| {
            let nodes = self.members.values().filter(|node| node.is_probed());
            nodes.map(|node| node.calm_since + probes.every)
        });
        interviews.chain(probes).chain(self.requests.due()).min()
    }

    /// Does what is due.
    pub(super) fn fire(&mut self, policy: &Policy, now: Instant) -> Vec<Order> {
        let mut orders = self.time_interviews_out(now);
        orders.extend(self.give_up(policy, now));
        orders.extend(self.probe(policy, now));
        orders
    }
}
