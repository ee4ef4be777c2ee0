//! What is refused, with what is said about it.

use super::*;

#[test]
fn every_mistake_is_told_at_once_with_its_value_and_what_is_allowed() {
    let told = errors(&[
        ("PIN_HEARTBEAT_INTERVAL", "15"),
        ("PIN_CAPACITY", "0"),
        ("PIN_REGION", "mars"),
        ("PIN_ALLOW_PLAINTEXT", "yes"),
        ("PIN_MAX_FRAME_BYTES", "16apples"),
        ("PIN_OUTBOX_BYTES", "1B"),
        ("PIN_OLLAMA_URL", "ann:hunter2@localhost:11434"),
        ("PIN_PRICE_PER_THOUSAND_TOKENS", "-1"),
        ("PIN_TOKEN_TIMEOUT", "0s"),
        ("PIN_LISTEN_ADDR", ":9464"),
        ("PIN_LOG", "inof"),
        ("PIN_CAPACTY", "hunter2"),
    ]);
    assert_eq!(
        told,
        [
            r#"PIN_ALLOW_PLAINTEXT: "yes" is not one of: true, false"#,
            r#"PIN_OLLAMA_URL: "…@localhost:11434" has no scheme; write http://…@localhost:11434"#,
            r#"PIN_CAPACITY: "0" is not a whole number from 1 to 1000000"#,
            r#"PIN_REGION: "mars" is not one of: us-east, us-west, eu-west, eu-central, asia-pacific, global"#,
            r#"PIN_PRICE_PER_THOUSAND_TOKENS: "-1" is not a price; write a number that is not negative, such as 0.001"#,
            r#"PIN_MAX_FRAME_BYTES: "16apples" is not a size; write one such as 16MiB, 512KiB or 1048576"#,
            r#"PIN_OUTBOX_BYTES: "1B" is out of range; write a size from 1KiB to 2GiB"#,
            r#"PIN_TOKEN_TIMEOUT: "0s" is zero; write a longer duration"#,
            r#"PIN_HEARTBEAT_INTERVAL: "15" has no unit; write a duration such as 15s, 500ms or 5m"#,
            r#"PIN_LISTEN_ADDR: ":9464" is not an address; write IP:PORT, such as 127.0.0.1:9464 or [::]:9464"#,
            "PIN_LOG: \"inof\" is not a log filter; write a level (off, error, warn, info, debug, trace) or a list such \
             as info,pin_sidecar::session=debug",
            "PIN_CAPACTY: there is no such setting; the nearest is PIN_CAPACITY",
        ]
    );
}

#[test]
fn what_is_required_is_asked_for() {
    let told = read(Vec::new()).unwrap_err().to_string();
    assert!(
        told.starts_with("PIN_CLIENT_ID: required, and there is no default: the id to log in as"),
        "{told}"
    );
    assert!(
        told.contains("no secret: set PIN_API_SECRET_FILE"),
        "{told}"
    );
    assert_eq!(told.lines().count(), 2);
}

#[test]
fn nothing_around_a_value_is_trimmed_and_what_may_have_put_it_there_is_said() {
    let (at_end, at_beginning) = ("has a blank at its end", "has a blank at its beginning");
    let line_ends = "(U+000D); type the value anew, as one line of plain text; a file with Windows line ends (CRLF)";
    let control =
        |code| format!("has an invisible character in it (U+{code}); type the value anew");
    for (name, value, told) in [
        ("PIN_PAYOUT_ADDRESS", "0xabc\r", line_ends.to_owned()),
        ("PIN_CLIENT_ID", "op_x\r", line_ends.to_owned()),
        ("PIN_NODE_ALIAS", "node\r\n", line_ends.to_owned()),
        ("PIN_API_SECRET", "s3cret\r", line_ends.to_owned()),
        ("PIN_API_SECRET", "s3cret\n", control("000A")),
        ("PIN_DENY_MODELS", "private:*\n", control("000A")),
        ("PIN_PAYOUT_ADDRESS", "\t0xabc", control("0009")),
        ("PIN_PULL_MODELS", "a\t,b", control("0009")),
        (
            "PIN_TOKEN_TIMEOUT",
            "5s\u{a0}",
            format!("{at_end} (U+00A0)"),
        ),
        (
            "PIN_TOKEN_TIMEOUT",
            "1h\u{a0}5s",
            "has a blank in it".to_owned(),
        ),
        (
            "PIN_ALLOW_MODELS",
            "a,\u{a0}b",
            "has a blank in it".to_owned(),
        ),
        (
            "PIN_PAYOUT_ADDRESS",
            "\u{a0}0xabc",
            format!("{at_beginning} (U+00A0)"),
        ),
        (
            "PIN_DRAIN_TIMEOUT",
            " 9s",
            format!("{at_beginning} (U+0020)"),
        ),
        ("PIN_ALLOW_MODELS", "a, b ", format!("{at_end} (U+0020)")),
        ("PIN_NODE_ALIAS", "my node ", format!("{at_end} (U+0020)")),
        ("PIN_LOG", " debug", format!("{at_beginning} (U+0020)")),
        ("PIN_TLS_CA_FILE", "/ca.pem ", format!("{at_end} (U+0020)")),
    ] {
        let errors = errors(&[(name, value)]);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with(&format!("{name}: ")), "{errors:?}");
        assert!(errors[0].contains(&told), "{value:?}: {errors:?}");
        for private in ["0xabc", "s3cret"] {
            assert!(!errors[0].contains(private), "{errors:?}");
        }
    }
}

#[test]
fn a_value_that_is_not_text_is_told_and_other_programs_variables_are_not_looked_at() {
    let bytes = || OsString::from_vec(vec![0xff]);
    let mut vars = with(&[]);
    vars.push((bytes(), bytes()));
    vars.push(("PATH".into(), bytes()));
    vars.push(("PIN_X_PORT".into(), bytes()));
    assert!(read(vars.clone()).is_ok());
    vars.push(("PIN_REGION".into(), bytes()));
    assert_eq!(
        read(vars).unwrap_err().to_string(),
        "PIN_REGION: the value is not UTF-8 text"
    );
}

#[test]
fn quotes_blanks_and_comments_are_told_and_no_part_of_a_value() {
    let blank = "has a blank in it; write the value alone";
    let quotes = "has quotes around it; write it without them";
    for (name, value, told) in [
        ("PIN_DENY_MODELS", "\"private:*\"", quotes),
        ("PIN_DENY_MODELS", "private:* # mine", blank),
        ("PIN_ALLOW_MODELS", "'*'", quotes),
        ("PIN_NODE_ALIAS", "\"gpu\"", quotes),
        ("PIN_USER_AGENT", "'curl/8'", quotes),
        ("PIN_TLS_CA_FILE", "\"/ca.pem\"", quotes),
        ("PIN_LOG", "\"debug\"", quotes),
        ("PIN_CAPACITY", "'4'", quotes),
        ("PIN_CAPACITY", "4 # two GPUs", blank),
        ("PIN_REGION", "global # yet", blank),
        ("PIN_OLLAMA_URL", "\"http://ollama\"", quotes),
        ("PIN_OLLAMA_URL", "http://ollama # beside it", blank),
        ("PIN_SERVER_URL", "wss://pin.example #main", blank),
        ("PIN_CLIENT_ID", "op_abc # main", blank),
        ("PIN_QUEUE_TIMEOUT", "15s # short", blank),
        ("PIN_QUEUE_TIMEOUT", "15 s", blank),
        ("PIN_QUEUE_BYTES", "16 MiB", blank),
        ("PIN_LISTEN_ADDR", "[::]:9464 # all", blank),
        ("PIN_INTERVIEW_MODEL", "llama3 # best", blank),
        ("PIN_PULL_MODELS", "llama3.2 qwen3:8b", blank),
        ("PIN_PAYOUT_ADDRESS", "0xabc # main", "has a blank in it"),
        ("PIN_PAYOUT_ADDRESS", "'0xabc'", "has quotes around it"),
        (
            "PIN_PAYOUT_ADDRESS",
            "0xabc#main",
            "has a character in it that no wallet has",
        ),
        (
            "PIN_PAYOUT_ADDRESS",
            "0x\u{200b}abc",
            "has an invisible character in it (U+200B)",
        ),
        (
            "PIN_NODE_ALIAS",
            "\u{feff}gpu",
            "has an invisible character in it (U+FEFF)",
        ),
        (
            "PIN_NODE_ALIAS",
            "gpu\u{3164}",
            "has an invisible character in it (U+3164)",
        ),
        (
            "PIN_PAYOUT_ADDRESS",
            "0xabc\u{fe0f}",
            "has an invisible character in it (U+FE0F)",
        ),
        (
            "PIN_OLLAMA_URL",
            "http://ollama\u{200d}",
            "has an invisible character in it (U+200D)",
        ),
        (
            "PIN_TLS_CA_FILE",
            "/ca\u{7}.pem",
            "has an invisible character in it (U+0007)",
        ),
        ("PIN_API_SECRET", "s3cret ", "it has a blank at its end"),
        ("PIN_API_SECRET", "\"s3cret\"", "it has quotes around it"),
        (
            "PIN_BACKEND_API_KEY",
            "s3cret # my key",
            "its character 7 is a blank, which no token has",
        ),
        (
            "PIN_BACKEND_API_KEY",
            "Bearer s3cret",
            "it begins with the word Bearer; leave that out",
        ),
        (
            "PIN_ADMIN_TOKEN",
            "s3cret word",
            "its character 7 is a blank, which no token has",
        ),
    ] {
        let errors = errors(&[(name, value)]);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with(&format!("{name}: ")), "{errors:?}");
        assert!(errors[0].contains(told), "{value}: {errors:?}");
        for private in ["0xabc", "s3cret"] {
            assert!(!errors[0].contains(private), "{errors:?}");
        }
    }
    for alias in [
        "my gpu #1 \u{1f468}\u{200d}\u{1f680}\u{fe0f}",
        "\"a\" and \"b\"",
        "'n' Haus'",
    ] {
        assert_eq!(config(&[("PIN_NODE_ALIAS", alias)]).node.alias, alias);
    }
    let job = config(&[("PIN_REQUEST_TIMEOUT", "1h 30m")]).job;
    assert_eq!(job.request_timeout, Duration::from_secs(5400));
}

#[test]
fn a_user_agent_that_no_header_can_have_is_refused() {
    for (written, shown) in [
        (
            "pin\u{7f}sidecar",
            r#""pin\u{7f}sidecar" has an invisible character in it (U+007F)"#,
        ),
        (
            "pin\r\nX-Admin: yes",
            r#""pin\r\nX-Admin: yes" has an invisible character in it (U+000D)"#,
        ),
        (
            "pin\tsidecar",
            r#""pin\tsidecar" has an invisible character in it (U+0009)"#,
        ),
        (
            "pìn-sidecar",
            r#""pìn-sidecar" cannot be sent in an HTTP header; write printable ASCII, such as pin-sidecar/0.1"#,
        ),
    ] {
        let errors = errors(&[("PIN_USER_AGENT", written)]);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].starts_with(&format!("PIN_USER_AGENT: {shown}")),
            "{errors:?}"
        );
    }
}

#[test]
fn settings_that_contradict_each_other_are_told() {
    for (settings, told) in [
        (
            &[("PIN_RECONNECT_MIN", "61s")][..],
            "PIN_RECONNECT_MIN: 1m 1s is more than PIN_RECONNECT_MAX, which is 1m",
        ),
        (
            &[("PIN_HEARTBEAT_INTERVAL", "45s")],
            "PIN_HEARTBEAT_INTERVAL: 45s is not less than PIN_HEARTBEAT_TIMEOUT, which is 45s",
        ),
        (
            &[("PIN_SERVER_URL", "ws://pin.example")],
            "PIN_SERVER_URL: ws://pin.example/api/v1/pin/ws is not encrypted and not on this machine; write wss:// or \
             https://, or set PIN_ALLOW_PLAINTEXT=true if nobody can listen in between",
        ),
        (
            &[("PIN_API_SECRET_FILE", "/f")],
            "PIN_API_SECRET: set, and PIN_API_SECRET_FILE too; keep one of them",
        ),
        (
            &[("PIN_CLIENT_ID", "abc")],
            "PIN_GENERATION: \"abc\" (PIN_CLIENT_ID) does not tell it, since it begins with neither pin_ nor op_; write \
             1 for pin_ (desktop client) or 2 for op_ (operator daemon)",
        ),
    ] {
        assert_eq!(errors(settings), [told]);
    }
}

#[test]
fn a_secret_file_that_cannot_be_read_stops_the_start() {
    let told = read(vars(&[
        ("PIN_CLIENT_ID", "op_abc"),
        ("PIN_API_SECRET_FILE", "/nowhere/secret"),
    ]));
    let told = told.unwrap_err().to_string();
    assert!(
        told.starts_with("secret file /nowhere/secret: No such file"),
        "{told}"
    );
}
