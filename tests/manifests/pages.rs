//! What the pages about Kubernetes say that can be looked up.

use crate::{
    support::Net,
    tools::{read, repository},
};

/// The targets of a page's links that are files of the repository.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split_once(')'));
    targets
        .map(|(target, _)| target.split('#').next().unwrap_or(target))
        .filter(|target| !target.is_empty() && !target.contains("://"))
}

#[test]
fn every_file_that_the_pages_link_to_is_there() {
    for (directory, page) in [("deploy/kubernetes", "README.md"), ("deploy", "SCALE.md")] {
        let text = read(&format!("{directory}/{page}"));
        assert!(links(&text).count() > 2, "{page}");
        for link in links(&text) {
            let file = repository(directory).join(link);
            assert!(file.exists(), "{page} links to {link}");
        }
    }
}

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
