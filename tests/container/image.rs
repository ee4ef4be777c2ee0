//! What the image is: one small file, and what an orchestrator is told about it.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::{
    docker::{IMAGE, docker, inspect},
    lab,
};

const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// All layers' entries, each with its mode, owner, size and name, as tar lists them.
async fn files() -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("image.tar");
    docker(&["save", "--output", saved.to_str().unwrap(), IMAGE]).await;
    let tar = |arguments: &[&str]| {
        let output = Command::new("tar")
            .args(arguments)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    tar(&["-xf", "image.tar"]);
    let manifest = std::fs::read_to_string(dir.path().join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let layers = manifest[0]["Layers"].as_array().unwrap();
    let list = |layer: &Value| tar(&["--numeric-owner", "-tvf", layer.as_str().unwrap()]);
    layers
        .iter()
        .flat_map(|layer| list(layer).lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[tokio::test]
async fn the_image_is_one_executable_file_of_8_mib_at_most() {
    if !lab::enter() {
        return;
    }
    let files = files().await;
    println!("{files:?}");
    let [file] = &files[..] else {
        panic!("one file was promised: {files:?}")
    };
    let columns: Vec<&str> = file.split_whitespace().collect();
    assert_eq!(columns[0], "-rwxr-xr-x");
    assert_eq!(columns[1], "0/0");
    assert!(columns[2].parse::<u64>().unwrap() <= MAX_BYTES, "{file}");
    assert_eq!(*columns.last().unwrap(), "pin-sidecar");
}

#[tokio::test]
async fn the_image_says_what_it_is_and_how_it_is_run() {
    if !lab::enter() {
        return;
    }
    let config = inspect(IMAGE).await["Config"].clone();
    // In numbers, or Kubernetes cannot know that it is not root.
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], json!(["/pin-sidecar"]));
    assert_eq!(config["ExposedPorts"], json!({"9464/tcp": {}}));
    let healthcheck = json!(["CMD", "/pin-sidecar", "healthcheck"]);
    assert_eq!(config["Healthcheck"]["Test"], healthcheck);
    let env = config["Env"].as_array().unwrap();
    assert!(env.contains(&json!("PIN_LISTEN_ADDR=[::]:9464")), "{env:?}");
    let label = |name: &str| config["Labels"][format!("org.opencontainers.image.{name}")].as_str();
    assert_eq!(label("title"), Some("pin-sidecar"));
    assert_eq!(label("version"), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(label("description"), Some(env!("CARGO_PKG_DESCRIPTION")));
    assert_eq!(label("licenses"), Some(env!("CARGO_PKG_LICENSE")));
    for name in ["revision", "created", "source", "documentation"] {
        assert!(label(name).is_some(), "{name}");
    }
}

#[tokio::test]
async fn its_version_is_the_one_that_it_is_labelled_with() {
    if !lab::enter() {
        return;
    }
    let version = docker(&["run", "--rm", IMAGE, "--version"]).await;
    assert_eq!(
        version.trim(),
        concat!("pin-sidecar ", env!("CARGO_PKG_VERSION"))
    );
}
