//! An Ollama outside of Compose.

use crate::{
    lab::{GENERATIONS, Lab, wait_for},
    stack::{READY_LIMIT, Stack},
};

/// A container in the engine machine's own network, which is as good as no container; it goes away with this.
struct HostOllama(&'static Lab);

const NAME: &str = "test-host-ollama";

impl HostOllama {
    fn start(lab: &'static Lab) -> Self {
        let run = format!("run -d --name {NAME} --network host ollama/ollama:0.17.4");
        let started = lab.docker(&run);
        let ollama = Self(lab);
        assert!(started.success, "{}", started.stderr);
        ollama
    }
}

impl Drop for HostOllama {
    fn drop(&mut self) {
        self.0.docker(&format!("rm -f -v {NAME}"));
    }
}

#[test]
fn an_ollama_on_the_host_answers_and_none_runs_in_compose() {
    let Some(lab) = Lab::find() else { return };
    let _ollama = HostOllama::start(lab);
    for generation in GENERATIONS {
        let stack = Stack::demo(lab, generation, "-f deploy/compose/host-ollama.yml");
        stack.compose_well("up -d");
        stack.wait_until_ready();
        wait_for("a chat that goes through", READY_LIMIT, || stack.chat());
        assert_eq!(stack.container("ollama"), "", "{generation}");
        stack.compose_well("down -v");
        assert_eq!(stack.leftovers(), "", "{generation}");
    }
}
