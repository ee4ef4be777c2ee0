//! What `GET /v1/models` tells: the models' ids, and where a server says so, that one of them cannot be asked just now.
//!
//! Invariant: nothing else in it is believed, and one odd entry takes no other with it.

use std::collections::HashSet;

use super::numbers::without_odd_numbers;
use crate::backend::{
    Model, Suitability,
    fields::fields,
    names::{is_embedding, suitability_by_name},
    object::{elements, string},
};

/// The longest name that is offered, in bytes: what a metric's label may have.
const LONGEST_NAME: usize = 256;

/// The models of a list, each name once. `None` if it is none.
pub(super) fn models(json: &str) -> Option<Vec<(Model, Suitability)>> {
    let mended = without_odd_numbers(json);
    let json = mended.as_deref().unwrap_or(json);
    let entries = match json.trim_start_matches('\u{feff}').trim_start() {
        list if list.starts_with('[') => elements(list.trim())?,
        json => elements(fields(json, ["data"])?[0]?)?,
    };
    let mut known = HashSet::new();
    let models = entries.filter_map(entry);
    Some(
        models
            .filter(|(model, _)| known.insert(model.name.to_lowercase()))
            .collect(),
    )
}

/// A model that the operator names where its server does not.
pub(super) fn named(id: &str) -> (Model, Suitability) {
    (model(id), Suitability::Suits)
}

fn model(id: &str) -> Model {
    Model {
        id: id.into(),
        ..Model::named(name_of(id))
    }
}

fn entry(json: &str) -> Option<(Model, Suitability)> {
    let [id, hearth] = fields(json, ["id", "hearth"])?;
    let id = string(id?)?;
    let model = model(&id);
    let name = &*model.name;
    let is_odd = |c: char| c.is_control() || c == '\u{fffd}';
    if name.trim().is_empty() || name.contains(is_odd) || name.len() > LONGEST_NAME {
        return None;
    }
    let is_refused = hearth.and_then(|state| fields(state, ["ready"])?[0]) == Some("false");
    let suitability = match suitability_by_name(name) {
        Suitability::Suits if is_refused => Suitability::NotReady,
        Suitability::Suits if is_embedding(name) => Suitability::CannotChat,
        other => other,
    };
    Some((model, suitability))
}

/// The name by which a model is offered: where its id is a path on the operator's disk, the last part of that.
fn name_of(id: &str) -> &str {
    let is_drive = id.as_bytes().get(1) == Some(&b':') && id.contains('\\');
    let starts = ["./", "../", "file:"];
    let is_path =
        id.starts_with(['/', '~', '\\']) || starts.iter().any(|start| id.starts_with(start));
    if !(is_path || is_drive) {
        return id;
    }
    let mut parts = id.rsplit(['/', '\\']);
    parts.find(|part| !part.is_empty()).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn listed(json: &str) -> Vec<(String, String, Suitability)> {
        let models = models(json).unwrap();
        let shown = |(model, suitability): (Model, _)| {
            (model.name.to_string(), model.id.to_string(), suitability)
        };
        models.into_iter().map(shown).collect()
    }

    fn ids(json: &str) -> Vec<String> {
        listed(json).into_iter().map(|(_, id, _)| id).collect()
    }

    #[test]
    fn nothing_but_the_ids_is_believed() {
        let llama = r#"{"models":[{"name":"x","size":"","details":{}}],"object":"list","data":[
            {"id":"tiny","aliases":["a"],"meta":{"n_ctx":1e999}},{"id":"meta-llama/Llama-3:8b","root":"/models/x"}]}"#;
        assert_eq!(ids(llama), ["tiny", "meta-llama/Llama-3:8b"]);
        assert_eq!(ids(r#"[{"id":"tiny"}]"#), ["tiny"]);
        assert!(ids(r#"{"data":[]}"#).is_empty());
        for none in [
            "",
            "{}",
            r#"{"data":null}"#,
            r#"{"models":[]}"#,
            "<html>",
            "null",
        ] {
            assert!(models(none).is_none(), "{none}");
        }
    }

    #[test]
    fn an_odd_entry_takes_no_other_with_it() {
        let odd = r#"{"data":[7,null,{},{"id":null},{"id":""},{"id":" "},{"id":"\ud83d"},{"id":["x"]},{"id":"/"},{"id":"c\u0001"},{"id":"good","x":1e999,"y":NaN}]}"#;
        assert_eq!(ids(odd), ["good"]);
    }

    #[test]
    fn a_path_is_offered_by_its_last_part_and_each_name_once() {
        for (id, name) in [
            ("/models/tiny.gguf", "tiny.gguf"),
            ("/models/tiny/", "tiny"),
            ("~/tiny.gguf", "tiny.gguf"),
            ("./tiny.gguf", "tiny.gguf"),
            ("file:///models/tiny.gguf", "tiny.gguf"),
            (r"C:\\models\\tiny.gguf", "tiny.gguf"),
            ("owner/tiny", "owner/tiny"),
        ] {
            let listed = listed(&format!(r#"{{"data":[{{"id":"{id}"}}]}}"#));
            assert_eq!(listed[0].0, name, "{id}");
        }
        let twice = r#"{"data":[{"id":"/a/tiny"},{"id":"/b/Tiny"},{"id":"tiny"}]}"#;
        assert_eq!(ids(twice), ["/a/tiny"]);
    }

    #[test]
    fn what_cannot_chat_or_is_refused_by_its_server_is_known() {
        let json = r#"{"data":[{"id":"text-embedding-nomic-embed-text-v1.5"},{"id":"gpt-oss:120b-cloud"},
            {"id":"big","hearth":{"admitted":false,"ready":false}},{"id":"small","hearth":{"ready":true}}]}"#;
        let found: Vec<_> = listed(json).into_iter().map(|(_, _, how)| how).collect();
        assert_eq!(
            found,
            [
                Suitability::CannotChat,
                Suitability::RunsElsewhere,
                Suitability::NotReady,
                Suitability::Suits
            ]
        );
    }
}
