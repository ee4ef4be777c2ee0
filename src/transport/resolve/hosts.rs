//! The hosts file: an address and its names in each line.
//!
//! Invariant: a line that cannot be read is skipped, never an error.

use std::net::SocketAddr;

use super::address;

/// The addresses of `name`, which has no dot at its end, in the file's order and each once.
pub(super) fn addresses_of(name: &str, file: &str) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for line in file.lines() {
        if let Some(address) = address_in(line, name)
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

fn address_in(line: &str, name: &str) -> Option<SocketAddr> {
    let (content, _comment) = line.split_once('#').unwrap_or((line, ""));
    let mut words = content.split_whitespace();
    let address = words.next()?;
    words
        .any(|listed| listed.eq_ignore_ascii_case(name))
        .then(|| address::parse(address))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
        127.0.0.1\tlocalhost\n\
        # 192.0.2.66 gateway.example\n\
        192.0.2.1   gateway.example Gateway gw # of the lab\n\
        not-an-address gateway\n\
        \n\
        2001:db8::1 gateway\n\
        192.0.2.1 gateway\n\
        192.0.2.3\n\
        192.0.2.2 ollama.example\u{fffd} ollama";

    fn found(name: &str) -> Vec<String> {
        let addresses = addresses_of(name, FILE);
        addresses.iter().map(|a| a.ip().to_string()).collect()
    }

    #[test]
    fn every_name_of_a_line_has_its_address_whatever_the_case() {
        for name in ["gateway.example", "GATEWAY.Example", "gw"] {
            assert_eq!(found(name), ["192.0.2.1"], "{name}");
        }
        assert_eq!(found("ollama"), ["192.0.2.2"]);
    }

    #[test]
    fn a_name_in_several_lines_has_all_their_addresses() {
        assert_eq!(found("gateway"), ["192.0.2.1", "2001:db8::1"]);
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for name in ["", "example", "of", "#", "192.0.2.3", "ollama.example"] {
            assert!(found(name).is_empty(), "{name}");
        }
    }
}
