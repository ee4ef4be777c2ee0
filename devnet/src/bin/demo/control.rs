//! `--serve`: everything runs until Ctrl-C, with a loopback port to chat through and to break things with.

use std::{sync::Arc, time::Duration};

use devnet::{
    control::{self, Controlled, Refusal, act_on_gateway},
    gateway::Gateway,
};
use tokio::net::TcpListener;

use crate::{Trouble, stage::Stage, terminal::Terminal};

/// Serves until Ctrl-C, or until the sidecar ends by itself.
pub(crate) async fn serve(
    stage: &Stage,
    port: u16,
    terminal: &mut Terminal,
) -> Result<(), Trouble> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await;
    let listener = listener
        .map_err(|error| format!("port {port} cannot be had ({error}): give another --port"))?;
    let addr = listener.local_addr().map_err(|error| error.to_string())?;
    explain(stage, &format!("http://{addr}"), terminal);
    tokio::select! {
        never = control::serve(&listener, stage) => match never {},
        () = devnet::interrupted() => Ok(()),
        ended = stage.sidecar.wait_for(Duration::MAX) => match ended {
            Some(status) => Err(format!("the sidecar ended by itself with {status}: its log says why")),
            None => Err("the sidecar cannot be watched".to_owned()),
        },
    }
}

fn explain(stage: &Stage, control: &str, terminal: &mut Terminal) {
    terminal.part("Chat");
    terminal.verbatim(&format!(
        "curl -N {control}/chat -d '{{\"prompt\": \"Why is the sky blue?\"}}'"
    ));
    terminal.part("Break and mend");
    terminal.verbatim(&format!(
        "curl -X POST {control}/network/cut     # or stall, mend"
    ));
    terminal.verbatim(&format!(
        "curl -X POST {control}/gateway/stop    # or start"
    ));
    if stage.model_server.stand_in.is_some() {
        terminal.verbatim(&format!(
            "curl -X POST {control}/ollama/stop     # or start"
        ));
    }
    terminal.verbatim(&format!("curl -X POST {control}/gateway/interview"));
    terminal.part("Watch");
    let page = stage.sidecar.url("/");
    terminal.verbatim(&format!(
        "{page}    # in a browser, which can pause it, too"
    ));
    terminal.verbatim(&format!("curl {control}/nodes"));
    for path in ["/readyz", "/status", "/metrics"] {
        terminal.verbatim(&format!("curl {}", stage.sidecar.url(path)));
    }
    terminal.part("Ctrl-C drains the sidecar and ends");
}

impl Controlled for Stage {
    const HELP: &'static str = "POST /chat, /ollama/stop|start, /gateway/stop|start|mute|unmute|cut|interview, /network/cut|stall|mend; \
                                GET /books, /nodes";

    fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    fn model(&self) -> Option<String> {
        Some(self.model_server.model.clone())
    }

    async fn act(&self, path: &str) -> Result<(), Refusal> {
        let ollama = self.model_server.stand_in.as_ref();
        let ollama = ollama.ok_or(Refusal::NotHere("this Ollama is a real one: not ours"));
        match path {
            "/ollama/stop" => ollama?.stop().await,
            "/ollama/start" => ollama?.start_again().await.map_err(Refusal::Failed)?,
            "/network/cut" => self.network.cut().await,
            "/network/stall" => self.network.stall(),
            "/network/mend" => self.network.mend().await.map_err(Refusal::Failed)?,
            path => act_on_gateway(&self.gateway, path).await?,
        }
        Ok(())
    }
}
