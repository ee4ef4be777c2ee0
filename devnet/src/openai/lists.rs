//! Lists of models that a client has to live with, for [`OpenAi::set_list`](super::OpenAi::set_list).

use serde_json::{Value, json};

use super::fault::Fault;

/// As many as no operator has.
pub const MANY: usize = 10_000;

fn of_entries(data: &Value) -> Fault {
    let list = json!({"object": "list", "data": data});
    Fault::answer(200, "application/json", &list.to_string())
}

/// These ids, in this order.
pub fn of(ids: &[&str]) -> Fault {
    let entry =
        |id: &&str| json!({"id": id, "object": "model", "created": 0, "owned_by": "somebody"});
    of_entries(&ids.iter().map(entry).collect())
}

/// Nothing, though it serves (`transformers serve`).
pub fn empty() -> Fault {
    of(&[])
}

/// 500, though it serves (`transformers serve`).
pub fn failing() -> Fault {
    Fault::answer(500, "text/plain; charset=utf-8", "Internal Server Error")
}

/// The key is wrong.
pub fn unauthorized() -> Fault {
    Fault::answer(401, "application/json", r#"{"error":"Unauthorized"}"#)
}

/// Files of the operator's as ids.
pub fn paths() -> Fault {
    of(&[
        "/home/operator/models/qwen3-8b.gguf",
        r"C:\models\phi-4.gguf",
        "/srv/hub/tiny/",
    ])
}

/// One id three times.
pub fn duplicates() -> Fault {
    of(&["tiny", "other", "tiny", "tiny"])
}

/// Ten thousand.
pub fn many() -> Fault {
    let ids: Vec<_> = (0..MANY)
        .map(|number| format!("model-{number:05}"))
        .collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    of(&ids)
}

/// Sizes that are strings, or nothing (llama-server).
pub fn odd_sizes() -> Fault {
    of_entries(&json!([
        {"id": "tiny", "size": "", "meta": null},
        {"id": "other", "size": null, "created": "yesterday", "object": 3},
    ]))
}

/// Entries that are none beside one that is.
pub fn odd_entries() -> Fault {
    of_entries(&json!([null, 3, "tiny", {}, {"id": null}, {"id": 7}, {"id": ""}, {"id": "tiny"}]))
}

/// Models that cannot chat beside one that can (LM Studio).
pub fn embeddings() -> Fault {
    of(&[
        "text-embedding-nomic-embed-text-v1.5",
        "bge-m3",
        "tiny",
        "nomic-embed-text:latest",
    ])
}

/// Names of hubs and tags.
pub fn slashes_and_colons() -> Fault {
    of(&[
        "Qwen/Qwen3-8B",
        "openrouter/meta-llama/llama-3.3-70b:free",
        "llama3.2:3b",
    ])
}

/// Nothing at all, with 200 (`mlx_lm.server` without its cache folder).
pub fn nothing() -> Fault {
    Fault::answer(200, "application/json", "")
}

/// A page, with 200: somebody else listens there.
pub fn html() -> Fault {
    Fault::answer(
        200,
        "text/html; charset=utf-8",
        "<!doctype html><title>Home</title>",
    )
}

/// An error, with 200 (LM Studio).
pub fn unexpected_endpoint() -> Fault {
    let error = r#"{"error":"Unexpected endpoint or method. (GET /models). Returning 200 anyway"}"#;
    Fault::answer(200, "application/json; charset=utf-8", error)
}

/// Some are refused or still loading (hearth).
pub fn partly_ready() -> Fault {
    let entry = |id: &str, admitted: bool, ready: bool, state: &str| json!({"id": id, "object": "model", "hearth": {"admitted": admitted, "ready": ready, "state": state}});
    of_entries(&json!([
        entry("tiny", true, true, "ready"),
        entry("big", false, false, "refused"),
        entry("cold", true, false, "warming"),
    ]))
}
