//! A sidecar in virtual time: the real relay between devnet's gateway and its Ollama, over wires that are not there. For
//! what is promised to the second; it costs none.
//!
//! Invariant: nothing here waits for a socket or another thread, so that tokio's paused clock stands still while anybody
//! has something to do, and a moment that a test sees is exact.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

use std::{sync::Arc, time::Duration};

use devnet::{
    gateway::{Gateway, Policy},
    ollama::{ModelShape, Ollama},
    sim::{
        fate::Fate,
        trace::Trace,
        wire::{Dialling, Link, Weather},
    },
};
use futures_util::{FutureExt, future::BoxFuture};
use pin_sidecar::{
    clock::SystemClock,
    relay::{Outcome, Relay, World},
    service::Service,
    telemetry::Metrics,
    transport::{Dial, DialError, Endpoint, Stream},
};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use super::support::{CLIENT, Counts, MODEL, Net, SECRET, Sidecar};

/// Longer than any drain.
const PATIENCE: Duration = Duration::from_secs(600);

/// A sidecar without its server for probes.
pub struct Node {
    /// Where it is asked to drain and to serve again.
    pub service: Arc<Service>,
    /// The wire between it and Ollama.
    pub to_ollama: Wire,
    metrics: Arc<Metrics>,
    shutdown: Option<oneshot::Sender<()>>,
    run: JoinHandle<Outcome>,
}

/// A wire on which every byte arrives at once, unless the weather is changed.
pub struct Wire(pub Link);

struct Dialler(Link);

impl Dial for Dialler {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> BoxFuture<'a, Result<Stream, DialError>> {
        async {
            let end = self.0.dial().await.map_err(|_| DialError::Refused)?;
            Ok(Box::new(end) as Stream)
        }
        .boxed()
    }
}

/// A sidecar that is logged in, with these settings, and the wire to its gateway. The clock is to be paused.
pub async fn start(settings: &[(&str, &str)]) -> (Net<Node>, Wire) {
    let (net, wire) = begin(settings, |_| {});
    net.gateway
        .wait_for(|frame| frame.is_from_agent("MODEL_LIST"))
        .await;
    (net, wire)
}

/// The same where logging in is the gateway's matter.
pub fn begin(settings: &[(&str, &str)], policy: impl FnOnce(&mut Policy)) -> (Net<Node>, Wire) {
    let weather = Weather {
        latency: Duration::ZERO,
        ..Weather::default()
    };
    let trace = Trace::new(false);
    let link = |name| Link::new(name, weather.clone(), Fate::of(1, name, 0), trace.clone());
    let (to_gateway, at_gateway) = link("gateway");
    let (to_ollama, at_ollama) = link("ollama");
    let gateway = Gateway::builder()
        .secret(CLIENT, SECRET)
        .policy(policy)
        .start_on_wire(at_gateway);
    let ollama = Ollama::builder()
        .model(MODEL, ModelShape::default())
        .start_on_wire(at_ollama);

    let world = World {
        gateway: Arc::new(Dialler(to_gateway.clone())),
        backend: Arc::new(Dialler(to_ollama.clone())),
        clock: Arc::new(SystemClock),
        random: fastrand::Rng::with_seed(1),
    };
    let config = Sidecar::config(CLIENT, &gateway.url(), &ollama.url(), settings);
    let relay = Relay::new(world, config).unwrap();
    let (service, metrics) = (relay.service(), relay.metrics());
    let (shutdown, told) = oneshot::channel();
    let sidecar = Node {
        service,
        to_ollama: Wire(to_ollama),
        metrics,
        shutdown: Some(shutdown),
        run: tokio::spawn(relay.run(async { drop(told.await) })),
    };
    let net = Net {
        gateway,
        ollama,
        sidecar,
    };
    (net, Wire(to_gateway))
}

impl Node {
    /// Begins to drain.
    pub fn begin_drain(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    /// Waits for the drain's end.
    pub async fn drained(self) -> Outcome {
        timeout(PATIENCE, self.run).await.unwrap().unwrap()
    }

    /// Drains.
    pub async fn drain(mut self) -> Outcome {
        self.begin_drain();
        self.drained().await
    }
}

impl Counts for Node {
    async fn counts(&self) -> String {
        self.metrics.render()
    }
}

impl Wire {
    /// Resets what is open and refuses what comes.
    pub fn cut(&self) {
        self.0
            .change(|weather| weather.dialling = Dialling::Refused);
        self.0.cut();
    }

    /// Carries again.
    pub fn mend(&self) {
        self.0.change(|weather| {
            weather.dialling = Dialling::Accepted;
            weather.held = false;
        });
    }

    /// Carries nothing for now, and tells nobody.
    pub fn stall(&self) {
        self.0.change(|weather| weather.held = true);
    }
}
