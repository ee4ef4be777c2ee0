//! A namespace of a test's own, which goes away with it. Of a test that fails it tells first what was in it.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::{cluster::Cluster, support::SECRET};

/// The Secret that holds the API secret, and where it holds it.
pub(crate) const ACCOUNT: &str = "account";
pub(crate) const KEY: &str = "pin_api_secret";

pub(crate) struct Namespace {
    pub(crate) cluster: &'static Cluster,
    pub(crate) name: String,
}

impl Namespace {
    /// One with these labels and the API secret in it.
    pub(crate) async fn create(cluster: &'static Cluster, labels: Value) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pin-test-{}-{n}", std::process::id());
        let namespace = Self { cluster, name };
        let (name, labels) = (&namespace.name, &labels);
        let objects = [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": ACCOUNT, "namespace": name},
                "stringData": {KEY: SECRET}}),
        ];
        namespace.create_objects(&objects).await;
        // Pods are refused until it has one, which is a moment later.
        namespace
            .kubectl("wait --for=create serviceaccount/default --timeout=120s")
            .await;
        namespace
    }

    /// `kubectl` in it, with arguments that have no blanks.
    pub(crate) async fn kubectl(&self, arguments: &str) -> String {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        self.kubectl_with(&arguments, "").await
    }

    /// `kubectl` in it, with input.
    pub(crate) async fn kubectl_with(&self, arguments: &[&str], input: &str) -> String {
        let all = [&["--namespace", &self.name], arguments].concat();
        self.cluster.run("kubectl", &all, input).await
    }

    pub(crate) async fn create_objects(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.cluster
            .run("kubectl", &["create", "-f", "-"], &list.to_string())
            .await;
    }

    /// `helm` in it, with these values if it takes any.
    pub(crate) async fn helm(&self, arguments: &str, values: Option<&Value>) -> String {
        let mut all: Vec<&str> = arguments.split_whitespace().collect();
        all.extend(["--namespace", &self.name]);
        if values.is_some() {
            all.extend(["--values", "-"]);
        }
        let values = values.map(Value::to_string).unwrap_or_default();
        self.cluster.run("helm", &all, &values).await
    }

    fn tell(&self, arguments: &[&str]) {
        let all = [&["--namespace", &self.name], arguments].concat();
        if let Ok(output) = self.cluster.command("kubectl", &all).output() {
            let said = [output.stdout, output.stderr].concat();
            eprintln!("kubectl {arguments:?}\n{}", String::from_utf8_lossy(&said));
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell(&["get", "pods", "--output=wide"]);
            self.tell(&["get", "events"]);
            self.tell(&[
                "logs",
                "--selector=app.kubernetes.io/name",
                "--all-containers",
                "--prefix",
                "--tail=30",
            ]);
        }
        let gone = ["delete", "namespace", &self.name, "--wait=false"];
        // A failure of the test's own says more than one of this.
        let _ = self.cluster.command("kubectl", &gone).output();
    }
}
