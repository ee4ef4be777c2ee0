//! What the page says, and that it says it in time and in peace.

use std::{
    env,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pin_sidecar::admin::HiddenModel;

use crate::{
    browser::{Browser, DESK, PHONE, SCREENS, Screen},
    scenes::{Scene, Shown},
    sidecar::Sidecar,
};

/// Where tools/draw-page wants the pictures.
const PICTURES: &str = "PAGE_PICTURES";

/// Within this time a change is on the screen.
const SHOWN_WITHIN: Duration = Duration::from_secs(3);

const IS_COMPLETE: &str = "document.querySelector('#plot-load svg') !== null";

#[tokio::test]
async fn each_state_has_its_sentence_and_nothing_is_amiss_on_any_screen() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let sidecar = Sidecar::start(Scene::Starting);
    for (scene, word, sentence) in Scene::ALL {
        sidecar.set(scene);
        browser.set_screen(PHONE).await;
        browser.open(&sidecar.url()).await;
        browser.wait_for(IS_COMPLETE).await;
        assert_eq!(browser.text("#word").await, word, "{scene:?}");
        let said = browser.text("[role=status]").await;
        assert!(said.contains(sentence), "{scene:?}: {said}");
        for screen in SCREENS {
            browser.set_screen(screen).await;
            let place = format!("{scene:?} on {screen:?}");
            let over = browser
                .eval("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                .await;
            assert_eq!(over, 0, "{place} is wider than the screen");
            if let Some(found) = browser.axe().await {
                assert!(found.is_empty(), "{place}: {found:#?}");
            }
        }
        let complaints = browser.complaints().await;
        assert!(complaints.is_empty(), "{scene:?}: {complaints:#?}");
        let foreign: Vec<_> = browser
            .requests()
            .into_iter()
            .filter(|url| !url.starts_with(&sidecar.url()))
            .collect();
        assert!(foreign.is_empty(), "{scene:?}: {foreign:?}");
    }
}

#[tokio::test]
async fn a_change_is_on_the_screen_within_three_seconds() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let sidecar = Sidecar::start(Scene::Online);
    browser.open(&sidecar.url()).await;
    browser
        .wait_for("document.querySelector('#word').innerText === 'Online'")
        .await;
    sidecar.set(Scene::NoOllama);
    let changed = Instant::now();
    browser
        .wait_for("document.querySelector('#word').innerText === 'Offline'")
        .await;
    let took = changed.elapsed();
    assert!(took < SHOWN_WITHIN, "{took:?}");
}

#[tokio::test]
async fn a_sidecar_that_is_gone_is_told_with_the_time_since_and_comes_back_by_itself() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let mut sidecar = Sidecar::start(Scene::Online);
    browser.open(&sidecar.url()).await;
    browser.wait_for(IS_COMPLETE).await;
    sidecar.stop();
    browser
        .wait_for("document.querySelector('#word').innerText === 'No answer'")
        .await;
    let when = browser.text("#when").await;
    assert!(
        when.starts_with("No answer since ") && when.ends_with(" sec."),
        "{when}"
    );
    // What was known is still there, and it is said that it is old.
    assert!(browser.text("#earned").await.contains('$'));
    assert!(
        browser
            .text("#sentence")
            .await
            .contains("What stands below is of ")
    );
    sidecar.start_again();
    browser
        .wait_for("document.querySelector('#word').innerText === 'Online'")
        .await;
}

#[tokio::test]
async fn a_page_that_nobody_looks_at_asks_for_nothing() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let sidecar = Sidecar::start(Scene::Online);
    browser.open(&sidecar.url()).await;
    browser.wait_for(IS_COMPLETE).await;
    let hide = "Object.defineProperty(document, 'hidden', {get: () => window.away ?? false}); window.away = true";
    browser.eval(hide).await;
    // A round that had begun may end; the next would be two seconds later.
    browser
        .eval("new Promise(done => setTimeout(done, 2500))")
        .await;
    let before = browser.requests().len();
    browser
        .eval("new Promise(done => setTimeout(done, 3000))")
        .await;
    assert_eq!(browser.requests().len(), before);
    browser
        .eval("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
        .await;
    browser
        .eval("new Promise(done => setTimeout(done, 500))")
        .await;
    assert!(browser.requests().len() > before);
}

/// Names and reasons that others choose, as markup.
fn write_markup(status: &mut Shown) {
    const MARKUP: &str = "<img src=x onerror=alert(1)><script>alert(2)</script>";
    status.pending = vec![MARKUP.to_owned(); 2];
    status.warnings = vec![MARKUP.to_owned()];
    status.ready = false;
    status.nodes[0].alias = MARKUP.to_owned();
    status.models[0].name = MARKUP.to_owned();
    status.requests.recent[0].id = MARKUP.to_owned();
    status.hidden.push(HiddenModel {
        name: MARKUP.to_owned(),
        why: MARKUP,
    });
}

#[tokio::test]
async fn markup_in_names_and_sentences_is_shown_as_text() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let sidecar = Sidecar::start(Scene::Online);
    *sidecar.stage.change.lock().unwrap() = write_markup;
    browser.open(&sidecar.url()).await;
    browser.wait_for(IS_COMPLETE).await;
    for place in [
        "#sentence",
        "#reasons",
        "#aliases",
        "#models",
        "#recent",
        "#nodes",
        "#quality",
    ] {
        let text = browser.text(place).await;
        assert!(
            text.contains("<img src=x onerror=alert(1)>"),
            "{place}: {text}"
        );
    }
    assert_eq!(
        browser
            .eval("document.querySelectorAll('img, script:not([src])').length")
            .await,
        0
    );
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test]
async fn what_is_not_known_is_not_zero() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let sidecar = Sidecar::start(Scene::Starting);
    browser.open(&sidecar.url()).await;
    browser.wait_for(IS_COMPLETE).await;
    for place in ["#earned", "#uptime"] {
        let text = browser.text(place).await;
        assert!(text.contains("not known"), "{place}: {text}");
        assert!(
            !text.contains('$') && !text.contains('%'),
            "{place}: {text}"
        );
    }
    assert!(
        browser
            .text("#plot-load")
            .await
            .contains("running: nothing")
    );

    sidecar.set(Scene::Online);
    browser.open(&sidecar.url()).await;
    browser.wait_for(IS_COMPLETE).await;
    let earned = browser.text("#earned").await;
    let month = earned.split("Last 30 days").nth(1).unwrap();
    assert!(month.contains("known since "), "{month}");
    // The gap in the middle of the hour is a gap in the line.
    let pieces = browser
        .eval("document.querySelectorAll('#plot-load polyline.s0').length")
        .await;
    assert_eq!(pieces, 2);
}

#[tokio::test]
async fn without_javascript_the_page_says_where_to_look() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let sidecar = Sidecar::start(Scene::Online);
    browser
        .call(
            "Emulation.setScriptExecutionDisabled",
            serde_json::json!({"value": true}),
        )
        .await;
    browser.open(&sidecar.url()).await;
    let text = browser.text("body").await;
    assert!(
        text.contains("needs JavaScript") && text.contains("/readyz"),
        "{text}"
    );
}

/// Draws them for docs/, where tools/draw-page asks for it.
#[tokio::test]
async fn the_pictures_of_the_documentation_can_be_drawn() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let folder = env::var_os(PICTURES).map_or_else(|| scratch.path().to_owned(), PathBuf::from);
    let sidecar = Sidecar::start(Scene::Working);
    let dark = Screen {
        is_dark: true,
        ..PHONE
    };
    let tall = Screen {
        height: 1_560,
        ..DESK
    };
    for (name, scene, screen) in [
        ("page.png", Scene::Working, tall),
        ("page-phone.png", Scene::NoNetwork, dark),
    ] {
        sidecar.set(scene);
        browser.set_screen(screen).await;
        browser.open(&sidecar.url()).await;
        browser.wait_for(IS_COMPLETE).await;
        draw(&mut browser, &folder.join(name)).await;
    }
}

async fn draw(browser: &mut Browser, picture: &Path) {
    browser.draw(picture).await;
    let bytes = std::fs::metadata(picture).unwrap().len();
    assert!(bytes > 10_000, "{} has {bytes} bytes", picture.display());
}
