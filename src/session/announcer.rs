//! What the gateway is told about the nodes, and how: generation 1 lists models, generation 2 registers its nodes first.
//!
//! Invariant: a node is registered at most once a session, since that starts an interview: when it first has a model to
//! offer and is warm, and the network wants to see it. All that changes later goes by MODEL_LIST.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use crate::{
    backend::Offer,
    config::Identity,
    node::{Node, Nodes},
    outbox::Outbox,
    protocol::{Control, Generation, Health, NodeRegistration},
};

/// Tells the gateway about the nodes.
pub(super) struct Announcer {
    generation: Generation,
    payout_address: Option<String>,
    nodes: Nodes,
    outbox: Arc<Outbox>,
    told: Mutex<Told>,
}

/// What the gateway was told in this session.
#[derive(Default)]
struct Told {
    /// Which nodes are registered, in their order.
    registered: Vec<bool>,
    /// The models on the last list.
    models: Vec<Arc<str>>,
}

impl Announcer {
    pub(super) fn new(identity: Identity, nodes: Nodes, outbox: Arc<Outbox>) -> Self {
        Self {
            generation: identity.generation,
            payout_address: identity.payout_address,
            nodes,
            outbox,
            told: Mutex::default(),
        }
    }

    /// The first frames of a session. `offers`: what each node offers.
    pub(super) fn introduce(&self, offers: &[Offer]) {
        if let Some(payout_address) = &self.payout_address {
            self.outbox.control(Control::UpdateWallet {
                payout_address: payout_address.clone(),
            });
        }
        {
            let mut told = self.told();
            *told = Told {
                registered: vec![false; self.nodes.len()],
                ..Told::default()
            };
            self.register_nodes(&mut told, offers);
            told.models = self.models(&told, offers);
        }
        self.list_models();
    }

    /// Tells what is offered now, if that is anything else than what was told.
    pub(super) fn update(&self, offers: &[Offer]) {
        let is_news = {
            let mut told = self.told();
            self.register_nodes(&mut told, offers);
            let models = self.models(&told, offers);
            let is_news = models != told.models;
            told.models = models;
            is_news
        };
        if is_news {
            self.list_models();
        }
    }

    /// Tells the models once more.
    pub(super) fn list_models(&self) {
        let models = self.told().models.clone();
        self.outbox.control(Control::ModelList { models });
    }

    /// Whether the gateway believes that there are models here.
    pub(super) fn has_listed_models(&self) -> bool {
        !self.told().models.is_empty()
    }

    /// When the network wants to see a node again that is not registered for that reason alone.
    pub(super) fn next_registration(&self) -> Option<Instant> {
        let told = self.told();
        let missing = self.nodes.iter().zip(&told.registered);
        let missing = missing.filter(|(_, is_registered)| !**is_registered);
        missing
            .filter_map(|(node, _)| self.barred_until(node))
            .min()
    }

    /// A sign of life.
    pub(super) fn heartbeat(&self, offers: &[Offer], current_load: usize) {
        let vram = offers.iter().map(|offer| offer.vram_bytes);
        let health = Health {
            current_load,
            capacity: self.nodes.iter().map(|node| node.slots.capacity()).sum(),
            models: offers.iter().map(|offer| offer.names().count()).sum(),
            gpu_memory_used: vram.fold(0, u64::saturating_add),
        };
        self.outbox.control(Control::Heartbeat { health });
    }

    fn register_nodes(&self, told: &mut Told, offers: &[Offer]) {
        if self.generation == Generation::Desktop {
            return;
        }
        let nodes = self.nodes.iter().zip(offers);
        for ((node, offer), is_registered) in nodes.zip(&mut told.registered) {
            let may =
                offer.is_warm && !offer.models.is_empty() && self.barred_until(node).is_none();
            if may && !*is_registered {
                *is_registered = true;
                self.register(node, offer);
            }
        }
    }

    /// Until when the network does not want to see this node. Where it is the only one, the session stays away instead.
    fn barred_until(&self, node: &Node) -> Option<Instant> {
        node.standing
            .barred_until()
            .filter(|_| self.nodes.sole().is_none())
    }

    fn register(&self, node: &Node, offer: &Offer) {
        let settings = &node.settings;
        let price = settings.price_per_thousand_tokens.as_json();
        self.outbox.control(Control::RegisterNode(NodeRegistration {
            alias: Arc::clone(&node.alias),
            models: offer.names().cloned().collect(),
            capacity: node.slots.capacity(),
            region: settings.region.as_str(),
            price_per_thousand_tokens: price.to_owned(),
            interview_model: settings.interview_model.clone(),
            api_mode: node.backend.mode(),
        }));
    }

    /// The models of all nodes that the gateway knows of, each once. Speech models wait for no registration, since that
    /// starts an interview of chat models; but those of a node that the network does not want to see do.
    fn models(&self, told: &Told, offers: &[Offer]) -> Vec<Arc<str>> {
        let mut listed = HashSet::new();
        let nodes = self.nodes.iter().zip(offers).zip(&told.registered);
        let names = nodes.flat_map(|((node, offer), is_registered)| {
            let is_known = self.generation == Generation::Desktop || *is_registered;
            let is_barred = self.barred_until(node).is_some();
            let all = is_known.then(|| offer.names());
            let speech = (!is_known && !is_barred).then_some(&offer.speech);
            all.into_iter()
                .flatten()
                .chain(speech.into_iter().flatten())
        });
        names.filter(|name| listed.insert(*name)).cloned().collect()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        config::{OutboxSettings, tests::config},
        link::Outgoing,
        node::{Verdict, tests::nodes},
        protocol::encode,
        telemetry::{Metrics, Tier},
    };

    struct Bench {
        announcer: Announcer,
        nodes: Nodes,
        outbox: Arc<Outbox>,
    }

    async fn bench(client_id: &str, of: &[(&str, usize, &[&'static str])]) -> Bench {
        let settings = OutboxSettings {
            max_bytes: 1 << 20,
            result_ttl: Duration::from_secs(600),
        };
        let outbox = Arc::new(Outbox::new(settings, Arc::new(Metrics::new())));
        outbox.open();
        let nodes = nodes(of).await;
        let identity = config(&[("PIN_CLIENT_ID", client_id)]).identity;
        Bench {
            announcer: Announcer::new(identity, nodes.clone(), Arc::clone(&outbox)),
            nodes,
            outbox,
        }
    }

    impl Bench {
        fn offers(&self) -> Vec<Offer> {
            self.nodes.offers().now()
        }

        /// What was told since the last time: the aliases of nodes that were registered, and the lists of models.
        fn told(&self) -> Vec<String> {
            let batch = self.outbox.take();
            let frames = batch.into_iter().flat_map(|batch| batch.outgoing);
            let told = frames.map(|frame| match frame {
                Outgoing::Control(Control::RegisterNode(node)) => node.alias.to_string(),
                Outgoing::Control(Control::ModelList { models }) => models.join(" "),
                Outgoing::Control(other) => encode(&other),
                _ => String::new(),
            });
            told.collect()
        }
    }

    fn failed(wait: Duration) -> Verdict {
        Verdict {
            tier: Tier::Failed,
            accuracy: None,
            tokens_per_second: None,
            reason: "too slow".to_owned(),
            at: 0,
            barred_until: Some((Instant::now() + wait, 0)),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_is_registered_when_it_is_warm_and_its_models_are_listed_then() {
        let bench = bench(
            "op_test",
            &[("one", 1, &["a", "b"]), ("two", 1, &["b", "c"])],
        )
        .await;
        let mut offers = bench.offers();
        offers[1].is_warm = false;
        bench.announcer.introduce(&offers);
        assert_eq!(bench.told(), ["one", "a b"]);
        offers[1].is_warm = true;
        bench.announcer.update(&offers);
        assert_eq!(bench.told(), ["two", "a b c"]);
        // Both are known now, whatever becomes of them in this session.
        bench
            .announcer
            .update(&[Offer::default(), Offer::default()]);
        assert_eq!(bench.told(), [""]);
        assert!(!bench.announcer.has_listed_models());
        bench.announcer.update(&offers);
        assert_eq!(bench.told(), ["a b c"]);
        bench.announcer.update(&offers);
        assert_eq!(bench.told(), [""; 0]);
        bench.announcer.introduce(&offers);
        assert_eq!(bench.told(), ["one", "two", "a b c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_desktop_client_registers_no_node_and_waits_for_no_load() {
        let bench = bench("pin_test", &[("one", 1, &["a"])]).await;
        let mut offers = bench.offers();
        offers[0].is_warm = false;
        bench.announcer.introduce(&offers);
        assert_eq!(bench.told(), ["a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn speech_models_follow_those_that_chat_and_wait_for_no_registration() {
        let bench = bench("op_test", &[("one", 1, &["a"]), ("two", 1, &["b"])]).await;
        let mut offers = bench.offers();
        offers[0].speech = vec!["tts:x".into(), "tts:y".into()];
        offers[1].speech = vec!["tts:y".into(), "tts:z".into()];
        offers[1].is_warm = false;
        bench.announcer.introduce(&offers);
        assert_eq!(bench.told(), ["one", "a tts:x tts:y tts:z"]);
        offers[1].is_warm = true;
        bench.announcer.update(&offers);
        assert_eq!(bench.told(), ["two", "a tts:x tts:y b tts:z"]);
        bench.announcer.register(&bench.nodes[0], &offers[0]);
        let batch = bench.outbox.take().into_iter();
        let frames = batch.flat_map(|batch| batch.outgoing);
        let models = frames.filter_map(|frame| match frame {
            Outgoing::Control(Control::RegisterNode(node)) => Some(node.models.join(" ")),
            _ => None,
        });
        assert_eq!(models.collect::<Vec<_>>(), ["a tts:x tts:y"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_the_network_does_not_want_to_see_lists_no_speech_either() {
        let bench = bench("op_test", &[("one", 1, &["a"]), ("two", 1, &[])]).await;
        let mut offers = bench.offers();
        offers[0].speech = vec!["tts:x".into()];
        offers[1].speech = vec!["tts:y".into()];
        bench.nodes[0]
            .standing
            .judge(failed(Duration::from_secs(60)));
        bench.announcer.introduce(&offers);
        assert_eq!(bench.told(), ["tts:y"]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_node_of_several_that_failed_is_not_registered_before_its_time_and_the_others_are()
    {
        let bench = bench("op_test", &[("one", 1, &["a"]), ("two", 1, &["b"])]).await;
        let wait = Duration::from_secs(259);
        bench.nodes[0].standing.judge(failed(wait));
        bench.announcer.introduce(&bench.offers());
        assert_eq!(bench.told(), ["two", "b"]);
        let next = bench.announcer.next_registration();
        assert_eq!(next, Some(Instant::now() + wait));
        tokio::time::advance(wait).await;
        bench.announcer.update(&bench.offers());
        assert_eq!(bench.told(), ["one", "a b"]);
        assert_eq!(bench.announcer.next_registration(), None);
    }
}
