//! What docs/docker.md says of Compose, with the real `docker compose` 2 and docker-compose 1.29 on a real Docker engine: each
//! stack in a copy of the repository's files, under a project name and on ports of its own, and gone afterwards.
//!
//! These tests run where `DOCKER_LAB` names the script that has an engine (see CONTRIBUTING.md), and as root.

#![allow(clippy::unwrap_used, missing_docs)]

// The first in the alphabet, so that everything else is done while it waits.
mod alerts;
mod demo;
mod files;
mod host_ollama;
mod lab;
mod mistakes;
mod stack;
mod token;
