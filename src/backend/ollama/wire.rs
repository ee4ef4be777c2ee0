//! What Ollama says of itself and of its models, as far as it matters here. Shapes: Ollama's `api/types.go`; fields that
//! older versions lack have defaults.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::backend::{Loaded, Suitability, Thinking};

/// `GET /api/version`.
#[derive(Debug, Deserialize)]
pub(super) struct Version {
    pub(super) version: String,
}

/// `GET /api/tags`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Tags {
    #[serde(default)]
    pub(super) models: Vec<Tag>,
}

/// A model that Ollama has.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Tag {
    pub(super) name: String,
    #[serde(default)]
    pub(super) digest: String,
    /// On disk, in bytes.
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    remote_model: String,
    #[serde(default)]
    remote_host: String,
}

impl Tag {
    /// Whether the model runs in somebody's cloud and is only named here.
    pub(super) fn is_remote(&self) -> bool {
        !self.remote_model.is_empty() || !self.remote_host.is_empty() || in_a_cloud(&self.name)
    }
}

/// How far a model suits chats, as far as its name tells.
pub(super) fn suitability_by_name(name: &str) -> Suitability {
    if in_a_cloud(name) {
        Suitability::IfNamed
    } else {
        Suitability::Suits
    }
}

/// Whether a model's name alone says that it runs in somebody's cloud.
fn in_a_cloud(name: &str) -> bool {
    name.ends_with("cloud")
}

/// `GET /api/ps`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Running {
    #[serde(default)]
    models: Vec<RunningModel>,
}

impl Running {
    /// GPU memory that the models take together. The numbers are Ollama's, and may be of any size.
    pub(super) fn vram_bytes(&self) -> u64 {
        let sizes = self.models.iter().map(|model| model.size_vram);
        sizes.fold(0, u64::saturating_add)
    }

    /// What a model takes, if it is in memory.
    pub(super) fn loaded(&self, name: &str) -> Option<Loaded> {
        let mut running = self.models.iter();
        let model = running.find(|model| model.name == name)?;
        Some(Loaded {
            bytes: model.size,
            gpu_bytes: model.size_vram,
        })
    }
}

/// A model that is in memory.
#[derive(Debug, Deserialize)]
struct RunningModel {
    name: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    size_vram: u64,
}

/// `POST /api/show`.
#[derive(Debug, Deserialize)]
pub(super) struct Show<'a> {
    /// `None` before Ollama 0.6.4.
    capabilities: Option<Vec<String>>,
    #[serde(default)]
    details: Details,
    #[serde(borrow, default)]
    model_info: HashMap<String, &'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
struct Details {
    #[serde(default)]
    family: String,
}

/// What is worth knowing of a model, whatever its name. It never changes for a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) chats: bool,
    pub(super) thinking: Thinking,
    pub(super) context_length: Option<u64>,
}

impl Show<'_> {
    pub(super) fn facts(&self) -> Facts {
        let can = |capability: &str| {
            self.capabilities
                .as_ref()
                .map(|all| all.iter().any(|one| one.eq_ignore_ascii_case(capability)))
        };
        Facts {
            // An Ollama that does not tell serves whatever it is asked for.
            chats: can("completion").unwrap_or(true),
            thinking: match can("thinking") {
                Some(true) if self.takes_levels() => Thinking::Levels,
                Some(true) => Thinking::OnOrOff,
                Some(false) | None => Thinking::None,
            },
            context_length: self.context_length(),
        }
    }

    /// Whether `think` may be a level: Ollama refuses that for all families but these (`server/routes.go`, 0.17.4).
    fn takes_levels(&self) -> bool {
        matches!(&*self.details.family, "gptoss" | "gpt-oss")
    }

    /// The architecture's own context length; other parts of a model, such as its eyes, have some, too.
    fn context_length(&self) -> Option<u64> {
        let architecture: String =
            serde_json::from_str(self.model_info.get("general.architecture")?.get()).ok()?;
        serde_json::from_str(
            self.model_info
                .get(&format!("{architecture}.context_length"))?
                .get(),
        )
        .ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn facts(show: &str) -> Facts {
        serde_json::from_str::<Show<'_>>(show).unwrap().facts()
    }

    #[test]
    fn a_model_is_what_ollama_says_it_can_do() {
        let chat = r#"{"capabilities":["completion","thinking"],"model_info":{"general.architecture":"llama","llama.context_length":2048,"llama.vision.context_length":77}}"#;
        assert_eq!(
            facts(chat),
            Facts {
                chats: true,
                thinking: Thinking::OnOrOff,
                context_length: Some(2048)
            }
        );
        let embedding = r#"{"capabilities":["embedding"],"model_info":{}}"#;
        assert_eq!(
            facts(embedding),
            Facts {
                chats: false,
                thinking: Thinking::None,
                context_length: None
            }
        );
        assert_eq!(
            facts("{}"),
            Facts {
                chats: true,
                thinking: Thinking::None,
                context_length: None
            }
        );
    }

    #[test]
    fn only_models_of_gpt_oss_take_levels_of_thinking() {
        for (family, thinking) in [
            ("gptoss", Thinking::Levels),
            ("gpt-oss", Thinking::Levels),
            ("qwen3", Thinking::OnOrOff),
        ] {
            let show = format!(
                r#"{{"capabilities":["completion","thinking"],"details":{{"family":"{family}"}}}}"#
            );
            assert_eq!(facts(&show).thinking, thinking, "{family}");
        }
        let cannot = r#"{"capabilities":["completion"],"details":{"family":"gptoss"}}"#;
        assert_eq!(facts(cannot).thinking, Thinking::None);
    }

    #[test]
    fn models_of_a_cloud_are_known_by_their_host_or_their_name() {
        let tags = r#"{"models":[{"name":"a:latest"},{"name":"b:latest","remote_host":"https://x"},{"name":"c:120b-cloud"}]}"#;
        let tags: Tags = serde_json::from_str(tags).unwrap();
        assert_eq!(
            tags.models.iter().map(Tag::is_remote).collect::<Vec<_>>(),
            [false, true, true]
        );
    }
}
