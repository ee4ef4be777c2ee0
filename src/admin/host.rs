//! Which `Host` a request may name. A web page whose author points his own domain at a private address (DNS rebinding)
//! can read from here what the browser's user may read; but then the browser names that domain as the host.
//!
//! Invariant: a name that somebody outside can register is refused.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::{HeaderMap, header::HOST};

/// Endings that public DNS does not delegate: names of Kubernetes Services, and names that are private by reservation.
const PRIVATE_ENDINGS: &[&str] = &[".localhost", ".svc", ".cluster.local", ".internal"];

/// Whether a request with these headers was sent to a name that cannot be somebody else's. A request that names no
/// host, or two, is not.
pub(super) fn is_own(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().is_ok_and(names_own),
        _ => false,
    }
}

fn names_own(host: &str) -> bool {
    let host = without_port(host);
    is_address(host) || is_private_name(host.strip_suffix('.').unwrap_or(host))
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
            assert!(names_own(host), "{host}");
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
            assert!(!names_own(host), "{host}");
        }
    }

    #[test]
    fn a_request_without_a_host_or_with_two_is_refused() {
        let mut headers = HeaderMap::new();
        assert!(!is_own(&headers));
        headers.append(HOST, "localhost".parse().unwrap());
        assert!(is_own(&headers));
        headers.append(HOST, "evil.example".parse().unwrap());
        assert!(!is_own(&headers));
    }
}
