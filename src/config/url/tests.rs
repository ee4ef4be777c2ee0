//! Which URLs are taken, and what is said of the others.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn gateway(text: &str) -> GatewayUrl {
    GatewayUrl::parse(text).unwrap()
}

fn backend(text: &str) -> BackendUrl {
    BackendUrl::parse(text).unwrap()
}

#[test]
fn a_gateway_may_be_given_as_a_bare_base() {
    for (given, meant) in [
        ("https://pin.example", "wss://pin.example/api/v1/pin/ws"),
        ("https://pin.example/", "wss://pin.example/api/v1/pin/ws"),
        (
            "http://pin.example:8080",
            "ws://pin.example:8080/api/v1/pin/ws",
        ),
        ("WSS://pin.example", "wss://pin.example/api/v1/pin/ws"),
        ("wss://pin.example:443/other", "wss://pin.example/other"),
        ("ws://[::1]:9000/", "ws://[::1]:9000/api/v1/pin/ws"),
    ] {
        assert_eq!(gateway(given).to_string(), meant, "{given}");
    }
}

#[test]
fn a_gateway_url_says_whom_to_dial_and_what_to_ask_for() {
    let url = gateway("wss://[2001:db8::1]:8443/pin?token=t0p");
    assert_eq!(
        (url.origin.host(), url.origin.port, url.origin.tls),
        ("2001:db8::1", 8443, true)
    );
    assert_eq!(url.path_and_query(), "/pin?token=t0p");
    assert_eq!(url.origin.authority(), "[2001:db8::1]:8443");
    assert_eq!(gateway("wss://pin.example").origin.port, 443);
    assert_eq!(
        gateway("ws://pin.example").origin.authority(),
        "pin.example"
    );
    assert!(!format!("{url} {url:?}").contains("t0p"));
}

#[test]
fn only_this_machine_is_loopback() {
    for here in [
        "ws://localhost",
        "ws://LOCALHOST:1",
        "ws://localhost.",
        "ws://gateway.LocalHost:8080",
        "ws://127.0.0.1",
        "ws://127.9.9.9",
        "ws://[::1]:80",
    ] {
        assert!(gateway(here).origin.is_loopback(), "{here}");
    }
    for there in [
        "ws://localhost.example",
        "ws://notlocalhost",
        "ws://10.0.0.1",
        "ws://0.0.0.0",
        "ws://127.0.0.1.example",
        "ws://[::]",
    ] {
        assert!(!gateway(there).origin.is_loopback(), "{there}");
    }
}

#[test]
fn a_backend_behind_a_reverse_proxy_keeps_its_base_path_and_its_password() {
    let url = backend("https://ann:p%40ss%zz@gpu.example/ollama//");
    assert_eq!(
        (url.origin.host(), url.origin.port, url.origin.tls),
        ("gpu.example", 443, true)
    );
    assert_eq!(url.path("/api/chat"), "/ollama/api/chat");
    assert_eq!(url.authorization(), Some("Basic YW5uOnBAc3Mleno="));
    assert_eq!(url.to_string(), "https://…@gpu.example/ollama");
    assert!(!format!("{url:?}").contains("ann"));
}

#[test]
fn a_plain_backend_has_no_base_path() {
    let url = backend("http://localhost:11434/");
    assert_eq!(url.path("/api/tags"), "/api/tags");
    assert_eq!(url.origin.authority(), "localhost:11434");
    assert_eq!(url.authorization(), None);
}

#[test]
fn a_wrong_url_is_told_with_what_to_write_instead_and_without_its_password() {
    for (given, told) in [
        (
            "localhost:11434",
            r#""localhost:11434" has no scheme; write http://localhost:11434"#,
        ),
        (
            "u:p@localhost:11434",
            r#""…@localhost:11434" has no scheme; write http://…@localhost:11434"#,
        ),
        (
            "ftp://u:p@host",
            r#""ftp://…@host" has another scheme than those allowed: http://, https://"#,
        ),
        (
            "http://u:p@host:70000",
            r#""http://…@host:70000" has a port that is not a number from 1 to 65535"#,
        ),
        (
            "http://host:0",
            r#""http://host:0" has a port that is not a number from 1 to 65535"#,
        ),
        (
            "http://host:",
            r#""http://host:" has a port that is not a number from 1 to 65535"#,
        ),
        (
            "http://u:1/w@host",
            r#""http://…@host" has an @ after its host; percent-encode it, and in a password / ? # and @ too"#,
        ),
        (
            "http://u:p/w@ho st",
            r#""http://…@ho st" is not a URL; write one such as http://HOST:PORT"#,
        ),
        (
            "http://host?a=b",
            r#""http://host?a=b" has a query; write the base URL only, such as http://localhost:11434"#,
        ),
    ] {
        assert_eq!(
            BackendUrl::parse(given).unwrap_err().to_string(),
            told,
            "{given}"
        );
    }
    let refused = GatewayUrl::parse("wss://op:s3cret@host")
        .unwrap_err()
        .to_string();
    assert!(
        refused.starts_with(r#""wss://…@host" has a user and password"#),
        "{refused}"
    );
}

proptest! {
    #[test]
    fn no_text_makes_a_url_panic(text in ".*", rest in ".*") {
        let _ = GatewayUrl::parse(&text);
        let _ = BackendUrl::parse(&format!("http://{rest}"));
    }

    #[test]
    fn a_gateway_url_is_read_back_as_it_is_shown(
        tls: bool, host in "[a-z]{1,9}(\\.[a-z]{1,9}){0,2}|127\\.0\\.0\\.1|\\[::1\\]", port in 1u16.., path in "(/[a-z]{1,5}){0,3}",
    ) {
        let scheme = if tls { "wss" } else { "ws" };
        let url = gateway(&format!("{scheme}://{host}:{port}{path}"));
        prop_assert_eq!(url.origin.port, port);
        prop_assert_eq!(&gateway(&url.to_string()), &url);
    }

    #[test]
    fn no_password_is_shown(user in "[a-z]{3,8}", password in "[!-~]{8,20}", host in "[a-z]{1,8}") {
        let text = format!("http://{user}:{password}@{host}");
        let shown = match BackendUrl::parse(&text) {
            Ok(url) => format!("{url} {url:?}"),
            Err(invalid) => invalid.to_string(),
        };
        prop_assert!(!shown.contains(&password), "{}", shown);
    }

    #[test]
    fn whatever_gateway_url_is_accepted_is_read_back_as_it_is_shown(
        scheme in "(wss|ws|https|http|WSS)://", rest in "[ -~]{1,20}|[a-zA-Z0-9.-]{1,12}(:[0-9]{1,6})?(/[!-~]{0,9}){0,2}",
    ) {
        if let Ok(url) = GatewayUrl::parse(&format!("{scheme}{rest}")) {
            let without_query = url.to_string();
            let again = gateway(without_query.trim_end_matches("?…"));
            prop_assert_eq!(&again.origin, &url.origin);
            prop_assert_eq!(again.path_and_query.split('?').next(), url.path_and_query.split('?').next());
        }
    }

    #[test]
    fn whatever_backend_url_is_accepted_is_read_back_as_it_is_shown(
        scheme in "(http|https|HTTP)://", rest in "[ -~]{1,20}|[a-zA-Z0-9.-]{1,12}(:[0-9]{1,6})?(/[!-~]{0,9}){0,2}",
    ) {
        if let Ok(url) = BackendUrl::parse(&format!("{scheme}{rest}")) {
            let again = backend(&url.to_string().replacen("…@", "", 1));
            prop_assert_eq!(&again.origin, &url.origin);
            prop_assert_eq!(&again.base_path, &url.base_path);
        }
    }

    #[test]
    fn no_password_is_shown_however_wrong_its_url_is(
        before in "((wss|ws|http|https|ftp|[a-z ]{1,4})://)?",
        user in "[a-z]{0,4}",
        password in "[!-~]{0,4}Zebra[!-~]{0,4}(://)?[!-~]{0,4}",
        after in "[ -?A-~]{0,12}",
    ) {
        let text = format!("{before}{user}:{password}@{after}");
        let shown = [
            GatewayUrl::parse(&text).map_or_else(|invalid| invalid.to_string(), |url| format!("{url} {url:?}")),
            BackendUrl::parse(&text).map_or_else(|invalid| invalid.to_string(), |url| format!("{url} {url:?}")),
        ];
        for shown in shown {
            prop_assert!(!shown.contains("Zebra"), "{}", shown);
        }
    }
}
