//! Behind Docker's published port, where everybody comes from elsewhere: what can be seen, what needs the token, and what
//! an operator does in the container instead, which has no shell.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use devnet::http::{self, Answer};
use serde_json::Value;

use crate::{
    docker::{Container, docker},
    lab,
    node::Node,
};

const PUBLISHED: [&str; 2] = ["--publish", "127.0.0.1::9464"];
const TOKEN: &str = "right-token";
const MOUNTED: &str = "/run/secrets/pin_admin_token";

/// Where the host has the container's port.
async fn address(container: &Container) -> String {
    let told = docker(&["port", container.name(), "9464/tcp"]).await;
    format!("http://{}", told.lines().next().unwrap())
}

async fn status(address: &str) -> Value {
    let answer = http::get(&format!("{address}/status")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn disconnect(address: &str, headers: &[(&str, &str)]) -> Answer {
    let url = format!("{address}/session/disconnect?for=2h");
    http::post_with(&url, headers, "").await.unwrap()
}

/// Runs the sidecar's own program in the container; it must end with 0.
async fn exec(container: &Container, arguments: &[&str]) -> String {
    let command = [&["/pin-sidecar"], arguments].concat();
    let output = container.exec(&command).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

/// The token as a file that everybody may read, mounted.
fn token(folder: &Path) -> String {
    let file = folder.join("pin_admin_token");
    fs::write(&file, TOKEN).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    format!("{}:{MOUNTED}:ro", file.display())
}

#[tokio::test]
async fn through_the_published_port_all_is_seen_and_a_pause_is_refused_with_the_setting_that_allows_it()
 {
    if !lab::enter() {
        return;
    }
    let node = Node::start(&PUBLISHED, &[]).await;
    let address = address(&node.container).await;
    let page = http::get(&format!("{address}/")).await.unwrap();
    assert_eq!(page.status, 200);
    let status = status(&address).await;
    assert_eq!(status["ready"], true, "{status}");
    let may = &status["may"];
    assert_eq!(
        (&may["command"], &may["token"]),
        (&false.into(), &false.into())
    );
    let why = may["why"].as_str().unwrap();
    assert!(why.contains("PIN_ADMIN_TOKEN_FILE"), "{why}");

    let refused = disconnect(&address, &[]).await;
    assert_eq!((refused.status, refused.text().trim()), (403, why.trim()));
    let forged = disconnect(&address, &[("x-forwarded-for", "127.0.0.1")]).await;
    assert_eq!(forged.status, 403);
    node.container.wait_until_pending("").await;
}

#[tokio::test]
async fn through_the_published_port_the_token_of_a_file_pauses_and_resumes() {
    if !lab::enter() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = token(folder.path());
    let options = [&PUBLISHED[..], &["--volume", &mount]].concat();
    let node = Node::start(&options, &[("PIN_ADMIN_TOKEN_FILE", MOUNTED)]).await;
    let address = address(&node.container).await;
    let may = &status(&address).await["may"];
    assert_eq!(
        (&may["command"], &may["token"]),
        (&false.into(), &true.into())
    );

    assert_eq!(disconnect(&address, &[]).await.status, 401);
    let right = [("authorization", "Bearer right-token")];
    let paused = disconnect(&address, &right).await;
    assert_eq!(
        (paused.status, &paused.json()["paused"]),
        (200, &true.into())
    );
    assert!(!status(&address).await["pause"].is_null());
    let connect = format!("{address}/session/connect");
    let resumed = http::post_with(&connect, &right, "").await.unwrap();
    assert!([200, 202].contains(&resumed.status), "{}", resumed.text());
    node.container.wait_until_pending("").await;
}

#[tokio::test]
async fn in_the_published_container_pause_status_resume_and_check_need_neither_shell_nor_token() {
    if !lab::enter() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = token(folder.path());
    let with_token = ["--volume", &mount];
    for (options, settings) in [
        (&[][..], &[][..]),
        (&with_token[..], &[("PIN_ADMIN_TOKEN_FILE", MOUNTED)][..]),
    ] {
        let node = Node::start(&[&PUBLISHED[..], options].concat(), settings).await;
        exec(&node.container, &["pause", "--for", "2h"]).await;
        let address = address(&node.container).await;
        assert!(!status(&address).await["pause"]["until"].is_null());
        exec(&node.container, &["resume"]).await;
        node.container.wait_until_pending("").await;
        let told = exec(&node.container, &["status"]).await;
        assert!(told.contains("Online"), "{told}");
        let told = exec(&node.container, &["check", "--offline"]).await;
        assert!(told.contains("Nothing failed."), "{told}");
    }
}
