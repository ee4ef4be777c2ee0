//! Twenty chats that are being answered, and the account that is given of them.

use devnet::gateway::{Chat, ChatEvent, Gateway, Outcome};
use serde_json::{Value, json};

/// How many run at once.
pub(crate) const TWENTY: usize = 20;

/// The real Ollama's model, which never ends by itself.
pub(crate) const MODEL: &str = "tiny:latest";

/// The length of an answer: with the processor that Ollama gets, so much that twenty take some seconds.
const TOKENS: u64 = 100;

/// What chats ask for.
pub(crate) fn payload(tokens: u64) -> Value {
    json!({
        "model": MODEL, "stream": true, "options": {"num_predict": tokens},
        "messages": [{"role": "user", "content": "why is the sky blue"}],
    })
}

/// Chats that were handed out and have begun to be answered.
pub(crate) struct Running(Vec<Chat>);

impl Running {
    /// Sends twenty and waits until each has its first words.
    pub(crate) async fn begin(gateway: &Gateway) -> Self {
        let mut chats: Vec<Chat> = (0..TWENTY).map(|_| gateway.chat(payload(TOKENS))).collect();
        for chat in &mut chats {
            let first = chat.next().await;
            assert!(matches!(first, ChatEvent::Chunk(_)), "{first:?}");
        }
        Self(chats)
    }

    /// All are answered, to the last token.
    pub(crate) async fn all_answered(self, gateway: &Gateway) {
        let ids = self.ids();
        for (id, outcome) in ids.iter().zip(self.outcomes().await) {
            let result = outcome.result();
            let bill = gateway.books().bill(id).unwrap();
            assert_eq!(bill.completion_tokens, TOKENS, "{id}: {result}");
        }
    }

    /// Each is answered or refused, once; gives how many were answered.
    pub(crate) async fn none_lost(self, gateway: &Gateway) -> usize {
        let ids = self.ids();
        let outcomes = self.outcomes().await;
        for id in &ids {
            let delivered = gateway.books().deliveries(id);
            assert_eq!(
                delivered.responses + delivered.errors,
                1,
                "{id}: {delivered:?}"
            );
        }
        outcomes
            .iter()
            .filter(|outcome| outcome.answer.is_ok())
            .count()
    }

    fn ids(&self) -> Vec<String> {
        self.0.iter().map(|chat| chat.id().to_owned()).collect()
    }

    async fn outcomes(self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for mut chat in self.0 {
            outcomes.push(chat.outcome().await);
        }
        outcomes
    }
}
