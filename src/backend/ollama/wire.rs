//! What Ollama says of itself and of its models, as far as it matters here. Shapes: Ollama's `api/types.go`; fields that
//! older versions lack have defaults.
//!
//! Invariant: one odd entry or field takes no other with it. An entry that has no name is left out; a field of another type
//! than its own counts as missing.

use crate::backend::{
    Loaded, Thinking,
    fields::fields,
    halves,
    names::in_a_cloud,
    object::{count, elements, string},
};

/// What `GET /api/version` tells, if it does.
pub(super) fn version(json: &str) -> Option<String> {
    fields(json, ["version"])?[0].and_then(text)
}

/// The models of `GET /api/tags`, none where there is no list of them: Go writes an empty one as null. `None` if that is no
/// answer of an Ollama's.
pub(super) fn tags(json: &str) -> Option<Vec<Tag>> {
    let models = match json.trim() {
        "null" => None,
        json => fields(json, ["models"])?[0],
    };
    let models = models.and_then(elements).into_iter().flatten();
    Some(models.filter_map(Tag::read).collect())
}

/// A model that Ollama has.
#[derive(Clone, Debug)]
pub(super) struct Tag {
    pub(super) name: String,
    pub(super) digest: String,
    /// On disk, in bytes.
    pub(super) size: u64,
    remote_host: String,
}

fn text(json: &str) -> Option<String> {
    string(json).map(String::from)
}

/// A name that can be asked for: one that is blank, or not all of which is text, names nothing.
fn name(json: &str) -> Option<String> {
    let is_name = |name: &String| !name.trim().is_empty() && !name.contains(halves::REPLACEMENT);
    text(json).filter(is_name)
}

/// A number of bytes; 0 if it is none.
fn size(json: Option<&str>) -> u64 {
    json.and_then(count).unwrap_or_default()
}

impl Tag {
    fn read(json: &str) -> Option<Self> {
        let names = ["name", "digest", "size", "remote_host"];
        let [name_of_it, digest, bytes, remote_host] = fields(json, names)?;
        Some(Self {
            name: name(name_of_it?)?,
            digest: digest.and_then(text).unwrap_or_default(),
            size: size(bytes),
            remote_host: remote_host.and_then(text).unwrap_or_default(),
        })
    }

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

/// `GET /api/ps`.
#[derive(Debug, Default)]
pub(super) struct Running(Vec<RunningModel>);

impl Running {
    /// `None` if that is no answer of an Ollama's. What is no list says nothing of what is in memory.
    pub(super) fn read(json: &str) -> Option<Self> {
        let models = fields(json, ["models"])?[0].unwrap_or("[]");
        let models = elements(models)?.filter_map(RunningModel::read);
        Some(Self(models.collect()))
    }

    /// GPU memory that the models take together. The numbers are Ollama's, and may be of any size.
    pub(super) fn vram_bytes(&self) -> u64 {
        let sizes = self.0.iter().map(|model| model.size_vram);
        sizes.fold(0, u64::saturating_add)
    }

    /// What a model takes, if it is in memory.
    pub(super) fn loaded(&self, name: &str) -> Option<Loaded> {
        let mut running = self.0.iter();
        let model = running.find(|model| model.name == name)?;
        Some(Loaded {
            bytes: model.size,
            gpu_bytes: model.size_vram,
        })
    }
}

/// A model that is in memory.
#[derive(Debug)]
struct RunningModel {
    name: String,
    size: u64,
    size_vram: u64,
}

impl RunningModel {
    fn read(json: &str) -> Option<Self> {
        let [name_of_it, bytes, gpu_bytes] = fields(json, ["name", "size", "size_vram"])?;
        Some(Self {
            name: name(name_of_it?)?,
            size: size(bytes),
            size_vram: size(gpu_bytes),
        })
    }
}

/// What is worth knowing of a model, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) chats: bool,
    pub(super) thinking: Thinking,
    pub(super) context_length: Option<u64>,
}

impl Facts {
    /// What `POST /api/show` tells. `None` if that is no answer of an Ollama's.
    pub(super) fn read(json: &str) -> Option<Self> {
        let names = ["capabilities", "details", "model_info"];
        let [capabilities, details, info] = fields(json, names)?;
        let info = Info::read(info);
        let families = families(details);
        let capabilities = capabilities.and_then(elements);
        // `None` before Ollama 0.6.4.
        let can: Option<Vec<_>> = capabilities.map(|all| all.filter_map(string).collect());
        let can = |capability| {
            let can = can.as_ref()?;
            Some(can.iter().any(|one| one.eq_ignore_ascii_case(capability)))
        };
        Some(Self {
            chats: can("completion").unwrap_or_else(|| !only_embeds(&families, &info)),
            thinking: match can("thinking") {
                Some(true) if takes_levels(&families) => Thinking::Levels,
                Some(true) => Thinking::OnOrOff,
                Some(false) | None => Thinking::None,
            },
            context_length: info.context_length.and_then(count),
        })
    }
}

/// The family of a model or, where that is not told, all that it is made of.
fn families(details: Option<&str>) -> Vec<String> {
    let details = details.and_then(|details| fields(details, ["family", "families"]));
    let [family, families] = details.unwrap_or_default();
    match family.and_then(name) {
        Some(family) => vec![family],
        None => families
            .and_then(elements)
            .into_iter()
            .flatten()
            .filter_map(name)
            .collect(),
    }
}

/// What is said of a model's architecture itself; other parts of a model, such as its eyes, have a context, too.
#[derive(Default)]
struct Info<'a> {
    architecture: Option<String>,
    context_length: Option<&'a str>,
    pooling_type: Option<&'a str>,
}

impl<'a> Info<'a> {
    fn read(info: Option<&'a str>) -> Self {
        let architecture = info
            .and_then(|info| fields(info, ["general.architecture"])?[0])
            .and_then(text);
        let (Some(info), Some(architecture)) = (info, architecture) else {
            return Self::default();
        };
        let names = ["context_length", "pooling_type"];
        let names = names.map(|name| format!("{architecture}.{name}"));
        let of_architecture = fields(info, names.each_ref().map(String::as_str));
        let [context_length, pooling_type] = of_architecture.unwrap_or_default();
        Self {
            architecture: Some(architecture),
            context_length,
            pooling_type,
        }
    }
}

/// Whether `think` may be a level: Ollama refuses that for all families but these (`server/routes.go`, 0.17.4).
fn takes_levels(families: &[String]) -> bool {
    let takes_them = |family: &String| matches!(&**family, "gptoss" | "gpt-oss");
    families.iter().any(takes_them)
}

/// What an Ollama before 0.6.4 does not tell by itself. Ollama knows those models by their pooling, too
/// (`server/images.go`, 0.17.4); the architectures that only embed are BERT's.
fn only_embeds(families: &[String], info: &Info<'_>) -> bool {
    let is_bert = |name: &String| name.to_ascii_lowercase().contains("bert");
    let is_all_bert = !families.is_empty() && families.iter().all(is_bert);
    is_all_bert || info.architecture.as_ref().is_some_and(is_bert) || info.pooling_type.is_some()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn facts(show: &str) -> Facts {
        Facts::read(show).unwrap()
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
            r#"{"details":{"family":"","families":["bert"]}}"#,
            r#"{"details":{"family":null,"families":["nomic-bert"]},"model_info":null}"#,
        ] {
            assert!(!facts(embeds).chats, "{embeds}");
        }
        for chats in [
            r#"{"details":{"family":"llama"},"model_info":{"general.architecture":"llama","llama.pooling_type":null}}"#,
            r#"{"details":{"family":"","families":["llama","bert"]}}"#,
            r#"{"details":{"family":"llama","families":["bert"]}}"#,
            r#"{"details":{"family":"","families":[]}}"#,
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
        let seen = |tag: Tag| (tag.name, tag.size);
        super::tags(tags).unwrap().into_iter().map(seen).collect()
    }

    #[test]
    fn an_odd_entry_or_field_takes_no_other_with_it() {
        assert_eq!(
            names(
                r#"{"models":[{"name":"a","size":null,"digest":null,"remote_host":3},{"name":7},{"name":""},{"name":" "},{"name":"c\ud83d"},{"size":1},null,["arr:latest","d",5,""],"s",{"name":"b","size":2.0,"x\ud83d":1}],"y\ud83d":1}"#
            ),
            [("a".to_owned(), 0), ("b".to_owned(), 2)]
        );
        for none in [
            r#"{"models":null}"#,
            r#"{"models":[]}"#,
            r#"{"models":{}}"#,
            r#"{"models":""}"#,
            "{}",
            " null\n",
        ] {
            assert_eq!(names(none), [], "{none}");
        }
        for other in ["[]", "<html>", r#""models""#, ""] {
            assert!(tags(other).is_none(), "{other}");
        }
        let running = r#"{"models":[{"name":"a","size":-1,"size_vram":null},{"size_vram":5},{"name":"b","size_vram":7}]}"#;
        let running = Running::read(running).unwrap();
        assert!(Running::read(r#"{"models":null}"#).is_some());
        for unknown in ["null", r#"{"models":{}}"#] {
            assert!(Running::read(unknown).is_none(), "{unknown}");
        }
        assert_eq!(running.vram_bytes(), 7);
        assert!(running.loaded("a").is_some());
        for (json, known) in [
            (r#"{"version":"0.17.4"}"#, Some("0.17.4")),
            (r#"{"version":7}"#, None),
            ("null", None),
            ("garbage", None),
        ] {
            assert_eq!(version(json).as_deref(), known);
        }
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
        assert_eq!(
            super::tags(tags)
                .unwrap()
                .iter()
                .map(Tag::is_remote)
                .collect::<Vec<_>>(),
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
