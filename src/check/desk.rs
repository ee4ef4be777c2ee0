//! Checks in a sidecar that runs: its session as it is, its model servers, and an answer in a slot that is free.
//!
//! Invariant: one check at a time, on the thread that serves chats; who asks meanwhile has its result as well. It takes no
//! slot that somebody waits for, and a drain does not wait for it.

use std::{
    convert::Infallible,
    future::pending,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::{mpsc, oneshot};

use super::{
    Report, Step,
    answer::{ALL_SLOTS_TAKEN, Trial, look, without_model},
};
use crate::{
    backend::Model,
    config::JobSettings,
    inference::Inference,
    node::Node,
    overview::{service_sentence, session_sentence},
    service::Service,
    session::{Phase, StatusBoard},
    shared::Shared,
};

/// How many may wait for a result; others wait for their turn to.
const WAITING: usize = 16;

const ENDS: &str = "The process ends.";

/// What of a sidecar is checked.
pub(crate) struct Running {
    pub(crate) shared: Shared,
    pub(crate) inference: Arc<Inference>,
    pub(crate) service: Arc<Service>,
    pub(crate) status: Arc<StatusBoard>,
    pub(crate) job: JobSettings,
}

/// Where a check may be asked for. Cheap to clone.
#[derive(Clone)]
pub(crate) struct CheckDesk(mpsc::Sender<oneshot::Sender<Report>>);

/// The checks that are asked for.
pub(crate) struct Checks {
    asked: mpsc::Receiver<oneshot::Sender<Report>>,
    running: Running,
}

impl CheckDesk {
    /// Has it checked; what is given may be awaited on any thread.
    pub(crate) fn ask(&self) -> BoxFuture<'static, Report> {
        let desk = self.0.clone();
        async move {
            let (asked, report) = oneshot::channel();
            let ended = || Report::of(vec![Step::failed("login", ENDS)]);
            match desk.send(asked).await {
                Ok(()) => report.await.unwrap_or_else(|_| ended()),
                Err(_) => ended(),
            }
        }
        .boxed()
    }
}

impl Checks {
    /// The checks of this sidecar, and where to ask for them.
    pub(crate) fn new(running: Running) -> (CheckDesk, Self) {
        let (desk, asked) = mpsc::channel(WAITING);
        (CheckDesk(desk), Self { asked, running })
    }

    /// Does them as long as it is polled.
    pub(crate) async fn serve(self) -> Infallible {
        let Self { asked, running } = self;
        do_each(asked, || running.check()).await
    }
}

/// Has a check done whenever one is asked for, for all who have asked by its end.
async fn do_each<F: Future<Output = Report>>(
    mut asked: mpsc::Receiver<oneshot::Sender<Report>>,
    check: impl Fn() -> F,
) -> Infallible {
    while let Some(first) = asked.recv().await {
        let report = check().await;
        let mut waiting = Some(first);
        while let Some(asker) = waiting {
            // Whoever has gone away needs none.
            let _ = asker.send(report.clone());
            waiting = asked.try_recv().ok();
        }
    }
    pending().await
}

impl Running {
    async fn check(&self) -> Report {
        let mut steps = vec![self.login()];
        for node in self.shared.nodes.iter() {
            let (looked, model) = look(node).await;
            steps.extend(looked);
            steps.push(match &model {
                Some(model) => self.answer(node, model).await,
                None => without_model(),
            });
        }
        Report::of(steps)
    }

    fn login(&self) -> Step {
        let session = self.status.read();
        if session.phase == Phase::Up {
            let since = UNIX_EPOCH + Duration::from_secs(session.up_since.unwrap_or_default());
            let since = humantime::format_rfc3339_seconds(since);
            return Step::passed("login", format!("Logged in since {since}."));
        }
        match self.not_serving() {
            Some(reason) => Step::skipped("login", reason),
            None => Step::failed("login", session_sentence(&session).unwrap_or_default()),
        }
    }

    /// Why it takes no work, if it is not to.
    fn not_serving(&self) -> Option<String> {
        service_sentence(self.service.stage(), self.service.paused())
    }

    async fn answer(&self, node: &Arc<Node>, model: &Model) -> Step {
        if let Some(reason) = self.not_serving() {
            return Step::skipped("answer", reason);
        }
        let trial = Trial::new(node, model, &self.job);
        let stages = self.service.stages();
        let answered = tokio::select! {
            biased;
            () = stages.draining() => {
                let reason = self.not_serving().unwrap_or_else(|| ENDS.to_owned());
                return Step::skipped("answer", reason);
            }
            answered = self.inference.in_free_slot(node, trial.step()) => answered,
        };
        answered.unwrap_or_else(|| Step::skipped("answer", ALL_SLOTS_TAKEN))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::{join, task::yield_now};

    use super::*;

    #[tokio::test]
    async fn whoever_asks_while_a_check_is_done_has_its_result_and_the_next_one_has_another() {
        let (desk, asked) = mpsc::channel(WAITING);
        let desk = CheckDesk(desk);
        let checks = Cell::new(0);
        let check = || async {
            checks.set(checks.get() + 1);
            yield_now().await;
            Report::of(vec![Step::passed("login", checks.get().to_string())])
        };
        let found = |report: Report| report.steps[0].found.clone();
        let asking = async {
            let (first, second) = join!(desk.ask(), desk.ask());
            let third = desk.ask().await;
            [first, second, third].map(found)
        };
        tokio::select! {
            found = asking => assert_eq!(found, ["1", "1", "2"]),
            never = do_each(asked, check) => match never {},
        }
    }

    #[tokio::test]
    async fn a_process_that_ends_leaves_nobody_waiting() {
        let (desk, asked) = mpsc::channel(WAITING);
        drop(asked);
        assert!(!CheckDesk(desk).ask().await.passed);
    }
}
