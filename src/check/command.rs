//! `pin-sidecar check`: the whole of it, from the environment to a real answer.
//!
//! Invariant: a sidecar that runs here is not disturbed: no second login, which the gateway may answer by ending the first,
//! unless that is asked for, and no work for its model server while it wants none.

use std::{ffi::OsString, io, sync::Arc, time::Instant};

use secrecy::SecretString;

use super::{
    Report, Step,
    answer::{Trial, look, without_model},
    beside::Beside,
    gateway::Gateway,
    screen::Screen,
    way::left_out,
};
use crate::{
    config::{Config, ConfigError, ConfigErrors},
    relay::World,
    shared::Shared,
    transport::{Connections, Dial, Probe},
};

const USABLE: &str = "Every setting can be used.";

/// How to check.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// One JSON document instead of lines.
    pub json: bool,
    /// Leave the gateway out.
    pub offline: bool,
    /// Log in even beside a sidecar that runs.
    pub login: bool,
}

/// What a check has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing has failed.
    Passed,
    /// Something has.
    Failed,
    /// The settings are wrong, the secret among them: a sidecar would not even start.
    WrongSettings,
}

/// Checks with these settings, and shows each step on standard output. Blocks.
///
/// # Errors
/// The system has no room for a runtime.
pub fn command(
    options: Options,
    vars: impl IntoIterator<Item = (OsString, OsString)>,
) -> io::Result<Verdict> {
    let mut screen = Screen::new(options.json);
    let Some(ready) = Ready::from_env(vars, &mut screen) else {
        screen.finish();
        return Ok(Verdict::WrongSettings);
    };
    let beside = Beside::at(ready.config.admin.listen);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(async {
        ready.check(options, beside, &mut screen).await;
        screen.finish()
    });
    Ok(verdict(&report))
}

fn verdict(report: &Report) -> Verdict {
    if report.passed {
        Verdict::Passed
    } else {
        Verdict::Failed
    }
}

/// All that a sidecar needs in order to start.
struct Ready {
    config: Config,
    secret: SecretString,
    gateway: Arc<dyn Dial>,
    shared: Shared,
    probe: Probe,
}

impl Ready {
    /// Reads settings and secret; `None` if one is wrong.
    fn from_env(
        vars: impl IntoIterator<Item = (OsString, OsString)>,
        screen: &mut Screen,
    ) -> Option<Self> {
        let began = Instant::now();
        let config = match Config::from_env(vars) {
            Ok(config) => config,
            Err(errors) => {
                screen.show(wrong(&errors));
                return None;
            }
        };
        let probe = Probe::new();
        let world = match World::real_noting(&config, probe.clone()) {
            Ok(world) => world,
            Err(error) => {
                screen.show([Step::failed("settings", error.to_string())]);
                screen.show(all_skipped(&["secret"], "settings"));
                return None;
            }
        };
        screen.show([settings(&config).lasting(began.elapsed())]);
        let began = Instant::now();
        let source = &config.identity.secret;
        let connections = Connections::default();
        let shared = Shared::new(&config, world.backend, world.clock, connections);
        match source.read().and_then(|secret| Ok((secret, shared?))) {
            Ok((secret, shared)) => {
                let found = format!("It can be read: {source:?}.");
                screen.show([Step::passed("secret", found).lasting(began.elapsed())]);
                Some(Self {
                    config,
                    secret,
                    gateway: world.gateway,
                    shared,
                    probe,
                })
            }
            Err(error) => {
                screen.show([Step::failed("secret", error.to_string())]);
                screen.show(all_skipped(&[], "secret"));
                None
            }
        }
    }

    async fn check(self, options: Options, beside: Option<Beside>, screen: &mut Screen) {
        let Self {
            config,
            secret,
            gateway,
            shared,
            probe,
        } = self;
        if options.offline {
            screen.show(left_out("Left out, since --offline was given."));
        } else {
            let gateway = Gateway {
                config: &config,
                dial: gateway,
                shared: &shared,
                probe,
            };
            let login = match beside {
                Some(beside) if !options.login => Err(beside.keeps_the_session()),
                Some(_) | None => Ok(secret),
            };
            let checked = gateway.check(login);
            let steps = screen.during("trying the gateway", checked).await;
            screen.show(steps);
        }
        for node in shared.nodes.iter() {
            let looked = screen.during("looking at the model server", look(node));
            let (steps, model) = looked.await;
            screen.show(steps);
            let answer = match &model {
                None => without_model(),
                Some(model) => {
                    let what = format!("loading {} and asking it", model.name);
                    let trial = Trial::new(node, model, &config.job);
                    screen.during(&what, try_beside(beside, &trial)).await
                }
            };
            screen.show([answer]);
        }
    }
}

/// Tries the answer, unless a sidecar that runs beside wants no work just now.
async fn try_beside(beside: Option<Beside>, trial: &Trial<'_>) -> Step {
    let reason = match beside {
        Some(beside) => beside.wants_no_work().await,
        None => None,
    };
    match reason {
        Some(reason) => Step::skipped("answer", reason),
        None => trial.step().await,
    }
}

fn settings(config: &Config) -> Step {
    match config.skipped() {
        None => Step::passed("settings", USABLE),
        Some(skipped) => {
            let found =
                format!("Every setting can be used, save a part that is not heeded: {skipped}.");
            Step::warned(
                "settings",
                found,
                "Write that part as docs/settings.md says, or delete it.",
            )
        }
    }
}

/// The steps where something is wrong from the beginning: each mistake a line, that in the secret a step of its own.
fn wrong(errors: &ConfigErrors) -> Vec<Step> {
    let (secrets, others): (Vec<_>, Vec<_>) = errors
        .iter()
        .partition(|error| matches!(error, ConfigError::Secret(_)));
    let told = |errors: Vec<&ConfigError>| {
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        lines.join("\n")
    };
    let failed = if others.is_empty() {
        "secret"
    } else {
        "settings"
    };
    let settings = match others.len() {
        0 => Step::passed("settings", USABLE),
        _ => Step::failed("settings", told(others)),
    };
    let secret = match secrets.len() {
        0 => Step::skipped_after("secret", "settings"),
        _ => Step::failed("secret", told(secrets)),
    };
    let mut steps = vec![settings, secret];
    steps.extend(all_skipped(&[], failed));
    steps
}

/// What follows settings and secret, and these before it.
fn all_skipped(before: &[&'static str], failed: &str) -> Vec<Step> {
    let reason = format!("Not tried, since `{failed}` failed.");
    let before = before
        .iter()
        .map(|name| Step::skipped(name, reason.as_str()));
    let after = ["backend", "models", "answer"].map(|name| Step::skipped(name, reason.as_str()));
    before.chain(left_out(&reason)).chain(after).collect()
}
