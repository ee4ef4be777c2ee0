//! What the pages about Kubernetes say that can be looked up. That their links lead somewhere is looked at in `tests/docs`.

use crate::{support::Net, tools::read};

/// How many series a scrape gives: those of models, and the others.
async fn series(net: &Net) -> (usize, usize) {
    let (_, metrics) = net.sidecar.get("/metrics").await;
    let series = metrics.lines().filter(|line| !line.starts_with('#'));
    let (of_models, others): (Vec<_>, Vec<_>) = series.partition(|line| line.contains("model=\""));
    (of_models.len(), others.len())
}

#[tokio::test]
async fn a_pod_has_as_many_series_as_the_page_about_scale_says() {
    let net = Net::start(&[]).await;
    let (each_model, idle) = series(&net).await;
    net.chat("one").outcome().await.result();
    net.sidecar
        .wait_for_metric("undelivered_results", |undelivered| undelivered == 0.0)
        .await;
    assert_eq!(series(&net).await, (each_model, idle), "a chat adds none");
    let said = format!("{idle} series, and {each_model} for each model that is offered");
    let page = read("deploy/SCALE.md");
    assert!(page.contains(&said), "SCALE.md must say: {said}");
}
