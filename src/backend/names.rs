//! What a model's name alone tells of it, where its server tells no more.

use super::Suitability;

/// How far a model suits chats, as far as where it runs goes.
pub(super) fn suitability_by_name(name: &str) -> Suitability {
    if in_a_cloud(name) {
        Suitability::RunsElsewhere
    } else {
        Suitability::Suits
    }
}

/// Whether a model's name alone says that it runs in somebody's cloud: by its tag, as Ollama's own do (`gpt-oss:120b-cloud`,
/// `glm-4.6:cloud`). A name may only sound like it.
pub(super) fn in_a_cloud(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    let tag = name
        .split_once(':')
        .map_or("", |(_, tag)| tag)
        .to_ascii_lowercase();
    tag == "cloud" || tag.ends_with("-cloud")
}

/// Whether a name is one that models have which embed or rank texts, or hear or speak them, and do not chat.
pub(super) fn is_embedding(name: &str) -> bool {
    const PARTS: [&str; 6] = ["embed", "rerank", "minilm", "colbert", "whisper", "bge-"];
    const BEGINNINGS: [&str; 4] = ["e5-", "gte-", "tts-1", "kokoro"];
    const WORDS: [&str; 1] = ["transcribe"];
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let mut words = name.split(|c: char| !c.is_alphanumeric());
    PARTS.iter().any(|part| name.contains(part))
        || words.any(|word| WORDS.contains(&word))
        || BEGINNINGS
            .iter()
            .any(|beginning| name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_embed_or_transcribe_are_known_by_their_names() {
        for name in [
            "text-embedding-3-small",
            "nomic-ai/nomic-embed-text-v1.5",
            "BAAI/bge-m3",
            "all-MiniLM-L6-v2",
            "intfloat/e5-mistral-7b-instruct",
            "Qwen3-Reranker-0.6B",
            "Qwen3-Embedding-8B",
            "gpt-4o-transcribe",
            "openai/gpt-4o-mini-transcribe",
            "Voxtral-Mini-Transcribe",
            "gpt-4o-transcribe-diarize",
            "whisper-large-v3",
        ] {
            assert!(is_embedding(name), "{name}");
        }
        for name in [
            "Qwen3-8B",
            "tiny",
            "command-r",
            "gte/chat",
            "mistral-7b",
            "transcriber-llama-8b",
            "transcribe/qwen3",
        ] {
            assert!(!is_embedding(name), "{name}");
        }
    }
}
