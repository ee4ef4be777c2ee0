//! The secret's file as Compose mounts it: with the owner and the mode that it has on the host.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::{
    docker::Container,
    lab,
    node::{gateway, ollama, sidecar},
    support::SECRET,
};

const MOUNTED: &str = "/run/secrets/pin_api_secret";

/// A file of root's with the secret and this mode.
fn secret(dir: &Path, mode: u32) -> String {
    let file = dir.join("pin_api_secret");
    fs::write(&file, SECRET).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    format!("{}:{MOUNTED}:ro", file.display())
}

async fn with_secret(mount: &str, gateway: &str, ollama: &str) -> Container {
    let settings = [("PIN_SERVER_URL", gateway), ("PIN_OLLAMA_URL", ollama)];
    sidecar(&["--volume", mount], &settings).await
}

#[tokio::test]
async fn a_secret_that_only_root_can_read_is_told_with_owner_mode_and_uid() {
    if !lab::enter() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = secret(dir.path(), 0o600);
    let container = with_secret(&mount, "ws://10.243.0.1:1/", "http://10.243.0.1:1").await;
    assert_eq!(container.exit_code().await, 78);
    let log = container.log().await;
    for word in [
        MOUNTED,
        "Permission denied",
        "owner uid 0",
        "mode 0600",
        "uid 65532",
    ] {
        assert!(log.contains(word), "{word} is not in {log}");
    }
    assert!(!log.contains(SECRET), "{log}");
}

#[tokio::test]
async fn a_secret_that_its_user_can_read_is_logged_in_with() {
    if !lab::enter() {
        return;
    }
    let (gateway, ollama) = (gateway().await, ollama().await);
    let dir = tempfile::tempdir().unwrap();
    let mount = secret(dir.path(), 0o444);
    let container = with_secret(&mount, &gateway.url(), &ollama.url()).await;
    container.wait_until_pending("").await;
}
