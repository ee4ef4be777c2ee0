//! The interview that the network holds with a new node before it sends it chats.
//!
//! A node that is too slow is shown all the same: from its first interview on the demo's gateway holds no other, so that it
//! comes back and is let in.

use std::time::{Duration, Instant};

use devnet::gateway::{Interview, InterviewState, Tier, Verdict};

use crate::{
    Trouble,
    stage::{Stage, rules},
    terminal::Terminal,
};

/// From ready to registered: the sidecar may read its model from a disk first.
const REGISTRATION_LIMIT: Duration = Duration::from_secs(300);

/// Until a node is back that failed.
const RETURN_LIMIT: Duration = Duration::from_secs(30);

/// Between two looks of a row that says how long it has taken.
const TICK: Duration = Duration::from_secs(1);

/// What came of it.
pub(crate) enum Interviewed {
    /// The node passed.
    Passed(Verdict),
    /// It did not, and this is why.
    Failed(String),
}

/// Waits for the interview and shows it.
pub(crate) async fn hold(stage: &Stage, terminal: &mut Terminal) -> Result<Interviewed, Trouble> {
    terminal.part("The network's interview");
    let gateway = &stage.gateway;
    let begun = tokio::time::timeout(REGISTRATION_LIMIT, gateway.until_interview(|_| true)).await;
    let begun = begun.map_err(|_| {
        let limit = REGISTRATION_LIMIT.as_secs();
        format!("the sidecar registered no node within {limit} s: its log says why")
    })?;
    gateway.set_policy(|policy| policy.interviews = None);
    let ended = end_of(&begun, stage, terminal).await?;
    let interviewed = Interviewed::of(&ended)?;
    match &interviewed {
        Interviewed::Passed(_) => {
            gateway.set_policy(|policy| policy.interviews = Some(rules()));
            terminal.good("interview", &interviewed.sentence());
        }
        Interviewed::Failed(_) => {
            terminal.say("interview", &interviewed.sentence());
            terminal.say("", "the network would send no chats; the demo goes on");
            wait_for_return(stage).await?;
        }
    }
    Ok(interviewed)
}

/// Shows that it is under way until it ends.
async fn end_of(
    begun: &Interview,
    stage: &Stage,
    terminal: &mut Terminal,
) -> Result<Interview, Trouble> {
    let since = Instant::now();
    let what = format!("under way: {} prompts to {}", begun.prompts, begun.model);
    if !terminal.can_move() {
        terminal.say("interview", &what);
    }
    let is_over = |one: &Interview| one.id == begun.id && one.state != InterviewState::Running;
    let mut end = std::pin::pin!(stage.gateway.until_interview(is_over));
    let mut clock = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            ended = &mut end => {
                terminal.take_picture_away();
                return Ok(ended);
            }
            _ = clock.tick(), if terminal.can_move() => {
                let seconds = since.elapsed().as_secs();
                let row = terminal.row("interview", &format!("{what}, {seconds} s"));
                terminal.picture(&[row]);
            }
            status = stage.sidecar.wait_for(Duration::MAX) => {
                let status = status.map(|status| format!(" with {status}")).unwrap_or_default();
                return Err(format!("the sidecar ended by itself{status}: its log says why"));
            }
        }
    }
}

async fn wait_for_return(stage: &Stage) -> Result<(), Trouble> {
    let back = tokio::time::timeout(RETURN_LIMIT, stage.gateway.wait_for_session(2)).await;
    back.map_err(|_| {
        let limit = RETURN_LIMIT.as_secs();
        format!("the sidecar did not come back within {limit} s: its log says why")
    })?;
    let ready = stage.sidecar.wait_until_ready(RETURN_LIMIT).await;
    ready.map(drop).map_err(|error| error.to_string())
}

impl Interviewed {
    fn of(interview: &Interview) -> Result<Self, Trouble> {
        match &interview.state {
            InterviewState::Judged(verdict) if verdict.tier == Tier::Failed => {
                let floor = rules().ollama.floor;
                let speed = verdict.tokens_per_second;
                Ok(Self::Failed(if speed < floor {
                    format!(
                        "{speed:.1} tokens/s, {floor:.0} are wanted: try a GPU, or a smaller model"
                    )
                } else {
                    format!(
                        "{:.0} % of the prompts were answered",
                        100.0 * verdict.accuracy
                    )
                }))
            }
            InterviewState::Judged(verdict) => Ok(Self::Passed(verdict.clone())),
            InterviewState::TimedOut => Ok(Self::Failed(
                "no result in time: try a GPU, or a smaller model".to_owned(),
            )),
            InterviewState::Running | InterviewState::Broken | InterviewState::Superseded => {
                Err("the interview's session broke: the sidecar's log says why".to_owned())
            }
        }
    }

    /// What came of it, behind the word `interview`.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::Passed(verdict) => {
                let (tier, speed) = (verdict.tier.name(), verdict.tokens_per_second);
                let first = verdict.first_token.unwrap_or_default().as_millis();
                format!("passed: {tier}, first token after {first} ms, {speed:.0} tokens/s")
            }
            Self::Failed(why) => format!("failed: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_has_tier_first_token_and_speed_or_why_it_failed() {
        let verdict = |tier, accuracy, tokens_per_second| Verdict {
            tier,
            accuracy,
            tokens_per_second,
            first_token: Some(Duration::from_millis(41)),
        };
        let sentence = |verdict| {
            let interview = Interview {
                id: String::new(),
                alias: String::new(),
                model: String::new(),
                connection: 1,
                asked: tokio::time::Instant::now(),
                prompts: 5,
                state: InterviewState::Judged(verdict),
            };
            Interviewed::of(&interview).map(|interviewed| interviewed.sentence())
        };
        let passed = "passed: elite, first token after 41 ms, 212 tokens/s";
        assert_eq!(
            sentence(verdict(Tier::Elite, 1.0, 212.3)),
            Ok(passed.to_owned())
        );
        let slow = sentence(verdict(Tier::Failed, 1.0, 3.1)).unwrap_or_default();
        assert!(
            slow.starts_with("failed: 3.1 tokens/s, 10 are wanted"),
            "{slow}"
        );
        let wrong = sentence(verdict(Tier::Failed, 0.4, 50.0)).unwrap_or_default();
        assert_eq!(wrong, "failed: 40 % of the prompts were answered");
    }
}
