//! What the pages about Kubernetes say that can be looked up. That their links lead somewhere is looked at in `tests/docs`.

use crate::{support::Net, tools::read};

/// How many series a scrape gives.
async fn series(net: &Net) -> usize {
    let (_, metrics) = net.sidecar.get("/metrics").await;
    metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .count()
}

#[tokio::test]
async fn a_pod_has_as_many_series_as_the_page_about_scale_says() {
    let net = Net::start(&[]).await;
    let idle = series(&net).await;
    net.chat("one").outcome().await.result();
    net.sidecar
        .wait_for_metric("undelivered_results", |undelivered| undelivered == 0.0)
        .await;
    let each_model = series(&net).await - idle;
    let said = format!("{idle} series, and {each_model} for each model that has been asked");
    let page = read("deploy/SCALE.md");
    assert!(page.contains(&said), "SCALE.md must say: {said}");
}
