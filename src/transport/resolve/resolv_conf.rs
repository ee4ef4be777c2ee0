//! resolv.conf: which servers to ask, and for which names.
//!
//! Invariant: as in libc, what is unknown or broken is skipped, and what is not said has libc's default. Only a file that
//! names servers of which none can be read is an error: libc would ask one on this machine, which nobody meant.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::address;

/// As many servers as libc asks; those after them are ignored.
const MAX_SERVERS: usize = 3;

/// The largest values that libc accepts.
const MAX_NDOTS: usize = 15;
const MAX_TIMEOUT: u64 = 30;
const MAX_ATTEMPTS: usize = 5;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvConf {
    /// Whom to ask, in this order; at least one.
    pub(super) servers: Vec<SocketAddr>,
    /// What may be behind a name that is not complete.
    pub(super) search: Vec<String>,
    /// With as many dots a name is tried as it is before `search`.
    pub(super) ndots: usize,
    /// How long one server is listened to.
    pub(super) timeout: Duration,
    /// How often each is asked.
    pub(super) attempts: usize,
    /// Whether each look-up may begin with another server.
    pub(super) rotate: bool,
    /// Whether to ask over TCP only.
    pub(super) tcp: bool,
}

impl ResolvConf {
    /// Reads the file's text.
    ///
    /// # Errors
    /// Servers are named, and none of them by an address: the first one.
    pub(super) fn parse(text: &str, dns_port: u16) -> Result<Self, String> {
        let mut unreadable = None;
        // An editor may have left a byte order mark.
        let text = text.trim_start_matches('\u{feff}');
        let mut conf = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            tcp: false,
        };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let written = words.next();
                    let server = written.and_then(address::parse);
                    if server.is_none() {
                        unreadable = unreadable.or(written);
                    }
                    conf.servers.extend(server);
                }
                // The last one counts.
                Some("search" | "domain") => conf.search = words.map(without_dots).collect(),
                Some("options") => words.for_each(|option| conf.set(option)),
                _ => {}
            }
        }
        conf.search.retain(|suffix| !suffix.is_empty());
        conf.servers.truncate(MAX_SERVERS);
        if conf.servers.is_empty() {
            if let Some(written) = unreadable {
                return Err(written.to_owned());
            }
            let here = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            conf.servers = here.map(|ip| SocketAddr::new(ip, 0)).to_vec();
        }
        for server in &mut conf.servers {
            server.set_port(dns_port);
        }
        Ok(conf)
    }

    fn set(&mut self, option: &str) {
        match option.split_once(':') {
            Some(("ndots", n)) => set_up_to(MAX_NDOTS, n, &mut self.ndots),
            Some(("attempts", n)) => set_up_to(MAX_ATTEMPTS, n, &mut self.attempts),
            Some(("timeout", n)) => {
                let mut seconds = self.timeout.as_secs();
                set_up_to(MAX_TIMEOUT, n, &mut seconds);
                self.timeout = Duration::from_secs(seconds.max(1));
            }
            None if option == "rotate" => self.rotate = true,
            None if option == "use-vc" => self.tcp = true,
            // The others are about how libc asks: EDNS, and one socket for two questions, are not used here.
            _ => {}
        }
        self.attempts = self.attempts.max(1);
    }
}

fn set_up_to<T: std::str::FromStr + Ord>(max: T, value: &str, setting: &mut T) {
    if let Ok(value) = value.parse::<T>() {
        *setting = value.min(max);
    }
}

fn without_dots(suffix: &str) -> String {
    suffix.trim_matches('.').to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> ResolvConf {
        ResolvConf::parse(text, 53).unwrap()
    }

    fn servers(text: &str) -> Vec<String> {
        let conf = parsed(text);
        conf.servers.iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn what_kubernetes_writes_is_understood() {
        let text = "search default.svc.cluster.local svc.cluster.local cluster.local\n\
                    nameserver 10.96.0.10\noptions ndots:5\n";
        let conf = parsed(text);
        assert_eq!(
            conf.search,
            [
                "default.svc.cluster.local",
                "svc.cluster.local",
                "cluster.local"
            ]
        );
        assert_eq!(conf.ndots, 5);
        assert_eq!(servers(text), ["10.96.0.10:53"]);
    }

    #[test]
    fn a_server_may_have_ipv6_and_a_zone() {
        let text = "nameserver 2001:db8::53\nnameserver fe80::1%lo\n";
        assert_eq!(servers(text), ["[2001:db8::53]:53", "[fe80::1%1]:53"]);
    }

    #[test]
    fn without_a_server_this_machine_is_asked() {
        for text in [
            "",
            "search example\n",
            "nameserver\n",
            "# nameserver none\n",
            "\u{fffd}",
        ] {
            assert_eq!(servers(text), ["127.0.0.1:53", "[::1]:53"], "{text:?}");
        }
    }

    #[test]
    fn a_byte_order_mark_hides_no_line() {
        let text = "\u{feff}nameserver 192.0.2.1\r\n";
        assert_eq!(servers(text), ["192.0.2.1:53"]);
    }

    #[test]
    fn servers_of_which_none_can_be_read_are_told_instead_of_asking_this_machine() {
        let text = "nameserver\nnameserver dns.example\nnameserver 300.1.1.1\n";
        assert_eq!(ResolvConf::parse(text, 53), Err("dns.example".to_owned()));
        assert_eq!(
            servers(&format!("{text}nameserver 192.0.2.1\n")),
            ["192.0.2.1:53"]
        );
    }

    #[test]
    fn no_more_servers_are_asked_than_libc_would() {
        let text: String = (1..6)
            .map(|n| format!("nameserver 192.0.2.{n}\n"))
            .collect();
        assert_eq!(servers(&text).len(), 3);
    }

    #[test]
    fn broken_and_unknown_lines_and_options_change_nothing() {
        let plain = parsed("nameserver 192.0.2.1\n");
        let text = "# nameserver 192.0.2.9\n; options rotate\nnameserver 192.0.2.1 # the first\n\
                    sortlist 130.155.160.0\nlookup file bind\noptions\n\tnameserver\n\
                    options ndots timeout: attempts:x ndots:-1 edns0 trust-ad single-request inet6 no-reload\n\
                    nameserver 300.1.1.1\n=\nsearch .\r\n";
        assert_eq!(parsed(text), plain);
    }

    #[test]
    fn options_are_taken_within_libcs_bounds() {
        let text = "options ndots:99 timeout:0 attempts:0 rotate\noptions use-vc\r\n";
        let conf = parsed(text);
        assert_eq!((conf.ndots, conf.attempts), (15, 1));
        assert_eq!(conf.timeout, Duration::from_secs(1));
        assert!(conf.rotate && conf.tcp);
        let patient = parsed("options timeout:99");
        assert_eq!(patient.timeout, Duration::from_secs(30));
    }

    #[test]
    fn the_last_search_or_domain_counts() {
        let search = |text| parsed(text).search;
        assert_eq!(search("search a b\ndomain c.\n"), ["c"]);
        assert_eq!(search("domain c\nsearch a b\n"), ["a", "b"]);
    }
}
