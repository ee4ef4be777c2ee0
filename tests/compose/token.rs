//! The token for the page's buttons, as docs/docker.md has operators set it.

use crate::{
    lab::{GENERATIONS, Lab},
    stack::Stack,
};

#[test]
fn with_the_overlay_the_token_pauses_through_the_published_port_and_nothing_else_does() {
    let Some(lab) = Lab::find() else { return };
    for generation in GENERATIONS {
        let stack = Stack::new(lab, generation, "");
        stack.fill_in();
        stack.put_token("right-token");
        stack.append(
            ".env",
            "COMPOSE_FILE=docker-compose.yml:deploy/compose/admin-token.yml",
        );
        stack.compose_well("up -d --no-deps pin-sidecar");
        // Whatever the reasons.
        stack.wait_until_pending("");
        let pause = stack.url("pin-sidecar", "/session/disconnect?for=1h");
        let post = |token: &str| {
            let header = format!("Authorization: Bearer {token}");
            lab.curl(["-X", "POST", "-H", &header, &pause]).stdout
        };
        let refused = post("wrong-token");
        assert!(refused.contains("not the token"), "{generation}: {refused}");
        let paused = post("right-token");
        assert!(paused.contains("\"paused\":true"), "{generation}: {paused}");
        let said = stack.compose_well("exec -T pin-sidecar /pin-sidecar resume");
        assert!(!said.is_empty(), "{generation}");
        assert!(
            !stack
                .compose_well("logs pin-sidecar")
                .contains("right-token")
        );
    }
}
