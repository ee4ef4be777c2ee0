//! `cargo demo`: builds the sidecar as its users build it, beside it the demo, and becomes the demo.

use std::{
    convert::Infallible,
    ffi::OsString,
    io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
    sync::mpsc,
    time::Duration,
};

use crate::{
    arguments::Arguments,
    build::{Build, Job, News},
    cargo_says::Said,
    screen::{self, Screen},
};

/// The very binary that `cargo build --release` gives.
const SIDECAR: Job = Job {
    name: "sidecar",
    about: "the real release binary, optimised as one piece: that takes long",
    arguments: &["--release", "--package", "pin-sidecar"],
    gives_way: false,
};

const DEMO: Job = Job {
    name: "demo",
    about: "the gateway, the network and the stand-in for Ollama around it",
    arguments: &["--profile", "demo", "--package", "devnet", "--bin", "demo"],
    gives_way: true,
};

/// The first time, on two cores that do nothing else.
const USUAL_TIME: &str = "two minutes";
const USUAL_TIME_OF_DEMO_ALONE: &str = "40 seconds";

/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(200);

/// Builds, and becomes the demo; comes back only if that fails.
pub(crate) fn run(arguments: Vec<OsString>) -> ExitCode {
    let arguments = Arguments::new(arguments);
    let Err(trouble) = build_and_become(&arguments);
    screen::complain(&trouble);
    ExitCode::FAILURE
}

fn build_and_become(arguments: &Arguments) -> Result<Infallible, String> {
    let (jobs, usual) = if arguments.wants_sidecar {
        (vec![SIDECAR, DEMO], USUAL_TIME)
    } else {
        (vec![DEMO], USUAL_TIME_OF_DEMO_ALONE)
    };
    let mut binaries = build(&jobs, usual)?;
    let demo = binaries.pop().unwrap_or_default();
    let mut command = Command::new(&demo);
    if let Some(sidecar) = binaries.pop() {
        command.arg("--sidecar").arg(sidecar);
    }
    let error = command.args(&arguments.passed).exec();
    Err(format!("{} cannot be run: {error}", demo.display()))
}

/// Runs the jobs side by side; gives their binaries in the same order.
fn build(jobs: &[Job], usual: &'static str) -> Result<Vec<PathBuf>, String> {
    let (sender, news) = mpsc::channel();
    let mut screen = Screen::new(jobs, usual);
    let mut builds = Vec::new();
    for (index, job) in jobs.iter().enumerate() {
        match Build::start(job, index, &sender) {
            Ok(build) => builds.push(build),
            Err(error) => {
                builds.iter().for_each(Build::end);
                return Err(no_cargo(&error));
            }
        }
    }
    let mut kept: Vec<Vec<String>> = vec![Vec::new(); jobs.len()];
    let mut binaries = vec![None; jobs.len()];
    while binaries.iter().any(Option::is_none) {
        match news.recv_timeout(TICK) {
            Ok((index, News::Said(piece))) => {
                let said = Said::read(&piece);
                if said.is_for_the_user(&kept[index]) {
                    kept[index].push(piece);
                }
                screen.hear(index, said);
            }
            Ok((index, News::Over(Some(binary)))) => {
                binaries[index] = Some(binary);
                screen.over(index);
            }
            Ok((index, News::Over(None))) => {
                end_others(&builds, &binaries, index);
                screen.end(false);
                screen::pass_on(&kept[index]);
                return Err(does_not_build(&jobs[index]));
            }
            // The clock goes on. Nobody hangs up while there is a sender here.
            Err(_) => {}
        }
        screen.show();
    }
    screen.end(true);
    Ok(binaries.into_iter().flatten().collect())
}

/// Ends the builds that still run when one has failed.
fn end_others(builds: &[Build], binaries: &[Option<PathBuf>], failed: usize) {
    for (index, (build, binary)) in builds.iter().zip(binaries).enumerate() {
        if index != failed && binary.is_none() {
            build.end();
        }
    }
}

fn no_cargo(error: &io::Error) -> String {
    format!("cargo cannot be run ({error}): have CARGO name it, or leave CARGO unset")
}

fn does_not_build(job: &Job) -> String {
    let name = job.name;
    format!("the {name} does not build: mend what cargo says above, and try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_said_on_one_line() {
        for job in [SIDECAR, DEMO] {
            assert!(screen::fits_behind_a_name(job.about), "{}", job.about);
        }
    }
}
