//! What the documentation says that can be looked up: its links lead somewhere, its tables of settings are the program's,
//! and the words that it quotes are said.

#![allow(clippy::unwrap_used, missing_docs)]

mod links;
mod markdown;
mod pages;
mod repository;
mod settings;
mod sources;
mod troubleshooting;
