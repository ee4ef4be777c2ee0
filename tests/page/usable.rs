//! Without a mouse, and with a thumb.

use std::collections::BTreeSet;

use crate::{
    browser::{Browser, PHONE},
    scenes::Scene,
    sidecar::Sidecar,
};

const IS_COMPLETE: &str = "document.querySelector('#earned-models table') !== null && document.querySelector('#plot-load svg') !== null";

/// What can be used, by its words.
const USABLE: &str = "[...document.querySelectorAll('a, button, summary, input')].filter(one => one.checkVisibility())";
const NAME: &str = "(one => one.ariaLabel ?? one.innerText)";

#[tokio::test]
async fn the_keyboard_alone_reaches_everything_sees_where_it_is_and_uses_it() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let sidecar = Sidecar::start(Scene::Working);
    browser.open(&sidecar.url()).await;
    browser.wait_for(IS_COMPLETE).await;
    let all = browser.eval(&format!("{USABLE}.map({NAME})")).await;
    let all: Vec<String> = serde_json::from_value(all).unwrap();
    let mut reached = BTreeSet::new();
    for _ in 0..all.len() {
        browser.strike("Tab").await;
        let name = browser
            .eval(&format!("{NAME}(document.activeElement)"))
            .await;
        let outlined = "[document.activeElement, document.activeElement.parentElement].some(one => getComputedStyle(one).outlineStyle === 'solid')";
        assert_eq!(browser.eval(outlined).await, true, "{name} shows no focus");
        reached.insert(name.as_str().unwrap().to_owned());
    }
    assert_eq!(reached, all.into_iter().collect());

    browser
        .eval("document.querySelector('#plot-load input').focus()")
        .await;
    browser.strike("ArrowLeft").await;
    let moment = browser.text("#plot-load .readout").await;
    assert!(moment.contains("running"), "{moment}");
    browser.eval("[...document.querySelectorAll('#controls button')].find(one => one.innerText === '4 hr').focus()").await;
    browser.strike("Enter").await;
    browser
        .wait_for("document.querySelector('#word').innerText === 'Paused'")
        .await;
    assert_eq!(sidecar.verbs(), ["pause 14400"]);
    // The buttons were drawn anew, and the focus is still among them.
    browser
        .wait_for("document.querySelector('#controls').contains(document.activeElement)")
        .await;
}

#[tokio::test]
async fn everything_is_as_large_as_a_thumb() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let sidecar = Sidecar::start(Scene::Paused);
    browser.set_screen(PHONE).await;
    browser.open(&sidecar.url()).await;
    browser.wait_for(IS_COMPLETE).await;
    let small = browser
        .eval(&format!(
            "{USABLE}.filter(one => one.getBoundingClientRect().height < 44).map({NAME})"
        ))
        .await;
    assert_eq!(small, serde_json::json!([]));
}
