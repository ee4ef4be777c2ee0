//! What Ollama says of itself and of its models, as far as it matters here. Shapes: Ollama's `api/types.go`; fields that
//! older versions lack have defaults.
//!
//! Invariant: one odd entry or field takes no other with it. An entry that has no name is left out; a field of another type
//! than its own counts as missing.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::backend::{
    Loaded, Suitability, Thinking,
    object::{count, string},
};

/// `GET /api/version`.
#[derive(Debug, Deserialize)]
pub(super) struct Version {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) version: Option<String>,
}

/// `GET /api/tags`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Tags {
    #[serde(default, deserialize_with = "entries")]
    pub(super) models: Vec<Tag>,
}

/// A model that Ollama has.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Tag {
    pub(super) name: String,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) digest: String,
    /// On disk, in bytes.
    #[serde(default, deserialize_with = "size")]
    pub(super) size: u64,
    #[serde(default, deserialize_with = "lenient")]
    remote_host: String,
}

/// What a field says, if it is of its type.
fn lenient<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: DeserializeOwned + Default,
    D: Deserializer<'de>,
{
    let json = Box::<RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(json.get()).unwrap_or_default())
}

/// A number of bytes, if it is one.
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let json = Box::<RawValue>::deserialize(deserializer)?;
    Ok(count(json.get()).unwrap_or_default())
}

/// Those entries of a list that can be read. Go writes an empty one as null.
fn entries<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: DeserializeOwned,
    D: Deserializer<'de>,
{
    let list = Option::<Vec<Box<RawValue>>>::deserialize(deserializer)?;
    let entries = list.unwrap_or_default();
    let read = entries.iter().map(|json| serde_json::from_str(json.get()));
    Ok(read.filter_map(Result::ok).collect())
}

impl Tag {
    /// What it is known by: its digest, or its name where it has none.
    pub(super) fn key(&self) -> &str {
        if self.digest.is_empty() {
            &self.name
        } else {
            &self.digest
        }
    }

    /// Whether the model runs in somebody's cloud and is only named here.
    pub(super) fn is_remote(&self) -> bool {
        !self.remote_host.is_empty() || in_a_cloud(&self.name)
    }
}

/// How far a model suits chats, as far as its name tells.
pub(super) fn suitability_by_name(name: &str) -> Suitability {
    if in_a_cloud(name) {
        Suitability::RunsElsewhere
    } else {
        Suitability::Suits
    }
}

/// Whether a model's name alone says that it runs in somebody's cloud: by its tag, as Ollama's own do (`gpt-oss:120b-cloud`,
/// `glm-4.6:cloud`). A name may only sound like it.
fn in_a_cloud(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    let tag = name
        .split_once(':')
        .map_or("", |(_, tag)| tag)
        .to_ascii_lowercase();
    tag == "cloud" || tag.ends_with("-cloud")
}

/// `GET /api/ps`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Running {
    #[serde(default, deserialize_with = "entries")]
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
    #[serde(default, deserialize_with = "size")]
    size: u64,
    #[serde(default, deserialize_with = "size")]
    size_vram: u64,
}

/// `POST /api/show`.
#[derive(Debug, Deserialize)]
pub(super) struct Show {
    /// `None` before Ollama 0.6.4.
    #[serde(default, deserialize_with = "lenient")]
    capabilities: Option<Vec<Box<RawValue>>>,
    #[serde(default, deserialize_with = "lenient")]
    details: Details,
    #[serde(default, deserialize_with = "lenient")]
    model_info: HashMap<String, Box<RawValue>>,
}

#[derive(Debug, Default, Deserialize)]
struct Details {
    #[serde(default, deserialize_with = "lenient")]
    family: String,
}

/// What is worth knowing of a model, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) chats: bool,
    pub(super) thinking: Thinking,
    pub(super) context_length: Option<u64>,
}

impl Show {
    pub(super) fn facts(&self) -> Facts {
        let can = |capability: &str| {
            let is_it = |one: &RawValue| {
                string(one.get()).is_some_and(|one| one.eq_ignore_ascii_case(capability))
            };
            let all = self.capabilities.as_ref();
            all.map(|all| all.iter().any(|one| is_it(one)))
        };
        Facts {
            chats: can("completion").unwrap_or_else(|| !self.only_embeds()),
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
        count(self.of_architecture("context_length")?)
    }

    /// What an Ollama before 0.6.4 does not tell by itself. Ollama knows those models by their pooling, too
    /// (`server/images.go`, 0.17.4); the architectures that only embed are BERT's.
    fn only_embeds(&self) -> bool {
        let architecture = self.model_info.get("general.architecture");
        let architecture = architecture.and_then(|json| string(json.get()));
        let names = [Some(self.details.family.as_str()), architecture.as_deref()];
        let is_bert = |name: &str| name.to_ascii_lowercase().contains("bert");
        names.into_iter().flatten().any(is_bert)
            || self
                .of_architecture("pooling_type")
                .is_some_and(|pooling| pooling != "null")
    }

    fn of_architecture(&self, key: &str) -> Option<&str> {
        let architecture = string(self.model_info.get("general.architecture")?.get())?;
        let value = self.model_info.get(&format!("{architecture}.{key}"))?;
        Some(value.get())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn facts(show: &str) -> Facts {
        serde_json::from_str::<Show>(show).unwrap().facts()
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
    fn an_old_ollamas_model_that_only_embeds_is_known_by_its_kind() {
        for embeds in [
            r#"{"details":{"family":"bert"}}"#,
            r#"{"details":{"family":"nomic-bert"},"model_info":{}}"#,
            r#"{"model_info":{"general.architecture":"jina-bert-v2"}}"#,
            r#"{"details":{"family":"qwen3"},"model_info":{"general.architecture":"qwen3","qwen3.pooling_type":3}}"#,
        ] {
            assert!(!facts(embeds).chats, "{embeds}");
        }
        for chats in [
            r#"{"details":{"family":"llama"},"model_info":{"general.architecture":"llama","llama.pooling_type":null}}"#,
            // One that says what it can do is taken at its word.
            r#"{"capabilities":["completion"],"details":{"family":"bert"}}"#,
        ] {
            assert!(facts(chats).chats, "{chats}");
        }
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

    fn names(tags: &str) -> Vec<(String, u64)> {
        let tags: Tags = serde_json::from_str(tags).unwrap();
        let seen = |tag: Tag| (tag.name, tag.size);
        tags.models.into_iter().map(seen).collect()
    }

    #[test]
    fn an_odd_entry_or_field_takes_no_other_with_it() {
        assert_eq!(
            names(
                r#"{"models":[{"name":"a","size":null,"digest":null,"remote_host":3},{"name":7},{"size":1},null,{"name":"b","size":2.0}]}"#
            ),
            [("a".to_owned(), 0), ("b".to_owned(), 2)]
        );
        for none in [r#"{"models":null}"#, r#"{"models":[]}"#, "{}"] {
            assert_eq!(names(none), []);
        }
        let running = r#"{"models":[{"name":"a","size":-1,"size_vram":null},{"size_vram":5},{"name":"b","size_vram":7}]}"#;
        let running: Running = serde_json::from_str(running).unwrap();
        assert_eq!(running.vram_bytes(), 7);
        assert!(running.loaded("a").is_some());
        let version: Version = serde_json::from_str(r#"{"version":7}"#).unwrap();
        assert_eq!(version.version, None);
    }

    #[test]
    fn an_odd_description_still_says_what_can_be_read_of_it() {
        let odd = r#"{"capabilities":[7,"completion",null],"details":null,"model_info":{"general.architecture":"llama","llama.context_length":2048.0}}"#;
        let facts_of_odd = facts(odd);
        assert!(facts_of_odd.chats);
        assert_eq!(facts_of_odd.context_length, Some(2048));
        for nothing in [
            r#"{"capabilities":null,"details":{"family":null},"model_info":null}"#,
            r#"{"capabilities":"completion","model_info":{"general.architecture":null}}"#,
            r#"{"model_info":{"general.architecture":"llama","llama.context_length":"2048"}}"#,
        ] {
            assert_eq!(facts(nothing), facts("{}"), "{nothing}");
        }
    }

    #[test]
    fn models_of_a_cloud_are_known_by_their_host_or_their_name() {
        let tags = r#"{"models":[{"name":"a:latest"},{"name":"b:latest","remote_host":"https://x"},{"name":"c:120b-cloud"}]}"#;
        let tags: Tags = serde_json::from_str(tags).unwrap();
        assert_eq!(
            tags.models.iter().map(Tag::is_remote).collect::<Vec<_>>(),
            [false, true, true]
        );
        for (name, is_remote) in [
            ("glm-4.6:cloud", true),
            ("registry.example:5000/x/glm:CLOUD", true),
            ("helpdesk:nextcloud", false),
            ("soundcloud:latest", false),
            ("mycloud", false),
            ("cloud:latest", false),
            ("x-cloud/y:7b", false),
            ("host-cloud:5000/y", false),
        ] {
            assert_eq!(in_a_cloud(name), is_remote, "{name}");
        }
    }
}
