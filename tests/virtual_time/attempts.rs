//! How often a gateway is asked for a session, and how soon there is one again.

use std::{collections::VecDeque, fs, time::Duration};

use devnet::{
    gateway::{Gateway, Login},
    ollama::{CHAT, Fault},
    sim::wire::Dialling,
};
use pin_sidecar::admin::Connecting;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    MOMENT, SECOND,
    support::{Counts, Net},
    wire::{self, Node, Wire},
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// What is set where nothing is.
const DEFAULT: (&str, &str) = ("PIN_CONNECTS_PER_MINUTE", "9");

/// The longest time until an attempt that nothing else holds back: 12 s until the budget has one, and the backoff's 5 s
/// while somebody waits for answers.
const LONGEST_WAIT: Duration = Duration::from_secs(12 + 5);

/// When the agent logged in or tried to.
fn logins(gateway: &Gateway) -> Vec<Instant> {
    let frames = gateway.frames();
    let logins = frames.iter().filter(|frame| frame.is_from_agent("AUTH"));
    logins.map(|frame| frame.at).collect()
}

/// The most that fall into any 60 s, both ends included.
fn most_in_a_minute(attempts: &[Instant]) -> usize {
    let mut window = VecDeque::new();
    let mut most = 0;
    for at in attempts {
        window.push_back(*at);
        while *at - window[0] > MINUTE {
            window.pop_front();
        }
        most = most.max(window.len());
    }
    most
}

fn close(code: u16) -> Login {
    Login::Close {
        code,
        reason: String::new(),
    }
}

fn http(status: u16) -> Login {
    Login::Http {
        status,
        retry_after: None,
        body: String::new(),
    }
}

/// A sidecar with the default budget and a chat that goes on for hours, so that somebody waits all the time.
async fn with_somebody_waiting() -> (Net<Node>, Wire) {
    let (net, wire) = wire::start(&[
        DEFAULT,
        ("PIN_ORPHAN_GRACE", "9h"),
        ("PIN_TOKEN_TIMEOUT", "9h"),
        ("PIN_REQUEST_TIMEOUT", "9h"),
    ])
    .await;
    net.ollama.fail_next(CHAT, 1, Fault::Hang { after: 1 });
    let _chat = net.chat("why");
    sleep(MOMENT).await;
    (net, wire)
}

#[tokio::test(start_paused = true)]
async fn however_much_waits_a_gateway_that_hangs_up_is_asked_nine_times_a_minute_at_most() {
    for hangs_up in [close(1000), close(1001), close(1008), Login::Reset] {
        let (net, _wire) = with_somebody_waiting().await;
        net.gateway
            .set_policy(|policy| policy.login = hangs_up.clone());
        net.gateway.drop_sessions();
        sleep(HOUR).await;
        let logins = logins(&net.gateway);
        let most = most_in_a_minute(&logins);
        assert!((5..=9).contains(&most), "{most} after {hangs_up:?}");
        assert!(
            logins.len() > 200,
            "{} in an hour: it goes on trying",
            logins.len()
        );

        net.gateway.set_policy(|policy| policy.login = Login::Check);
        sleep(LONGEST_WAIT + SECOND).await;
        assert_eq!(net.gateway.sessions().open, 1, "after {hangs_up:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_flaps_forty_times_in_ten_minutes_is_asked_nine_times_a_minute_at_most() {
    for every in [15, 1] {
        for code in [1000, 1006, 1012] {
            let (net, _wire) = wire::start(&[DEFAULT]).await;
            for _ in 0..600 / every {
                sleep(every * SECOND).await;
                match code {
                    1006 => net.gateway.drop_sessions(),
                    code => net.gateway.close_sessions(code, ""),
                }
            }
            let most = most_in_a_minute(&logins(&net.gateway));
            assert!(most <= 9, "{most} with {code} every {every} s");
            sleep(2 * MINUTE).await;
            assert_eq!(net.gateway.sessions().open, 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn frames_that_may_not_be_read_drains_and_reopenings_are_no_way_round_the_limit() {
    let (net, _wire) = wire::start(&[
        ("PIN_CONNECTS_PER_MINUTE", "3"),
        ("PIN_MAX_FRAME_BYTES", "64KiB"),
        ("PIN_RECONNECT_MAX", "10ms"),
    ])
    .await;
    for _ in 0..100 {
        if net.gateway.sessions().open == 1 {
            net.gateway.send_text(&"x".repeat(64 * 1024 + 1));
        }
        sleep(2 * SECOND).await;
        net.sidecar.service.request_drain().await;
        assert_eq!(net.sidecar.service.reopen(), Connecting::Now);
        sleep(2 * SECOND).await;
    }
    let most = most_in_a_minute(&logins(&net.gateway));
    assert!((2..=3).contains(&most), "{most}");
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_keeps_changing_is_no_way_round_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, "wrong").unwrap();
    let settings = [DEFAULT, ("PIN_API_SECRET_FILE", file.to_str().unwrap())];
    let (net, _wire) = wire::begin(&settings, |_| {});
    for tries in 1..=40 {
        sleep(2 * SECOND).await;
        // Of another length, since the file's time may be the same.
        fs::write(&file, "wrong".repeat(tries + 1)).unwrap();
    }
    let most = most_in_a_minute(&logins(&net.gateway));
    assert!((8..=9).contains(&most), "{most}");
}

#[tokio::test(start_paused = true)]
async fn attempts_that_never_reached_the_gateway_are_not_counted() {
    let (net, wire) = wire::start(&[
        ("PIN_CONNECTS_PER_MINUTE", "2"),
        ("PIN_RECONNECT_MAX", "1s"),
    ])
    .await;
    wire.cut();
    sleep(HOUR).await;
    assert!(net.sidecar.metric("connect_attempts_total").await > 3_000.0);
    wire.mend();
    sleep(SECOND).await;
    assert_eq!(net.gateway.sessions().open, 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_long_on_its_way_counts_from_when_it_asks_the_gateway() {
    // One at a time, and one more each half minute.
    let (net, wire) = wire::start(&[
        ("PIN_CONNECTS_PER_MINUTE", "3"),
        ("PIN_RECONNECT_MAX", "1s"),
    ])
    .await;
    sleep(MINUTE).await;
    wire.0.change(|weather| weather.dialling = Dialling::Hangs);
    net.gateway.drop_sessions();
    sleep(29 * SECOND).await;
    wire.mend();
    for session in [2, 3] {
        net.gateway.wait_for_session(session).await;
        net.gateway.drop_sessions();
    }
    let logins = logins(&net.gateway);
    let between = logins[2] - logins[1];
    assert!(between >= 30 * SECOND, "{between:?}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_ten_seconds_is_over_while_its_chats_still_run_whatever_failed_meanwhile() {
    const OUTAGE: Duration = Duration::from_secs(10);
    for breaks in [close(1001), http(502), Login::Reset, Login::HangUpgrade] {
        // How much of the budget is gone before.
        for flaps in 0..6 {
            let (net, _wire) = wire::start(&[DEFAULT]).await;
            for flap in 0..flaps {
                net.gateway.drop_sessions();
                net.gateway.wait_for_session(flap + 2).await;
            }
            let sessions = net.gateway.sessions().ever;
            net.ollama
                .set_behaviour(|behaviour| behaviour.done_delay = 40 * SECOND);
            let mut chat = net.chat("why");
            sleep(MOMENT).await;
            net.gateway
                .set_policy(|policy| policy.login = breaks.clone());
            net.gateway.drop_sessions();
            let lost = Instant::now();
            sleep(OUTAGE).await;
            net.gateway.set_policy(|policy| policy.login = Login::Check);
            let back = timeout(30 * SECOND, net.gateway.wait_for_session(sessions + 1)).await;
            assert!(
                back.is_ok() && lost.elapsed() < 30 * SECOND,
                "{breaks:?} {flaps}"
            );
            chat.outcome().await.result();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_healthy_session_that_breaks_is_back_within_half_a_second() {
    let (net, _wire) = wire::start(&[DEFAULT]).await;
    for session in 2..=20 {
        sleep(31 * SECOND).await;
        net.gateway.drop_sessions();
        let lost = Instant::now();
        net.gateway.wait_for_session(session).await;
        assert!(
            lost.elapsed() <= SECOND / 2 + MOMENT,
            "{:?}",
            lost.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_metric_shows_the_wait_that_the_limit_makes() {
    let (net, _wire) = wire::start(&[
        ("PIN_CONNECTS_PER_MINUTE", "3"),
        ("PIN_RECONNECT_MAX", "1s"),
    ])
    .await;
    net.gateway.drop_sessions();
    sleep(MOMENT).await;
    let wait = net.sidecar.metric("reconnect_backoff_seconds").await;
    assert!((29.0..=31.0).contains(&wait), "{wait}");
    let away = Instant::now();
    net.gateway.wait_for_session(2).await;
    let away = away.elapsed().as_secs_f64();
    assert!((away - wait).abs() < 0.1, "{away} s instead of {wait}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_that_names_a_time_is_not_tried_before_nor_sooner_than_any_refused_one() {
    for (asked, least) in [("10", 48), ("300", 300)] {
        let (net, _wire) = wire::begin(&[DEFAULT], |policy| {
            policy.login = Login::Http {
                status: 403,
                retry_after: Some(asked.to_owned()),
                body: json!({"error": "banned"}).to_string(),
            };
        });
        sleep(SECOND).await;
        let refused = net
            .sidecar
            .metric("connect_failures_total{reason=\"auth\"}");
        assert_eq!(refused.await, 1.0);
        sleep(Duration::from_secs(least) - 2 * SECOND).await;
        assert_eq!(net.sidecar.metric("connect_attempts_total").await, 1.0);
        sleep(MINUTE).await;
        assert_eq!(net.sidecar.metric("connect_attempts_total").await, 2.0);
    }
}
