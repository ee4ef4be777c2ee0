//! Turns names into addresses without the system's resolver, which a static binary does not have: the hosts file, then
//! the DNS servers of resolv.conf, as libc would.
//!
//! Both files are read at each look-up, and no answer is kept, only which servers gave none: look-ups are rare, and a
//! container that comes back under another address, or a laptop in another network, is found at once. Invariant: a look-up ends within its time limit,
//! and nothing of it outlives its future.

mod address;
mod error;
mod exchange;
mod hosts;
mod lookup;
mod resolv_conf;
mod silence;

pub use error::{LookupFailure, NameError, ServerFailure, UnreadableFile};

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use lookup::Lookup;
use resolv_conf::ResolvConf;
use silence::Silence;
use tokio::time::Instant;

use crate::config::is_in_zone;

/// Where this machine says what names mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Names that need no server; a missing file is an empty one.
    pub hosts: PathBuf,
    /// The servers and how to ask them; where it is missing, one on this machine is asked.
    pub resolv_conf: PathBuf,
    /// The port of those servers, for which resolv.conf has no syntax.
    pub dns_port: u16,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            hosts: "/etc/hosts".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            dns_port: 53,
        }
    }
}

/// Looks names up. Clones share what they know of the servers.
#[derive(Clone, Debug, Default)]
pub struct Resolver {
    sources: Sources,
    silence: Silence,
}

impl Resolver {
    /// A resolver that asks these sources.
    pub fn new(sources: Sources) -> Self {
        Self {
            sources,
            silence: Silence::default(),
        }
    }

    /// The addresses of a name or a literal address, at `port`: IPv6 first, otherwise in the order of the source.
    ///
    /// # Errors
    /// There is none, or none was told within `limit`.
    pub async fn resolve(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<Vec<SocketAddr>, NameError> {
        let deadline = Instant::now() + limit;
        let mut addresses = match self.without_dns(host)? {
            Some(addresses) => addresses,
            None => self.ask_dns(host, deadline).await?,
        };
        addresses.sort_by_key(SocketAddr::is_ipv4);
        for address in &mut addresses {
            address.set_port(port);
        }
        Ok(addresses)
    }

    /// What is known without asking anybody.
    fn without_dns(&self, host: &str) -> Result<Option<Vec<SocketAddr>>, NameError> {
        if let Some(address) = address::parse(host) {
            return Ok(Some(vec![address]));
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        // RFC 6761: always this machine, whatever a file or a server says. Plaintext is allowed on its account.
        if is_in_zone(name, "localhost") {
            let loopback = [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
            return Ok(Some(loopback.map(|ip| SocketAddr::new(ip, 0)).to_vec()));
        }
        // One that cannot be read is told if the DNS does not know the name either.
        let text = text_of(&self.sources.hosts).unwrap_or_default();
        let listed = hosts::addresses_of(name, &text);
        if !listed.is_empty() {
            return Ok(Some(listed));
        }
        if is_in_zone(name, "invalid") {
            return Err(NameError::NoSuchName);
        }
        Ok(None)
    }

    async fn ask_dns(&self, host: &str, deadline: Instant) -> Result<Vec<SocketAddr>, NameError> {
        let file = &self.sources.resolv_conf;
        let conf = ResolvConf::parse(&text_of(file)?, self.sources.dns_port);
        let conf = conf.map_err(|written| NameError::NoServer {
            file: file.clone(),
            written,
        })?;
        let lookup = Lookup {
            conf,
            silence: self.silence.clone(),
            deadline,
        };
        match lookup.addresses(host).await {
            Err(error) => Err(text_of(&self.sources.hosts).err().unwrap_or(error)),
            Ok(addresses) => Ok(addresses),
        }
    }
}

/// What a file says; nothing, where there is none. Small and local, so that it is read in place: a thread for it would cost
/// more.
fn text_of(file: &Path) -> Result<String, NameError> {
    match fs::read(file) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(NameError::unreadable(file, &error)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn nowhere() -> Resolver {
        Resolver::new(Sources {
            hosts: "/nonexistent/hosts".into(),
            resolv_conf: "/nonexistent/resolv.conf".into(),
            dns_port: 9,
        })
    }

    async fn resolved(host: &str) -> Vec<String> {
        let addresses = nowhere().resolve(host, 80, Duration::ZERO).await.unwrap();
        addresses.iter().map(SocketAddr::to_string).collect()
    }

    #[tokio::test]
    async fn an_address_needs_no_look_up() {
        assert_eq!(resolved("192.0.2.1").await, ["192.0.2.1:80"]);
        assert_eq!(resolved("2001:db8::1").await, ["[2001:db8::1]:80"]);
        assert_eq!(resolved("[::1]").await, ["[::1]:80"]);
        assert_eq!(resolved("::ffff:192.0.2.1").await, ["192.0.2.1:80"]);
        assert_eq!(resolved("fe80::1%7").await, ["[fe80::1%7]:80"]);
    }

    #[tokio::test]
    async fn localhost_is_this_machine_even_without_a_hosts_file() {
        for name in ["localhost", "LocalHost.", "ollama.localhost"] {
            assert_eq!(resolved(name).await, ["[::1]:80", "127.0.0.1:80"], "{name}");
        }
    }

    #[tokio::test]
    async fn a_name_that_never_exists_is_asked_of_nobody() {
        let resolver = nowhere();
        let found = resolver.resolve("no-such-host.invalid", 80, Duration::ZERO);
        assert_eq!(found.await, Err(NameError::NoSuchName));
    }
}
