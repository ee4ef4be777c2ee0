//! The way to the gateway as steps: what was found on it, where it ended, and what follows from that. Pure: the way has been
//! gone already.
//!
//! Invariant: one step fails at most, save that the clock is told to be wrong beside the login that this makes fail.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::Step;
use crate::{
    config::GatewaySettings,
    link::OpenError,
    transport::{self, DialError, Endpoint, Findings, ProxyError, TlsFindings},
};

/// A certificate that has no more than this left should have been renewed: what renews by itself does so earlier.
const RENEWED_BY: Duration = Duration::from_secs(14 * DAY);
const DAY: u64 = 24 * 60 * 60;

/// In seconds: what NTP leaves of a difference is far below. A gateway takes a login within 5 minutes (protocol, "AUTH").
const CLOCKS_DIFFER: u64 = 30;
const LOGIN_WINDOW: u64 = 5 * 60;

/// The steps, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Dns,
    Tcp,
    Proxy,
    Tls,
    Clock,
    Login,
}

/// What became of the login, where the way to it is free.
pub(super) enum Login {
    /// It was accepted, and the session closed again.
    Accepted,
    /// It was left out, for this reason.
    LeftOut(String),
}

/// A way that was gone as far as it led.
pub(super) struct Way<'a> {
    pub(super) gateway: &'a GatewaySettings,
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) findings: Findings,
    pub(super) login: Result<Login, OpenError>,
    /// By our clock.
    pub(super) now: SystemTime,
}

impl Stage {
    const ALL: [Self; 6] = [
        Self::Dns,
        Self::Tcp,
        Self::Proxy,
        Self::Tls,
        Self::Clock,
        Self::Login,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Clock => "clock",
            Self::Login => "login",
        }
    }

    /// Where a way ended.
    fn of(error: &OpenError) -> Self {
        match error {
            OpenError::Dial(error) => Self::of_dial(error),
            OpenError::Http { .. }
            | OpenError::Edge { .. }
            | OpenError::Closed
            | OpenError::Protocol(_)
            | OpenError::Refused { .. }
            | OpenError::LoginCutOff(_) => Self::Login,
        }
    }

    fn of_dial(error: &DialError) -> Self {
        match error {
            DialError::Dns(_) => Self::Dns,
            DialError::Refused | DialError::Tcp(_) => Self::Tcp,
            DialError::Tls(_) => Self::Tls,
            DialError::Timeout { step, .. } => match step {
                transport::Step::Tcp => Self::Tcp,
                transport::Step::Tls => Self::Tls,
                transport::Step::Upgrade | transport::Step::Login => Self::Login,
            },
            // TLS with a proxy is the proxy's matter.
            DialError::Proxy { trouble, .. } => match trouble {
                ProxyError::Unreachable(error) => Self::of_dial(error).min(Self::Proxy),
                ProxyError::CredentialsMissing(_)
                | ProxyError::CredentialsRefused(_)
                | ProxyError::Forbidden
                | ProxyError::NotThrough(_)
                | ProxyError::Status(_)
                | ProxyError::Closed
                | ProxyError::NotHttp
                | ProxyError::NoSuchName
                | ProxyError::Silent(_) => Self::Proxy,
            },
        }
    }
}

/// The steps of a way that is not gone, for this reason.
pub(super) fn left_out(reason: &str) -> impl Iterator<Item = Step> {
    let stages = Stage::ALL.into_iter();
    let named = stages.filter(|stage| *stage != Stage::Proxy);
    named.map(move |stage| Step::skipped(stage.name(), reason))
}

impl Way<'_> {
    pub(super) fn steps(&self) -> Vec<Step> {
        let ended_at = self.login.as_ref().err().map(Stage::of);
        let mut since = self.began;
        let mut steps = Vec::new();
        for stage in Stage::ALL {
            if stage == Stage::Proxy && self.gateway.proxy.is_none() {
                continue;
            }
            let step = match ended_at {
                Some(end) if end < stage => Step::skipped_after(stage.name(), end.name()),
                _ => self.step(stage),
            };
            let until = match self.moment(stage) {
                None if ended_at == Some(stage) => self.ended,
                moment => moment.unwrap_or(since),
            };
            steps.push(step.lasting(until.saturating_duration_since(since)));
            since = until;
        }
        steps
    }

    /// When a step was done.
    fn moment(&self, stage: Stage) -> Option<Instant> {
        let found = &self.findings;
        match stage {
            Stage::Dns => found.addresses.as_ref().map(|(at, _)| *at),
            Stage::Tcp => found.connected.as_ref().map(|(at, _)| *at),
            Stage::Proxy => found.tunnelled,
            Stage::Tls => found.secured.as_ref().map(|(at, _)| *at),
            Stage::Clock => found.answered,
            Stage::Login => Some(self.ended),
        }
    }

    fn step(&self, stage: Stage) -> Step {
        let name = stage.name();
        if let Err(error) = &self.login
            && Stage::of(error) == stage
        {
            return Step::failed(name, error.sentence(&self.endpoint()));
        }
        let found = &self.findings;
        let passed = match stage {
            Stage::Dns => found
                .addresses
                .as_ref()
                .map(|(_, list)| self.addresses(list)),
            Stage::Tcp => found.connected.map(|(_, at)| format!("Connected to {at}.")),
            Stage::Proxy => found
                .tunnelled
                .and(self.proxy())
                .map(|proxy| format!("The proxy {proxy} (HTTPS_PROXY) leads to the gateway.")),
            Stage::Tls => return self.tls(),
            Stage::Clock => return self.clock(),
            Stage::Login => return self.logged_in(),
        };
        passed.map_or_else(
            || Step::skipped(name, "Nothing was seen of it."),
            |found| Step::passed(name, found),
        )
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::from(self.gateway.url.origin())
    }

    fn proxy(&self) -> Option<Endpoint> {
        let proxy = self.gateway.proxy.as_ref();
        proxy.map(|url| Endpoint::from(url.origin()))
    }

    fn addresses(&self, list: &[SocketAddr]) -> String {
        let proxy = self.proxy();
        let whose = if proxy.is_some() { "proxy" } else { "gateway" };
        let host = proxy.unwrap_or_else(|| self.endpoint()).host;
        let ips: Vec<_> = list
            .iter()
            .map(|address| address.ip().to_string())
            .collect();
        if ips == [host.as_str()] {
            return format!(
                "The {whose} is named by its address, {host}: there is nothing to look up."
            );
        }
        format!("The {whose}'s name {host} means {}.", ips.join(", "))
    }

    fn tls(&self) -> Step {
        if !self.endpoint().tls {
            return Step::skipped("tls", "PIN_SERVER_URL is ws://: nothing is encrypted.");
        }
        let Some((_, tls)) = &self.findings.secured else {
            return Step::skipped("tls", "Nothing was seen of it.");
        };
        let mut found = tls_sentence(tls);
        let Some(not_after) = tls.not_after else {
            return Step::passed("tls", found + ".");
        };
        let left = not_after.duration_since(self.now).unwrap_or_default();
        let (day, days) = (
            humantime::format_rfc3339_seconds(not_after),
            left.as_secs() / DAY,
        );
        // Writing to a string does not fail.
        let _ = write!(found, "; the first is valid until {day}, {days} more days.");
        if left < RENEWED_BY {
            let advice =
                "Have the gateway's certificate renewed: there is no session once it has expired.";
            return Step::warned("tls", found, advice);
        }
        Step::passed("tls", found)
    }

    fn clock(&self) -> Step {
        let Some((theirs, ours)) = self.findings.clocks else {
            let reason = match self.findings.answered {
                Some(_) => "The gateway's answer has no Date to compare with.",
                None => "The gateway has not answered, so that there is no Date to compare with.",
            };
            return Step::skipped("clock", reason);
        };
        let off = theirs.abs_diff(ours);
        let found = match (off, theirs > ours) {
            (0..=1, _) => "This machine's clock and the gateway's agree.".to_owned(),
            (_, true) => format!("This machine's clock is {off} s behind the gateway's."),
            (_, false) => format!("This machine's clock is {off} s ahead of the gateway's."),
        };
        let advice = "Set this machine's clock, for example by `timedatectl set-ntp true`: the gateway refuses a login whose \
                      time is more than 5 minutes off.";
        match off {
            _ if off > LOGIN_WINDOW => Step::failed("clock", found).advising(advice),
            _ if off > CLOCKS_DIFFER => Step::warned("clock", found, advice),
            _ => Step::passed("clock", found),
        }
    }

    fn logged_in(&self) -> Step {
        match &self.login {
            Ok(Login::LeftOut(reason)) => Step::skipped("login", reason),
            Ok(Login::Accepted) => Step::passed(
                "login",
                "The gateway has accepted the login; the session was closed again.",
            ),
            Err(error) => Step::failed("login", error.sentence(&self.endpoint())),
        }
    }
}

fn tls_sentence(tls: &TlsFindings) -> String {
    let name = match &tls.server_name {
        Some(name) => format!("asked for as {name} (SNI)"),
        None => "asked for by address (no SNI)".to_owned(),
    };
    let alpn = match &tls.alpn {
        Some(alpn) => format!("ALPN {alpn}"),
        None => "no ALPN".to_owned(),
    };
    let chain = match tls.chain {
        1 => "1 certificate".to_owned(),
        n => format!("a chain of {n} certificates"),
    };
    format!("{}, {name}, {alpn}, {chain}", tls.version)
}
