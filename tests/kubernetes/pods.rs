//! The pods of a namespace, as Kubernetes tells of them: every state that each has been in.

use std::{process::Stdio, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout},
    sync::watch,
};

use crate::namespace::Namespace;

/// The longest that Kubernetes may take for anything, on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

/// How often something is looked at again that cannot tell by itself.
const POLL: Duration = Duration::from_millis(200);

/// How many of the last states a failure shows.
const SHOWN: usize = 6;

/// A state of a pod.
#[derive(Clone)]
pub(crate) struct Pod {
    /// No other will come.
    pub(crate) is_deleted: bool,
    pub(crate) object: Value,
}

pub(crate) struct Pods {
    states: watch::Receiver<Vec<Arc<Pod>>>,
    _kubectl: Child,
}

impl Pods {
    /// Follows the pods of a namespace until this is dropped.
    pub(crate) fn watch(namespace: &Namespace) -> Self {
        let arguments = [
            "--namespace",
            &namespace.name,
            "get",
            "pods",
            "--watch",
            "--output-watch-events",
            "--output=json",
        ];
        let command = namespace.cluster.command("kubectl", &arguments);
        let mut kubectl = tokio::process::Command::from(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (told, states) = watch::channel(Vec::new());
        tokio::spawn(follow(kubectl.stdout.take().unwrap(), told));
        Self {
            states,
            _kubectl: kubectl,
        }
    }

    /// Waits until `look` finds something in all states so far, the oldest first.
    ///
    /// # Panics
    /// Past [`PATIENCE`], with the last states.
    pub(crate) async fn wait<T>(&self, what: &str, look: impl Fn(&[Arc<Pod>]) -> Option<T>) -> T {
        let mut states = self.states.clone();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(found) = look(&states.borrow_and_update()) {
                    return found;
                }
                states.changed().await.expect("kubectl has ended");
            }
        });
        if let Ok(found) = found.await {
            return found;
        }
        let states = self.states.borrow();
        let last = &states[states.len().saturating_sub(SHOWN)..];
        let last: Vec<String> = last.iter().map(|pod| pod.summary()).collect();
        panic!(
            "waited {PATIENCE:?} for {what}; last seen:\n{}",
            last.join("\n")
        );
    }

    /// Waits until a pod's newest state is right.
    pub(crate) async fn wait_for(&self, what: &str, holds: impl Fn(&Pod) -> bool) -> Arc<Pod> {
        self.wait(what, |states| {
            newest(states).into_iter().find(|pod| holds(pod))
        })
        .await
    }

    /// The pods that there are.
    pub(crate) fn newest(&self) -> Vec<Arc<Pod>> {
        newest(&self.states.borrow())
    }

    /// Waits until a sidecar's pod is ready that is none of those.
    pub(crate) async fn wait_for_ready_agent(&self, not: &[&Pod]) -> Arc<Pod> {
        self.wait_for("a ready pod of the sidecar", |pod| {
            pod.is_agent() && pod.is_ready() && !not.iter().any(|other| other.uid() == pod.uid())
        })
        .await
    }

    /// Waits until a pod is gone; gives all its states.
    pub(crate) async fn wait_for_end(&self, of: &Pod) -> Vec<Arc<Pod>> {
        self.wait("a pod's end", |states| {
            let own = states.iter().filter(|pod| pod.uid() == of.uid());
            let own: Vec<_> = own.cloned().collect();
            own.last()?.is_deleted.then_some(own)
        })
        .await
    }
}

/// The last state of each pod that is there.
fn newest(states: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let mut newest: Vec<Arc<Pod>> = Vec::new();
    for pod in states {
        newest.retain(|other| other.uid() != pod.uid());
        newest.push(Arc::clone(pod));
    }
    newest.retain(|pod| !pod.is_deleted);
    newest
}

/// Each line is an event.
async fn follow(stdout: ChildStdout, told: watch::Sender<Vec<Arc<Pod>>>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut event: Value = serde_json::from_str(&line).unwrap();
        let pod = Pod {
            is_deleted: event["type"] == "DELETED",
            object: event["object"].take(),
        };
        told.send_modify(|states| states.push(Arc::new(pod)));
    }
}

impl Pod {
    pub(crate) fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap()
    }

    pub(crate) fn uid(&self) -> &str {
        self.object["metadata"]["uid"].as_str().unwrap()
    }

    /// Its own address; it must have one.
    pub(crate) fn address(&self) -> &str {
        self.object["status"]["podIP"].as_str().unwrap()
    }

    /// Whether it is of the chart's workload.
    pub(crate) fn is_agent(&self) -> bool {
        self.object["metadata"]["labels"]["app.kubernetes.io/component"] == "agent"
    }

    /// Whether it is ready and stays.
    pub(crate) fn is_ready(&self) -> bool {
        self.object["metadata"]["deletionTimestamp"].is_null() && self.condition("Ready") == "True"
    }

    pub(crate) fn condition(&self, name: &str) -> &str {
        let conditions = self.object["status"]["conditions"].as_array();
        let found = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == name);
        found
            .and_then(|condition| condition["status"].as_str())
            .unwrap_or("Unknown")
    }

    /// What is known of one of its containers; null if nothing is.
    pub(crate) fn container(&self, name: &str) -> &Value {
        ["initContainerStatuses", "containerStatuses"]
            .iter()
            .filter_map(|kind| self.object["status"][kind].as_array())
            .flatten()
            .find(|status| status["name"] == name)
            .unwrap_or(&Value::Null)
    }

    pub(crate) fn restarts(&self, container: &str) -> u64 {
        self.container(container)["restartCount"]
            .as_u64()
            .unwrap_or(0)
    }

    /// The id by which the node knows a container.
    pub(crate) fn container_id(&self, container: &str) -> &str {
        let id = self.container(container)["containerID"].as_str().unwrap();
        id.trim_start_matches("containerd://")
    }

    /// `GET` from the sidecar in it.
    pub(crate) async fn get(&self, path: &str) -> std::io::Result<devnet::http::Answer> {
        devnet::http::get(&format!("http://{}:9464{path}", self.address())).await
    }

    /// Waits until `/readyz` has these words; empty: until it is ready. Gives its last answer.
    pub(crate) async fn wait_until_pending(&self, words: &str) -> String {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let last = match self.get("/readyz").await {
                Ok(answer) if words.is_empty() && answer.status == 200 => return answer.text(),
                Ok(answer) if !words.is_empty() && answer.text().contains(words) => {
                    return answer.text();
                }
                Ok(answer) => answer.text(),
                Err(error) => error.to_string(),
            };
            assert!(
                tokio::time::Instant::now() < deadline,
                "{words:?} never came, but {last}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    fn summary(&self) -> String {
        let status = &self.object["status"];
        format!("{} (deleted: {}): {status}", self.name(), self.is_deleted)
    }
}
