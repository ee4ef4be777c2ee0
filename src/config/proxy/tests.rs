//! Which proxies and exceptions are taken, and which hosts an exception is about.

#![allow(clippy::unwrap_used)]

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
