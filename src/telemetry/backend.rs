//! What is counted of a node's model server: under its own names, and under those from when every server was an Ollama, which
//! dashboards know.
//!
//! Invariant: both always say the same.

use std::sync::Arc;

use prometheus::IntGauge;

use super::{Metrics, gauge};

/// The gauges of one node's model server.
pub struct BackendMetrics {
    metrics: Arc<Metrics>,
    node: String,
    mode: &'static str,
    up: IntGauge,
    models: IntGauge,
}

impl BackendMetrics {
    /// Those of the node of this name, whose server has this interface. All are 0.
    pub fn new(metrics: &Arc<Metrics>, node: &str, mode: &'static str) -> Self {
        Self {
            up: metrics.backend_up.of([node, mode]),
            models: metrics.backend_models.of([node]),
            node: node.to_owned(),
            mode,
            metrics: Arc::clone(metrics),
        }
    }

    /// A look has shown whether it answers, how much GPU memory its models take, in bytes, and which models it offers.
    pub fn seen<'a>(&self, is_up: bool, vram_bytes: u64, models: impl Iterator<Item = &'a str>) {
        let metrics = &self.metrics;
        let count = models.map(|name| metrics.start_model(name)).count();
        for up in [&self.up, &metrics.ollama_up] {
            up.set(i64::from(is_up));
        }
        for models in [&self.models, &metrics.ollama_models] {
            models.set(gauge(count));
        }
        metrics.ollama_vram_bytes.set(gauge(vram_bytes));
    }

    /// It has told its version.
    pub fn has_version(&self, version: &str) {
        let info = &self.metrics.backend_info;
        info.set(&self.node, [&self.node, self.mode, version]);
        self.metrics.ollama_info.set("", [version]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_server_is_told_under_its_own_names_and_under_the_old_ones() {
        let metrics = Arc::new(Metrics::new());
        let backend = BackendMetrics::new(&metrics, "gpu", "openai");
        let has = |line: &str| metrics.render().lines().any(|written| written == line);
        assert!(has(r#"pin_sidecar_backend_up{mode="openai",node="gpu"} 0"#));
        assert!(has(r#"pin_sidecar_backend_models{node="gpu"} 0"#));
        backend.seen(true, 7, ["a", "b"].into_iter());
        backend.has_version("1.2");
        for line in [
            r#"pin_sidecar_backend_up{mode="openai",node="gpu"} 1"#,
            "pin_sidecar_ollama_up 1",
            r#"pin_sidecar_backend_models{node="gpu"} 2"#,
            "pin_sidecar_ollama_models 2",
            "pin_sidecar_ollama_vram_bytes 7",
            r#"pin_sidecar_backend_info{mode="openai",node="gpu",version="1.2"} 1"#,
            r#"pin_sidecar_ollama_info{version="1.2"} 1"#,
        ] {
            assert!(has(line), "{line}");
        }
    }
}
