//! The chart, installed, between the real Ollama and a gateway in this process.

use std::{net::SocketAddr, sync::Arc};

use devnet::{
    gateway::Gateway,
    ollama::{ModelShape, Ollama},
};
use serde_json::{Value, json};

use crate::{
    chats::{MODEL, Running, TWENTY, payload},
    cluster::{Cluster, HERE},
    namespace::{ACCOUNT, KEY, Namespace},
    node,
    pods::{Pod, Pods},
    support::{CLIENT, SECRET},
};

pub(crate) const CHART: &str = "helm/pin-sidecar";

/// The release's name, which the chart gives to all that it makes.
pub(crate) const NAME: &str = "pin-sidecar";

/// Ollama's memory.
const MEMORY_MIB: usize = 512;

/// Chats that come while a pod drains.
const LATE: usize = 5;

pub(crate) struct Release {
    pub(crate) pods: Pods,
    pub(crate) namespace: Namespace,
    pub(crate) gateway: Gateway,
    pub(crate) values: Value,
    /// Where Ollama has a pod of its own.
    pub(crate) ollama: Option<Arc<Pod>>,
}

/// Where pods reach what a test opens.
fn here() -> SocketAddr {
    format!("{HERE}:0").parse().unwrap()
}

/// What the chart makes of values.
pub(crate) async fn rendered(namespace: &Namespace, values: &Value) -> Vec<Value> {
    let render = format!("template {NAME} {CHART}");
    let manifests = namespace.helm(&render, Some(values)).await;
    let convert = ["create", "--dry-run=client", "--output=json", "-f", "-"];
    let objects = namespace.kubectl_with(&convert, &manifests).await;
    let objects = serde_json::Deserializer::from_str(&objects).into_iter();
    objects.map(Result::unwrap).collect()
}

/// A gateway that pods can reach, without a record of chats.
pub(crate) async fn gateway() -> Gateway {
    let gateway = Gateway::builder().secret(CLIENT, SECRET).listen(here());
    let gateway = gateway.policy(|policy| policy.record_chats = false);
    gateway.start().await.unwrap()
}

/// The values that all tests have in common, with these over them.
pub(crate) fn values(gateway: &Gateway, over: &Value) -> Value {
    let mut values = json!({
        "clientId": CLIENT,
        "secret": {"existingSecret": ACCOUNT, "key": KEY},
        "gateway": {"url": gateway.url(), "allowPlaintext": true},
        "capacity": TWENTY,
        // A slow machine may take its time over the rest of a chat.
        "drainTimeoutSeconds": 90,
        "ollama": {
            // It has a model where no volume hides it.
            "image": {"repository": "ollama-tiny", "tag": "0.17.4"},
            "persistence": {"enabled": false},
            "resources": ollama_resources(),
        },
    });
    merge(&mut values, over);
    values
}

/// So much of a processor that answers take a while, on any machine, and other tests get on.
pub(crate) fn ollama_resources() -> Value {
    json!({
        "limits": {"cpu": "300m", "memory": format!("{MEMORY_MIB}Mi")},
        // All tests at once have to find room on one machine.
        "requests": {"cpu": "10m"},
    })
}

/// What replaces what is there, map by map, as Helm does.
fn merge(values: &mut Value, over: &Value) {
    match (values, over) {
        (Value::Object(values), Value::Object(over)) => {
            for (name, value) in over {
                merge(values.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (value, over) => *value = over.clone(),
    }
}

impl Release {
    /// Installs the chart with these values over the common ones, and waits for nothing.
    pub(crate) async fn begin(namespace: Namespace, gateway: Gateway, over: &Value) -> Self {
        let values = values(&gateway, over);
        let pods = Pods::watch(&namespace);
        namespace
            .helm(&format!("install {NAME} {CHART}"), Some(&values))
            .await;
        Self {
            pods,
            namespace,
            gateway,
            values,
            ollama: None,
        }
    }

    /// The same in a namespace of its own, and waits until a chat can be had. `None` where there is no cluster.
    pub(crate) async fn install(over: &Value) -> Option<(Self, Arc<Pod>)> {
        let cluster = Cluster::find()?;
        let namespace = Namespace::create(cluster, json!({})).await;
        let release = Self::begin(namespace, gateway().await, over).await;
        let pod = release.ready(&[]).await;
        Some((release, pod))
    }

    /// As [`install`](Self::install), alone and with devnet's Ollama, which starts at once.
    pub(crate) async fn with_stand_in(over: &Value) -> Option<(Self, Ollama, Arc<Pod>)> {
        let namespace = Namespace::create(Cluster::find()?, json!({})).await;
        let (release, ollama) = Self::begin_with_stand_in(namespace, over).await;
        let pod = release.ready(&[]).await;
        Some((release, ollama, pod))
    }

    /// The same in this namespace, and waits for nothing.
    pub(crate) async fn begin_with_stand_in(namespace: Namespace, over: &Value) -> (Self, Ollama) {
        let ollama = Ollama::builder().model(MODEL, ModelShape::default());
        let ollama = ollama.listen(here()).start().await.unwrap();
        let mut values = json!({"topology": "external", "ollama": {"url": ollama.url()}});
        merge(&mut values, over);
        let release = Self::begin(namespace, gateway().await, &values).await;
        (release, ollama)
    }

    /// Waits for a pod that is none of those, and until chats can be had.
    pub(crate) async fn ready(&self, not: &[&Pod]) -> Arc<Pod> {
        let pod = self.pods.wait_for_ready_agent(not).await;
        pod.wait_until_pending("").await;
        pod
    }

    pub(crate) async fn chat(&self) {
        self.gateway.chat(payload(3)).outcome().await.result();
    }

    /// Has a pod end while twenty chats run: it answers all, and another takes its place. Gives that one, and all states
    /// of the first.
    pub(crate) async fn lose_nothing_while(
        &self,
        pod: &Pod,
        end: impl Future,
    ) -> (Arc<Pod>, Vec<Arc<Pod>>) {
        self.answers_all_while(pod, end).await;
        let states = self.pods.wait_for_end(pod).await;
        let next = self.pods.wait_for_ready_agent(&[pod]).await;
        next.wait_until_pending("").await;
        self.chat().await;
        (next, states)
    }

    /// Has a sidecar drain while twenty chats run: all are answered in full, and what comes meanwhile is refused. Ollama
    /// halts until the drain has begun, so that no chat is over before.
    pub(crate) async fn answers_all_while(&self, pod: &Pod, end: impl Future) {
        let running = Running::begin(&self.gateway).await;
        let ollama = self.ollama(pod);
        node::signal(ollama, "ollama", "STOP").await;
        let drain = async {
            self.refuses_in_drain(pod).await;
            node::signal(ollama, "ollama", "CONT").await;
        };
        tokio::join!(end, drain, running.all_answered(&self.gateway));
    }

    /// The pod that has Ollama: the sidecar's own, unless another is known.
    fn ollama<'a>(&'a self, pod: &'a Pod) -> &'a Pod {
        self.ollama.as_deref().unwrap_or(pod)
    }

    /// What comes once the sidecar drains is refused. Only a Deployment does not wait for the end of a pod that was deleted:
    /// there the next one may answer already, or push this one out before it could refuse.
    async fn refuses_in_drain(&self, pod: &Pod) {
        pod.wait_until_pending("Draining").await;
        if self.values["topology"] == "external" {
            return;
        }
        for _ in 0..LATE {
            let outcome = self.gateway.chat(payload(3)).outcome().await;
            let error = outcome.error();
            assert!(error.starts_with("draining"), "{error}");
        }
    }

    /// Asks Kubernetes to evict a pod, as a node's drain does.
    pub(crate) async fn evict(&self, pod: &str) {
        let namespace = &self.namespace.name;
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace},
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
        let create = ["create", "--raw", &path, "-f", "-"];
        self.namespace
            .kubectl_with(&create, &eviction.to_string())
            .await;
    }

    /// Has the kernel end Ollama while twenty chats run: none is without an answer or an error, and chats go on
    /// afterwards. Gives Ollama's pod as it then is.
    pub(crate) async fn ollama_runs_out_of_memory(&self, pod: &Pod) -> Arc<Pod> {
        let ollama = self.ollama(pod);
        let running = Running::begin(&self.gateway).await;
        let (_, ()) = tokio::join!(
            running.none_lost(&self.gateway),
            node::run_out_of_memory(ollama, "ollama", MEMORY_MIB - 8)
        );
        let was_killed = |now: &Pod| {
            let container = now.container("ollama");
            let ends = [&container["state"], &container["lastState"]];
            ends.iter()
                .any(|state| state["terminated"]["reason"] == "OOMKilled")
        };
        // What begins again may be ended once more before it stays, for another reason.
        let again = self
            .pods
            .wait("Ollama's restart after OOMKilled", |states| {
                let its = states.iter().filter(|state| state.uid() == ollama.uid());
                let now = its.clone().next_back()?;
                let is_back = now.container("ollama")["started"] == true;
                let is_it = is_back && its.clone().any(|state| was_killed(state));
                is_it.then(|| Arc::clone(now))
            })
            .await;
        // A model that nobody has makes the sidecar look at Ollama now, so that it does not say ready for having missed the
        // restart; the Service is behind it.
        let mut unknown = payload(3);
        unknown["model"] = "nobody-has-this".into();
        self.gateway.chat(unknown).outcome().await.error();
        pod.wait_until_pending("").await;
        self.chat().await;
        again
    }

    /// Nothing was delivered twice: no session has ended before its answers were proven.
    pub(crate) fn books_are_right(&self) {
        let books = self.gateway.books();
        assert_eq!(books.bills(), books.all_deliveries().responses);
    }
}
