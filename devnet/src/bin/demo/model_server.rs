//! The Ollama that answers: the stand-in, or a real one that is there already.

use std::time::Duration;

use devnet::{
    http,
    ollama::{ModelShape, Ollama},
};
use serde_json::json;

use crate::{Options, Trouble};

/// The model of the stand-in.
const MODEL: &str = "llama3.2:latest";

/// As fast as a good GPU speaks with a model of this size.
const TOKEN_DELAY: Duration = Duration::from_millis(25);

const LOAD_DELAY: Duration = Duration::from_millis(400);

const DEFAULT_PORT: u16 = 11434;

pub(crate) struct ModelServer {
    pub(crate) url: String,
    pub(crate) model: String,
    pub(crate) stand_in: Option<Ollama>,
}

impl ModelServer {
    /// The one that was asked for, or the stand-in.
    pub(crate) async fn find(options: &Options) -> Result<Self, Trouble> {
        let host = std::env::var("OLLAMA_HOST")
            .ok()
            .filter(|host| !host.trim().is_empty());
        match options.ollama.clone().or(host) {
            Some(host) => Self::real(&base_url(&host)?, options.model.as_deref()).await,
            None => Self::stand_in(options.model.as_deref().unwrap_or(MODEL)).await,
        }
    }

    pub(crate) fn description(&self) -> String {
        let Self {
            url,
            model,
            stand_in,
        } = self;
        match stand_in {
            Some(_) => format!("{url}, a stand-in that repeats what it is asked"),
            None => format!("{url}, model {model}"),
        }
    }

    async fn stand_in(model: &str) -> Result<Self, Trouble> {
        let builder = Ollama::builder().model(model, ModelShape::default());
        let started = builder
            .token_delay(TOKEN_DELAY)
            .load_delay(LOAD_DELAY)
            .start()
            .await;
        let ollama = started
            .map_err(|error| format!("the Ollama stand-in found no port on 127.0.0.1: {error}"))?;
        Ok(Self {
            url: ollama.url(),
            model: model.to_owned(),
            stand_in: Some(ollama),
        })
    }

    async fn real(url: &str, wanted: Option<&str>) -> Result<Self, Trouble> {
        let unreachable = |error| {
            format!(
                "no Ollama answers at {url} ({error}): start it, or leave out --ollama and OLLAMA_HOST for a stand-in"
            )
        };
        let tags = http::get(&format!("{url}/api/tags"))
            .await
            .map_err(unreachable)?
            .json();
        let tags = tags["models"]
            .as_array()
            .ok_or_else(|| format!("what answers at {url} is not an Ollama"))?;
        let names: Vec<&str> = tags.iter().filter_map(|tag| tag["name"].as_str()).collect();
        let model = match wanted {
            Some(wanted) => named(&names, wanted),
            None => first_that_chats(url, &names).await,
        };
        let model = model.ok_or_else(|| match wanted {
            Some(wanted) => format!(
                "the Ollama at {url} has no model {wanted}: run `ollama pull {wanted}` first"
            ),
            None => format!(
                "the Ollama at {url} has no model that can chat: run `ollama pull llama3.2` first"
            ),
        })?;
        Ok(Self {
            url: url.to_owned(),
            model,
            stand_in: None,
        })
    }
}

fn named(names: &[&str], wanted: &str) -> Option<String> {
    let tagged = format!("{wanted}:latest");
    let mut names = names.iter();
    names
        .find(|name| name.eq_ignore_ascii_case(wanted) || name.eq_ignore_ascii_case(&tagged))
        .map(ToString::to_string)
}

/// Embedding models cannot chat, and one in somebody's cloud is not offered.
async fn first_that_chats(url: &str, names: &[&str]) -> Option<String> {
    for name in names {
        let Ok(show) = http::post(
            &format!("{url}/api/show"),
            json!({"model": name}).to_string(),
        )
        .await
        else {
            continue;
        };
        let show = show.json();
        let chats = show["capabilities"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one == "completion"));
        if chats && show["remote_host"].is_null() {
            return Some((*name).to_owned());
        }
    }
    None
}

/// `OLLAMA_HOST` may be a host, a host with a port, or a URL; as an address to listen on it means this machine.
fn base_url(host: &str) -> Result<String, Trouble> {
    let host = host.trim().trim_end_matches('/');
    let host = host.strip_prefix("http://").unwrap_or(host);
    if host.contains("://") {
        return Err(format!(
            "the demo speaks plain http to Ollama, which {host} is not: give it as http://host:port"
        ));
    }
    let authority: http::Authority = host
        .parse()
        .map_err(|_| format!("{host:?} is not the address of an Ollama"))?;
    let name = match authority.host() {
        "0.0.0.0" | "[::]" => "127.0.0.1",
        name => name,
    };
    Ok(format!(
        "http://{name}:{}",
        authority.port_u16().unwrap_or(DEFAULT_PORT)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ollama_host_is_understood_in_every_form_that_ollama_takes() {
        for (host, url) in [
            ("localhost", "http://localhost:11434"),
            ("0.0.0.0", "http://127.0.0.1:11434"),
            ("10.0.0.7:1234", "http://10.0.0.7:1234"),
            ("http://gpu.local:8080/", "http://gpu.local:8080"),
            ("[::]:5000", "http://127.0.0.1:5000"),
            ("[::1]", "http://[::1]:11434"),
        ] {
            assert_eq!(base_url(host).as_deref(), Ok(url));
        }
        assert!(base_url("https://gpu.example").is_err());
        assert!(base_url("not a host").is_err());
    }
}
