//! What happens in a run: what the scenario has for the network, the servers and the operator, and the end of all that.

use std::{sync::Arc, time::Duration};

use devnet::sim::{manners::Door, wire::Dialling};
use pin_sidecar::{admin::Connecting, service::Stage};
use tokio::time::{Instant, sleep, timeout};

use super::{DRAIN_SLACK, Run};
use crate::scenario::Event;

impl Run {
    pub(super) fn happens(&self, event: &Event) {
        let gateway = &self.gateway;
        match *event {
            Event::Ask(class, stream) => gateway.ask(class, stream),
            Event::Repeat => gateway.repeat(),
            Event::CancelUnanswered => gateway.cancel(true, false),
            Event::CancelAny => gateway.cancel(false, false),
            Event::CancelUnknown => gateway.cancel(false, true),
            Event::CancelMany => gateway.cancel_many(),
            Event::Cut => self.gateway_link.cut(),
            Event::Lose(up, down) => self.gateway_link.lose(up, down),
            Event::Hold(held) => self.gateway_link.change(|weather| weather.held = held),
            Event::Stuck(stuck) => self.gateway_link.change(|weather| weather.stuck = stuck),
            Event::Dialling(dialling) => self
                .gateway_link
                .change(|weather| weather.dialling = dialling),
            Event::Rate(rate) => self.gateway_link.change(|weather| weather.rate = rate),
            Event::Reads(reads) => gateway.read(reads),
            Event::Close(farewell) => gateway.close(farewell),
            Event::SendAway(ref words, farewell) => gateway.send_away(words, farewell),
            Event::Crash => gateway.crash(),
            Event::Repeats(repeats) => gateway.behave(|manners| manners.repeats = repeats),
            Event::Door(door) => gateway.behave(|manners| manners.door = door),
            Event::Send(garbage) => gateway.send(garbage),
            Event::Poison => gateway.poison(),
            Event::OllamaCut => self.ollama_link.cut(),
            Event::OllamaDialling(dialling) => self.ollama_goes(dialling),
            Event::OllamaHold(held) => self.ollama_link.change(|weather| weather.held = held),
            Event::OllamaEvicts => self.model_server.evict(),
            Event::OllamaHasModel(has) => self.model_server.have_model(has),
            Event::Interview(asking) => gateway.interview(asking),
            Event::InterviewAgain => gateway.interview_again(),
            Event::CancelInterview => gateway.cancel_interview(),
            Event::Clock(seconds) => {
                self.trace.say(format_args!("the clock is {seconds} s off"));
                self.clock.set_off(seconds);
            }
            Event::Drain(rest) => self.drain_for(rest),
            Event::Pause(length) => self.pause_for(length),
            Event::Resume => self.resume(),
            Event::Reload => {
                self.trace.say(format_args!("files are read again"));
                self.books.count("reloads");
                self.reload.ask();
            }
            Event::Shutdown => {}
        }
    }

    /// Ollama goes away, or is there: a new process, if it had gone.
    fn ollama_goes(&self, dialling: Dialling) {
        if dialling == Dialling::Accepted {
            if let Some(away) = self.ollama_away.take() {
                self.model_server.restart(away.elapsed());
            }
        } else {
            let since = self.ollama_away.get().unwrap_or_else(Instant::now);
            self.ollama_away.set(Some(since));
        }
        self.ollama_link
            .change(|weather| weather.dialling = dialling);
    }

    /// Has the node drain, rest and serve again. Whatever opens it meanwhile is welcome to. Several that wait for one drain
    /// hear of its end in an order that no seed decides, so that each goes on in its own millisecond.
    fn drain_for(&self, rest: Duration) {
        let turn = Duration::from_millis(self.books.drain_asked());
        self.trace.say(format_args!("drain, and {rest:?} of rest"));
        let (service, books, trace) = (
            Arc::clone(&self.service),
            self.books.clone(),
            self.trace.clone(),
        );
        let limit = self.scenario.limits.drain_timeout + DRAIN_SLACK;
        if !self.gateway.has_session() {
            books.count("drains on request without a session");
        }
        books.draining();
        // Asked for now: what others ask for in this moment comes before it or after it, as the books have it.
        let drained = service.request_drain();
        tokio::spawn(async move {
            match timeout(limit, drained).await.ok() {
                // Of two that hear of it at once both say the same.
                Some(left) => trace.say(format_args!("drained: {left:?}")),
                // A SIGTERM in the middle of it makes it the process' own drain, which has its own time and its own rule.
                None if books.is_ending() => return,
                None => {
                    let what = format!("a drain on request is not over after {limit:?}");
                    books.breach("drain", "drain", &what);
                }
            }
            sleep(rest + turn).await;
            // One that drains once more serves again when whoever asked for that says so.
            if service.stage() == Stage::Drained && service.reopen() == Connecting::Now {
                trace.say(format_args!("serves again"));
                books.serves_again();
            }
        });
    }

    /// Has the node stay away for so long.
    fn pause_for(&self, length: Duration) {
        if self.service.pause(Some(length)).is_none() {
            return;
        }
        self.trace.say(format_args!("pause for {length:?}"));
        self.books.count("pauses");
        self.books.draining();
        self.books.pauses(Instant::now() + length);
        let drained = self.service.request_drain();
        let (stages, books, trace) = (
            self.service.stages(),
            self.books.clone(),
            self.trace.clone(),
        );
        tokio::spawn(async move {
            drained.await;
            books.rests();
            stages.opened().await;
            trace.say(format_args!("the pause is over"));
            books.pause_ended();
        });
    }

    /// Has the node serve again, whatever it was told before, unless the process ends.
    fn resume(&self) {
        self.trace.say(format_args!("resume"));
        let was_draining = self.books.is_draining();
        match self.service.reopen() {
            Connecting::Now if was_draining => self.books.serves_again(),
            Connecting::OnceDrained => {
                self.books.pauses(Instant::now());
                let (stages, books) = (self.service.stages(), self.books.clone());
                tokio::spawn(async move {
                    stages.opened().await;
                    books.serves_again();
                });
            }
            Connecting::Now | Connecting::Never => {}
        }
    }

    /// Everything is well again, and stays so.
    pub(super) fn mend(&self) {
        self.trace.say(format_args!("mended"));
        for link in [&self.gateway_link, &self.ollama_link] {
            link.change(|weather| {
                weather.held = false;
                weather.stuck = false;
                weather.rate = None;
                weather.dialling = Dialling::Accepted;
            });
        }
        self.ollama_goes(Dialling::Accepted);
        self.model_server.have_model(true);
        self.books.cure();
        self.gateway.read(true);
        self.gateway.behave(|manners| {
            manners.door = Door::Open;
            manners.network.fails = 0;
        });
        self.clock.set_off(0);
    }
}
