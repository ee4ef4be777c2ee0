//! Every metric of the sidecar, in a registry of its own, so that two sidecars in one process do not meet.
//!
//! Invariant: a field is named as its metric, without the prefix, and its doc comment is the metric's help. What the
//! data path touches are atomics; a scrape takes no lock that counting waits for, except where a label is a model's
//! name, and there for microseconds.

use prometheus::{
    Gauge, Histogram, IntCounter, IntGauge, Registry, TextEncoder,
    process_collector::ProcessCollector,
};

use super::{
    by_model::{CounterByModel, CounterByModelAnd, GaugeByModel, SumByModel},
    families::{CounterBy, CounterByPair, Family, GaugeBy, HistogramBy, InfoBy, OneOf},
    reasons::{ConnectFailure, DisconnectReason, DropReason, Tier},
};
use crate::protocol::{AgentMessage, Code, GatewayMessage, Operation};

/// Seconds that a message travels there and back.
const ROUND_TRIP: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Seconds in the waiting room, and seconds to load a model.
const WAIT: &[f64] = &[0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Seconds that a whole answer takes.
const DURATION: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0,
];

/// Seconds until an answer begins.
const FIRST_TOKEN: &[f64] = &[
    0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0,
];

/// Seconds per token; 0.05 and 0.1 are the network's tiers of 20 and 10 tokens per second, and most cards are a little
/// faster than the first.
const PER_TOKEN: &[f64] = &[
    0.01, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0,
];

/// Declares [`Metrics`]: a field per metric, its doc comment as the help text, and after `=` what its family needs.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $name:ident: $family:ty $(= $spec:expr)?,)+) => {
        /// All metrics of one sidecar.
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $name: $family,)+
        }

        impl Metrics {
            /// The names of all metrics, in the order of the list; those of the process are not among them.
            pub const NAMES: &'static [&'static str] = &[$(concat!("pin_sidecar_", stringify!($name))),+];

            fn registered(registry: Registry) -> prometheus::Result<Self> {
                Ok(Self {
                    $($name: {
                        let name = concat!("pin_sidecar_", stringify!($name)).to_owned();
                        let help = concat!($($help),+).trim();
                        <$family as Family>::register(&registry, name, help, ($($spec)?))?
                    },)+
                    registry,
                })
            }
        }
    };
}

metrics! {
    /// Whether a session is logged in: 1 or 0.
    session_up: IntGauge,
    /// When the session that is up, or the last one, was logged in, in Unix time; 0 before the first.
    session_start_timestamp_seconds: Gauge,
    /// When the last message of the gateway was read, in Unix time; 0 before the first.
    last_message_received_timestamp_seconds: Gauge,
    /// How long the wait before the next attempt to connect is; 0 while none is waited for.
    reconnect_backoff_seconds: Gauge,
    /// Whether the sidecar drains, or has drained and not been opened again: 1 or 0.
    draining: IntGauge,
    /// The version that runs and the revision that it was built from; always 1.
    build_info: InfoBy<2> = ["version", "revision"],
    /// Each node's alias, the id that the network gave to it, and its region; always 1.
    node_info: InfoBy<3> = ["alias", "node_id", "pin_region"],
    /// Attempts to open a session.
    connect_attempts_total: IntCounter,
    /// Attempts to open a session that failed, by the step that failed.
    connect_failures_total: CounterBy<ConnectFailure> = "reason",
    /// Sessions that were up and have ended, by the reason.
    disconnects_total: CounterBy<DisconnectReason> = "reason",
    /// Messages read from the gateway, by type.
    messages_received_total: CounterBy<GatewayMessage> = "message",
    /// Messages written to the gateway, by type.
    messages_sent_total: CounterBy<AgentMessage> = "message",
    /// Bytes read from gateways, without what TLS adds.
    received_bytes_total: IntCounter,
    /// Bytes written to gateways, without what TLS adds.
    sent_bytes_total: IntCounter,
    /// Time from a heartbeat to its acknowledgement.
    heartbeat_rtt_seconds: Histogram = ROUND_TRIP,

    /// Requests that have ended, refused and cancelled ones too, by model and kind of work.
    requests_total: CounterByModelAnd<Operation> = "operation",
    /// Requests that were refused or failed, by kind of work and code.
    request_failures_total: CounterByPair<Operation, Code> = ["operation", "reason"],
    /// Tokens of prompts, as the backend counted them.
    prompt_tokens_total: CounterByModel,
    /// Tokens generated, as the backend counted them.
    generation_tokens_total: CounterByModel,
    /// Answers that were dropped without proof of delivery, by the reason.
    results_dropped_total: CounterBy<DropReason> = "reason",
    /// Answers that were sent once more: on another session, or because their request came again.
    results_redelivered_total: IntCounter,
    /// Requests that came again while the first was known.
    duplicate_requests_total: IntCounter,
    /// Requests that the gateway cancelled while they waited or ran.
    cancelled_requests_total: IntCounter,
    /// Requests without an id that can be read, which nobody can answer.
    ignored_requests_total: IntCounter,
    /// Requests that hold a slot just now.
    requests_running: IntGauge,
    /// Requests in the waiting room just now.
    requests_waiting: IntGauge,
    /// How many requests may run at once.
    capacity_requests: IntGauge,
    /// Answers that are not yet known to have been delivered.
    undelivered_results: IntGauge,
    /// Bytes that wait to be written to the gateway.
    outbox_bytes: IntGauge,
    /// Time from a request's receipt to its answer, by kind of work.
    request_duration_seconds: HistogramBy<Operation> = ("operation", DURATION),
    /// Time that requests spent in the waiting room.
    request_queue_time_seconds: Histogram = WAIT,
    /// Time from a request's receipt to the first token of its answer.
    time_to_first_token_seconds: Histogram = FIRST_TOKEN,
    /// Mean time between the tokens of one answer.
    time_per_output_token_seconds: Histogram = PER_TOKEN,

    /// Whether a node's model server answered when it was last asked: 1 or 0.
    backend_up: GaugeBy<2> = ["node", "mode"],
    /// The version of a node's model server, where it tells; always 1.
    backend_info: InfoBy<3> = ["node", "mode", "version"],
    /// How many models a node offers.
    backend_models: GaugeBy<1> = ["node"],
    /// Whether the model server answered when it was last asked: 1 or 0. As backend_up.
    ollama_up: IntGauge,
    /// The version of the model server, where it tells; always 1. As backend_info.
    ollama_info: InfoBy<1> = ["version"],
    /// How many models are offered. As backend_models.
    ollama_models: IntGauge,
    /// GPU memory that loaded models take, where the model server tells.
    ollama_vram_bytes: IntGauge,
    /// Time that the model server took to have the model ready for an answer, where it tells; some milliseconds where it was
    /// loaded already.
    ollama_load_duration_seconds: Histogram = WAIT,
    /// Bytes that Ollama has of a model that it is told to pull.
    model_pull_bytes_completed: GaugeByModel,
    /// Bytes of a model that Ollama is told to pull, as far as is known: Ollama tells it layer by layer.
    model_pull_bytes_expected: GaugeByModel,

    /// Interviews of the network that have ended, passed and failed ones.
    interviews_total: IntCounter,
    /// Interviews that failed: broken off by the network, or ended with the tier failed.
    interview_failures_total: IntCounter,
    /// The tier that the last interview gave: 1 for that one, 0 for the others; all 0 before the first.
    quality_tier: OneOf<Tier> = "tier",
    /// Share of right answers in the last interview, from 0 to 1; 0 before the first.
    interview_accuracy_ratio: Gauge,
    /// Speed that the network measured in the last interview; 0 before the first.
    interview_tokens_per_second: Gauge,
    /// An estimate, not a bill: tokens of answers that were proven delivered, prompt and generated, times the price that
    /// this node asks for, in US dollars.
    earnings_estimate_usd_total: SumByModel,

    /// Whether secret, token and certificates could be read when they last were: 1, or 0 while earlier ones are in use.
    config_last_reload_successful: IntGauge,
}

impl Metrics {
    /// The version of this build.
    pub const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    /// The revision that this build is of, where the builder told it in `PIN_SIDECAR_REVISION`.
    pub const REVISION: &'static str = match option_env!("PIN_SIDECAR_REVISION") {
        Some(revision) => revision,
        None => "unknown",
    };

    /// All metrics, at 0.
    pub fn new() -> Self {
        let metrics = Self::with_process(Registry::new())
            .expect("the list above names each metric once and validly");
        metrics.build_info.set("", [Self::VERSION, Self::REVISION]);
        // It would not have started otherwise.
        metrics.config_last_reload_successful.set(1);
        metrics
    }

    fn with_process(registry: Registry) -> prometheus::Result<Self> {
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Self::registered(registry)
    }

    /// Tells the alias, id and region that a node has, in place of what was told of it before. `node` is the alias that
    /// it asks for, whichever it is given; `node_id` is empty until the gateway gave one.
    pub fn set_node(&self, node: &str, alias: &str, node_id: &str, region: &str) {
        self.node_info.set(node, [alias, node_id, region]);
    }

    /// A model is offered: what is counted of its chats starts at 0, so that the first is an increase.
    pub fn start_model(&self, model: &str) {
        self.requests_total.start(model, Operation::Chat);
        self.prompt_tokens_total.start(model);
        self.generation_tokens_total.start(model);
        self.earnings_estimate_usd_total.start(model);
    }

    /// The same of a speech model, of which no tokens are counted.
    pub fn start_speech(&self, model: &str) {
        self.requests_total.start(model, Operation::Speech);
    }

    /// Everything in the Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        // It can fail only for a family without series, and gathering leaves those out.
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{
        label::Label,
        telemetry::{by_model::MAX_MODELS, families::MAX_INFO_KEYS},
    };

    fn lines(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with('#')).collect()
    }

    #[test]
    fn every_series_without_a_model_is_there_at_zero_from_the_start() {
        let text = Metrics::new().render();
        let lines = lines(&text);
        let expected = [
            "session_up 0",
            "session_start_timestamp_seconds 0",
            "reconnect_backoff_seconds 0",
            "draining 0",
            "connect_attempts_total 0",
            "received_bytes_total 0",
            "heartbeat_rtt_seconds_bucket{le=\"0.0025\"} 0",
            "duplicate_requests_total 0",
            "outbox_bytes 0",
            "request_duration_seconds_count{operation=\"interview\"} 0",
            "ollama_up 0",
            "interviews_total 0",
            "interview_failures_total 0",
            "interview_accuracy_ratio 0",
            "interview_tokens_per_second 0",
            "config_last_reload_successful 1",
            "ollama_load_duration_seconds_sum 0",
        ];
        for series in expected {
            let series = format!("pin_sidecar_{series}");
            assert!(
                lines.contains(&series.as_str()),
                "{series} is missing in\n{text}"
            );
        }
        for family in [
            ("connect_failures_total", ConnectFailure::ALL.len()),
            ("disconnects_total", DisconnectReason::ALL.len()),
            ("messages_received_total", GatewayMessage::ALL.len()),
            ("messages_sent_total", AgentMessage::ALL.len()),
            (
                "request_failures_total",
                Operation::ALL.len() * Code::ALL.len(),
            ),
            ("results_dropped_total", DropReason::ALL.len()),
            ("requests_total", 0),
            ("model_pull_bytes_completed", 0),
            ("node_info", 0),
            ("build_info", 1),
            ("quality_tier", Tier::ALL.len()),
            ("earnings_estimate_usd_total", 0),
        ] {
            let prefix = format!("pin_sidecar_{}{{", family.0);
            assert_eq!(
                lines
                    .iter()
                    .filter(|line| line.starts_with(&prefix))
                    .count(),
                family.1,
                "{}",
                family.0
            );
        }
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("process_open_fds ")),
            "{text}"
        );
    }

    #[test]
    fn a_node_has_one_series_that_follows_what_the_network_says() {
        let metrics = Metrics::new();
        metrics.set_node("gpu", "gpu", "", "global");
        metrics.set_node("gpu", "gpu-a", "node_7", "eu-west");
        metrics.ollama_info.set("", ["0.17.3"]);
        metrics.ollama_info.set("", ["0.17.4"]);
        let text = metrics.render();
        let infos: Vec<_> = lines(&text)
            .into_iter()
            .filter(|line| line.contains("e_info") || line.contains("a_info"))
            .collect();
        assert_eq!(
            infos,
            [
                r#"pin_sidecar_node_info{alias="gpu-a",node_id="node_7",pin_region="eu-west"} 1"#,
                r#"pin_sidecar_ollama_info{version="0.17.4"} 1"#,
            ]
        );
    }

    #[test]
    fn the_first_chat_with_an_offered_model_is_an_increase() {
        let metrics = Metrics::new();
        metrics.start_model("tiny:latest");
        let text = metrics.render();
        for series in [
            r#"requests_total{model="tiny:latest",operation="chat"} 0"#,
            r#"prompt_tokens_total{model="tiny:latest"} 0"#,
            r#"generation_tokens_total{model="tiny:latest"} 0"#,
            r#"earnings_estimate_usd_total{model="tiny:latest"} 0"#,
        ] {
            let series = format!("pin_sidecar_{series}");
            assert!(lines(&text).contains(&series.as_str()), "{series}:\n{text}");
        }
        metrics
            .prompt_tokens_total
            .of(Some("tiny:latest"))
            .inc_by(7);
        metrics.start_model("tiny:latest");
        assert_eq!(metrics.prompt_tokens_total.total(), 7, "offered again");
    }

    #[test]
    fn two_sidecars_in_one_process_count_apart() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.requests_total
            .of(Some("tiny:latest"), Operation::Chat)
            .inc();
        assert_eq!(
            (one.requests_total.total(), other.requests_total.total()),
            (1, 0)
        );
    }

    fn count_for(metrics: &Metrics, model: Option<&str>) {
        for operation in Operation::ALL {
            metrics.requests_total.of(model, *operation).inc();
        }
        metrics.prompt_tokens_total.of(model).inc();
        metrics.generation_tokens_total.of(model).inc();
        metrics.earnings_estimate_usd_total.of(model).inc_by(0.001);
        if let Some(model) = model {
            metrics.model_pull_bytes_completed.of(model).set(7);
            metrics.model_pull_bytes_expected.of(model).set(9);
        }
    }

    #[test]
    fn whatever_names_are_thrown_at_it_the_number_of_series_is_bounded() {
        let metrics = Metrics::new();
        let fixed = lines(&metrics.render()).len();
        let hostile = [
            "".to_owned(),
            "a\"b\\c\nd\re\0f\u{202e}g".to_owned(),
            "é".repeat(1 << 20),
            "}{model=\"x\"} 1\n# HELP x y".to_owned(),
        ];
        for name in &hostile {
            count_for(&metrics, Some(name));
            metrics.set_node(name, name, name, name);
            metrics.ollama_info.set("", [name]);
            metrics.quality_tier.set(Tier::of(name));
        }
        for n in 0..5_000 {
            count_for(&metrics, Some(&format!("model-{n}:latest")));
        }
        for n in 0..1_000 {
            let alias = format!("alias-{n}");
            metrics.set_node(&alias, &alias, &format!("node-{n}"), "global");
        }
        let text = metrics.render();
        let per_model = (MAX_MODELS + 1) * (Operation::ALL.len() + 5);
        let infos = MAX_INFO_KEYS + 1;
        assert!(lines(&text).len() <= fixed + per_model + infos);
        assert!(text.len() < 2 << 20, "{} bytes", text.len());
        devnet::promtool::check_metrics(&text);
    }

    #[test]
    fn promtool_finds_nothing_to_complain_about() {
        let metrics = Metrics::new();
        metrics.set_node("gpu", "gpu", "node_7", "global");
        metrics.ollama_info.set("", ["0.17.4"]);
        count_for(&metrics, None);
        count_for(&metrics, Some("tiny:latest"));
        devnet::promtool::check_metrics(&metrics.render());
    }
}
