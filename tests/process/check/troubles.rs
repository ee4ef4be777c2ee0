//! The rest of what docs/troubleshooting.md has and a check can meet: each is told by the step that it stops, in the words
//! of the table.

use devnet::ollama::ModelShape;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

/// So that silence is told soon.
const IMPATIENT: (&str, &str) = ("PIN_CONNECT_TIMEOUT", "1s");

/// What answers whoever says anything with these bytes, and hangs up.
async fn talker(bytes: &'static [u8]) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Whoever asks may be gone.
            let _ = stream.read(&mut [0; 4_096]).await;
            let _ = stream.write_all(bytes).await;
        }
    });
    addr
}

#[tokio::test]
async fn what_is_no_proxy_or_does_not_let_through_is_told_as_the_proxy_s_trouble() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let proxy = ConnectProxy::start(gateway.addr()).unwrap();
    let url = format!("http://{}", proxy.addr());
    let settings = [
        ("HTTPS_PROXY", &*url),
        ("PIN_ALLOW_PLAINTEXT", "true"),
        IMPATIENT,
    ];
    let check = Check::of(&gateway, &ollama, &settings).at("ws://gateway.test/api/v1/pin/ws");
    for (reply, words) in [
        (Reply::Status(407), "wants a user and password"),
        (Reply::Status(404), "answered CONNECT with HTTP 404"),
        (Reply::Status(502), "did not get through to the gateway"),
        (Reply::Garbage, "does not answer as an HTTP proxy"),
        (Reply::HangUp, "closed the connection without an answer"),
        (Reply::Silence, "did not answer CONNECT within 1s"),
    ] {
        proxy.reply_with(reply);
        let report = check.json(&[]).await;
        report.expect_end_of_the_way("proxy", words);
    }
}

#[tokio::test]
async fn what_is_no_gateway_or_is_about_to_restart_is_told_as_the_login_s_trouble() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let settings = [IMPATIENT];
    let check = Check::of(&gateway, &ollama, &settings);
    let unavailable = Login::Http {
        status: 503,
        retry_after: None,
        body: String::new(),
    };
    for (login, words) in [
        (unavailable, "it answered HTTP 503"),
        (
            Login::HangUpgrade,
            "the WebSocket upgrade took longer than 1s",
        ),
        (Login::Hang, "took longer than 1s"),
        (Login::Reset, "did not answer the login"),
    ] {
        gateway.set_policy(|policy| policy.login = login.clone());
        check.json(&[]).await.expect_end_of_the_way("login", words);
    }
    for (bytes, words) in [
        (
            &b"220 smtp.example ESMTP\r\n"[..],
            "it does not speak the protocol",
        ),
        (b"", "it closed the connection before a session was open"),
    ] {
        let stranger = talker(bytes).await;
        let check = Check::of(&gateway, &ollama, &settings).at(format!("ws://{stranger}"));
        check.json(&[]).await.expect_end_of_the_way("login", words);
    }
}

#[tokio::test]
async fn a_gateway_without_tls_where_tls_is_spoken_is_told_as_tls_s_trouble() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let stranger = talker(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let check = Check::of(&gateway, &ollama, &[]).at(format!("wss://{stranger}"));
    let report = check.json(&[]).await;
    report.expect_end_of_the_way("tls", "TLS failed");
}

#[tokio::test]
async fn what_is_no_ollama_or_is_changed_on_its_way_is_told_as_the_backend_s_trouble() {
    let gateway = gateway().await;
    let ollama = Ollama::builder()
        .model(MODEL, ModelShape::default())
        .start()
        .await
        .unwrap();
    let stranger = talker(b"220 smtp.example ESMTP\r\n").await;
    let check = Check {
        ollama: format!("http://{stranger}"),
        ..Check::of(&gateway, &ollama, &[])
    };
    let report = check.json(&["--offline"]).await;
    report.expect("backend", "failed", "what came is not HTTP");
    ollama.fail_always(
        "/api/tags",
        Fault::Answer {
            status: 200,
            headers: vec![("content-encoding", "gzip".to_owned())],
            body: "{}".into(),
        },
    );
    let report = Check::of(&gateway, &ollama, &[]).json(&["--offline"]).await;
    report.expect("backend", "failed", "came encoded (gzip)");
}

#[tokio::test]
async fn tls_on_one_side_alone_is_told_whichever_side_that_is() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let taking = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let speaking_tls = certificates::gateway(&[&made(params("localhost", false), None)]).await;
    // A server that expects HTTP may wait for the end of a line.
    let mute = format!("https://{}", taking.local_addr().unwrap());
    let mut cases = vec![(mute, "whether TLS is spoken there")];
    for secured in [
        speaking_tls.addr(),
        // As OpenSSL does, and Go.
        talker(b"").await,
        talker(b"HTTP/1.0 400 Bad Request\r\n\r\n").await,
    ] {
        cases.push((
            format!("http://{secured}"),
            "if TLS is spoken there, write https://",
        ));
    }
    for (url, words) in &cases {
        for mode in ["ollama", "openai"] {
            let settings = [IMPATIENT, ("PIN_API_MODE", mode)];
            let check = Check {
                ollama: url.clone(),
                ..Check::of(&gateway, &ollama, &settings)
            };
            let report = check.json(&["--offline"]).await;
            report.expect("backend", "failed", words);
        }
    }
}

#[tokio::test]
async fn models_that_may_not_be_offered_are_told_with_the_settings_that_say_so() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    for name in ["PIN_ALLOW_MODELS", "PIN_DENY_MODELS"] {
        let globs = if name == "PIN_ALLOW_MODELS" {
            "other*"
        } else {
            "*"
        };
        let settings = [(name, globs)];
        let report = Check::of(&gateway, &ollama, &settings)
            .json(&["--offline"])
            .await;
        report.expect("models", "failed", "none that may be offered");
        report.expect("answer", "skipped", "no model to ask");
    }
}

#[tokio::test]
async fn a_model_that_loads_for_ever_or_says_nothing_is_told_as_the_answer_s_trouble() {
    let gateway = gateway().await;
    let settings = [("PIN_FIRST_TOKEN_TIMEOUT", "1s")];
    let hanging = ollama().await;
    hanging.fail_always(CHAT, Fault::HangBeforeHeaders);
    let check = Check::of(&gateway, &hanging, &settings);
    let report = check.json(&["--offline"]).await;
    let words = "was not loaded within 1s (PIN_FIRST_TOKEN_TIMEOUT)";
    report.expect("answer", "failed", words);
    for (counts, words) in [
        ("", "counts 0 tokens"),
        (r#","eval_count":2"#, "counts 2 tokens"),
    ] {
        let mute = ollama().await;
        let nothing = format!(
            r#"{{"model":"{MODEL}","message":{{"role":"assistant","content":""}},"done":true{counts}}}"#
        );
        mute.fail_always(CHAT, Fault::script([&*nothing]));
        let report = Check::of(&gateway, &mute, &settings)
            .json(&["--offline"])
            .await;
        let empty = "answers without any text, thought or call";
        report.expect("answer", "failed", empty);
        report.expect("answer", "failed", words);
    }
}

#[tokio::test]
async fn a_secret_s_file_that_is_not_the_secret_alone_is_told_by_what_is_wrong_with_it() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    let settings = [("PIN_API_SECRET_FILE", file.to_str().unwrap())];
    let check = Check::of(&gateway, &ollama, &settings);
    for (content, words) in [
        ("", "it is empty"),
        ("one\ntwo\n", "it has a second line"),
        ("\u{feff}one\n", "it begins with a byte order mark"),
        ("PIN_API_SECRET=one\n", "it is written as NAME=value"),
    ] {
        fs::write(&file, content).unwrap();
        let report = check.json(&[]).await;
        report.expect("secret", "failed", words);
        assert_eq!(check.run(&[]).await.code, Some(78));
    }
}
