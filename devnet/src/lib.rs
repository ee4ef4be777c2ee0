//! A PIN gateway and an Ollama for development.
