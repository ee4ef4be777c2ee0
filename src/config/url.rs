//! Where the gateway and the backend are.
//!
//! Invariant: user and password of a URL are in none of the texts that these types give, save
//! [`BackendUrl::authorization`].

#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr};

use hyper::Uri;
use percent_encoding::percent_decode_str;

use super::{error::Invalid, field::Value};

/// Where the protocol's WebSocket is on a host that is given without a path.
const GATEWAY_PATH: &str = "/api/v1/pin/ws";

/// Where a URL leads, and how to speak there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    tls: bool,
    /// As in the URL: an IPv6 address has its brackets.
    host: String,
    port: u16,
}

impl Origin {
    /// The name or address to dial, IPv6 without brackets; also the name that a certificate must have.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The same as in a URL: an IPv6 address has its brackets.
    pub(super) fn bracketed_host(&self) -> &str {
        &self.host
    }

    /// The port to dial: the scheme's own unless it is given.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the connection is encrypted.
    pub fn tls(&self) -> bool {
        self.tls
    }

    fn default_port(tls: bool) -> u16 {
        if tls { 443 } else { 80 }
    }

    /// The host, with the port unless it is the scheme's own: the value of the `Host` header.
    pub fn authority(&self) -> String {
        if self.port == Self::default_port(self.tls) {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether this is this machine: `localhost`, a name below it (RFC 6761) or a loopback address.
    pub fn is_loopback(&self) -> bool {
        match self.host().parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => is_in_zone(&self.host, "localhost"),
        }
    }
}

/// Whether a name, with a dot at its end or without, is the zone's own or one below it.
pub(crate) fn is_in_zone(name: &str, zone: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.rsplit('.')
        .next()
        .is_some_and(|last| last.eq_ignore_ascii_case(zone))
}

/// A URL taken apart; the scheme is one of those that were asked for.
pub(super) struct Parts {
    pub(super) origin: Origin,
    /// As in the URL, percent-encoded.
    pub(super) credentials: Option<String>,
    pub(super) uri: Uri,
}

/// Takes a URL apart. `schemes` are those allowed, each with whether it means TLS; the first is the one to suggest.
pub(super) fn take_apart(text: &str, schemes: &[(&str, bool)]) -> Result<Parts, Invalid> {
    let suggested = schemes.first().map_or("", |(scheme, _)| scheme);
    let allowed = || {
        schemes
            .iter()
            .map(|(scheme, _)| format!("{scheme}://"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let Some((scheme, rest)) = text.split_once("://") else {
        let there = super::error::without_credentials(text);
        return Err(Invalid::value(
            text,
            format_args!("has no scheme; write {suggested}://{there}"),
        ));
    };
    let Some((_, tls)) = schemes
        .iter()
        .find(|(allowed, _)| allowed.eq_ignore_ascii_case(scheme))
    else {
        return Err(Invalid::value(
            text,
            format_args!("has another scheme than those allowed: {}", allowed()),
        ));
    };
    let not_a_url = || {
        Invalid::value(
            text,
            format_args!("is not a URL; write one such as {suggested}://HOST:PORT"),
        )
    };
    // A `#` cannot be sent to a server, and hyper would drop it and what follows without a word.
    if rest.contains('#') {
        return Err(not_a_url());
    }
    let uri: Uri = text.parse().map_err(|_| not_a_url())?;
    let authority = uri.authority().ok_or_else(not_a_url)?;
    // With a `/` or `?` in the password, what is meant as the user is taken for the host, and the rest for the path.
    if uri
        .path_and_query()
        .is_some_and(|rest| rest.as_str().contains('@'))
    {
        let reason =
            "has an @ after its host; percent-encode it, and in a password / ? # and @ too";
        return Err(Invalid::value(text, reason));
    }
    let (credentials, place) = match authority.as_str().rsplit_once('@') {
        Some((credentials, place)) => (Some(credentials.to_owned()), place),
        None => (None, authority.as_str()),
    };
    let host = authority.host().to_owned();
    let port = match place
        .strip_prefix(host.as_str())
        .ok_or_else(not_a_url)?
        .strip_prefix(':')
    {
        None => Origin::default_port(*tls),
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| {
                Invalid::value(text, "has a port that is not a number from 1 to 65535")
            })?,
    };
    let origin = Origin {
        tls: *tls,
        host,
        port,
    };
    if origin.host().is_empty() {
        return Err(not_a_url());
    }
    Ok(Parts {
        origin,
        credentials,
        uri,
    })
}

/// The gateway's WebSocket.
#[derive(Clone, PartialEq, Eq)]
pub struct GatewayUrl {
    origin: Origin,
    path_and_query: String,
}

impl GatewayUrl {
    /// Where it leads.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What to ask for.
    pub fn path_and_query(&self) -> &str {
        &self.path_and_query
    }
}

impl Value for GatewayUrl {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let Parts {
            origin,
            credentials,
            uri,
        } = take_apart(
            text,
            &[
                ("wss", true),
                ("ws", false),
                ("https", true),
                ("http", false),
            ],
        )?;
        if credentials.is_some() {
            return Err(Invalid::value(
                text,
                "has a user and password; the login is by PIN_CLIENT_ID and the secret",
            ));
        }
        let path = if matches!(uri.path(), "" | "/") {
            GATEWAY_PATH
        } else {
            uri.path()
        };
        let path_and_query = match uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        Ok(Self {
            origin,
            path_and_query,
        })
    }
}

impl fmt::Display for GatewayUrl {
    /// As a WebSocket URL, the query left out: it may be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.origin.tls { "wss" } else { "ws" };
        let (path, query) = match self.path_and_query.split_once('?') {
            Some((path, _)) => (path, "?…"),
            None => (self.path_and_query.as_str(), ""),
        };
        write!(f, "{scheme}://{}{path}{query}", self.origin.authority())
    }
}

impl fmt::Debug for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A model server's base URL.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendUrl {
    origin: Origin,
    /// What goes before every path: empty, or with a slash at its beginning and none at its end.
    base_path: String,
    authorization: Option<String>,
}

impl BackendUrl {
    /// Where it leads.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The path to ask for, given the model server's own: behind a reverse proxy the base URL's path goes before it.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.base_path)
    }

    /// The same without the version at its end, which is part of each path of OpenAI's interface: people write it or not.
    #[must_use]
    pub fn without_version(mut self) -> Self {
        if let Some(base) = self.base_path.strip_suffix("/v1") {
            self.base_path.truncate(base.len());
        }
        self
    }

    /// Whether its path ends with this one, which has a slash at its beginning and none at its end.
    pub(super) fn ends_with(&self, path: &str) -> bool {
        self.base_path.ends_with(path)
    }

    /// The value of the `Authorization` header, where the URL has a user and password. Secret.
    pub fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }
}

impl Value for BackendUrl {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let Parts {
            origin,
            credentials,
            uri,
        } = take_apart(text, &[("http", false), ("https", true)])?;
        if uri.query().is_some() {
            return Err(Invalid::value(
                text,
                "has a query; write the base URL only, such as http://localhost:11434",
            ));
        }
        let base_path = uri.path().trim_end_matches('/').to_owned();
        let authorization = credentials.map(|credentials| basic(&credentials));
        Ok(Self {
            origin,
            base_path,
            authorization,
        })
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.origin.tls { "https" } else { "http" };
        let credentials = if self.authorization.is_some() {
            "…@"
        } else {
            ""
        };
        write!(
            f,
            "{scheme}://{credentials}{}{}",
            self.origin.authority(),
            self.base_path
        )
    }
}

impl fmt::Debug for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Basic authentication (RFC 7617) with a URL's `user:password`, which may be percent-encoded there. A user alone has an
/// empty password.
pub(super) fn basic(credentials: &str) -> String {
    let mut decoded: Vec<u8> = percent_decode_str(credentials).collect();
    if !credentials.contains(':') {
        decoded.push(b':');
    }
    format!("Basic {}", data_encoding::BASE64.encode(&decoded))
}
