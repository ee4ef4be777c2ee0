//! One session, from login to its end: a writer, a reader, a watchdog, the heartbeat's clock and the news of models, all
//! in one task, none waiting for another.

use std::{
    convert::Infallible,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{coop::consume_budget, yield_now},
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout},
};

use super::{
    dispatch::{Dispatch, LastWords},
    login::printable,
};
use crate::{
    backend::{Model, Offer},
    outbox::SessionNumber,
    protocol::{GatewayMessage, RetryAfter, Unreadable},
    service::Stages,
    telemetry::DisconnectReason,
    transport::{LinkEnd, Meter, Received, Receiver, Sender},
};

/// Every so many heartbeats the models are told again (protocol, "Frames from the agent").
const MODEL_LIST_EVERY: u32 = 4;

/// How long proof of what was sent is waited for before closing (delivery rules, "Drain").
const PROOF_WAIT: Duration = Duration::from_secs(2);

/// How long the peer's Close is waited for: so long that an idle sidecar is gone within a second.
const CLOSE_WAIT: Duration = Duration::from_millis(800);

/// RFC 6455, section 7.4.1: the purpose of the connection has been fulfilled.
const CLOSE_NORMAL: u16 = 1000;

/// The same section: what stands for a Close without a code.
const CLOSE_WITHOUT_CODE: u16 = 1005;

/// What one session needs of the rest.
pub(super) struct Live<'a> {
    pub(super) dispatch: Dispatch<'a>,
    pub(super) offer: watch::Receiver<Offer>,
    pub(super) meter: &'a Meter,
    pub(super) heartbeat_interval: Duration,
    pub(super) heartbeat_timeout: Duration,
    pub(super) stages: &'a Stages,
    pub(super) closing: Closing,
}

/// How far we are with our own Close.
#[derive(Default)]
pub(super) struct Closing {
    begun: AtomicBool,
    written: AtomicBool,
}

impl Closing {
    /// Nothing more is sent over this link.
    fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// The system has taken our Close: what the peer closes with from now on may be its answer.
    fn wrote(&self) {
        self.written.store(true, Ordering::Relaxed);
    }

    fn is_written(&self) -> bool {
        self.written.load(Ordering::Relaxed)
    }
}

/// How a session ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: DisconnectReason,
    /// Whether the other side ended it without saying why.
    pub(super) unexplained: bool,
    /// Whether the other side, or the network, ended it. What it did not like may have been an answer.
    pub(super) by_gateway: bool,
    /// Whether the gateway only sent what cannot be read, so that coming back at once is right.
    pub(super) unreadable: bool,
    /// How long the gateway wants us to stay away.
    pub(super) retry_after: Option<RetryAfter>,
    /// What the gateway's Close said, if it was one.
    pub(super) close: Option<Farewell>,
    /// Which session it was.
    pub(super) session: SessionNumber,
    /// How long it was up.
    pub(super) lasted: Duration,
}

/// A Close of the gateway's.
#[derive(Debug)]
pub(super) struct Farewell {
    pub(super) code: u16,
    /// Its reason, fit for a log.
    pub(super) said: String,
}

impl Live<'_> {
    /// Runs the session to its end.
    pub(super) async fn run(self, mut sender: Sender, mut receiver: Receiver) -> End {
        let began = Instant::now();
        let mut last_words = LastWords::default();
        let offer = self.current_offer();
        self.dispatch
            .registration
            .introduce(self.dispatch.outbox, &offer);
        let end = {
            let live = &self;
            // The writer comes first: a flood of input must not keep it from the processor.
            tokio::select! {
                biased;
                end = live.write(&mut sender) => end,
                end = live.read(&mut receiver, &mut last_words) => end,
                reason = live.watch_silence() => Err(reason),
                () = live.stages.overdue() => Err(DisconnectReason::Shutdown),
                never = live.beat() => match never {},
                never = live.tell_news(offer.models) => match never {},
            }
        };
        let (reason, link_end) = match end {
            Ok(link_end) => {
                // Courtesy: the peer learns why, or that its own Close has come, if it reads at all.
                let _ = timeout(CLOSE_WAIT, goodbye(&link_end, sender, receiver)).await;
                (reason_of(&link_end), Some(link_end))
            }
            Err(reason) => (reason, None),
        };
        let retry_after = last_words.retry_after();
        // What we have noticed ourselves is the reason, whatever the gateway announced.
        let reason = match (retry_after, &link_end) {
            (Some(_), Some(_)) => DisconnectReason::RetryAfter,
            _ => reason,
        };
        End {
            reason,
            unexplained: matches!(reason, DisconnectReason::Closed | DisconnectReason::Reset)
                && !last_words.complained,
            by_gateway: matches!(link_end, Some(LinkEnd::Closed | LinkEnd::Reset)),
            unreadable: matches!(link_end, Some(LinkEnd::TooLarge | LinkEnd::NotUtf8)),
            retry_after,
            close: last_words.farewell,
            session: self.dispatch.session,
            lasted: began.elapsed(),
        }
    }

    /// Empties the outbox into the socket, and fences what lacks proof; once the last job has ended, closes.
    async fn write(&self, sender: &mut Sender) -> Result<LinkEnd, DisconnectReason> {
        let outbox = self.dispatch.outbox;
        let mut proof_deadline = None;
        let mut jobs_done = pin!(self.stages.jobs_done());
        let mut finishing = false;
        loop {
            while let Some(mut batch) = outbox.take() {
                let items = std::mem::take(&mut batch.items);
                if let Err(end) = sender.send(items).await {
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
            let fence = outbox.fence_due(finishing);
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
                () = wait_until(fence) => {}
                () = wait_until(proof_deadline), if finishing => {}
            }
        }
        // A peer that no longer reads must not keep us; the reader sees its Close, if it comes.
        let said = timeout(CLOSE_WAIT, async {
            self.closing.begin();
            sender.close(CLOSE_NORMAL).await?;
            self.closing.wrote();
            sleep(CLOSE_WAIT).await;
            Ok(())
        });
        match said.await {
            // It broke first, and what lacks proof may go over another.
            Ok(Err(end)) => Ok(end),
            Ok(Ok(())) | Err(_) => Err(DisconnectReason::Shutdown),
        }
    }

    async fn read(
        &self,
        receiver: &mut Receiver,
        last_words: &mut LastWords,
    ) -> Result<LinkEnd, DisconnectReason> {
        loop {
            // Frames that are read already do not wait for the network: without this a flood of them would keep the
            // writer, and with it PONG, from its turn.
            consume_budget().await;
            match receiver.next().await {
                Ok(Received::Frame(text)) => {
                    let closing = self.closing.has_begun();
                    self.dispatch.handle(&text, closing, last_words).await;
                }
                Ok(Received::Binary) => {
                    self.dispatch
                        .unreadable(&Unreadable {
                            message: GatewayMessage::Unknown,
                            reason: "it is not text",
                            request_id: None,
                        })
                        .await;
                }
                Ok(Received::Pong(heartbeat)) => self.dispatch.outbox.pong(heartbeat),
                Ok(Received::Control) => {}
                Ok(Received::Close { code, .. }) if self.is_goodbye(code) => {
                    return Err(DisconnectReason::Shutdown);
                }
                Ok(Received::Close { code, reason }) => {
                    last_words.complained |= !reason.is_empty();
                    last_words.farewell = Some(Farewell {
                        code,
                        said: printable(&reason),
                    });
                    return Ok(LinkEnd::Closed);
                }
                Err(end) => return Ok(end),
            }
        }
    }

    /// Whether the peer's Close ends a drain: it answers ours, or nothing is left to deliver. An answer comes once ours is
    /// written, and repeats our code or has none (RFC 6455, section 5.5.1); any other is a Close of the peer's own and
    /// proves nothing. One of its own with that very code, which crosses ours on the way, looks like an answer: nothing in
    /// the protocol tells them apart.
    fn is_goodbye(&self, code: u16) -> bool {
        let outbox = self.dispatch.outbox;
        let has_code = matches!(code, CLOSE_NORMAL | CLOSE_WITHOUT_CODE);
        let answers_ours = self.closing.is_written() && has_code;
        if answers_ours {
            outbox.close_answered();
        }
        answers_ours || (self.closing.has_begun() && outbox.undelivered() == 0)
    }

    /// Notices a link that no longer carries anything, in either direction.
    async fn watch_silence(&self) -> DisconnectReason {
        loop {
            let now = Instant::now();
            let silent_at = self.meter.last_received() + self.heartbeat_timeout;
            if silent_at <= now {
                return DisconnectReason::Silent;
            }
            let outbox = self.dispatch.outbox;
            let stuck_since = [outbox.heartbeat_due_since(), outbox.unanswered_since()];
            let stuck_at = stuck_since
                .into_iter()
                .flatten()
                .min()
                .map(|since| since + self.heartbeat_timeout);
            if stuck_at.is_some_and(|stuck_at| stuck_at <= now) {
                return DisconnectReason::Stuck;
            }
            // A heartbeat that becomes due while this sleeps is stuck only after it has woken.
            sleep_until(stuck_at.map_or(silent_at, |stuck_at| stuck_at.min(silent_at))).await;
        }
    }

    async fn beat(&self) -> Infallible {
        let mut clock = interval_at(
            Instant::now() + self.heartbeat_interval,
            self.heartbeat_interval,
        );
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut until_models = MODEL_LIST_EVERY;
        loop {
            clock.tick().await;
            self.beat_once();
            until_models -= 1;
            if until_models == 0 {
                until_models = MODEL_LIST_EVERY;
                self.dispatch
                    .registration
                    .repeat_models(self.dispatch.outbox, &self.current_offer());
            }
        }
    }

    fn beat_once(&self) {
        let load = self.dispatch.inference.load();
        self.dispatch.registration.heartbeat(
            self.dispatch.outbox,
            &self.current_offer(),
            load.running + load.waiting,
        );
    }

    /// Tells the gateway whenever the models are others than it was `told`, and that there are none once we drain.
    async fn tell_news(&self, mut told: Vec<Model>) -> Infallible {
        let mut offer = self.offer.clone();
        loop {
            tokio::select! {
                biased;
                changed = offer.changed() => if changed.is_err() {
                    // Whoever looks at the backend has ended, so that there will be no news.
                    return std::future::pending().await;
                },
                () = self.stages.draining(), if !told.is_empty() => {}
            }
            let now = self.current_offer();
            if !same_names(&told, &now.models) {
                self.dispatch.registration.offer(self.dispatch.outbox, &now);
            }
            told = now.models;
        }
    }

    fn current_offer(&self) -> Offer {
        if self.stages.is_open() {
            self.offer.borrow().clone()
        } else {
            Offer::default()
        }
    }
}

async fn goodbye(link_end: &LinkEnd, mut sender: Sender, receiver: Receiver) {
    match link_end.close_code() {
        Some(code) => sender.leave(receiver, code).await,
        // Where there is nobody left to hear it, that is known already.
        None => drop(sender.flush().await),
    }
}

fn reason_of(link_end: &LinkEnd) -> DisconnectReason {
    match link_end {
        LinkEnd::Closed => DisconnectReason::Closed,
        LinkEnd::Reset => DisconnectReason::Reset,
        LinkEnd::TooLarge | LinkEnd::NotUtf8 | LinkEnd::Protocol => DisconnectReason::Protocol,
    }
}

fn same_names(a: &[Model], b: &[Model]) -> bool {
    a.iter()
        .map(|model| &model.name)
        .eq(b.iter().map(|model| &model.name))
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
