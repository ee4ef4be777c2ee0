//! Everything that takes part: the model server, the gateway, the network between gateway and sidecar, the sidecar.

use std::{path::Path, sync::Arc, time::Duration};

use devnet::{
    agent::Agent,
    gateway::{Gateway, Interviews, Policy},
    network::Proxy,
};

use crate::{Options, Trouble, model_server::ModelServer, terminal::Terminal};

const CLIENT_ID: &str = "op_demo";
const SECRET: &str = "demo-secret";

/// How many chats the sidecar takes at once.
pub(crate) const CAPACITY: usize = 4;

/// From start to ready. Far more than it takes, so that a busy machine is no trouble.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// What is left to say where the demo was not started by `cargo demo`.
const NO_SIDECAR: &str = "there is no sidecar to start: run `cargo demo`, which builds it, or give its binary with --sidecar";

/// The fields are dropped in this order: the sidecar goes first.
pub(crate) struct Stage {
    pub(crate) sidecar: Agent,
    pub(crate) network: Proxy,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) model_server: ModelServer,
}

impl Stage {
    /// Starts all of it and waits until the sidecar is ready.
    pub(crate) async fn set(options: &Options, terminal: &mut Terminal) -> Result<Self, Trouble> {
        let program = options.sidecar.as_deref().ok_or(NO_SIDECAR)?;
        let model_server = ModelServer::find(options).await?;
        terminal.say("ollama", &model_server.description());

        let no_port = |error| format!("the gateway found no port on 127.0.0.1: {error}");
        let gateway = Gateway::builder()
            .secret(CLIENT_ID, SECRET)
            .policy(Policy::network_rules)
            .policy(|policy| policy.interviews = Some(rules()))
            .start()
            .await
            .map_err(no_port)?;
        let network = Proxy::start(gateway.addr()).await.map_err(no_port)?;
        let url = gateway.url_at(network.addr());
        terminal.say(
            "gateway",
            &format!("{url}, behind a network that can break"),
        );

        let log = std::env::temp_dir().join(format!("pin-sidecar-demo-{}.log", std::process::id()));
        let sidecar = start(program, &log, &url, &model_server.url).await?;
        terminal.say(
            "sidecar",
            &format!("process {}, log in {}", sidecar.pid(), log.display()),
        );
        let ready = sidecar.wait_until_ready(READY_LIMIT).await;
        let ready =
            ready.map_err(|error| format!("{}; its log is {}", one_line(&error), log.display()))?;
        terminal.good("ready", &one_line(&ready.text()));
        Ok(Self {
            sidecar,
            network,
            gateway: Arc::new(gateway),
            model_server,
        })
    }
}

/// Those of the network, but that the sidecar need not stay away for long when its model is slow.
pub(crate) fn rules() -> Interviews {
    Interviews {
        retry_after: Duration::from_secs(1),
        ..Interviews::default()
    }
}

async fn start(program: &Path, log: &Path, gateway: &str, ollama: &str) -> Result<Agent, Trouble> {
    let builder = Agent::builder(program)
        .env("PIN_CLIENT_ID", CLIENT_ID)
        .env("PIN_API_SECRET", SECRET)
        .env("PIN_SERVER_URL", gateway)
        .env("PIN_OLLAMA_URL", ollama)
        .env("PIN_NODE_ALIAS", "demo")
        .env("PIN_CAPACITY", CAPACITY.to_string())
        .env("PIN_LOG_FORMAT", "json");
    let started = builder
        .apart_from_the_terminal()
        .log_file(log)
        .start()
        .await;
    started.map_err(|error| format!("{} cannot be started: {error}", program.display()))
}

fn one_line(text: &impl ToString) -> String {
    text.to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
