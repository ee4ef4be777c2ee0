//! An outbox beside a link, and what a session does with both.

use std::{
    cell::{RefCell, RefMut},
    sync::Arc,
};

use super::*;

/// An outbox, and what the link of its session makes of what the gateway acknowledges.
pub(super) struct Bench {
    pub(super) outbox: Outbox,
    pub(super) metrics: Arc<Metrics>,
    pub(super) link: RefCell<Acknowledgements>,
}

pub(super) fn bench_of(max_bytes: usize) -> Bench {
    let metrics = Arc::new(Metrics::new());
    let settings = OutboxSettings {
        max_bytes,
        result_ttl: TTL,
    };
    Bench {
        outbox: Outbox::new(settings, Arc::clone(&metrics)),
        metrics,
        link: RefCell::default(),
    }
}

pub(super) fn bench() -> Bench {
    bench_of(1 << 20)
}

pub(super) fn id(id: &str) -> RequestId {
    RequestId::new(id).unwrap()
}

pub(super) fn response(request_id: &str, text: &str) -> Reply {
    let result = serde_json::value::to_raw_value(text).unwrap();
    Reply {
        message: AgentMessage::InferenceResponse,
        request_id: id(request_id),
        body: Body::Result(result),
    }
}

pub(super) fn error(request_id: &str) -> Reply {
    Reply {
        message: AgentMessage::InferenceError,
        request_id: id(request_id),
        body: Body::Error("backend: x".into()),
    }
}

pub(super) fn chunk(request_id: &str, delta: &str) -> Chunk {
    Chunk {
        request_id: id(request_id),
        index: 0,
        delta: delta.into(),
        kind: ChunkKind::Content,
    }
}

pub(super) fn heartbeat() -> Control {
    let health = Health {
        current_load: 0,
        capacity: 1,
        models: 0,
        gpu_memory_used: 0,
    };
    Control::Heartbeat { health }
}

pub(super) fn models() -> Control {
    Control::ModelList { models: Vec::new() }
}

impl Bench {
    /// A session has come up, over a link that knows nothing of the one before.
    pub(super) fn open(&self) -> SessionNumber {
        self.link.take();
        self.outbox.open()
    }

    pub(super) fn reply(&self, reply: Reply) {
        self.outbox.answer(reply, None);
    }

    pub(super) fn answer(&self, request_id: &str) {
        self.reply(response(request_id, "text"));
    }

    /// An answer that is made and written at once.
    pub(super) fn send(&self, request_id: &str) {
        self.answer(request_id);
        self.write_all();
    }

    /// Begins to write one batch; gives what is in it, too, each frame as its id, else its type.
    pub(super) fn begin(&self) -> Option<(Batch, Vec<String>)> {
        let batch = self.outbox.take()?;
        let mut names = Vec::new();
        for outgoing in &batch.outgoing {
            names.push(name(outgoing));
            let ping = self.link().begin(outgoing, Instant::now());
            names.extend(ping.map(|_| "Ping".to_owned()));
        }
        Some((batch, names))
    }

    /// Writes one batch; gives what was in it.
    pub(super) fn write(&self) -> Vec<String> {
        let Some((batch, names)) = self.begin() else {
            return Vec::new();
        };
        self.outbox.written(&batch);
        names
    }

    /// Writes all there is.
    pub(super) fn write_all(&self) -> Vec<String> {
        std::iter::from_fn(|| Some(self.write()).filter(|batch| !batch.is_empty()))
            .flatten()
            .collect()
    }

    pub(super) fn beat(&self) {
        self.outbox.control(heartbeat());
        assert!(self.write().contains(&"HEARTBEAT".to_owned()));
    }

    pub(super) fn link(&self) -> RefMut<'_, Acknowledgements> {
        self.link.borrow_mut()
    }

    pub(super) fn heard(&self, heard: &Acknowledged) {
        if let Some(proof) = heard.proof {
            self.outbox.prove(proof);
        }
    }

    /// HEARTBEAT_ACK.
    pub(super) fn heartbeat_acknowledged(&self) {
        let heard = self.link().heartbeat(Instant::now());
        self.heard(&heard);
    }

    /// MODEL_LIST_ACK.
    pub(super) fn models_acknowledged(&self) {
        let heard = self.link().model_list();
        self.heard(&heard);
    }

    /// The Pong to a Ping of this payload.
    pub(super) fn pong_of(&self, payload: u64) {
        let heard = self.link().pong(payload, Instant::now());
        self.heard(&heard);
    }

    /// The Pong to the Ping that went with the n-th heartbeat.
    pub(super) fn pong(&self, heartbeat: u64) {
        self.pong_of(2 * heartbeat);
    }

    /// RESULT_ACK.
    pub(super) fn ack(&self, request_id: &str) {
        let heard = self.link().result(&id(request_id));
        self.heard(&heard);
    }

    pub(super) fn fence_due(&self, hurry: bool) -> Option<Instant> {
        let fenced = self.link().fenced();
        self.outbox.fence_due(fenced, hurry)
    }

    pub(super) fn repeat(&self, request_id: &str) -> Repeat {
        self.outbox.repeat(&id(request_id))
    }

    /// A session that the gateway ends right after it has been sent what there is.
    pub(super) fn session_that_breaks(&self) -> Vec<String> {
        self.open();
        let written = self.write_all();
        self.outbox.close(true);
        written
    }

    pub(super) fn earned(&self) -> f64 {
        self.metrics
            .earnings_estimate_usd_total
            .of(Some("tiny:latest"))
            .get()
    }

    pub(super) fn dropped(&self, reason: DropReason) -> u64 {
        self.metrics.results_dropped_total.of(reason).get()
    }
}

pub(super) fn name(outgoing: &Outgoing) -> String {
    match outgoing {
        Outgoing::Control(control) => control.message().as_str().to_owned(),
        Outgoing::Chunk(chunk) => chunk.request_id.to_string(),
        Outgoing::Refusal(reply) => reply.request_id.to_string(),
        Outgoing::Answer(_, reply) => reply.request_id.to_string(),
    }
}
