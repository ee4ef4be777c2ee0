//! The variables of a proxy, which the sidecar shares with other programs.

use super::*;

#[test]
fn variables_of_other_programs_are_judged_only_where_they_would_be_used() {
    let socks = ("HTTPS_PROXY", "socks5://ann:Zebra@proxy:1080");
    let here = ("PIN_SERVER_URL", "ws://localhost:1");
    let unused = config(&[socks, here, ("NO_PROXY", "10.*,<local>")]);
    assert_eq!(
        (unused.gateway.proxy.is_none(), unused.skipped()),
        (true, None)
    );
    assert!(!format!("{unused:?}").contains("Zebra"));
    let excepted = config(&[socks, ("NO_PROXY", "<local>,aiassist.net")]);
    assert!(excepted.gateway.proxy.is_none());
    let used = config(&[("HTTPS_PROXY", "proxy:3128"), ("NO_PROXY", "10.*")]);
    assert!(
        used.skipped()
            .unwrap()
            .starts_with("NO_PROXY: \"10.*\" not understood")
    );
    let mut bytes = with(&[here]);
    bytes.push(("HTTPS_PROXY".into(), OsString::from_vec(vec![0xff])));
    bytes.push(("NO_PROXY".into(), OsString::from_vec(vec![0xff])));
    assert!(read(bytes).is_ok());
}

#[test]
fn the_proxys_variables_may_be_in_lower_case_which_goes_first() {
    let proxy = |more: &[(&str, &str)]| {
        let proxy = config(more).gateway.proxy;
        proxy.map(|proxy| proxy.to_string())
    };
    let (upper, lower) = (("HTTPS_PROXY", "upper:1"), ("https_proxy", "lower:2"));
    assert_eq!(proxy(&[]), None);
    assert_eq!(proxy(&[upper]).unwrap(), "http://upper:1");
    assert_eq!(proxy(&[upper, lower]).unwrap(), "http://lower:2");
    assert_eq!(
        proxy(&[upper, ("https_proxy", " ")]).unwrap(),
        "http://upper:1"
    );
    assert_eq!(proxy(&[("HTTPS_PROXY", "")]), None);
    for others in ["Https_Proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        assert_eq!(proxy(&[(others, "other:3")]), None, "{others}");
    }
    assert_eq!(proxy(&[upper, ("NO_PROXY", "aiassist.net")]), None);
    assert_eq!(proxy(&[upper, ("no_proxy", "*")]), None);
    assert_eq!(
        proxy(&[upper, ("NO_PROXY", "*"), ("no_proxy", "a.b")]).unwrap(),
        "http://upper:1"
    );
    assert_eq!(
        proxy(&[upper, ("pin_server_url", "ws://localhost")]).unwrap(),
        "http://upper:1"
    );
    assert_eq!(
        proxy(&[upper, ("PIN_SERVER_URL", "ws://localhost:1")]),
        None
    );
}

#[test]
fn a_wrong_proxy_is_told_with_the_other_mistakes_and_without_its_password() {
    let told = errors(&[
        ("https_proxy", "socks5://ann:Zebra@proxy:1080"),
        ("NO_PROXY", "10.0.0.0/33"),
        ("PIN_HTTPS_PROXY", "http://ann:Zebra@proxy:3128"),
    ]);
    assert_eq!(
        told,
        [
            "HTTPS_PROXY: \"socks5://…@proxy:1080\" has another scheme than those allowed: http://, https://",
            "PIN_HTTPS_PROXY: there is no such setting; the nearest is HTTPS_PROXY",
        ]
    );
}

#[test]
fn the_proxys_password_is_not_among_the_effective_settings() {
    let config = config(&[
        ("HTTPS_PROXY", "http://ann:Zebra@proxy:3128"),
        ("NO_PROXY", " example.com, .local "),
    ]);
    let effective: Vec<_> = config.effective().collect();
    assert!(effective.contains(&("HTTPS_PROXY", "http://…@proxy:3128")));
    assert!(effective.contains(&("NO_PROXY", "example.com, .local")));
    let shown = format!("{config:?} {:?}", config.gateway);
    assert!(
        !shown.contains("Zebra") && !shown.contains("ann"),
        "{shown}"
    );
}
