//! `cargo demo`: the sidecar at work, on a machine that has neither an account with the network nor a GPU.
//!
//! `xtask` builds the sidecar and this, side by side, and starts this with the sidecar's path.
//!
//! Ends with 0 if all went well; else with 1, after one line that says what to do.

mod board;
mod chats;
mod control;
mod ending;
mod interview;
mod model_server;
mod sidecar;
mod stage;
mod terminal;
mod wrap;

use std::process::ExitCode;

use clap::Parser;

use interview::Interviewed;
use stage::Stage;
use terminal::Terminal;

/// Watch the sidecar work: a gateway, an Ollama and the network between them on this machine.
#[derive(Parser)]
#[command(name = "cargo demo", bin_name = "cargo demo --")]
pub(crate) struct Options {
    /// A real Ollama instead of the stand-in; OLLAMA_HOST does the same
    #[arg(long, value_name = "URL")]
    ollama: Option<String>,
    /// The model to chat with [default: the first that can chat]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The sidecar's binary [default: it is built]
    #[arg(long, value_name = "PATH")]
    sidecar: Option<std::path::PathBuf>,
    /// Leave everything running until Ctrl-C, with a port to chat through and to break things with
    #[arg(long)]
    serve: bool,
    /// Where that port is [default: one that is free]
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 0,
        hide_default_value = true
    )]
    port: u16,
}

/// What went wrong, as one line for a person that says what to do.
pub(crate) type Trouble = String;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let mut terminal = Terminal::new();
    let done = tokio::select! {
        done = demonstrate(&options, &mut terminal) => done,
        () = devnet::interrupted(), if !options.serve => Err("interrupted".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            Terminal::complain(&trouble);
            ExitCode::FAILURE
        }
    }
}

async fn demonstrate(options: &Options, terminal: &mut Terminal) -> Result<(), Trouble> {
    terminal.title("pin-sidecar demo");
    let (stage, interviewed) = tokio::select! {
        prepared = prepare(options, terminal) => prepared?,
        () = devnet::interrupted(), if options.serve => return Err("interrupted".to_owned()),
    };
    let asked = if options.serve {
        control::serve(&stage, options.port, terminal).await?;
        None
    } else {
        let mut asked = chats::one(&stage, terminal).await?;
        asked += chats::several(&stage, terminal).await?;
        sidecar::report(&stage.sidecar, terminal).await?;
        Some(asked)
    };
    let drain = sidecar::drain(&stage.sidecar, terminal).await?;
    ending::tell(&stage, &interviewed, asked, drain, terminal);
    Ok(())
}

/// Sets everything up and has the node interviewed, as the network does before it sends chats.
async fn prepare(
    options: &Options,
    terminal: &mut Terminal,
) -> Result<(Stage, Interviewed), Trouble> {
    let stage = Stage::set(options, terminal).await?;
    let interviewed = interview::hold(&stage, terminal).await?;
    Ok((stage, interviewed))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// It would else build no sidecar for an option that it does not know.
    #[test]
    fn xtask_knows_every_option() {
        let known = include_str!("../../../../xtask/src/arguments.rs");
        for option in Options::command().get_arguments() {
            let name = option.get_long().unwrap_or_default();
            let row = format!("(\"--{name}\", {})", option.get_action().takes_values());
            assert!(known.contains(&row), "{row}");
        }
    }
}
