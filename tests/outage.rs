//! A long outage, on a clock that jumps: nobody listens anywhere, and the log stays short.
//!
//! These tests have a process of their own. Whether anybody wants to hear of something is decided once for each place in
//! the code, when it is first come by: in a process where other tests log to nobody that may be too early.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    ffi::OsString,
    io::{self, Write},
    sync::{Arc, Mutex, Once},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use pin_sidecar::{
    clock::SystemClock,
    config::{Config, Surroundings},
    relay::{Outcome, Relay, World},
    transport::{Dial, DialError, Endpoint, Stream},
};
use tokio::time::sleep;
use tracing_subscriber::filter::LevelFilter;

const HOUR: Duration = Duration::from_secs(3_600);

/// A network in which nobody is there.
struct Nobody;

impl Dial for Nobody {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> BoxFuture<'a, Result<Stream, DialError>> {
        async { Err(DialError::Refused) }.boxed()
    }
}

/// A network with a defect.
struct Broken;

impl Dial for Broken {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> BoxFuture<'a, Result<Stream, DialError>> {
        panic!("the test's own")
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

thread_local! {
    /// What this thread's test has logged; nothing that it starts runs on another one.
    static LOG: Log = Log::default();
}

impl Log {
    /// This test's, from before anything is logged.
    fn listen() -> Self {
        static LISTENING: Once = Once::new();
        LISTENING.call_once(|| {
            tracing_subscriber::fmt()
                .with_max_level(LevelFilter::INFO)
                .with_ansi(false)
                .with_writer(|| LOG.with(Self::clone))
                .init();
        });
        LOG.with(Self::clone)
    }

    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn config() -> Config {
    let settings = [
        ("PIN_CLIENT_ID", "op_test"),
        ("PIN_API_SECRET", "s3cret"),
        ("PIN_SERVER_URL", "wss://gateway.example"),
        ("PIN_NODE_ALIAS", "node-1"),
    ];
    let surroundings = Surroundings {
        secret_files: vec!["/nonexistent/pin_api_secret".into()],
        ..Surroundings::default()
    };
    let settings = settings.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Config::from_env_in(&surroundings, settings).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_gateway_and_ollama_is_told_in_a_dozen_lines() {
    let log = Log::listen();
    let world = World {
        gateway: Arc::new(Nobody),
        backend: Arc::new(Nobody),
        clock: Arc::new(SystemClock),
        random: fastrand::Rng::with_seed(1),
    };
    let relay = Relay::new(world, config()).unwrap();
    let metrics = relay.metrics();
    assert_eq!(relay.run(sleep(HOUR)).await, Outcome::Drained);

    // Alerts carry the alias, also before the first login.
    let node = r#"pin_sidecar_node_info{alias="node-1",node_id="",pin_region="global"} 1"#;
    assert!(metrics.render().contains(node));

    let attempts = metrics.connect_attempts_total.get();
    let lines = log.lines();
    let about_the_gateway = |line: &&String| line.contains("no session");
    let about_ollama = |line: &&String| line.contains("no models to offer");
    assert!(attempts > 60, "it was tried {attempts} times");
    assert!(lines.len() <= 20, "{lines:#?}");
    // At once, after a minute, and then every ten.
    assert!(
        (5..=8).contains(&lines.iter().filter(about_the_gateway).count()),
        "{lines:#?}"
    );
    assert!(
        (5..=8).contains(&lines.iter().filter(about_ollama).count()),
        "{lines:#?}"
    );
    assert!(
        lines.iter().any(|line| line.contains("since_s=")),
        "{lines:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_defect_ends_the_sidecar_instead_of_leaving_one_that_looks_alive() {
    let worlds: [(Arc<dyn Dial>, Arc<dyn Dial>); 2] = [
        (Arc::new(Broken), Arc::new(Nobody)),
        (Arc::new(Nobody), Arc::new(Broken)),
    ];
    let log = Log::listen();
    for (gateway, backend) in worlds {
        let world = World {
            gateway,
            backend,
            clock: Arc::new(SystemClock),
            random: fastrand::Rng::with_seed(1),
        };
        let relay = Relay::new(world, config()).unwrap();
        assert_eq!(relay.run(sleep(HOUR)).await, Outcome::Failed);
    }
    let told = |line: &&String| line.contains("a part of the sidecar has failed");
    let lines = log.lines();
    assert_eq!(lines.iter().filter(told).count(), 2, "{lines:#?}");
}
