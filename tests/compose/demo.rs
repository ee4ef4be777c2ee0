//! The demo, word by word, and what happens when parts of it are killed.

use crate::{
    lab::{GENERATIONS, Lab, wait_for},
    stack::{READY_LIMIT, Stack},
};

#[test]
fn the_demo_survives_the_death_of_each_part_with_compose_1() {
    survives("v1");
}

#[test]
fn the_demo_survives_the_death_of_each_part_with_compose_2() {
    survives("v2");
}

fn survives(generation: &'static str) {
    let Some(lab) = Lab::find() else { return };
    let stack = Stack::demo(lab, generation, "");
    stack.compose_well("up -d");
    stack.wait_until_ready();
    stack.chat().unwrap();
    for service in ["ollama", "gateway", "pin-sidecar"] {
        kill(&stack, service);
        stack.wait_until_ready();
        // The sidecar may not have noticed yet.
        wait_for("a chat that goes through", READY_LIMIT, || stack.chat());
    }
    let log = stack.compose_well("logs pin-sidecar");
    assert!(!log.contains("sky blue"), "a prompt is in the log");
    stack.compose_well("down -v");
    assert_eq!(stack.leftovers(), "");
}

/// Ends a service's process, as lack of memory would. `docker kill` is not that: the engine takes it for somebody's wish.
fn kill(stack: &Stack, service: &str) {
    let pid = stack.fact(service, "{{.State.Pid}}");
    let killed = stack
        .lab
        .docker(&format!("run --rm --pid host busybox:1.37 kill -9 {pid}"));
    assert!(killed.success, "{service}: {}", killed.stderr);
    wait_for(
        &format!("{service} to be back"),
        READY_LIMIT,
        || match stack
            .fact(service, "{{.RestartCount}},{{.State.Running}}")
            .as_str()
        {
            "1,true" => Ok(()),
            seen => Err(seen.to_owned()),
        },
    );
}

#[test]
fn the_sidecar_drains_when_the_stack_is_stopped() {
    let Some(lab) = Lab::find() else { return };
    let stack = Stack::demo(lab, "v2", "");
    stack.compose_well("up -d");
    stack.wait_until_ready();
    stack.chat().unwrap();
    stack.compose_well("stop pin-sidecar");
    assert_eq!(stack.fact("pin-sidecar", "{{.State.ExitCode}}"), "0");
}

#[test]
fn both_generations_build_the_images() {
    let Some(lab) = Lab::find() else { return };
    for generation in GENERATIONS {
        lab.build(generation);
    }
}
