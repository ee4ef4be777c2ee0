//! Tasks that cargo has no command for, each with an alias in `.cargo/config.toml`. Without a dependency, so that it is
//! built in a second.

mod arguments;
mod build;
mod cargo_says;
mod demo;
mod screen;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(task) if task == "demo" => demo::run(arguments.collect()),
        _ => {
            screen::complain("there is one task, and it is run as `cargo demo`");
            ExitCode::FAILURE
        }
    }
}
