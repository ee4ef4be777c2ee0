//! The two generations of agents that a gateway may speak to.

/// Which dialect of the protocol this client id speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The desktop client: says what it serves with `MODEL_LIST`, gives results in Ollama's own shape.
    Desktop,
    /// The operator daemon: registers nodes, gives results in OpenAI's shape.
    Operator,
}

impl Generation {
    /// The generation that a client id's prefix tells: `pin_` or `op_`.
    pub fn of_client_id(client_id: &str) -> Option<Self> {
        if client_id.starts_with("pin_") {
            Some(Self::Desktop)
        } else if client_id.starts_with("op_") {
            Some(Self::Operator)
        } else {
            None
        }
    }
}
