//! Who may tell the sidecar what to do: programs on this machine, or in this pod.
//!
//! Invariant: neither somebody from outside whose request a proxy on this machine passes on, nor a web page that a
//! browser on this machine shows, can pass for one of them.

use std::net::IpAddr;

use hyper::{
    HeaderMap,
    header::{FORWARDED, HOST, HeaderName, ORIGIN},
};

use super::host;

/// Why a request is not obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It does not come from this machine.
    NotLocal,
    /// It was passed on, for whom is not known.
    Forwarded,
    /// It names a host that may be somebody else's: a page whose author points his own domain at this address.
    ForeignHost,
    /// Another site's page sends it.
    ForeignOrigin,
}

impl Refusal {
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::NotLocal => {
                "Only from this machine, or from within this pod: ask at 127.0.0.1 or [::1].\n"
            }
            Self::Forwarded => {
                "This request came through a proxy (Forwarded, X-Forwarded-…). Ask at 127.0.0.1 directly.\n"
            }
            Self::ForeignHost => {
                "The Host of this request may be somebody else's. Use an IP address or localhost.\n"
            }
            Self::ForeignOrigin => "Not for pages of other sites.\n",
        }
    }
}

/// Whether a request with these headers, from this address, may change what the sidecar does.
pub(super) fn may_command(caller: IpAddr, headers: &HeaderMap) -> Result<(), Refusal> {
    if !caller.to_canonical().is_loopback() {
        return Err(Refusal::NotLocal);
    }
    if headers.keys().any(is_of_a_proxy) {
        return Err(Refusal::Forwarded);
    }
    if !host::is_own(headers) {
        return Err(Refusal::ForeignHost);
    }
    if !is_from_own_page(headers) {
        return Err(Refusal::ForeignOrigin);
    }
    Ok(())
}

fn is_of_a_proxy(name: &HeaderName) -> bool {
    name == FORWARDED || name.as_str().starts_with("x-forwarded-")
}

/// Browsers send the origin of the page with every POST (Fetch standard, "Origin" header); other programs send none.
fn is_from_own_page(headers: &HeaderMap) -> bool {
    let own = headers.get(HOST).map(|host| host.as_bytes());
    headers.get_all(ORIGIN).iter().all(|origin| {
        let origin = origin.as_bytes().strip_prefix(b"http://");
        origin.is_some() && origin == own
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(address: &str, headers: &[(&'static str, &'static str)]) -> Result<(), Refusal> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        may_command(address.parse().unwrap(), &headers)
    }

    #[test]
    fn a_program_of_this_machine_or_pod_may_command() {
        for address in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(of(address, &[("host", "localhost:9464")]), Ok(()));
        }
        let own_page = [
            ("host", "127.0.0.1:9464"),
            ("origin", "http://127.0.0.1:9464"),
        ];
        assert_eq!(of("127.0.0.1", &own_page), Ok(()));
    }

    #[test]
    fn nobody_from_elsewhere_may_whatever_he_says_he_is() {
        for address in ["10.0.0.7", "169.254.1.1", "::ffff:10.0.0.7", "fe80::1"] {
            let refused = of(address, &[("host", "localhost")]);
            assert_eq!(refused, Err(Refusal::NotLocal), "{address}");
        }
        for passed_on in ["forwarded", "x-forwarded-for", "x-forwarded-proto"] {
            let refused = of("127.0.0.1", &[("host", "localhost"), (passed_on, "x")]);
            assert_eq!(refused, Err(Refusal::Forwarded), "{passed_on}");
        }
    }

    #[test]
    fn no_page_of_another_site_may_nor_one_that_points_its_name_here() {
        for origin in [
            "http://example.org",
            "null",
            "https://localhost:9464",
            "http://localhost:80",
            "",
        ] {
            let refused = of(
                "127.0.0.1",
                &[("host", "localhost:9464"), ("origin", origin)],
            );
            assert_eq!(refused, Err(Refusal::ForeignOrigin), "{origin}");
        }
        let rebound = [("host", "evil.example"), ("origin", "http://evil.example")];
        assert_eq!(of("127.0.0.1", &rebound), Err(Refusal::ForeignHost));
        assert_eq!(of("127.0.0.1", &[]), Err(Refusal::ForeignHost));
    }
}
