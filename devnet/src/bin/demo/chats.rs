//! Chats as a consumer of the network sees them.

use std::time::{Duration, Instant};

use devnet::gateway::{Chat, ChatEvent};
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::{Value, json};

use crate::{
    Trouble,
    board::Board,
    stage::{CAPACITY, Stage},
    terminal::Terminal,
};

/// Longest silence of a chat: a real model may have to be read from a disk first.
const SILENCE_LIMIT: Duration = Duration::from_secs(300);

/// The length of an answer.
const MAX_TOKENS: u32 = 48;

const QUESTION: &str = "A machine under a desk is asked, and answers, word by word by word.";

const QUESTIONS: [&str; CAPACITY] = [
    "Why is the sky blue at noon and red in the evening?",
    "What would a lighthouse write in its diary?",
    "Name three things that are older than the stars.",
    "How does bread know when to rise?",
];

/// A chat while it is spoken.
struct Talk {
    chat: Chat,
    begun: Instant,
    first: Option<Instant>,
    text: String,
}

/// What came of a chat at last.
struct Outcome {
    tokens: u64,
    first: Duration,
    speaking: Duration,
}

/// One chat alone; gives how many were asked.
pub(crate) async fn one(stage: &Stage, terminal: &mut Terminal) -> Result<usize, Trouble> {
    terminal.part("One chat");
    hold(stage, &[QUESTION], terminal).await
}

/// As many as the sidecar takes at once, side by side; gives how many were asked.
pub(crate) async fn several(stage: &Stage, terminal: &mut Terminal) -> Result<usize, Trouble> {
    terminal.part(&format!("{CAPACITY} chats at once"));
    hold(stage, &QUESTIONS, terminal).await
}

/// Asks all of them at once, and shows the answers as they come.
async fn hold(
    stage: &Stage,
    questions: &[&'static str],
    terminal: &mut Terminal,
) -> Result<usize, Trouble> {
    let mut board = Board::new(questions, terminal);
    let mut running = FuturesUnordered::new();
    for (index, question) in questions.iter().enumerate() {
        running.push(listen(index, Talk::begin(stage, question)?));
    }
    while let Some((index, talk, heard)) = running.next().await {
        match heard? {
            Heard::Text(delta) => {
                board.add(index, &delta, terminal);
                running.push(listen(index, talk));
            }
            Heard::End(outcome) => board.end(index, outcome.summary(), terminal),
        }
    }
    board.keep(terminal);
    Ok(questions.len())
}

async fn listen(index: usize, mut talk: Talk) -> (usize, Talk, Result<Heard, Trouble>) {
    let heard = talk.next().await;
    (index, talk, heard)
}

enum Heard {
    Text(String),
    End(Outcome),
}

impl Talk {
    fn begin(stage: &Stage, question: &str) -> Result<Self, Trouble> {
        let payload = json!({
            "model": stage.model_server.model, "messages": [{"role": "user", "content": question}],
            "stream": true, "max_tokens": MAX_TOKENS,
        });
        let chat = stage
            .gateway
            .try_chat(&payload)
            .ok_or("the sidecar is not logged in any more: see its log")?;
        Ok(Self {
            chat,
            begun: Instant::now(),
            first: None,
            text: String::new(),
        })
    }

    async fn next(&mut self) -> Result<Heard, Trouble> {
        let event = tokio::time::timeout(SILENCE_LIMIT, self.chat.event()).await;
        match event
            .map_err(|_| format!("nothing came of a chat for {} s", SILENCE_LIMIT.as_secs()))?
        {
            Some(ChatEvent::Chunk(chunk)) => {
                self.first.get_or_insert_with(Instant::now);
                self.text += &chunk.delta;
                Ok(Heard::Text(chunk.delta))
            }
            Some(ChatEvent::Response(result)) => self.end(&result).map(Heard::End),
            Some(ChatEvent::Error(error) | ChatEvent::GivenUp(error)) => {
                Err(format!("a chat failed: {error}"))
            }
            None => Err("the gateway is gone".to_owned()),
        }
    }

    /// The answer is what is paid for: it must have all that was streamed.
    fn end(&self, result: &Value) -> Result<Outcome, Trouble> {
        let message = &result["choices"][0]["message"];
        let whole = ["thinking", "content"]
            .map(|part| message[part].as_str().unwrap_or_default())
            .concat();
        if whole != self.text {
            return Err(format!(
                "a chat's answer is not what was streamed: {whole:?} and {:?}",
                self.text
            ));
        }
        let first = self.first.unwrap_or(self.begun);
        let tokens = result["usage"]["completion_tokens"].as_u64().unwrap_or(0);
        Ok(Outcome {
            tokens,
            first: first - self.begun,
            speaking: first.elapsed(),
        })
    }
}

impl Outcome {
    fn summary(&self) -> String {
        let (tokens, first) = (self.tokens, self.first.as_millis());
        #[allow(clippy::cast_precision_loss)]
        let speed = tokens.saturating_sub(1) as f64 / self.speaking.as_secs_f64().max(0.001);
        format!("{tokens} tokens, the first after {first} ms, {speed:.0} tokens/s")
    }
}
