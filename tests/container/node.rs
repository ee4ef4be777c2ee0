//! The image between a gateway and an Ollama.

use devnet::{
    gateway::Gateway,
    ollama::{ModelShape, Ollama},
};

use crate::{
    docker::{Container, IMAGE},
    lab,
    support::{CLIENT, MODEL, SECRET},
};

/// What a careful operator takes away from a container.
pub(crate) const HARDENED: [&str; 7] = [
    "--read-only",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--user",
    "12345",
];

pub(crate) struct Node {
    pub(crate) gateway: Gateway,
    pub(crate) ollama: Ollama,
    pub(crate) container: Container,
}

impl Node {
    /// One that is ready, with these options of `docker run` and these settings.
    pub(crate) async fn start(options: &[&str], settings: &[(&str, &str)]) -> Self {
        let (gateway, ollama) = (gateway().await, ollama().await);
        let necessary = [
            ("PIN_API_SECRET", SECRET),
            ("PIN_SERVER_URL", &gateway.url()),
            ("PIN_OLLAMA_URL", &ollama.url()),
        ];
        let container = sidecar(options, &[&necessary, settings].concat()).await;
        container.wait_until_pending("").await;
        Self {
            gateway,
            ollama,
            container,
        }
    }
}

/// A gateway that containers can reach.
pub(crate) async fn gateway() -> Gateway {
    let gateway = Gateway::builder().secret(CLIENT, SECRET);
    gateway.listen(reachable()).start().await.unwrap()
}

/// An Ollama that containers can reach, with one model.
pub(crate) async fn ollama() -> Ollama {
    let ollama = Ollama::builder().model(MODEL, ModelShape::default());
    ollama.listen(reachable()).start().await.unwrap()
}

fn reachable() -> std::net::SocketAddr {
    format!("{}:0", lab::ADDRESS).parse().unwrap()
}

/// The image with these settings, and with those that are the same in all tests.
pub(crate) async fn sidecar(options: &[&str], settings: &[(&str, &str)]) -> Container {
    let always = [
        ("PIN_CLIENT_ID", CLIENT),
        ("PIN_NODE_ALIAS", "node-1"),
        ("PIN_ALLOW_PLAINTEXT", "true"),
    ];
    let settings: Vec<String> = always
        .iter()
        .chain(settings)
        .map(|(name, value)| format!("--env={name}={value}"))
        .collect();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Container::run(&[options, &settings].concat(), IMAGE, &[]).await
}
