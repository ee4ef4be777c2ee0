//! The engine that the tests have: it is up, the image is there, and the test that asked is in its network.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    os::fd::AsFd as _,
    process::{Command, Stdio},
    sync::OnceLock,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::docker::IMAGE;

/// Where containers reach what a test has opened.
pub(crate) const ADDRESS: &str = "10.243.0.1";

/// Takes the calling thread, and with it a test on tokio's current-thread runtime, into the network of the lab's
/// containers. False where there is no lab: then the test has said so and is to return.
pub(crate) fn enter() -> bool {
    let Some(script) = std::env::var_os("DOCKER_LAB") else {
        devnet::skip_without("a Docker engine (DOCKER_LAB)");
        return false;
    };
    let lab = lab(&script);
    let network = File::open(&lab["DOCKER_LAB_NETWORK"]).unwrap();
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    true
}

/// The engine's address, for `DOCKER_HOST`.
pub(crate) fn engine() -> &'static str {
    &LAB.get().expect("tests enter the lab first")["DOCKER_HOST"]
}

/// Has the lab make a base image.
pub(crate) fn make_image(name: &str) {
    tell(&std::env::var_os("DOCKER_LAB").unwrap(), &["image", name]);
}

static LAB: OnceLock<HashMap<String, String>> = OnceLock::new();

/// What the script says of itself, once it is up and has the image.
fn lab(script: &OsStr) -> &'static HashMap<String, String> {
    LAB.get_or_init(|| {
        tell(script, &["up"]);
        let lab = read(&tell(script, &["env"]));
        build_image_if_missing(script, &lab["DOCKER_HOST"]);
        lab
    })
}

/// `export NAME=VALUE` in each line.
fn read(env: &str) -> HashMap<String, String> {
    env.lines()
        .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// For those who run the tests alone. What is there is taken as it is: it may be older than the sources.
fn build_image_if_missing(script: &OsStr, engine: &str) {
    let docker = |arguments: &[&str]| {
        Command::new("docker")
            .args(arguments)
            .envs([("DOCKER_HOST", engine), ("DOCKER_BUILDKIT", "0")])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    if docker(&["image", "inspect", IMAGE]).status.success() {
        return;
    }
    tell(script, &["image", "rust"]);
    let built = docker(&["build", "--quiet", "--tag", IMAGE, "."]);
    let told = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "the image cannot be built: {told}");
}

/// Runs the script; gives its standard output.
fn tell(script: &OsStr, arguments: &[&str]) -> String {
    let output = Command::new("bash")
        .arg(script)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}
