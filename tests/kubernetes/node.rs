//! What can be done to a container from its machine, which Kubernetes does not offer.
//!
//! The node's processes are also this machine's, under numbers of its own.

use std::{fs, path::PathBuf, process::Stdio};

use crate::pods::Pod;

/// Sends a signal to a container's first process, and to none that Kubernetes may be running in it just now.
pub(crate) async fn signal(pod: &Pod, container: &str, signal: &str) {
    let pid = first_process(pod, container).to_string();
    let mut kill = tokio::process::Command::new("kill");
    kill.args(["-s", signal, &pid]);
    assert!(kill.status().await.unwrap().success());
}

/// Lets a container run out of its memory, and the kernel choose its first process for it. What takes the memory is in the
/// container's group and in nothing else of it; it ends by itself, and takes less than the limit.
pub(crate) async fn run_out_of_memory(pod: &Pod, container: &str, mib: usize) {
    let first = first_process(pod, container);
    fs::write(format!("/proc/{first}/oom_score_adj"), "1000").unwrap();
    let eater = r#"echo $$ >"$0/cgroup.procs"
        head -c "$1" /dev/zero | tail >/dev/null"#;
    let mut sh = tokio::process::Command::new("sh");
    sh.args(["-euc", eater])
        .arg(memory_group(first))
        .arg(format!("{mib}M"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    // It may be ended together with the container.
    let _ = sh.status().await.unwrap();
}

/// Whether a container has a file or directory, by its path from the root.
pub(crate) fn has_file(pod: &Pod, container: &str, path: &str) -> bool {
    let pid = first_process(pod, container);
    PathBuf::from(format!("/proc/{pid}/root/{path}")).exists()
}

/// The one in the group that is named after the container, which is 1 in there.
fn first_process(pod: &Pod, container: &str) -> u32 {
    let id = pod.container_id(container);
    let is_in = |pid: &u32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        groups.contains(id)
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let first = pids.find(|pid| is_in(pid) && is_first(*pid));
    first.unwrap_or_else(|| panic!("{container} has no process"))
}

/// Whether a process is the first in its container.
fn is_first(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| numbers.split_whitespace().next_back() == Some("1"))
}

/// The directory of a process' memory limit, in either version of control groups.
fn memory_group(pid: u32) -> PathBuf {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let first = groups
        .lines()
        .find_map(|line| Some(("memory", line.split_once(":memory:")?.1)));
    let second = || {
        groups
            .lines()
            .find_map(|line| Some(("", line.strip_prefix("0::")?)))
    };
    let (controller, path) = first.or_else(second).unwrap();
    PathBuf::from(format!("/sys/fs/cgroup/{controller}{path}"))
}
