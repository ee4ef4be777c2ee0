//! The last lines: what was shown, what to try next, where to read on.

use std::time::Duration;

use crate::{interview::Interviewed, stage::Stage, terminal::Terminal};

/// Tells them, after a drain of that length. How many chats were asked is known unless others asked (`--serve`).
pub(crate) fn tell(
    stage: &Stage,
    interviewed: &Interviewed,
    asked: Option<usize>,
    drain: Duration,
    terminal: &mut Terminal,
) {
    terminal.line("");
    let shown = shown(stage.gateway.books().bills(), asked, drain);
    terminal.say("shown", &format!("interview {}", interviewed.sentence()));
    terminal.say("", &shown);
    let next = match asked {
        Some(_) => "cargo demo -- --serve keeps it running: chat with it, break it",
        None => "the same in containers: docs/docker.md, \"Demo\"",
    };
    terminal.say("next", next);
    let read_on = "README.md, \"Run it\"; then docs/docker.md or docs/kubernetes.md";
    terminal.say("read on", read_on);
}

/// What the gateway has in its books, in a sentence.
fn shown(answered: usize, asked: Option<usize>, drain: Duration) -> String {
    let chats = if answered == 1 { "chat" } else { "chats" };
    let lost = match asked.map(|asked| asked.saturating_sub(answered)) {
        Some(0) => ", none lost".to_owned(),
        Some(lost) => format!(", {lost} lost"),
        None => String::new(),
    };
    let drain = drain.as_millis();
    format!("{answered} {chats} answered{lost}; the sidecar drained in {drain} ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_has_the_figures_of_this_run() {
        let drain = Duration::from_millis(12);
        assert_eq!(
            shown(5, Some(5), drain),
            "5 chats answered, none lost; the sidecar drained in 12 ms"
        );
        assert!(shown(4, Some(5), drain).contains("1 lost"));
        assert!(shown(1, None, drain).starts_with("1 chat answered; "));
    }
}
