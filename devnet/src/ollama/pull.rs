//! `POST /api/pull`: a registry that is not there, and what Ollama 0.17 says while it fetches a model from it.
//!
//! Invariant: what was fetched of a layer stays, whatever becomes of the request or of the server, as Ollama keeps it
//! on its disk; and a model is in the list of models only once all of it is there.

use std::{collections::HashMap, sync::Arc, time::Duration};

use hyper::Response;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::{
    fault::Fault,
    models::{ModelShape, hex_digest, with_tag},
    request::{Refusal, entries},
    state::State,
};
use crate::{
    journal::lock,
    model_server::{Body, Gone, Request, Write, Writer, body, respond},
};

/// How often Ollama tells how far a layer is, also where that has not changed.
const TICK: Duration = Duration::from_millis(60);

/// A model that can be pulled.
#[derive(Clone, Debug, Default)]
pub struct Pullable {
    /// What it is once it is there.
    pub shape: ModelShape,
    /// The sizes of its layers, in bytes, in the order in which they are fetched.
    pub layers: Vec<u64>,
}

impl Pullable {
    /// A model of such layers.
    pub fn of(layers: impl Into<Vec<u64>>) -> Self {
        let layers = layers.into();
        let size = layers.iter().sum();
        let shape = ModelShape {
            size,
            ..ModelShape::default()
        };
        Self { shape, layers }
    }
}

/// What there is to pull, and how much of each layer is on the disk.
#[derive(Debug, Default)]
pub(super) struct Registry {
    models: HashMap<String, Pullable>,
    blobs: HashMap<String, u64>,
}

impl Registry {
    pub(super) fn publish(&mut self, name: &str, model: Pullable) {
        self.models.insert(with_tag(name), model);
    }

    fn find(&self, name: &str) -> Option<Pullable> {
        self.models.get(&with_tag(name)).cloned()
    }
}

/// A layer, as Ollama tells of it: it leaves out what is 0.
#[derive(Serialize)]
struct Layer<'a> {
    status: String,
    digest: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    #[serde(skip_serializing_if = "is_zero")]
    completed: u64,
}

// Serde gives a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub(super) fn pull(
    state: &Arc<State>,
    request: &Arc<Request>,
    fault: Option<Fault>,
) -> Result<Response<Body>, Refusal> {
    let name = name_in(&request.body)?;
    let (writer, body) = body(Arc::clone(request), state.pause.subscribe());
    let pull = Pull {
        state: Arc::clone(state),
        request: Arc::clone(request),
        writer,
        fault,
        name,
    };
    tokio::spawn(pull.run());
    Ok(respond(200, "application/x-ndjson", body))
}

fn name_in(body: &[u8]) -> Result<String, Refusal> {
    let entries = entries(body)?;
    let name = entries.get("model").as_str();
    let name = name.or(entries.get("name").as_str()).unwrap_or_default();
    let is_valid = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '*');
    if is_valid {
        Ok(name.to_owned())
    } else {
        Err(Refusal::new(400, "invalid model name"))
    }
}

struct Pull {
    state: Arc<State>,
    request: Arc<Request>,
    writer: Writer,
    fault: Option<Fault>,
    name: String,
}

/// Why an answer ends before its time.
enum Over {
    /// The client is gone.
    Left,
    /// A fault has struck.
    Struck,
}

impl From<Gone> for Over {
    fn from(_: Gone) -> Self {
        Self::Left
    }
}

impl Pull {
    async fn run(mut self) {
        let told = match self.fault.take() {
            Some(Fault::Script(parts)) => self.writer.write_parts(parts).await.map_err(Over::from),
            Some(Fault::Garbage { bytes }) => self.writer.garbage(bytes).await.map_err(Over::from),
            fault => {
                self.fault = fault;
                self.fetch().await
            }
        };
        if matches!(told, Err(Over::Left)) {
            self.request.leave();
        }
    }

    async fn fetch(&self) -> Result<(), Over> {
        let mut told = 0;
        self.tell(&mut told, &json!({"status": "pulling manifest"}))
            .await?;
        let model = lock(&self.state.registry).find(&self.name);
        let Some(model) = model else {
            let error = json!({"error": "pull model manifest: file does not exist"});
            return self.tell(&mut told, &error).await;
        };
        for (place, size) in model.layers.iter().enumerate() {
            let digest = hex_digest(format!("{}/{place}", self.name).as_bytes());
            self.fetch_layer(&mut told, &format!("sha256:{digest}"), *size)
                .await?;
        }
        for status in ["verifying sha256 digest", "writing manifest"] {
            self.tell(&mut told, &json!({"status": status})).await?;
        }
        lock(&self.state.models).add(&self.name, model.shape);
        self.tell(&mut told, &json!({"status": "success"})).await
    }

    async fn fetch_layer(&self, told: &mut usize, digest: &str, total: u64) -> Result<(), Over> {
        loop {
            let completed = lock(&self.state.registry)
                .blobs
                .get(digest)
                .copied()
                .unwrap_or_default();
            let layer = Layer {
                status: format!("pulling {}", &digest[7..19]),
                digest,
                total,
                completed,
            };
            self.tell(told, &json!(layer)).await?;
            if completed >= total {
                return Ok(());
            }
            self.writer.sleep_until(Instant::now() + TICK).await?;
            self.receive(digest, total);
        }
    }

    /// What arrives within a tick: as much as the behaviour says, and nothing beyond where pulls are to stop.
    fn receive(&self, digest: &str, total: u64) {
        let behaviour = lock(&self.state.behaviour).clone();
        let mut registry = lock(&self.state.registry);
        let here = registry.blobs.values().sum::<u64>();
        let room = behaviour
            .pull_stops_at
            .map_or(u64::MAX, |stop| stop.saturating_sub(here));
        let blob = registry.blobs.entry(digest.to_owned()).or_default();
        let arrived = behaviour.pull_bytes_per_tick.min(room);
        *blob = blob.saturating_add(arrived).min(total);
    }

    /// Writes a line, unless the fault strikes instead.
    async fn tell(&self, told: &mut usize, line: &serde_json::Value) -> Result<(), Over> {
        if strikes(self.fault.as_ref(), *told) {
            self.strike(line).await?;
            return Err(Over::Struck);
        }
        *told += 1;
        self.writer.write(format!("{line}\n")).await?;
        Ok(())
    }

    async fn strike(&self, line: &serde_json::Value) -> Result<(), Gone> {
        self.writer.put(Write::Flush).await?;
        match &self.fault {
            Some(Fault::ErrorLine { error, .. }) => {
                let line = format!("{}\n", json!({"error": error}));
                self.writer.write(line).await
            }
            Some(Fault::Cut { .. }) => self.writer.put(Write::Cut).await,
            Some(Fault::HalfLine { .. }) => {
                let line = line.to_string();
                self.writer.write(line[..line.len() / 2].to_owned()).await
            }
            Some(Fault::Hang { .. }) => self.writer.closed().await,
            _ => Ok(()),
        }
    }
}

/// Whether a fault strikes after so many lines.
fn strikes(fault: Option<&Fault>, lines: usize) -> bool {
    fault.and_then(Fault::after) == Some(lines)
}
