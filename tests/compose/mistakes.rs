//! What operators get wrong, and what they are told.

use crate::{
    lab::{GENERATIONS, Lab},
    stack::Stack,
};

#[test]
fn without_a_client_id_or_an_alias_compose_says_what_to_do() {
    const WHAT_TO_DO: &str = "copy .env.example to .env and write your client id into it as PIN_CLIENT_ID, \
                              and a name for this machine as PIN_NODE_ALIAS";
    let Some(lab) = Lab::find() else { return };
    for generation in GENERATIONS {
        let stack = Stack::new(lab, generation, "");
        // Which of the two Compose 2 tells first is chance.
        for missing in ["PIN_CLIENT_ID", "PIN_NODE_ALIAS", "both"] {
            if missing != "both" {
                stack.fill_in();
                stack.append(".env", &format!("{missing}="));
            } else {
                std::fs::remove_file(stack.path(".env")).unwrap();
            }
            let told = stack.compose("up -d").stderr;
            assert!(told.contains(WHAT_TO_DO), "{generation}, {missing}: {told}");
        }
        assert_eq!(stack.leftovers(), "", "{generation}");
    }
}

#[test]
fn without_a_model_server_to_ask_compose_says_what_to_write_where() {
    let Some(lab) = Lab::find() else { return };
    for (overlay, what_to_do) in [
        (
            "openai",
            "write into .env the name of a GGUF file in models/ as LLAMA_MODEL",
        ),
        (
            "openai-url",
            "write into .env where your model server is, as PIN_OLLAMA_URL",
        ),
    ] {
        for generation in GENERATIONS {
            let files = format!("-f docker-compose.yml -f deploy/compose/{overlay}.yml");
            let stack = Stack::new(lab, generation, &files);
            stack.fill_in();
            let told = stack.compose("config -q").stderr;
            assert!(told.contains(what_to_do), "{generation}, {overlay}: {told}");
        }
    }
}

#[test]
fn without_the_secret_compose_names_the_file() {
    let Some(lab) = Lab::find() else { return };
    for generation in GENERATIONS {
        let stack = Stack::new(lab, generation, "");
        stack.fill_in();
        std::fs::remove_file(stack.path("secrets/pin_api_secret")).unwrap();
        let said = stack.compose("up -d --no-deps pin-sidecar");
        assert!(!said.success, "{generation}");
        assert!(
            said.stderr.contains("secrets/pin_api_secret"),
            "{generation}: {}",
            said.stderr
        );
    }
}

#[test]
fn a_secret_that_the_sidecar_may_not_read_is_told_with_owner_mode_and_uid() {
    let Some(lab) = Lab::find() else { return };
    for generation in GENERATIONS {
        let stack = Stack::new(lab, generation, "");
        stack.fill_in();
        stack.put_secret(0, 0o600);
        stack.compose_well("up -d --no-deps pin-sidecar");
        let log = stack.wait_for_log("/run/secrets/pin_api_secret: Permission denied");
        assert!(
            log.contains("(owner uid 0, mode 0600; this process: uid 65532)"),
            "{generation}: {log}"
        );
    }
}

#[test]
fn a_setting_that_is_misspelt_in_env_is_told() {
    let Some(lab) = Lab::find() else { return };
    for generation in GENERATIONS {
        let stack = Stack::new(lab, generation, "");
        stack.fill_in();
        stack.append(".env", "PIN_REGOIN=us-east");
        stack.compose_well("up -d --no-deps pin-sidecar");
        stack.wait_for_log("PIN_REGOIN: there is no such setting; the nearest is PIN_REGION");
    }
}

#[test]
fn a_wrong_secret_is_told_as_one() {
    let Some(lab) = Lab::find() else { return };
    let stack = Stack::demo(lab, "v2", "");
    // It comes before the file.
    stack.append("deploy/compose/demo/demo.env", "PIN_API_SECRET=wrong");
    stack.compose_well("up -d");
    stack.wait_until_pending("The gateway refused the login");
    stack.wait_for_log("Invalid signature");
}

#[test]
fn an_ollama_without_models_is_told_as_one() {
    let Some(lab) = Lab::find() else { return };
    let stack = Stack::demo(lab, "v2", "").with("DEMO_MODEL", "");
    stack.compose_well("up -d");
    stack.wait_until_ready();
    stack.compose_well("exec -T ollama ollama rm tiny");
    stack.wait_until_pending("Ollama has no model");
}

#[test]
fn a_port_that_is_taken_is_told_by_its_number() {
    let Some(lab) = Lab::find() else { return };
    let first = Stack::demo(lab, "v2", "");
    first.compose_well("up -d --no-deps pin-sidecar");
    for generation in GENERATIONS {
        let second = Stack::demo(lab, generation, "").at_the_port_of(&first);
        let said = second.compose("up -d --no-deps pin-sidecar");
        assert!(!said.success, "{generation}");
        assert!(
            said.stderr.contains("port is already allocated"),
            "{generation}: {}",
            said.stderr
        );
    }
}
