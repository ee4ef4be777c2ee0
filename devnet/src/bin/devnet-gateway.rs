//! The gateway as a program of its own, for demos and tests whose parts run in containers.
//!
//! It lets one client in, on the one address that it is told; what it counts and how it is broken is on a port of its
//! own, which no sidecar needs.

use std::{
    convert::Infallible, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc,
    time::Duration,
};

use clap::Parser;
use devnet::{
    control::{self, Controlled, Refusal, act_on_gateway},
    gateway::{Chat, ChatEvent, Gateway},
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{Instant, MissedTickBehavior},
};

/// How many tokens a chat of `--chat-every` asks for.
const MAX_TOKENS: u32 = 64;

/// An answer that is not there by then is not waited for: a model may have to be read from a disk first.
const ANSWER_LIMIT: Duration = Duration::from_secs(300);

const QUESTIONS: [&str; 4] = [
    "Why is the sky blue at noon and red in the evening?",
    "What would a lighthouse write in its diary?",
    "Name three things that are older than the stars.",
    "How does bread know when to rise?",
];

/// A PIN gateway for development.
#[derive(Parser)]
#[command(name = "devnet-gateway", version)]
struct Options {
    /// Where sidecars connect
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8765")]
    listen: SocketAddr,
    /// Where it is chatted through and broken: GET / says how
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8766")]
    control: SocketAddr,
    /// The client that is let in
    #[arg(long, value_name = "ID")]
    client_id: String,
    /// The file with that client's secret
    #[arg(long, value_name = "PATH")]
    secret_file: PathBuf,
    /// Send a chat this often, to the first model that is offered
    #[arg(long, value_name = "TIME", value_parser = interval)]
    chat_every: Option<Duration>,
    /// Interview and probe nodes, limit attempts to connect, and what else the network does by itself
    #[arg(long)]
    network_rules: bool,
}

/// What went wrong, as one line for a person that says what to do.
type Trouble = String;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = tokio::select! {
        failed = run(Options::parse()) => failed.map(|never| match never {}),
        () = devnet::interrupted() => Ok(()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            say(&format!("error: {trouble}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<Infallible, Trouble> {
    let gateway = Arc::new(start(&options).await?);
    let control = TcpListener::bind(options.control).await;
    let control =
        control.map_err(|error| format!("cannot listen on {} ({error})", options.control))?;
    say(&format!(
        "sidecars connect to {}, control is on {}",
        options.listen, options.control
    ));
    let stage = Stage(gateway);
    tokio::select! {
        never = control::serve(&control, &stage) => match never {},
        never = chat_now_and_then(&stage.0, options.chat_every) => match never {},
    }
}

async fn start(options: &Options) -> Result<Gateway, Trouble> {
    let path = &options.secret_file;
    let secret = std::fs::read_to_string(path).map_err(|error| {
        format!(
            "the secret cannot be read from {} ({error})",
            path.display()
        )
    })?;
    let builder = Gateway::builder()
        .listen(options.listen)
        .secret(&options.client_id, secret.trim_end_matches(['\r', '\n']))
        // It may run for days.
        .policy(|policy| policy.record = false)
        .policy(|policy| {
            if options.network_rules {
                policy.network_rules();
            }
        });
    let started = builder.start().await;
    started.map_err(|error| format!("cannot listen on {} ({error})", options.listen))
}

/// The gateway, and nothing else that could be broken.
struct Stage(Arc<Gateway>);

impl Controlled for Stage {
    const HELP: &'static str =
        "POST /chat, /gateway/stop|start|mute|unmute|cut|interview; GET /books, /nodes";

    fn gateway(&self) -> &Arc<Gateway> {
        &self.0
    }

    fn model(&self) -> Option<String> {
        self.0.models().into_iter().next()
    }

    async fn act(&self, path: &str) -> Result<(), Refusal> {
        act_on_gateway(&self.0, path).await
    }
}

/// One chat at a time, and none while there is nobody to answer it.
async fn chat_now_and_then(gateway: &Gateway, every: Option<Duration>) -> Infallible {
    let Some(every) = every else {
        return std::future::pending().await;
    };
    let mut clock = tokio::time::interval(every);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut questions = QUESTIONS.iter().cycle();
    loop {
        clock.tick().await;
        let Some(model) = gateway.models().into_iter().next() else {
            continue;
        };
        let question = questions.next();
        let payload = json!({
            "model": model, "stream": true, "max_tokens": MAX_TOKENS,
            "messages": [{"role": "user", "content": question}],
        });
        if let Some(chat) = gateway.try_chat(&payload) {
            say(&format!(
                "{}, {model}: {}",
                chat.id().to_owned(),
                outcome(chat).await
            ));
        }
    }
}

/// What came of a chat, in a few words and without its text.
async fn outcome(mut chat: Chat) -> String {
    let begun = Instant::now();
    let answer = async {
        loop {
            match chat.event().await? {
                ChatEvent::Chunk(_) => {}
                ChatEvent::Response(result) => break Some(Ok(result)),
                ChatEvent::Error(error) | ChatEvent::GivenUp(error) => break Some(Err(error)),
            }
        }
    };
    match tokio::time::timeout(ANSWER_LIMIT, answer).await {
        Ok(Some(Ok(result))) => {
            format!(
                "{} tokens after {} ms",
                tokens(&result),
                begun.elapsed().as_millis()
            )
        }
        Ok(Some(Err(error))) => format!("error: {error}"),
        Ok(None) | Err(_) => "no answer".to_owned(),
    }
}

/// What was generated, as either generation counts it.
fn tokens(result: &Value) -> u64 {
    let count = result["usage"]["completion_tokens"].as_u64();
    count.or(result["eval_count"].as_u64()).unwrap_or(0)
}

fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time.is_zero() => Err("some time must pass between two".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    }
}

/// A line for whoever reads the container's log.
#[allow(clippy::print_stderr, reason = "it has nobody else to tell")]
fn say(text: &str) {
    eprintln!("{text}");
}
