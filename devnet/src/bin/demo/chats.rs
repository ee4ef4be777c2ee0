//! Chats as a consumer of the network sees them, shown while they are spoken.

use std::time::{Duration, Instant};

use devnet::gateway::{Chat, ChatEvent};
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::{Value, json};

use crate::{
    Trouble,
    stage::{CAPACITY, Stage},
    terminal::Terminal,
};

/// Longest silence of a chat: a real model may have to be read from a disk first.
const SILENCE_LIMIT: Duration = Duration::from_secs(300);

/// The length of an answer.
const MAX_TOKENS: u32 = 48;

const QUESTION: &str = "Somebody, somewhere, asks a question, and a machine under a desk answers it, word by word by word.";

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

/// One chat alone, written as it comes.
pub(crate) async fn one(stage: &Stage, terminal: &mut Terminal) -> Result<(), Trouble> {
    terminal.part("One chat");
    terminal.say("asked", QUESTION);
    let mut talk = Talk::begin(stage, QUESTION)?;
    terminal.write("  ");
    let outcome = loop {
        match talk.next().await? {
            Heard::Text(delta) => terminal.write(&printable(&delta).replace('\n', "\n  ")),
            Heard::End(outcome) => break outcome,
        }
    };
    terminal.write("\n");
    terminal.aside(&outcome.summary());
    Ok(())
}

/// As many as the sidecar takes at once, each on a line of its own.
pub(crate) async fn several(stage: &Stage, terminal: &mut Terminal) -> Result<(), Trouble> {
    terminal.part(&format!("{CAPACITY} chats at once"));
    let mut rows: Vec<Row> = QUESTIONS
        .iter()
        .map(|question| Row::new(question))
        .collect();
    let mut running = FuturesUnordered::new();
    for (index, question) in QUESTIONS.iter().enumerate() {
        running.push(listen(index, Talk::begin(stage, question)?));
    }
    while let Some((index, talk, heard)) = running.next().await {
        match heard? {
            Heard::Text(delta) => {
                rows[index].text += &delta;
                running.push(listen(index, talk));
            }
            Heard::End(outcome) => rows[index].summary = Some(outcome.summary()),
        }
        if terminal.can_move() {
            draw(&rows, terminal);
        } else if rows[index].summary.is_some() {
            rows[index].print(index, terminal);
        }
    }
    terminal.keep_picture();
    Ok(())
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
            Some(ChatEvent::Error(error)) => Err(format!("a chat failed: {error}")),
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

struct Row {
    question: &'static str,
    text: String,
    summary: Option<String>,
}

impl Row {
    fn new(question: &'static str) -> Self {
        Self {
            question,
            text: String::new(),
            summary: None,
        }
    }

    fn flat(&self) -> String {
        printable(&self.text)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn print(&self, index: usize, terminal: &mut Terminal) {
        terminal.line(&format!("  {} {}", index + 1, self.question));
        terminal.line(&format!("    {}", self.flat()));
        terminal.line(&format!(
            "    {}",
            self.summary.as_deref().unwrap_or_default()
        ));
    }
}

/// A model's words without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control() || *character == '\n')
        .collect()
}

/// Each chat's last words, on a line that never wraps, and below them how it went.
fn draw(rows: &[Row], terminal: &mut Terminal) {
    let width = terminal.width().saturating_sub(5);
    let lines = rows.iter().enumerate().flat_map(|(index, row)| {
        let number = terminal.nth(index, &format!("{}", index + 1));
        let below = row.summary.as_deref().unwrap_or("…");
        [
            format!("  {number} {}", last_columns(&row.flat(), width)),
            format!("    {}", terminal.dim(below)),
        ]
    });
    let lines: Vec<String> = lines.collect();
    terminal.picture(&lines);
}

/// The end of a text, as if every character were one column wide, twice that beyond the first blocks.
fn last_columns(text: &str, columns: usize) -> String {
    let mut left = columns;
    let mut start = text.len();
    for (index, character) in text.char_indices().rev() {
        let wide = if u32::from(character) < 0x1100 { 1 } else { 2 };
        if wide > left {
            break;
        }
        left -= wide;
        start = index;
    }
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_the_end_of_a_text_and_never_wraps() {
        assert_eq!(last_columns("hello", 10), "hello");
        assert_eq!(last_columns("hello", 3), "llo");
        assert_eq!(last_columns("a🦀🦀", 3), "🦀");
    }
}
