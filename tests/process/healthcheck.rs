//! `pin-sidecar healthcheck`, as HEALTHCHECK and `helm test` run it.

use devnet::gateway::{Gateway, Login};

use crate::{
    program::{Ended, Net, program, run, with, with_arguments},
    support::CLIENT,
};

async fn checked(arguments: &[&str], settings: &[(&str, &str)]) -> Ended {
    run(with(
        with_arguments(program().argument("healthcheck"), arguments),
        settings,
    ))
    .await
}

fn address(net: &Net) -> String {
    net.agent.url("").trim_start_matches("http://").to_owned()
}

#[tokio::test]
async fn a_sidecar_that_is_ready_is_healthy_and_ready() {
    let net = Net::start(&[]).await;
    let address = address(&net);
    let url = net.agent.url("");
    for arguments in [
        &[][..],
        &["--ready"],
        &["--url", &url],
        &["--ready", "--url", &url],
    ] {
        // Whatever else is wrong with the settings of whoever asks.
        let others = [
            ("PIN_LISTEN_ADDR", &*address),
            ("PIN_CAPACITY", "many"),
            ("PIN_NOPE", "x"),
        ];
        let ended = checked(arguments, &others).await;
        assert_eq!((ended.code, &*ended.output), (Some(0), ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_sidecar_that_cannot_log_in_is_healthy_and_says_why_it_is_not_ready() {
    let gateway = Gateway::builder()
        .policy(|policy| policy.login = Login::Refuse("Invalid signature".into()));
    let net = Net::with(gateway.start().await.unwrap(), program(), &[]).await;
    net.wait_until_pending("refused the login").await;
    let address = address(&net);
    let own = [("PIN_LISTEN_ADDR", &*address)];
    assert_eq!(checked(&[], &own).await.code, Some(0));
    let ended = checked(&["--ready"], &own).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.output.contains("HTTP 503") && ended.output.contains("Invalid signature"),
        "{}",
        ended.output
    );
    assert!(!ended.output.contains(CLIENT), "{}", ended.output);
}

#[tokio::test]
async fn where_nobody_answers_it_says_so() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let url = format!("http://{closed}");
    for (arguments, settings) in [
        (&[][..], &[("PIN_LISTEN_ADDR", &*closed)][..]),
        (&["--url", &url], &[]),
    ] {
        let ended = checked(arguments, settings).await;
        assert_eq!(ended.code, Some(1), "{}", ended.output);
        assert!(
            ended.output.contains(&format!("no connection to {closed}")),
            "{}",
            ended.output
        );
    }
}

/// Docker knows 0 and 1 and reserves all else.
#[tokio::test]
async fn an_address_that_is_none_is_unhealthy_too() {
    let ended = checked(&[], &[("PIN_LISTEN_ADDR", "9464")]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.output);
    assert!(ended.output.contains("PIN_LISTEN_ADDR"), "{}", ended.output);
    assert_eq!(
        checked(&["--url", "https://127.0.0.1:9464"], &[])
            .await
            .code,
        Some(1)
    );
}
