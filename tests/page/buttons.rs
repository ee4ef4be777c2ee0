//! Pause, resume and test: for whoever may, with the token, and what stands there for all others.

use serde_json::json;

use crate::{
    browser::Browser,
    scenes::Scene,
    sidecar::{Sidecar, TOKEN},
};

pub const HAS_FORM: &str = "document.querySelector('#token') !== null";

/// As if the request had come through a proxy, so that it is not of this machine.
async fn from_elsewhere(browser: &mut Browser) {
    let headers = json!({"headers": {"X-Forwarded-For": "192.0.2.7"}});
    browser.call("Network.setExtraHTTPHeaders", headers).await;
}

pub async fn bring(browser: &mut Browser, token: &str) {
    browser.wait_for(HAS_FORM).await;
    browser
        .eval("document.querySelector('#token').focus()")
        .await;
    browser.write(token).await;
    browser.strike("Enter").await;
}

pub fn word_is(word: &str) -> String {
    format!("document.querySelector('#word').innerText === '{word}'")
}

#[tokio::test]
async fn pause_resume_and_test_do_what_they_say() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let sidecar = Sidecar::start(Scene::Online);
    browser.open(&sidecar.url()).await;
    browser.click("2 hr").await;
    browser.wait_for(&word_is("Paused")).await;
    assert!(
        browser
            .text("#told")
            .await
            .contains("The sidecar pauses until ")
    );
    assert!(browser.text("#when").await.contains("Resumes in 1 hr "));
    browser.click("Resume now").await;
    browser.wait_for(&word_is("Online")).await;
    browser.click("Until I resume").await;
    browser.wait_for(&word_is("Paused")).await;
    browser.click("Test").await;
    browser
        .wait_for("document.querySelector('#told table') !== null")
        .await;
    let steps = browser.text("#told").await;
    for part in [
        "The test has failed",
        "settings",
        "passed",
        "Ollama answered HTTP 500.",
        "Look into its log.",
    ] {
        assert!(steps.contains(part), "{part}: {steps}");
    }
    assert_eq!(sidecar.verbs(), ["pause 7200", "connect", "pause", "check"]);
}

#[tokio::test]
async fn the_token_is_asked_for_once_and_opens_the_buttons() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let sidecar = Sidecar::with_token(Scene::Online);
    from_elsewhere(&mut browser).await;
    browser.open(&sidecar.url()).await;
    bring(&mut browser, "wrong").await;
    browser
        .wait_for(
            "document.querySelector('#controls').innerText.includes('That is not the token.')",
        )
        .await;
    bring(&mut browser, TOKEN).await;
    browser.click("30 min").await;
    browser.wait_for(&word_is("Paused")).await;
    // The tab keeps it.
    browser.open(&sidecar.url()).await;
    browser.click("Resume now").await;
    browser.wait_for(&word_is("Online")).await;
    assert_eq!(browser.eval(HAS_FORM).await, false);
    assert_eq!(sidecar.verbs(), ["pause 1800", "connect"]);
}

#[tokio::test]
async fn where_no_token_is_set_the_command_stands_there_and_the_setting() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let sidecar = Sidecar::start(Scene::Online);
    from_elsewhere(&mut browser).await;
    browser.open(&sidecar.url()).await;
    browser
        .wait_for("document.querySelector('#controls code') !== null")
        .await;
    let text = browser.text("#controls").await;
    for part in [
        "PIN_ADMIN_TOKEN",
        "docker compose exec pin-sidecar /pin-sidecar pause --for 2h",
        "docker compose exec pin-sidecar /pin-sidecar resume",
        "docker compose exec pin-sidecar /pin-sidecar check",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(
        browser
            .eval("document.querySelectorAll('#controls button').length")
            .await,
        0
    );
}

#[tokio::test]
async fn under_a_foreign_name_nothing_is_shown_before_the_token() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let sidecar = Sidecar::with_token(Scene::Online);
    browser.open(&sidecar.foreign_url()).await;
    browser.wait_for(&word_is("Locked")).await;
    assert!(!browser.text("body").await.contains("gpu-attic"));
    if let Some(found) = browser.axe().await {
        assert!(found.is_empty(), "{found:#?}");
    }
    bring(&mut browser, TOKEN).await;
    browser.wait_for(&word_is("Online")).await;
    assert!(browser.text("h1").await.contains("gpu-attic"));
    browser.click("1 hr").await;
    browser.wait_for(&word_is("Paused")).await;
    assert_eq!(sidecar.verbs(), ["pause 3600"]);
}
