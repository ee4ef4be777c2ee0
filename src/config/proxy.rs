//! The proxy that leads to the gateway, and whom it does not lead to: `HTTPS_PROXY` and `NO_PROXY`, which are not ours
//! alone. They mean here what they mean to curl, as far as it goes, and what other programs understand and we do not is no
//! mistake until it is needed.
//!
//! Invariant: user and password of a proxy are in none of the texts that these types give, save
//! [`ProxyUrl::authorization`].

use std::{fmt, net::IpAddr};

use secrecy::{ExposeSecret as _, SecretString};

use super::{
    error::{Invalid, without_credentials},
    field::Value,
    url::{GatewayUrl, Origin, Parts, basic, take_apart},
};

/// An HTTP proxy.
#[derive(Clone)]
pub struct ProxyUrl {
    origin: Origin,
    authorization: Option<SecretString>,
}

impl ProxyUrl {
    /// Where it leads. The port is the scheme's own unless it is given, as most programs have it; curl's 1080 is a SOCKS
    /// proxy's.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The value of the `Proxy-Authorization` header, where the URL has a user and password. Secret.
    pub fn authorization(&self) -> Option<&str> {
        self.authorization.as_ref().map(SecretString::expose_secret)
    }
}

impl Value for ProxyUrl {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let url = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let Parts {
            origin,
            credentials,
            uri,
        } = take_apart(&url, &[("http", false), ("https", true)])?;
        if uri.path() != "/" || uri.query().is_some() {
            return Err(Invalid::value(
                &url,
                "has a path; write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT",
            ));
        }
        let authorization = credentials
            .filter(|credentials| !credentials.is_empty())
            .map(|credentials| basic(&credentials).into());
        Ok(Self {
            origin,
            authorization,
        })
    }
}

impl fmt::Display for ProxyUrl {
    /// With its port even where that is the scheme's own: whoever forgot to write it is to see where it goes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.origin.tls() { "https" } else { "http" };
        let credentials = if self.authorization.is_some() {
            "…@"
        } else {
            ""
        };
        let (host, port) = (self.origin.bracketed_host(), self.origin.port());
        write!(f, "{scheme}://{credentials}{host}:{port}")
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `HTTPS_PROXY` as it is there for whatever program: judged once it is known to be needed.
pub(super) struct SharedProxy(Result<ProxyUrl, Invalid>);

impl Value for SharedProxy {
    fn parse(text: &str) -> Result<Self, Invalid> {
        Ok(Self(ProxyUrl::read(text)))
    }

    fn read(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

impl fmt::Display for SharedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(url) => url.fmt(f),
            Err(_) => f.write_str("[not understood, and not needed]"),
        }
    }
}

/// The proxy to reach this gateway through; `None`: there is none, or none for this gateway. This machine is never
/// looked for beyond a proxy.
///
/// # Errors
/// There is one, and it is none that we can use.
pub(super) fn on_the_way_to<'a>(
    gateway: &GatewayUrl,
    proxy: Option<&'a SharedProxy>,
    except: Option<&NoProxy>,
) -> Result<Option<&'a ProxyUrl>, &'a Invalid> {
    let direct = except.is_some_and(|except| except.has(gateway.origin()));
    match proxy {
        Some(proxy) if !gateway.origin().is_loopback() && !direct => proxy.0.as_ref().map(Some),
        Some(_) | None => Ok(None),
    }
}

/// What is to be said of the entries of `NO_PROXY` that we do not understand, where they might have had a say: there is a
/// proxy for this gateway.
pub(super) fn skipped_entries(
    gateway: &GatewayUrl,
    proxy: Option<&SharedProxy>,
    except: Option<&NoProxy>,
) -> Option<String> {
    let skipped = &except?.skipped;
    let proxy = on_the_way_to(gateway, proxy, except).ok().flatten()?;
    (!skipped.is_empty()).then(|| {
        format!(
            "NO_PROXY: {} not understood and skipped, so that the gateway is reached through {proxy}; where that is not \
             meant, write hosts, domains, addresses or networks such as example.com,10.0.0.0/8,[::1]:8443 with commas \
             between, or * for all",
            skipped.join(", ")
        )
    })
}

/// Whom no proxy leads to.
pub(super) struct NoProxy {
    as_written: String,
    rules: Vec<Rule>,
    /// Entries that are for other programs, or mistakes, as they may be shown.
    skipped: Vec<String>,
}

/// As many entries as are shown in one message.
const MOST_SKIPPED: usize = 8;

struct Rule {
    whom: Whom,
    /// `None`: any.
    port: Option<u16>,
}

enum Whom {
    Everybody,
    /// A domain, in lower case, and all beneath it.
    Domain(String),
    /// The addresses that begin with the same so many bits.
    Network(IpAddr, u8),
}

impl NoProxy {
    fn has(&self, origin: &Origin) -> bool {
        let port = origin.port();
        let host = origin.host().trim_end_matches('.').to_ascii_lowercase();
        self.rules
            .iter()
            .any(|rule| rule.port.is_none_or(|of_rule| of_rule == port) && rule.whom.is_host(&host))
    }
}

impl Whom {
    /// A name is compared as a name, without looking up its address: that is the proxy's to do.
    fn is_host(&self, host: &str) -> bool {
        match self {
            Self::Everybody => true,
            Self::Domain(domain) => host
                .strip_suffix(domain.as_str())
                .is_some_and(|above| above.is_empty() || above.ends_with('.')),
            Self::Network(network, bits) => host
                .parse::<IpAddr>()
                .is_ok_and(|address| begin_alike(*network, address.to_canonical(), *bits)),
        }
    }
}

/// Whether two addresses are of one family and have their first `bits` in common.
fn begin_alike(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    let bits = u32::from(bits);
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            (one.to_bits() ^ other.to_bits()).leading_zeros() >= bits
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            (one.to_bits() ^ other.to_bits()).leading_zeros() >= bits
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

impl Value for NoProxy {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let (mut rules, mut skipped) = (Vec::new(), Vec::new());
        let entries = text.split(|c: char| c == ',' || c.is_whitespace());
        for entry in entries.filter(|entry| !entry.is_empty()) {
            match rule(entry) {
                Some(rule) => rules.push(rule),
                None if skipped.len() < MOST_SKIPPED => {
                    skipped.push(format!("{:?}", without_credentials(entry)));
                }
                None => {}
            }
        }
        Ok(Self {
            as_written: without_credentials(text),
            rules,
            skipped,
        })
    }

    /// Nothing in it is a mistake: it is not ours alone.
    fn read(text: &str) -> Result<Self, Invalid> {
        Self::parse(text.trim())
    }
}

impl fmt::Display for NoProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_written)
    }
}

fn rule(entry: &str) -> Option<Rule> {
    if let Some(whom) = network(entry) {
        return Some(Rule { whom, port: None });
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port != 0)?)),
        None => (entry, None),
    };
    let whom = network(host).or_else(|| domain(host))?;
    Some(Rule { whom, port })
}

/// An address, with brackets or without, or a network.
fn network(text: &str) -> Option<Whom> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse().ok()?)),
        None => (text, None),
    };
    let in_brackets = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
    let address: IpAddr = in_brackets.unwrap_or(address).parse().ok()?;
    let length = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(length);
    (bits <= length).then_some(Whom::Network(address, bits))
}

/// `example.com`, `.example.com` and `*.example.com` all mean the domain and what is beneath it.
fn domain(text: &str) -> Option<Whom> {
    if text == "*" {
        return Some(Whom::Everybody);
    }
    let name = text.strip_prefix('*').unwrap_or(text);
    let name = name.trim_start_matches('.').trim_end_matches('.');
    let in_a_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (!name.is_empty() && name.bytes().all(in_a_name))
        .then(|| Whom::Domain(name.to_ascii_lowercase()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxy(text: &str) -> ProxyUrl {
        ProxyUrl::parse(text).unwrap()
    }

    fn shared(text: &str) -> SharedProxy {
        SharedProxy::read(text).unwrap()
    }

    fn is_direct(no_proxy: &str, gateway: &str) -> bool {
        let gateway = GatewayUrl::parse(gateway).unwrap();
        let except = NoProxy::parse(no_proxy).unwrap_or_else(|error| panic!("{error}"));
        let proxy = shared("proxy:3128");
        let on_the_way = on_the_way_to(&gateway, Some(&proxy), Some(&except));
        on_the_way.unwrap().is_none()
    }

    #[test]
    fn a_proxy_may_be_written_as_others_take_it() {
        for (given, meant) in [
            ("proxy.example:3128", "http://proxy.example:3128"),
            ("http://proxy.example:3128/", "http://proxy.example:3128"),
            ("HTTP://10.0.0.1:8080", "http://10.0.0.1:8080"),
            ("proxy.example", "http://proxy.example:80"),
            ("https://proxy.example", "https://proxy.example:443"),
            ("http://[2001:db8::1]:3128", "http://[2001:db8::1]:3128"),
            ("http://@proxy.example:3128", "http://proxy.example:3128"),
        ] {
            let proxy = proxy(given);
            assert_eq!(proxy.to_string(), meant, "{given}");
            assert_eq!(proxy.authorization(), None, "{given}");
        }
        let by_address = proxy("https://[2001:db8::1]");
        let whom = (
            by_address.origin.host(),
            by_address.origin.port(),
            by_address.origin.tls(),
        );
        assert_eq!(whom, ("2001:db8::1", 443, true));
    }

    #[test]
    fn user_and_password_are_for_the_proxy_alone() {
        for (given, authorization) in [
            ("http://ann:p%40ss@proxy:3128", "Basic YW5uOnBAc3M="),
            ("ann:p%40ss@proxy:3128", "Basic YW5uOnBAc3M="),
            ("ann@proxy:3128", "Basic YW5uOg=="),
        ] {
            let proxy = proxy(given);
            assert_eq!(proxy.authorization(), Some(authorization), "{given}");
            assert_eq!(
                format!("{proxy} {proxy:?}"),
                "http://…@proxy:3128 http://…@proxy:3128"
            );
        }
    }

    #[test]
    fn a_wrong_proxy_is_told_without_its_password() {
        for (given, told) in [
            (
                "socks5://ann:secret@proxy:1080",
                r#""socks5://…@proxy:1080" has another scheme than those allowed: http://, https://"#,
            ),
            (
                "ann:secret@proxy:99999",
                r#""http://…@proxy:99999" has a port that is not a number from 1 to 65535"#,
            ),
            (
                "http://ann:secret@proxy:3128/pac",
                r#""http://…@proxy:3128/pac" has a path; write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT"#,
            ),
        ] {
            assert_eq!(ProxyUrl::parse(given).unwrap_err().to_string(), told);
        }
    }

    #[test]
    fn no_proxy_names_hosts_domains_addresses_networks_and_ports() {
        for (no_proxy, gateway) in [
            ("*", "wss://pin.example"),
            ("pin.example", "wss://pin.example"),
            ("pin.example", "wss://eu.PIN.example"),
            (".pin.example", "wss://pin.example"),
            ("*.example", "wss://pin.example"),
            ("EXAMPLE.", "wss://pin.example."),
            ("a, b ,,example c", "wss://pin.example"),
            ("pin.example:443", "wss://pin.example"),
            ("10.1.2.3", "wss://10.1.2.3"),
            ("10.1.2.3:8443", "wss://10.1.2.3:8443"),
            ("10.0.0.0/8", "wss://10.1.2.3"),
            ("10.1.2.2/31", "wss://10.1.2.3"),
            ("0.0.0.0/0", "wss://203.0.113.1"),
            ("10.0.0.0/8", "wss://[::ffff:10.1.2.3]"),
            ("2001:db8::/32", "wss://[2001:db8:1::1]"),
            ("2001:db8::1", "wss://[2001:db8::1]:8443"),
            ("[2001:db8::1]:8443", "wss://[2001:db8::1]:8443"),
            ("::/0", "wss://[2001:db8::1]"),
        ] {
            assert!(is_direct(no_proxy, gateway), "{no_proxy} {gateway}");
        }
    }

    #[test]
    fn what_only_resembles_no_proxy_goes_through_the_proxy() {
        for (no_proxy, gateway) in [
            ("pin.example", "wss://spin.example"),
            ("pin.example", "wss://pin.example.com"),
            ("eu.pin.example", "wss://pin.example"),
            ("pin.example:443", "wss://pin.example:8443"),
            ("10.1.2.3", "wss://10.1.2.30"),
            ("10.1.2.3:80", "wss://10.1.2.3"),
            ("10.1.2.2/31", "wss://10.1.2.4"),
            ("10.0.0.0/8", "wss://10.example"),
            ("::/0", "wss://10.1.2.3"),
            ("0.0.0.0/0", "wss://[2001:db8::1]"),
            (",", "wss://pin.example"),
        ] {
            assert!(!is_direct(no_proxy, gateway), "{no_proxy} {gateway}");
        }
    }

    #[test]
    fn this_machine_is_never_reached_through_a_proxy() {
        for here in ["ws://localhost:1", "wss://127.0.0.1", "ws://[::1]"] {
            let gateway = GatewayUrl::parse(here).unwrap();
            for proxy in [shared("proxy"), shared("socks5://proxy:1080")] {
                assert!(matches!(
                    on_the_way_to(&gateway, Some(&proxy), None),
                    Ok(None)
                ));
            }
        }
        let there = GatewayUrl::parse("wss://pin.example").unwrap();
        let proxy = shared("proxy");
        assert!(matches!(
            on_the_way_to(&there, Some(&proxy), None),
            Ok(Some(_))
        ));
        assert!(matches!(on_the_way_to(&there, None, None), Ok(None)));
    }

    #[test]
    fn a_proxy_of_other_programs_is_a_mistake_only_where_it_would_be_used() {
        let there = GatewayUrl::parse("wss://pin.example").unwrap();
        let except = NoProxy::parse("10.*,pin.example").unwrap();
        for other in [
            "socks5://proxy:1080",
            "\"http://proxy:3128\"",
            "http://proxy/pac",
        ] {
            let proxy = shared(other);
            assert!(
                on_the_way_to(&there, Some(&proxy), None).is_err(),
                "{other}"
            );
            let on_the_way = on_the_way_to(&there, Some(&proxy), Some(&except));
            assert!(matches!(on_the_way, Ok(None)), "{other}");
        }
    }

    #[test]
    fn an_exception_for_other_programs_is_skipped_and_told_where_the_proxy_is_used() {
        let there = GatewayUrl::parse("wss://pin.example").unwrap();
        let proxy = shared("http://ann:Zebra@proxy:3128");
        let told = |no_proxy: &str| {
            let except = NoProxy::parse(no_proxy).unwrap();
            skipped_entries(&there, Some(&proxy), Some(&except))
        };
        let said = told("example.com,10.*,<local>").unwrap();
        let words = "NO_PROXY: \"10.*\", \"<local>\" not understood and skipped, so that the gateway is reached \
                     through http://…@proxy:3128; ";
        assert!(said.starts_with(words), "{said}");
        assert_eq!(told("example.com,10.0.0.0/8"), None);
        assert_eq!(told("<local>,pin.example"), None);
        let except = NoProxy::parse("<local>").unwrap();
        assert_eq!(skipped_entries(&there, None, Some(&except)), None);
    }

    #[test]
    fn an_exception_that_would_never_hold_is_skipped_and_the_others_hold() {
        for entry in [
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/x",
            "10.*",
            "a*b",
            "http://pin.example",
            "pin.example:0",
            "pin.example:https",
            "[::1",
            "**",
            ".",
            "pin.example/24",
        ] {
            let list = format!("{entry},pin.example");
            assert!(is_direct(&list, "wss://pin.example"), "{entry}");
            let skipped = NoProxy::parse(&list).unwrap().skipped;
            assert_eq!(skipped, [format!("{entry:?}")]);
        }
    }

    proptest! {
        #[test]
        fn no_password_is_shown_however_wrong_its_url_is(
            before in "((http|https|socks5|[a-z ]{1,4})://)?",
            user in "[a-z]{0,4}",
            password in "[!-~]{0,4}Zebra[!-~]{0,4}(://)?[!-~]{0,4}",
            after in "[ -?A-~]{0,12}",
        ) {
            let shown = ProxyUrl::parse(&format!("{before}{user}:{password}@{after}"))
                .map_or_else(|invalid| invalid.to_string(), |url| format!("{url} {url:?}"));
            prop_assert!(!shown.contains("Zebra"), "{}", shown);
        }

        #[test]
        fn a_network_has_the_addresses_that_begin_like_it(one: IpAddr, other: IpAddr, bits in 0..=128_u8) {
            let length = if one.is_ipv4() { 32 } else { 128 };
            let whom = network(&format!("{one}/{bits}"));
            prop_assert_eq!(whom.is_some(), bits <= length);
            if let Some(whom) = whom {
                prop_assert!(one.to_canonical() != one || whom.is_host(&one.to_string()));
                prop_assert!(bits > 0 || whom.is_host(&other.to_string()) == (one.is_ipv4() == other.to_canonical().is_ipv4()));
            }
        }
    }
}
