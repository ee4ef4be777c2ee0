//! The models of the stand-in: which there are, which are loaded, and how Ollama tells of them.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::timestamp::rfc3339;

/// What Ollama loads a model with where nobody asks for another context.
const DEFAULT_CONTEXT: u64 = 4096;

/// How long a model stays loaded, as `/api/ps` tells.
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
    /// Bytes on disk; loaded it takes as much, all of it in VRAM.
    pub size: u64,
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
    context: u64,
    ready: Instant,
    expires: SystemTime,
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

    pub(super) fn is_loaded(&self, name: &str) -> bool {
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

    /// Loads a model unless it is loaded with that context; gives the moment from which it is ready. Without a wish
    /// for a context the one that is loaded will do.
    pub(super) fn load(
        &mut self,
        name: &str,
        context: Option<u64>,
        takes: Duration,
    ) -> Option<Instant> {
        let model = self.find_mut(name)?;
        let expires = SystemTime::now() + KEPT;
        match &mut model.loaded {
            Some(loaded) if context.is_none_or(|context| context == loaded.context) => {
                loaded.expires = expires;
                Some(loaded.ready)
            }
            loaded => {
                let context = context
                    .unwrap_or(DEFAULT_CONTEXT)
                    .min(model.shape.context_length);
                let ready = Instant::now() + takes;
                *loaded = Some(Loaded {
                    context,
                    ready,
                    expires,
                });
                model.loads += 1;
                Some(ready)
            }
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
    pub(super) fn ps(&self) -> Value {
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
            "details": self.details(), "expires_at": rfc3339(loaded.expires), "size_vram": self.shape.size,
            "context_length": loaded.context,
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
