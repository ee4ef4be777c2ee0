//! The keyring against a real one: GNOME Keyring on a session bus of its own, in a home of its own. Where these
//! programs are not installed the test says so and passes, unless `FORBID_SKIPS` is set.

#![cfg(feature = "keyring")]
#![allow(clippy::unwrap_used)]

use std::{
    env,
    io::Write as _,
    process::{Command, Stdio},
};

use pin_sidecar::secret::{SecretSource, keyring};
use secrecy::{ExposeSecret as _, SecretString};

/// Set for the process that runs on the bus.
const ON_THE_BUS: &str = "KEYRING_TEST_ON_THE_BUS";

/// Starts a keyring that is unlocked with some password, then runs a test again beside it.
const SESSION: &str = r#"printf password | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1
exec "$0" --exact "$1" --nocapture"#;

const SIDECAR: &str = env!("CARGO_BIN_EXE_pin-sidecar");

#[test]
fn a_secret_that_the_desktop_client_stored_is_found() {
    on_a_bus(
        "a_secret_that_the_desktop_client_stored_is_found",
        share_the_keyring,
    );
}

#[test]
fn the_command_line_stores_and_deletes_the_secret() {
    on_a_bus(
        "the_command_line_stores_and_deletes_the_secret",
        use_the_command_line,
    );
}

/// Runs the body of the test of this name where there is a keyring.
fn on_a_bus(name: &str, body: fn()) {
    if env::var_os(ON_THE_BUS).is_some() {
        return body();
    }
    if let Some(missing) = ["dbus-run-session", "gnome-keyring-daemon", "secret-tool"]
        .into_iter()
        .find(|p| !runs(p))
    {
        return devnet::skip_without(missing);
    }
    let home = tempfile::tempdir().unwrap();
    let status = Command::new("dbus-run-session")
        .args(["--", "sh", "-c", SESSION])
        .arg(env::current_exe().unwrap())
        .arg(name)
        .env(ON_THE_BUS, "1")
        .env("HOME", home.path())
        .env("XDG_RUNTIME_DIR", home.path())
        .env_remove("XDG_DATA_HOME")
        .status()
        .unwrap();
    assert!(status.success(), "on the bus: {status}");
}

fn runs(program: &str) -> bool {
    let version = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok()
}

fn share_the_keyring() {
    let id = "op_desktop";
    let read = || {
        SecretSource::Keyring {
            client_id: id.to_owned(),
        }
        .read()
    };
    let told = read().unwrap_err().to_string();
    assert!(
        told.contains("no secret for op_desktop (service pin-client)"),
        "{told}"
    );

    // As the desktop client does, through version 3 of the keyring crate.
    let desktop = [
        "service",
        "pin-client",
        "username",
        id,
        "target",
        "default",
        "application",
        "rust-keyring",
    ];
    store(&desktop, "from the desktop");
    assert_eq!(read().unwrap().expose_secret(), "from the desktop");

    // What we change, the desktop client sees, and the other way round.
    keyring::set(id, &SecretString::from("changed here")).unwrap();
    assert_eq!(look_up(&desktop), "changed here");
    assert_eq!(read().unwrap().expose_secret(), "changed here");

    // A second entry by hand: which of the two is meant cannot be told, until one is set for both.
    let by_hand = ["service", "pin-client", "username", id];
    store(
        &["service", "pin-client", "username", id, "note", "by hand"],
        "by hand",
    );
    let told = read().unwrap_err().to_string();
    assert!(
        told.contains("several secrets") && !told.contains("by hand"),
        "{told}"
    );
    keyring::set(id, &SecretString::from("one for both")).unwrap();
    assert_eq!(read().unwrap().expose_secret(), "one for both");

    keyring::delete(id).unwrap();
    assert!(read().is_err());
    assert_eq!(look_up(&by_hand), "");
    assert!(keyring::delete(id).is_err());

    keyring::set(id, &SecretString::from("new")).unwrap();
    assert_eq!(look_up(&by_hand), "new");
    assert!(read().is_ok());
    assert!(
        SecretSource::Keyring {
            client_id: "op_other".to_owned()
        }
        .read()
        .is_err()
    );
}

fn use_the_command_line() {
    let kept = ["service", "pin-client", "username", "op_cli"];
    let (code, told) = secret(&["set"], "s3cret\n");
    assert_eq!((code, told.as_str()), (Some(0), ""));
    assert_eq!(look_up(&kept), "s3cret");

    let (code, told) = secret(&["set"], "\n");
    assert_eq!(code, Some(1));
    assert!(told.contains("standard input"), "{told}");
    assert_eq!(look_up(&kept), "s3cret", "what was there is kept");

    assert_eq!(secret(&["delete"], "").0, Some(0));
    assert_eq!(look_up(&kept), "");
    let (code, told) = secret(&["delete"], "");
    assert_eq!(code, Some(1));
    assert!(told.contains("op_cli"), "{told}");

    let nobody = Command::new(SIDECAR)
        .args(["secret", "delete"])
        .env_remove("PIN_CLIENT_ID")
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(78));
}

/// `pin-sidecar secret …`: its exit code and what it said.
fn secret(arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let mut sidecar = Command::new(SIDECAR)
        .arg("secret")
        .args(arguments)
        .env("PIN_CLIENT_ID", "op_cli")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may not want to read all of it.
    let _ = sidecar.stdin.take().unwrap().write_all(input.as_bytes());
    let output = sidecar.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), told)
}

fn store(attributes: &[&str], secret: &str) {
    let mut tool = Command::new("secret-tool")
        .args(["store", "--label=test"])
        .args(attributes)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    tool.stdin
        .take()
        .unwrap()
        .write_all(secret.as_bytes())
        .unwrap();
    assert!(tool.wait().unwrap().success());
}

fn look_up(attributes: &[&str]) -> String {
    let found = Command::new("secret-tool")
        .arg("lookup")
        .args(attributes)
        .output()
        .unwrap();
    String::from_utf8(found.stdout).unwrap()
}
