//! The agent that runs beside Ollama and serves its models to the PIN network.

mod label;
