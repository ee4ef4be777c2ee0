//! The command line, nothing else: what was asked for, which exit code it gives, and the signals that end it.

use std::{io, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use pin_sidecar::{
    admin::{self, Target},
    app::App,
    check::{self, Verdict},
    config::{self, Config, ConfigErrors},
    relay::Outcome,
    signals::Early,
    telemetry,
};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The settings are wrong: nothing but a human can mend that (`EX_CONFIG` of sysexits.h).
const WRONG_SETTINGS: u8 = 78;

/// The agent that runs beside a model server and serves its models to the PIN network.
#[derive(Parser)]
#[command(version, after_help = config::help())]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run until SIGTERM or SIGINT (what happens without a command)
    Run,
    /// Try everything once, and say what to do about what fails; exit 0 if nothing does
    Check(Check),
    /// Ask a running sidecar whether it is alive; exit 0 or 1. Reads PIN_LISTEN_ADDR and nothing else
    Healthcheck(Healthcheck),
    /// Have a running sidecar drain and stay away, until `resume` or for a while
    Pause(Pause),
    /// Have a paused or drained sidecar serve again
    Resume(Remote),
    /// Tell how a running sidecar does
    Status(Remote),
    /// Keep the secret of PIN_CLIENT_ID in the system's keyring
    #[cfg(feature = "keyring")]
    #[command(subcommand)]
    Secret(Secret),
}

#[derive(Args)]
struct Check {
    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
    /// Leave out everything about the gateway
    #[arg(long, conflicts_with = "login")]
    offline: bool,
    /// Log in even beside a sidecar that runs, whose session that may push out
    #[arg(long)]
    login: bool,
}

#[derive(Args)]
struct Healthcheck {
    /// Ask whether it is ready instead: logged in, with a model to offer, and not draining
    #[arg(long)]
    ready: bool,
    /// Ask another sidecar, such as http://pin-sidecar:9464
    #[arg(long)]
    url: Option<String>,
}

#[derive(Args)]
struct Pause {
    /// For how long, counted from now, such as 30m or 2h
    #[arg(long = "for", value_name = "TIME")]
    length: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Args)]
struct Remote {
    /// Ask another sidecar, such as http://gpu:9464; it wants the token of PIN_ADMIN_TOKEN or PIN_ADMIN_TOKEN_FILE
    #[arg(long)]
    url: Option<String>,
    /// Print what it says as JSON
    #[arg(long)]
    json: bool,
}

#[cfg(feature = "keyring")]
#[derive(Subcommand)]
enum Secret {
    /// Store the secret that is read from standard input
    Set,
    /// Delete the secret
    Delete,
}

fn main() -> ExitCode {
    match Cli::parse().command.unwrap_or(Command::Run) {
        Command::Run => run(),
        Command::Check(options) => check_all(&options),
        Command::Healthcheck(healthcheck) => check_health(healthcheck),
        Command::Pause(Pause { length, remote }) => {
            command(remote, &admin::Command::Pause { length })
        }
        Command::Resume(remote) => command(remote, &admin::Command::Resume),
        Command::Status(remote) => command(remote, &admin::Command::Status),
        #[cfg(feature = "keyring")]
        Command::Secret(secret) => keep_secret(&secret),
    }
}

fn run() -> ExitCode {
    let signals = match Early::take() {
        Ok(signals) => signals,
        Err(error) => return complain(1, &error),
    };
    let config = match Config::from_env(std::env::vars_os()) {
        Ok(config) => config,
        Err(errors) => return complain(WRONG_SETTINGS, &errors),
    };
    let log = match telemetry::init(config.log.filter.clone(), config.log.format) {
        Ok(log) => log,
        Err(error) => return complain(1, &error),
    };
    // One thread for all that serves chats: a relay waits far more than it works, and nothing has to cross threads.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let code = match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(serve(config, signals));
            // A keyring may still be asking a person, whom nobody waits for.
            runtime.shutdown_background();
            code
        }
        Err(error) => complain(1, &error),
    };
    log.flush();
    code
}

async fn serve(config: Config, early: Early) -> ExitCode {
    let mut signals = match early.into_signals() {
        Ok(signals) => signals,
        Err(error) => return complain(1, &error),
    };
    let came_before = signals.came_before();
    log_settings(&config);
    let built = tokio::select! {
        biased;
        // What is to be read again is about to be read.
        () = signals.end(|| {}), if !came_before => return ExitCode::SUCCESS,
        // Elsewhere: a keyring may ask a person for the secret, and somebody may have enough of that.
        built = spawn_blocking(move || App::build(config)) => built,
    };
    let app = match built {
        Ok(Ok(app)) => app,
        Ok(Err(error)) if error.is_setting() => return complain(WRONG_SETTINGS, &error),
        Ok(Err(error)) => return complain(1, &error),
        Err(panicked) => return complain(1, &panicked),
    };
    info!(address = %app.admin_addr(), "probes and metrics are answered");
    let shutdown = CancellationToken::new();
    let reload = app.reload();
    let second_signal = async {
        signals.end(|| reload.ask()).await;
        shutdown.cancel();
        signals.end_at_once().await;
    };
    tokio::select! {
        outcome = app.run(shutdown.cancelled()) => match outcome {
            Ok(Outcome::Drained) => ExitCode::SUCCESS,
            Ok(Outcome::Dropped | Outcome::Failed) => ExitCode::FAILURE,
            Err(error) => complain(1, &error),
        },
        () = second_signal => {
            warn!("a second signal: ending at once");
            ExitCode::FAILURE
        }
        never = reload.run() => match never {},
    }
}

fn log_settings(config: &Config) {
    let settings: Vec<_> = config
        .effective()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let version = telemetry::Metrics::VERSION;
    let proxy = config.gateway.proxy.as_ref().map(tracing::field::display);
    info!(version, secret = ?config.identity.secret, proxy, settings = settings.join(" "), "starting");
    if let Some(skipped) = config.skipped() {
        warn!(what = skipped, "a part of the settings is not heeded");
    }
}

fn check_all(options: &Check) -> ExitCode {
    let options = check::Options {
        json: options.json,
        offline: options.offline,
        login: options.login,
    };
    match check::command(options, std::env::vars_os()) {
        Ok(Verdict::Passed) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::FAILURE,
        Ok(Verdict::WrongSettings) => ExitCode::from(WRONG_SETTINGS),
        Err(error) => complain(1, &error),
    }
}

fn check_health(healthcheck: Healthcheck) -> ExitCode {
    let target = match target(healthcheck.url) {
        Ok(target) => target,
        // Docker knows 0 and 1 and reserves all else.
        Err(errors) => return complain(1, &errors),
    };
    match admin::healthcheck(&target, healthcheck.ready) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(1, &error),
    }
}

/// The sidecar of this URL, or the one that runs here.
fn target(url: Option<String>) -> Result<Target, ConfigErrors> {
    match url {
        Some(url) => Ok(Target::Url(url)),
        None => config::listen_addr(std::env::vars_os()).map(Target::Own),
    }
}

fn command(Remote { url, json }: Remote, command: &admin::Command) -> ExitCode {
    let asked = target(url).and_then(|target| {
        let token = config::admin_token(std::env::vars_os())?;
        Ok((target, token))
    });
    let (target, token) = match asked {
        Ok(asked) => asked,
        Err(errors) => return complain(WRONG_SETTINGS, &errors),
    };
    match admin::command(&target, token.as_ref(), command, json) {
        Ok(said) => tell(&said),
        Err(error) => complain(1, &error),
    }
}

/// Tells what was asked for.
fn tell(said: &str) -> ExitCode {
    use io::Write as _;
    match writeln!(io::stdout(), "{}", said.trim_end()) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads it, and `println!` would panic.
        Err(_) => ExitCode::FAILURE,
    }
}

#[cfg(feature = "keyring")]
fn keep_secret(command: &Secret) -> ExitCode {
    use pin_sidecar::secret::{keyring, read_from};
    let client_id = match config::client_id(std::env::vars_os()) {
        Ok(client_id) => client_id,
        Err(errors) => return complain(WRONG_SETTINGS, &errors),
    };
    let done = match command {
        Secret::Set => read_from("standard input", io::stdin())
            .and_then(|secret| keyring::set(&client_id, &secret)),
        Secret::Delete => keyring::delete(&client_id),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(1, &error),
    }
}

/// Tells an error to whoever gave the command.
fn complain(code: u8, error: &dyn std::error::Error) -> ExitCode {
    use io::Write as _;
    // Standard error may be closed, and `eprintln!` would panic.
    let _ = writeln!(io::stderr(), "{error}");
    ExitCode::from(code)
}
