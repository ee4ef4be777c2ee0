//! One session, from login to its end: a writer, a reader, a watchdog, the heartbeat's clock and the news of models, all
//! in one task, none waiting for another.

use std::{
    convert::Infallible,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{
    task::{coop::consume_budget, yield_now},
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout},
};

use super::{
    announcer::Announcer,
    dispatch::{Announced, Dispatch},
};
use crate::{
    backend::Offer,
    clock::sleep_until_any,
    config::GatewaySettings,
    link::{CloseFrame, Link, LinkEnd, Position, Proof, Received},
    node::Offers,
    outbox::SessionNumber,
    protocol::RetryAfter,
    service::Stages,
    telemetry::DisconnectReason,
};

/// Every so many heartbeats the models are told again (protocol, "Frames from the agent").
const MODEL_LIST_EVERY: u32 = 4;

/// How long proof of what was sent is waited for before closing (delivery rules, "Drain").
const PROOF_WAIT: Duration = Duration::from_secs(2);

/// How long the peer's Close is waited for: so long that an idle sidecar is gone within a second.
const CLOSE_WAIT: Duration = Duration::from_millis(800);

/// Codes by which a gateway says that the trouble is its own (RFC 6455, section 7.4.1, and IANA's registry): it goes away, an
/// internal error, a restart, try again later.
const CLOSES_OF_RESTARTS: [u16; 4] = [1001, 1011, 1012, 1013];

/// What one session needs of the rest.
pub(super) struct Active<'a> {
    pub(super) dispatch: Dispatch<'a>,
    pub(super) announcer: &'a Announcer,
    pub(super) offers: Offers,
    pub(super) gateway: &'a GatewaySettings,
    pub(super) stages: &'a Stages,
}

/// How a session ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: DisconnectReason,
    /// Whether the other side closed it without saying why.
    pub(super) unexplained: bool,
    /// Whether the other side, or the network, ended it. What it did not like may have been an answer.
    pub(super) by_gateway: bool,
    /// Whether the gateway only sent what cannot be read, so that coming back at once is right.
    pub(super) unreadable: bool,
    /// How long the gateway wants us to stay away.
    pub(super) retry_after: Option<RetryAfter>,
    /// What the gateway's Close said, if it was one.
    pub(super) close: Option<CloseFrame>,
    /// Which session it was.
    pub(super) session: SessionNumber,
    /// How long it was up.
    pub(super) lasted: Duration,
}

impl Active<'_> {
    /// Runs the session to its end.
    pub(super) async fn run(self, link: Box<dyn Link>) -> End {
        let began = Instant::now();
        let mut announced = Announced::default();
        self.announcer.introduce(&self.current_offers());
        let end = {
            let (session, link) = (&self, link.as_ref());
            // Nothing more is taken or sent.
            let closing = AtomicBool::new(false);
            // The writer comes first: a flood of input must not keep it from the processor.
            tokio::select! {
                biased;
                end = session.write(link, &closing) => end,
                end = session.read(link, &closing, &mut announced) => end,
                reason = session.watch_silence(link) => Err(reason),
                () = session.stages.overdue() => Err(DisconnectReason::Shutdown),
                never = session.beat() => match never {},
                never = session.tell_news() => match never {},
            }
        };
        if let Ok(link_end) = &end {
            // Courtesy: the peer learns why, or that its own Close has come, if it reads at all. A drain waits for that no
            // longer than for anything else.
            tokio::select! {
                biased;
                _ = timeout(CLOSE_WAIT, link.leave(link_end.clone())) => {}
                () = self.stages.overdue() => {}
            }
        }
        self.ended(end, &announced, began.elapsed())
    }

    /// `end`: why the link ended, or why we gave it up.
    fn ended(
        &self,
        end: Result<LinkEnd, DisconnectReason>,
        announced: &Announced,
        lasted: Duration,
    ) -> End {
        let retry_after = announced.retry_after();
        let (reason, link_end) = match end {
            Ok(end) if retry_after.is_some() => (DisconnectReason::RetryAfter, Some(end)),
            Ok(end) => (reason_of(&end), Some(end)),
            // What we have noticed ourselves is the reason, whatever the gateway announced.
            Err(reason) => (reason, None),
        };
        // Only a Close is: a link that is reset, or ends without one, is a network's or a gateway's trouble.
        let is_close = matches!(link_end, Some(LinkEnd::Closed(Some(_))));
        End {
            reason,
            unexplained: is_close && !announced.complained,
            by_gateway: matches!(link_end, Some(LinkEnd::Closed(_) | LinkEnd::Reset)),
            unreadable: matches!(link_end, Some(LinkEnd::TooLarge | LinkEnd::NotUtf8)),
            retry_after,
            close: match link_end {
                Some(LinkEnd::Closed(frame)) => frame,
                _ => None,
            },
            session: self.dispatch.session,
            lasted,
        }
    }

    /// Empties the outbox into the link, and fences what lacks proof; once the last job has ended, closes.
    async fn write(
        &self,
        link: &dyn Link,
        closing: &AtomicBool,
    ) -> Result<LinkEnd, DisconnectReason> {
        let outbox = &*self.dispatch.shared.outbox;
        let mut proof_deadline = None;
        let mut jobs_done = pin!(self.stages.jobs_done());
        let mut finishing = false;
        loop {
            while let Some(batch) = outbox.take() {
                if let Err(end) = link.send(&batch.outgoing).await {
                    return Ok(end);
                }
                if batch.has_answers() {
                    proof_deadline = None;
                }
                outbox.written(&batch);
                if batch.is_large() {
                    // A PING that has been read may not wait until the socket takes no more.
                    yield_now().await;
                }
            }
            let fence = outbox.fence_due(link.fenced(), finishing);
            if fence.is_some_and(|due| due <= Instant::now()) {
                outbox.fenced();
                self.beat_once();
                continue;
            }
            if finishing {
                let now = Instant::now();
                let deadline = *proof_deadline.get_or_insert(now + PROOF_WAIT);
                if outbox.undelivered() == 0 || deadline <= now {
                    break;
                }
            }
            tokio::select! {
                biased;
                () = outbox.filled() => {}
                () = &mut jobs_done, if !finishing => finishing = true,
                () = sleep_until_any(fence) => {}
                () = sleep_until_any(proof_deadline), if finishing => {}
            }
        }
        closing.store(true, Ordering::Relaxed);
        // A peer that no longer reads must not keep us; the reader sees its Close, if it comes.
        let closed = timeout(CLOSE_WAIT, async {
            link.close().await?;
            sleep(CLOSE_WAIT).await;
            Ok(())
        });
        match closed.await {
            // It broke first, and what lacks proof may go over another.
            Ok(Err(end)) => Ok(end),
            Ok(Ok(())) | Err(_) => Err(DisconnectReason::Shutdown),
        }
    }

    async fn read(
        &self,
        link: &dyn Link,
        closing: &AtomicBool,
        announced: &mut Announced,
    ) -> Result<LinkEnd, DisconnectReason> {
        let outbox = &*self.dispatch.shared.outbox;
        loop {
            // Frames that are read already do not wait for the network: without this a flood of them would keep the
            // writer, and with it PONG, from its turn.
            consume_budget().await;
            let received = link.next().await;
            let closing = closing.load(Ordering::Relaxed);
            match received {
                Ok(Received::Frame(frame)) => {
                    self.dispatch.handle(frame, closing, announced).await;
                }
                Ok(Received::Unreadable(unreadable)) => {
                    self.dispatch.unreadable(&unreadable).await;
                }
                Ok(Received::Proof(proof)) => outbox.prove(proof),
                Ok(Received::Nothing) => {}
                Err(LinkEnd::Finished) => {
                    outbox.prove(Proof::Before(Position::END));
                    return Err(DisconnectReason::Shutdown);
                }
                // Another Close than the answer to ours, but there is nothing left that it could cost.
                Err(LinkEnd::Closed(Some(_))) if closing && outbox.undelivered() == 0 => {
                    return Err(DisconnectReason::Shutdown);
                }
                Err(end) => {
                    let said_why = |frame: &CloseFrame| {
                        !frame.reason.is_empty() || CLOSES_OF_RESTARTS.contains(&frame.code)
                    };
                    announced.complained |=
                        matches!(&end, LinkEnd::Closed(Some(frame)) if said_why(frame));
                    return Ok(end);
                }
            }
        }
    }

    /// Notices a link that no longer carries anything, in either direction.
    async fn watch_silence(&self, link: &dyn Link) -> DisconnectReason {
        loop {
            let now = Instant::now();
            let silent_at = link.last_received() + self.gateway.heartbeat_timeout;
            if silent_at <= now {
                return DisconnectReason::Silent;
            }
            let not_written_since = self.dispatch.shared.outbox.heartbeat_due_since();
            let stuck_since = [not_written_since, link.unanswered_since()];
            let stuck_at = stuck_since
                .into_iter()
                .flatten()
                .min()
                .map(|since| since + self.gateway.heartbeat_timeout);
            if stuck_at.is_some_and(|stuck_at| stuck_at <= now) {
                return DisconnectReason::Stuck;
            }
            // A heartbeat that becomes due while this sleeps is stuck only after it has woken.
            sleep_until(stuck_at.map_or(silent_at, |stuck_at| stuck_at.min(silent_at))).await;
        }
    }

    async fn beat(&self) -> Infallible {
        let mut clock = interval_at(
            Instant::now() + self.gateway.heartbeat_interval,
            self.gateway.heartbeat_interval,
        );
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut until_models = MODEL_LIST_EVERY;
        loop {
            clock.tick().await;
            self.beat_once();
            until_models -= 1;
            if until_models == 0 {
                until_models = MODEL_LIST_EVERY;
                self.announcer.list_models();
            }
        }
    }

    fn beat_once(&self) {
        let load = self.dispatch.inference.load();
        let offers = self.current_offers();
        self.announcer
            .heartbeat(&offers, load.running + load.waiting);
    }

    /// Tells the gateway whenever the models are others than it was told, and that there are none once we drain.
    async fn tell_news(&self) -> Infallible {
        let mut offers = self.offers.clone();
        loop {
            tokio::select! {
                biased;
                () = offers.changed() => {}
                () = self.stages.draining(), if self.announcer.has_listed_models() => {}
                () = sleep_until_any(self.announcer.next_registration()) => {}
            }
            self.announcer.update(&self.current_offers());
        }
    }

    /// What each node offers: nothing, while they drain.
    fn current_offers(&self) -> Vec<Offer> {
        let mut offers = self.offers.now();
        if !self.stages.is_open() {
            offers.fill(Offer::default());
        }
        offers
    }
}

fn reason_of(end: &LinkEnd) -> DisconnectReason {
    match end {
        LinkEnd::Finished => DisconnectReason::Shutdown,
        LinkEnd::Closed(_) => DisconnectReason::Closed,
        LinkEnd::Reset => DisconnectReason::Reset,
        LinkEnd::TooLarge | LinkEnd::NotUtf8 | LinkEnd::Protocol => DisconnectReason::Protocol,
    }
}
