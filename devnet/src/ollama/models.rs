//! The models of the stand-in: which there are, which are loaded, and how Ollama tells of them.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::timestamp::rfc3339;

/// How long a model stays loaded where nobody asks for another time.
const KEPT: Duration = Duration::from_secs(5 * 60);

/// What kind of model it is.
#[derive(Clone, Debug)]
pub struct ModelShape {
    /// `completion`, `tools`, `thinking`, `vision`, `embedding`…
    pub capabilities: Vec<&'static str>,
    /// The longest context that it was made for, in tokens.
    pub context_length: u64,
    /// Hex; empty: made from the name.
    pub digest: String,
    /// Bytes on disk; loaded it takes as much.
    pub size: u64,
    /// So much of it in the GPU's memory; `None`: all.
    pub size_vram: Option<u64>,
    /// Where it really runs, for a model in somebody's cloud.
    pub remote_host: Option<String>,
    /// `llama`, `bert`, …
    pub family: String,
}

impl Default for ModelShape {
    fn default() -> Self {
        Self {
            capabilities: vec!["completion"],
            context_length: 8192,
            digest: String::new(),
            size: 2_019_393_189,
            size_vram: None,
            remote_host: None,
            family: "llama".to_owned(),
        }
    }
}

#[derive(Debug)]
struct Model {
    name: String,
    shape: ModelShape,
    modified: SystemTime,
    loaded: Option<Loaded>,
    loads: usize,
}

#[derive(Debug)]
struct Loaded {
    /// What was asked for, with which requests are compared.
    asked: u64,
    ready: Instant,
    /// How long it stays once nobody uses it.
    kept: Duration,
    users: usize,
    expires: Instant,
    /// The same for people.
    expires_at: SystemTime,
    /// Which load it is.
    number: usize,
}

/// What a request finds or brings about.
pub(super) struct Loading {
    /// From when on the model is ready.
    pub(super) ready: Instant,
    number: usize,
}

/// How models are loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// How long it takes.
    pub(super) takes: Duration,
    /// The context where nobody asks for one.
    pub(super) context: u64,
    /// How many models there is room for.
    pub(super) room: usize,
}

#[derive(Debug, Default)]
pub(super) struct Models(Vec<Model>);

impl Models {
    pub(super) fn add(&mut self, name: &str, shape: ModelShape) {
        let name = with_tag(name);
        self.remove(&name);
        self.0.push(Model {
            name,
            shape,
            modified: SystemTime::now(),
            loaded: None,
            loads: 0,
        });
    }

    pub(super) fn remove(&mut self, name: &str) {
        let name = with_tag(name);
        self.0
            .retain(|model| !model.name.eq_ignore_ascii_case(&name));
    }

    pub(super) fn loads(&self, name: &str) -> usize {
        self.find(name).map_or(0, |model| model.loads)
    }

    pub(super) fn is_loaded(&mut self, name: &str) -> bool {
        self.expire();
        self.find(name).is_some_and(|model| model.loaded.is_some())
    }

    /// Its full name, if there is such a model.
    pub(super) fn full_name(&self, name: &str) -> Option<&str> {
        self.find(name).map(|model| model.name.as_str())
    }

    pub(super) fn can(&self, name: &str, capability: &str) -> bool {
        self.find(name)
            .is_some_and(|model| model.shape.capabilities.contains(&capability))
    }

    /// Whether `think` may be a level.
    pub(super) fn takes_levels(&self, name: &str) -> bool {
        let family = |model: &Model| matches!(&*model.shape.family, "gptoss" | "gpt-oss");
        self.find(name).is_some_and(family)
    }

    /// Begins to use a model: loads it unless it is loaded as it is asked for now. Another makes room where there is
    /// none, the one that was to go first.
    pub(super) fn begin(
        &mut self,
        name: &str,
        context: Option<u64>,
        keep_alive: Option<Duration>,
        manner: Manner,
    ) -> Option<Loading> {
        self.expire();
        let asked = context.unwrap_or(manner.context);
        let is_loaded = |loaded: &Loaded| loaded.asked == asked;
        if !self.find(name)?.loaded.as_ref().is_some_and(is_loaded) {
            self.load(name, asked, manner);
        }
        let loaded = self.find_mut(name)?.loaded.as_mut()?;
        loaded.users += 1;
        loaded.kept = keep_alive.unwrap_or(loaded.kept);
        Some(Loading {
            ready: loaded.ready,
            number: loaded.number,
        })
    }

    fn load(&mut self, name: &str, asked: u64, manner: Manner) {
        self.unload(name);
        let mut others: Vec<_> = self.0.iter_mut().filter(|m| m.loaded.is_some()).collect();
        others.sort_by_key(|model| model.loaded.as_ref().map(|loaded| loaded.expires));
        let too_many = (others.len() + 1).saturating_sub(manner.room);
        for model in others.into_iter().take(too_many) {
            model.loaded = None;
        }
        if let Some(model) = self.find_mut(name) {
            model.loads += 1;
            let ready = Instant::now() + manner.takes;
            model.loaded = Some(Loaded {
                asked,
                ready,
                kept: KEPT,
                users: 0,
                expires: ready + KEPT,
                expires_at: SystemTime::now() + manner.takes + KEPT,
                number: model.loads,
            });
        }
    }

    /// Whoever began to use a model does so no longer. One that was not yet ready is not loaded any further.
    pub(super) fn end(&mut self, name: &str, loading: &Loading) {
        let Some(model) = self.find_mut(name) else {
            return;
        };
        let is_it = |loaded: &&mut Loaded| loaded.number == loading.number;
        let Some(loaded) = model.loaded.as_mut().filter(is_it) else {
            return;
        };
        loaded.users -= 1;
        loaded.expires = Instant::now() + loaded.kept;
        loaded.expires_at = SystemTime::now() + loaded.kept;
        if loaded.users == 0 && (loaded.kept.is_zero() || loaded.ready > Instant::now()) {
            model.loaded = None;
        }
    }

    /// What nobody has used for so long is not loaded any more.
    fn expire(&mut self) {
        let now = Instant::now();
        for model in &mut self.0 {
            model
                .loaded
                .take_if(|loaded| loaded.users == 0 && loaded.expires <= now);
        }
    }

    pub(super) fn unload(&mut self, name: &str) {
        if let Some(model) = self.find_mut(name) {
            model.loaded = None;
        }
    }

    pub(super) fn unload_all(&mut self) {
        self.0.iter_mut().for_each(|model| model.loaded = None);
    }

    /// `GET /api/tags`.
    pub(super) fn tags(&self) -> Value {
        json!({"models": self.0.iter().map(Model::tag).collect::<Vec<_>>()})
    }

    /// `GET /api/ps`.
    pub(super) fn ps(&mut self) -> Value {
        self.expire();
        json!({"models": self.0.iter().filter_map(Model::process).collect::<Vec<_>>()})
    }

    /// `POST /api/show`.
    pub(super) fn show(&self, name: &str) -> Option<Value> {
        self.find(name).map(Model::show)
    }

    /// `GET /v1/models`.
    pub(super) fn openai_list(&self) -> Value {
        json!({"object": "list", "data": self.0.iter().map(Model::openai).collect::<Vec<_>>()})
    }

    fn find(&self, name: &str) -> Option<&Model> {
        let name = with_tag(name);
        self.0
            .iter()
            .find(|model| model.name.eq_ignore_ascii_case(&name))
    }

    fn find_mut(&mut self, name: &str) -> Option<&mut Model> {
        let name = with_tag(name);
        self.0
            .iter_mut()
            .find(|model| model.name.eq_ignore_ascii_case(&name))
    }
}

pub(super) fn hex_digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

impl Model {
    fn digest(&self) -> String {
        if !self.shape.digest.is_empty() {
            return self.shape.digest.clone();
        }
        hex_digest(self.name.as_bytes())
    }

    fn details(&self) -> Value {
        json!({
            "parent_model": "", "format": "gguf", "family": self.shape.family, "families": [self.shape.family],
            "parameter_size": "3.2B", "quantization_level": "Q4_K_M",
        })
    }

    fn tag(&self) -> Value {
        let mut tag = json!({
            "name": self.name, "model": self.name, "modified_at": rfc3339(self.modified), "size": self.shape.size,
            "digest": self.digest(), "details": self.details(),
        });
        self.add_remote(&mut tag);
        tag
    }

    fn add_remote(&self, object: &mut Value) {
        if let Some(host) = &self.shape.remote_host {
            object["remote_model"] = json!(self.name);
            object["remote_host"] = json!(host);
        }
    }

    fn process(&self) -> Option<Value> {
        let loaded = self
            .loaded
            .as_ref()
            .filter(|loaded| loaded.ready <= Instant::now())?;
        Some(json!({
            "name": self.name, "model": self.name, "size": self.shape.size, "digest": self.digest(),
            "details": self.details(), "expires_at": rfc3339(loaded.expires_at),
            "size_vram": self.shape.size_vram.unwrap_or(self.shape.size),
            "context_length": loaded.asked.min(self.shape.context_length),
        }))
    }

    fn show(&self) -> Value {
        let family = &self.shape.family;
        let mut show = json!({
            "modelfile": format!("# Modelfile generated by \"ollama show\"\nFROM {}\n", self.name),
            "parameters": "stop                           \"<|eot_id|>\"",
            "template": "{{ range .Messages }}{{ .Role }}: {{ .Content }} {{ end }}",
            "details": self.details(),
            "model_info": {
                "general.architecture": family, "general.parameter_count": 3_212_749_888_u64,
                format!("{family}.context_length"): self.shape.context_length,
                format!("{family}.embedding_length"): 3072,
            },
            "tensors": [{"name": "token_embd.weight", "type": "Q4_K", "shape": [3072, 128_256]}],
            "capabilities": self.shape.capabilities, "modified_at": rfc3339(self.modified),
        });
        self.add_remote(&mut show);
        show
    }

    fn openai(&self) -> Value {
        let created = self
            .modified
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        json!({"id": self.name, "object": "model", "created": created, "owned_by": "library"})
    }
}
