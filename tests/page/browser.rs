//! A real Chromium without a window, driven by its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/).
//!
//! Invariant: what the browser complains of is kept, and one browser runs at a time, so that tests do not wait for each
//! other's.

use std::{
    env, fs,
    path::Path,
    process::{Command as Program, Stdio},
    time::Duration,
};

use async_tungstenite::{
    WebSocketStream,
    tokio::{TokioAdapter, client_async},
    tungstenite::Message,
};
use data_encoding::BASE64;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    sync::{Mutex, MutexGuard},
    time::timeout,
};

/// No step takes that long unless it fails: it is for a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(40);

const PROGRAM: &str = "chromium";

/// Where axe-core is, the one file of the npm package.
const AXE: &str = "AXE_CORE";

/// By this name a browser of these tests reaches this machine, as by the name of a proxy.
pub const FOREIGN_NAME: &str = "gpu.example";

/// A violation of the CSP becomes a complaint that says of what.
const WATCH_CSP: &str = "addEventListener('securitypolicyviolation', e => console.error(`CSP: ${e.violatedDirective} ${e.blockedURI}`))";

static TURN: Mutex<()> = Mutex::const_new(());

/// A screen, in CSS pixels.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    pub width: u32,
    pub height: u32,
    /// Whether the user wants it dark.
    pub is_dark: bool,
}

/// The smallest telephone, and a desk.
pub const SCREENS: [Screen; 4] = [
    PHONE,
    Screen {
        is_dark: true,
        ..PHONE
    },
    DESK,
    Screen {
        is_dark: true,
        ..DESK
    },
];
pub const PHONE: Screen = Screen {
    width: 320,
    height: 640,
    is_dark: false,
};
pub const DESK: Screen = Screen {
    width: 1280,
    height: 800,
    is_dark: false,
};

/// A browser with one tab.
pub struct Browser {
    socket: WebSocketStream<TokioAdapter<TcpStream>>,
    session: String,
    calls: u64,
    events: Vec<Value>,
    _process: Child,
    _profile: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts it; `None`, told, where there is none on this machine.
    pub async fn start() -> Option<Self> {
        let is_there = Program::new(PROGRAM)
            .arg("--version")
            .stderr(Stdio::null())
            .output();
        if is_there.is_err() {
            devnet::skip_without(PROGRAM);
            return None;
        }
        let turn = TURN.lock().await;
        let profile = tempfile::tempdir().unwrap();
        let mut process = Command::new(PROGRAM)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--ignore-certificate-errors",
            ])
            .args([
                "--lang=en-US",
                "--force-color-profile=srgb",
                "--remote-debugging-port=0",
            ])
            .arg(format!(
                "--host-resolver-rules=MAP {FOREIGN_NAME} 127.0.0.1"
            ))
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("TZ", "UTC")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let url = timeout(PATIENCE, async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(url) = line.strip_prefix("DevTools listening on ") {
                    return url.to_owned();
                }
            }
            panic!("Chromium has ended");
        });
        let url = url.await.unwrap();
        // Read on, so that it never waits for its log.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let host = url.trim_start_matches("ws://").split('/').next().unwrap();
        let stream = TcpStream::connect(host).await.unwrap();
        let (socket, _) = client_async(&url, stream).await.unwrap();
        let mut browser = Self {
            socket,
            session: String::new(),
            calls: 0,
            events: Vec::new(),
            _process: process,
            _profile: profile,
            _turn: turn,
        };
        browser.new_tab().await;
        Some(browser)
    }

    async fn new_tab(&mut self) {
        let target = self
            .call("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.call("Target.attachToTarget", attach).await;
        attached["sessionId"]
            .as_str()
            .unwrap()
            .clone_into(&mut self.session);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({})).await;
        }
        self.call(
            "Page.addScriptToEvaluateOnNewDocument",
            json!({"source": WATCH_CSP}),
        )
        .await;
        self.call("Emulation.setScrollbarsHidden", json!({"hidden": true}))
            .await;
        self.call(
            "Emulation.setFocusEmulationEnabled",
            json!({"enabled": true}),
        )
        .await;
    }

    /// Asks the browser for something, and waits until it is done.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut call = json!({"id": self.calls, "method": method, "params": params});
        if !self.session.is_empty() {
            call["sessionId"] = self.session.clone().into();
        }
        self.socket
            .send(Message::text(call.to_string()))
            .await
            .unwrap();
        loop {
            let answer = self.next_message().await;
            if answer["id"] == self.calls {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    async fn next_message(&mut self) -> Value {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.unwrap();
            if let Message::Text(text) = message.unwrap().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    pub async fn set_screen(&mut self, screen: Screen) {
        let Screen {
            width,
            height,
            is_dark,
        } = screen;
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", metrics)
            .await;
        let theme = if is_dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// Opens a page, and waits until it has loaded.
    pub async fn open(&mut self, url: &str) {
        self.events.clear();
        self.call("Page.navigate", json!({"url": url})).await;
        while !self
            .events
            .iter()
            .any(|event| event["method"] == "Page.loadEventFired")
        {
            let event = self.next_message().await;
            self.events.push(event);
        }
    }

    /// What an expression of JavaScript, or its promise, gives.
    pub async fn eval(&mut self, expression: &str) -> Value {
        self.eval_in(json!({"expression": expression})).await
    }

    async fn eval_in(&mut self, mut question: Value) -> Value {
        question["awaitPromise"] = true.into();
        question["returnByValue"] = true.into();
        let answer = self.call("Runtime.evaluate", question).await;
        let trouble = &answer["exceptionDetails"];
        assert!(trouble.is_null(), "{trouble}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub async fn wait_for(&mut self, condition: &str) {
        let patience = PATIENCE.as_millis() / 2;
        let held = self
            .eval(&format!(
                "new Promise(done => {{ const end = Date.now() + {patience}; \
                 const look = () => {{ if ({condition}) done(true); else if (Date.now() > end) done(false); else setTimeout(look, 30) }}; \
                 look() }})"
            ))
            .await;
        let text = self.text("body").await;
        assert_eq!(held, true, "never: {condition}\n{text}");
    }

    /// What of an element can be read.
    pub async fn text(&mut self, selector: &str) -> String {
        let text = self
            .eval(&format!(
                "document.querySelector({})?.innerText ?? ''",
                json!(selector)
            ))
            .await;
        text.as_str().unwrap().to_owned()
    }

    /// Clicks on the button that says this.
    pub async fn click(&mut self, label: &str) {
        let label = json!(label);
        let button = format!(
            "[...document.querySelectorAll('button')].find(one => one.innerText === {label})"
        );
        self.wait_for(&button).await;
        self.eval(&format!("{button}.click()")).await;
    }

    /// Strikes a key, as `Tab` or `Enter`.
    pub async fn strike(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "ArrowLeft" => (37, ""),
            _ => panic!("{key} has no code here"),
        };
        let key = |kind| json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
        self.call("Input.dispatchKeyEvent", key("keyDown")).await;
        self.call("Input.dispatchKeyEvent", key("keyUp")).await;
    }

    /// Types into what has the focus.
    pub async fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Requests of the tab since it was opened.
    pub fn requests(&self) -> Vec<String> {
        let sent = self
            .events
            .iter()
            .filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.map(|event| {
            event["params"]["request"]["url"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect()
    }

    /// Errors and warnings in the console, scripts that failed, and violations of the CSP.
    pub async fn complaints(&mut self) -> Vec<String> {
        // What was said before this answer is here with it.
        self.eval("0").await;
        let told = self.events.iter().filter(|event| {
            let params = &event["params"];
            match event["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                Some("Runtime.consoleAPICalled") => {
                    params["type"] == "error" || params["type"] == "warning"
                }
                Some("Log.entryAdded") => params["entry"]["level"] != "verbose",
                _ => false,
            }
        });
        told.map(|event| event["params"].to_string()).collect()
    }

    /// What axe-core finds; `None`, told, where it is not on this machine.
    pub async fn axe(&mut self) -> Option<Vec<String>> {
        let Some(script) = env::var_os(AXE) else {
            devnet::skip_without("axe-core (AXE_CORE)");
            return None;
        };
        let frame = self.call("Page.getFrameTree", json!({})).await;
        let frame = &frame["frameTree"]["frame"]["id"];
        // In a world of its own, to which the page's CSP does not apply; it is the same one for the same page.
        let place = json!({"frameId": frame, "worldName": "axe"});
        let world = self.call("Page.createIsolatedWorld", place).await;
        let world = &world["executionContextId"];
        let ask = |expression: &str| json!({"expression": expression, "contextId": world});
        if self.eval_in(ask("typeof axe")).await == "undefined" {
            let load = fs::read_to_string(script).unwrap() + "; 0";
            self.eval_in(ask(&load)).await;
        }
        let run = "axe.run({resultTypes: ['violations']}).then(({violations}) => violations.flatMap( \
             ({id, nodes}) => nodes.map(node => `${id}: ${node.html.slice(0, 200)}`)))";
        let found = self.eval_in(ask(run)).await;
        Some(serde_json::from_value(found).unwrap())
    }

    /// Draws what is on the screen.
    pub async fn draw(&mut self, picture: &Path) {
        let shot = self
            .call("Page.captureScreenshot", json!({"format": "png"}))
            .await;
        let png = BASE64
            .decode(shot["data"].as_str().unwrap().as_bytes())
            .unwrap();
        fs::write(picture, png).unwrap();
    }
}
