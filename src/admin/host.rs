//! Which `Host` a request may name. A web page whose author points his own domain at a private address (DNS rebinding)
//! can read from here what the browser's user may read; but then the browser names that domain as the host.
//!
//! Invariant: a name that somebody outside can register is refused.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::{HeaderMap, header::HOST};

/// Endings that public DNS does not delegate: names of Kubernetes Services, and names that are private by reservation.
const PRIVATE_ENDINGS: &[&str] = &[".localhost", ".svc", ".cluster.local", ".internal"];

/// By what a request calls the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Called {
    /// By a name that cannot be somebody else's.
    Own,
    /// By one of those that the operator allows.
    Allowed,
    /// By another, by none, or by two.
    Foreign,
}

/// By what a request with these headers calls us.
pub(super) fn called(headers: &HeaderMap, allowed: &[String]) -> Called {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host
            .to_str()
            .map_or(Called::Foreign, |host| by_name(host, allowed)),
        _ => Called::Foreign,
    }
}

/// What it is to be called by this name, which may have a port.
pub(super) fn by_name(host: &str, allowed: &[String]) -> Called {
    let host = without_port(host);
    let host = host.strip_suffix('.').unwrap_or(host);
    if allowed.iter().any(|name| name.eq_ignore_ascii_case(host)) {
        Called::Allowed
    } else if is_address(host) || is_private_name(host) {
        Called::Own
    } else {
        Called::Foreign
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_address(host: &str) -> bool {
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    host.parse::<Ipv4Addr>().is_ok() || v6.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok())
}

fn is_private_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_single_label = !name.is_empty() && !name.contains('.');
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    is_plain && (is_single_label || PRIVATE_ENDINGS.iter().any(|ending| name.ends_with(ending)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_and_of_the_cluster_are_our_own() {
        for host in [
            "127.0.0.1:9464",
            "[::1]:9464",
            "[fd00::7]",
            "10.0.0.7",
            "localhost:9464",
            "LOCALHOST",
            "localhost.",
            "pin.localhost",
            "ollama",
            "ollama:9464",
            "pin.default.svc",
            "pin.default.svc.cluster.local:80",
            "host.docker.internal",
        ] {
            assert_eq!(by_name(host, &[]), Called::Own, "{host}");
        }
    }

    #[test]
    fn a_name_that_somebody_can_register_is_not() {
        for host in [
            "",
            ".",
            ":80",
            "evil.example",
            "evil.example:9464",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "svc.evil",
            "evilsvc.com",
            "user@evil.example",
            "user@localhost",
            "::1",
            "evil.example.",
            "[::1].evil.example",
            "1.2.3.4.nip.io",
            "a b",
        ] {
            assert_eq!(by_name(host, &[]), Called::Foreign, "{host}");
        }
    }

    #[test]
    fn a_request_without_a_host_or_with_two_is_refused() {
        let mut headers = HeaderMap::new();
        assert_eq!(called(&headers, &[]), Called::Foreign);
        headers.append(HOST, "localhost".parse().unwrap());
        assert_eq!(called(&headers, &[]), Called::Own);
        headers.append(HOST, "evil.example".parse().unwrap());
        assert_eq!(called(&headers, &["evil.example".into()]), Called::Foreign);
    }
}
