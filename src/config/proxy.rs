//! The proxy that leads to the gateway, and whom it does not lead to: `HTTPS_PROXY` and `NO_PROXY`, which are not ours
//! alone. They mean here what they mean to curl, as far as it goes, and what other programs understand and we do not is no
//! mistake until it is needed.
//!
//! Invariant: user and password of a proxy are in none of the texts that these types give, save
//! [`ProxyUrl::authorization`].

#[cfg(test)]
mod tests;

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
