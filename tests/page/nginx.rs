//! The page behind a real nginx that ends TLS, as docs/http-and-exit-codes.md says, and behind one that is set up wrongly.
//! Where nginx is not installed these tests say so and pass, unless `FORBID_SKIPS` is set.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    browser::{Browser, FOREIGN_NAME},
    buttons::{HAS_FORM, bring, word_is},
    scenes::Scene,
    sidecar::{Sidecar, TOKEN},
};

/// What the page of the documentation has in its `location`, after `proxy_pass`.
const AS_DOCUMENTED: &str = "proxy_set_header Host $host:$server_port;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";

/// What many have: nothing. Then nginx names the sidecar by its address, and says of nobody from where he comes.
const NOTHING: &str = "";

/// A running nginx, of the test's own user; it ends when this is dropped.
struct Nginx {
    addr: SocketAddr,
    process: Child,
    _folder: TempDir,
    /// Bound and never listening: it keeps the port from everybody who wants any.
    _port: TcpSocket,
}

impl Nginx {
    /// One in front of a sidecar, with these lines; `None` where there is no such program.
    async fn start(sidecar: &Sidecar, passed_on: &str) -> Option<Self> {
        let version = Command::new("nginx")
            .arg("-v")
            .stderr(Stdio::null())
            .status();
        if version.is_err() {
            devnet::skip_without("nginx");
            return None;
        }
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseaddr(true).unwrap();
        port.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = port.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed([FOREIGN_NAME.to_owned()]).unwrap();
        fs::write(folder.path().join("chain.pem"), made.cert.pem()).unwrap();
        let key = made.signing_key.serialize_pem();
        fs::write(folder.path().join("key.pem"), key).unwrap();
        let file = folder.path().join("nginx.conf");
        fs::write(&file, configuration(addr, sidecar.addr, passed_on)).unwrap();
        let process = Command::new("nginx")
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(file)
            .args(["-e", "stderr"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self {
            addr,
            process,
            _folder: folder,
            _port: port,
        };
        nginx.wait_until_it_listens().await;
        Some(nginx)
    }

    /// It cannot tell when it does.
    async fn wait_until_it_listens(&self) {
        let listening = async {
            while TcpStream::connect(self.addr).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(devnet::PATIENCE, listening).await;
        waited.expect("nginx does not listen");
    }

    fn url(&self) -> String {
        format!("https://{FOREIGN_NAME}:{}/", self.addr.port())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(addr: SocketAddr, sidecar: SocketAddr, passed_on: &str) -> String {
    let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {name};\n"))
        .concat();
    format!(
        "daemon off;
master_process off;
pid nginx.pid;
events {{}}
http {{
  access_log off;
  {folders}
  server {{
    listen {addr} ssl;
    ssl_certificate chain.pem;
    ssl_certificate_key key.pem;
    location / {{
    proxy_pass http://{sidecar};
    {passed_on}
    }}
  }}
}}
"
    )
}

/// What the page in the tab gets for a request that its author did not think of.
async fn answered(browser: &mut Browser, path: &str, options: &Value) -> u64 {
    let path = json!(path);
    let asked = format!("fetch({path}, {options}).then(answer => answer.status)");
    browser.eval(&asked).await.as_u64().unwrap()
}

fn post(headers: &Value) -> Value {
    json!({"method": "POST", "headers": headers})
}

#[tokio::test]
async fn behind_nginx_with_tls_the_token_is_asked_for_once_and_opens_the_buttons() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let sidecar = Sidecar::with_token(Scene::Online);
    let Some(nginx) = Nginx::start(&sidecar, AS_DOCUMENTED).await else {
        return;
    };
    browser.open(&nginx.url()).await;
    browser.wait_for(&word_is("Locked")).await;
    assert!(!browser.text("body").await.contains("gpu-attic"));
    bring(&mut browser, TOKEN).await;
    browser.click("2 hr").await;
    browser.wait_for(&word_is("Paused")).await;
    // The tab keeps it.
    browser.open(&nginx.url()).await;
    browser.click("Resume now").await;
    browser.wait_for(&word_is("Online")).await;
    assert_eq!(browser.eval(HAS_FORM).await, false);
    assert_eq!(sidecar.verbs(), ["pause 7200", "connect"]);
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test]
async fn behind_nginx_whoever_says_that_he_is_of_this_machine_is_not_believed() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let sidecar = Sidecar::with_token(Scene::Online);
    for passed_on in [AS_DOCUMENTED, NOTHING] {
        let Some(nginx) = Nginx::start(&sidecar, passed_on).await else {
            return;
        };
        browser.open(&nginx.url()).await;
        for forged in [
            json!({}),
            json!({"X-Forwarded-For": "127.0.0.1"}),
            json!({"Forwarded": "for=127.0.0.1"}),
            json!({"X-Forwarded-For": "127.0.0.1", "Authorization": "Bearer wrong"}),
        ] {
            for path in [
                "/session/disconnect",
                "/session/connect",
                "/check",
                "/drain",
            ] {
                let status = answered(&mut browser, path, &post(&forged)).await;
                assert_eq!(status, 401, "{path}, {forged}, {passed_on:?}");
            }
        }
        assert_eq!(sidecar.verbs(), [""; 0]);
    }
}

#[tokio::test]
async fn behind_an_nginx_that_hides_the_name_the_page_asks_for_the_token_when_a_button_needs_it() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let sidecar = Sidecar::with_token(Scene::Online);
    let Some(nginx) = Nginx::start(&sidecar, NOTHING).await else {
        return;
    };
    browser.open(&nginx.url()).await;
    browser.click("1 hr").await;
    bring(&mut browser, "wrong").await;
    browser.click("1 hr").await;
    browser
        .wait_for(
            "document.querySelector('#controls').innerText.includes('That is not the token.')",
        )
        .await;
    bring(&mut browser, TOKEN).await;
    browser.click("1 hr").await;
    browser.wait_for(&word_is("Paused")).await;
    assert_eq!(sidecar.verbs(), ["pause 3600"]);
}
