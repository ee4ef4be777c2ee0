//! The models of the stand-in: what the list says of them, and which names a chat may use.

use serde_json::{Value, json};

use super::{refusal::Refusal, style::Style};

/// What `mlx_lm.server` calls the model that it was started with.
const DEFAULT_MODEL: &str = "default_model";

const CREATED: u64 = 1_764_000_000;

/// What a model of the router is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loaded {
    No,
    Yes,
}

#[derive(Clone, Debug)]
struct Model {
    id: String,
    loaded: Loaded,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Models {
    models: Vec<Model>,
    /// Names that a list of the test's own gives, which are good for chats as well.
    pub(super) listed: Vec<String>,
}

impl Models {
    pub(super) fn add(&mut self, style: Style, name: &str) {
        let id = id(style, name);
        self.remove(style, name);
        self.models.push(Model {
            id,
            loaded: Loaded::No,
        });
    }

    pub(super) fn remove(&mut self, style: Style, name: &str) {
        let id = id(style, name);
        self.models.retain(|model| model.id != id);
    }

    /// What the server's answer calls the model that was asked for.
    pub(super) fn find(
        &self,
        style: Style,
        router: bool,
        name: Option<&str>,
    ) -> Result<String, Refusal> {
        let known = |name: &str| {
            let mut known = self
                .models
                .iter()
                .map(|model| &model.id)
                .chain(&self.listed);
            known.find(|id| *id == name).cloned()
        };
        let first = || self.models.first().map(|model| model.id.clone());
        let name = name.unwrap_or_default();
        match style {
            Style::LlamaServer if router => {
                known(name).ok_or_else(|| Refusal::invalid(format!("model '{name}' not found")))
            }
            Style::LlamaServer => Ok(known(name).or_else(first).unwrap_or_default()),
            Style::Vllm => known(name).ok_or_else(|| {
                let message = format!("The model `{name}` does not exist.");
                Refusal::new(404, "NotFoundError", message)
            }),
            Style::Mlx if name.is_empty() || name == DEFAULT_MODEL => Ok(DEFAULT_MODEL.to_owned()),
            Style::Mlx => known(name).ok_or_else(|| {
                let message = format!("Failed to load model: cannot find {name} on the hub");
                Refusal::new(404, "", message)
            }),
            Style::Transformers => known(name)
                .map(|id| id + "@main")
                .ok_or_else(|| Refusal::invalid(format!("Server is not serving the model {name}"))),
            Style::Ollama => {
                let full = id(style, name);
                let mut known = self
                    .models
                    .iter()
                    .map(|model| &model.id)
                    .chain(&self.listed);
                match known.find(|id| id.eq_ignore_ascii_case(&full)) {
                    Some(_) => Ok(name.to_owned()),
                    None => Err(Refusal::new(
                        404,
                        "not_found_error",
                        format!("model '{name}' not found"),
                    )),
                }
            }
        }
    }

    /// Whether the router still has to load it.
    pub(super) fn is_unloaded(&self, id: &str) -> bool {
        let is_it = |model: &&Model| model.id == id;
        self.models
            .iter()
            .find(is_it)
            .is_some_and(|model| model.loaded == Loaded::No)
    }

    pub(super) fn load(&mut self, id: &str) {
        if let Some(model) = self.models.iter_mut().find(|model| model.id == id) {
            model.loaded = Loaded::Yes;
        }
    }

    /// `GET /v1/models`.
    pub(super) fn list(&self, style: Style, router: bool, context: usize) -> Value {
        if style == Style::Transformers {
            return json!({"object": "list", "data": []});
        }
        let entry = |model: &Model| match style {
            Style::LlamaServer if router => routed(model),
            Style::LlamaServer => json!({
                "id": model.id, "aliases": [model.id], "tags": [], "object": "model", "created": CREATED, "owned_by": "llamacpp",
                "meta": {"vocab_type": 2, "n_vocab": 512, "n_ctx": context, "n_ctx_train": context, "n_embd": 128, "n_params": 400_000, "size": 1_600_000},
            }),
            Style::Vllm => json!({
                "id": model.id, "object": "model", "created": CREATED, "owned_by": "vllm", "root": format!("/srv/models/{}", model.id),
                "parent": null, "max_model_len": context, "permission": [{"id": "modelperm-1", "object": "model_permission", "organization": "*"}],
            }),
            Style::Mlx => json!({"id": model.id, "object": "model", "created": CREATED}),
            Style::Ollama | Style::Transformers => {
                json!({"id": model.id, "object": "model", "created": CREATED, "owned_by": "library"})
            }
        };
        let data: Vec<_> = self.models.iter().map(entry).collect();
        let mut list = json!({"object": "list", "data": data});
        if style == Style::LlamaServer && !router {
            list["models"] = self.models.iter().map(like_ollama).collect();
        }
        list
    }
}

/// How a server calls a model that the test calls so.
pub(super) fn id(style: Style, name: &str) -> String {
    match style {
        Style::Mlx | Style::Transformers if !name.contains('/') => format!("/srv/models/{name}"),
        Style::Ollama => {
            let last = name.rsplit('/').next().unwrap_or(name);
            if last.contains(':') {
                name.to_owned()
            } else {
                format!("{name}:latest")
            }
        }
        Style::LlamaServer | Style::Vllm | Style::Mlx | Style::Transformers => name.to_owned(),
    }
}

/// The router's entry has the operator's whole command line.
fn routed(model: &Model) -> Value {
    let value = match model.loaded {
        Loaded::No => "unloaded",
        Loaded::Yes => "loaded",
    };
    let path = format!("/home/operator/models/{}.gguf", model.id);
    json!({
        "id": model.id, "object": "model", "created": CREATED, "owned_by": "llamacpp", "path": path, "in_cache": false,
        "status": {"value": value, "args": ["/usr/bin/llama-server", "--model", path, "--api-key", "operators-own"]},
    })
}

/// What llama-server says beside `data`, for clients of Ollama. The size is a string there.
fn like_ollama(model: &Model) -> Value {
    json!({
        "name": model.id, "model": model.id, "modified_at": "", "size": "", "digest": "", "type": "model", "description": "",
        "tags": [""], "capabilities": ["completion"], "parameters": "",
        "details": {"parent_model": "", "format": "gguf", "family": "", "families": [""], "parameter_size": "", "quantization_level": ""},
    })
}
