//! What the operator is told of a server that a look brings nothing of, where that is no dialect's own matter.
//!
//! Invariant: a status is an answer, and whoever gives one is not said to be silent.

use crate::transport::http::HttpError;

/// What leads to a server.
pub(super) struct Way {
    /// The setting that has its URL.
    pub(super) setting: &'static str,
    /// Whether it is asked by TLS.
    pub(super) is_encrypted: bool,
}

impl Way {
    /// Why it does not answer, and what to do. `begun`: the sentence that says so, up to its reason.
    pub(super) fn silent(&self, begun: &str, error: &HttpError) -> String {
        let setting = self.setting;
        let helps = match error {
            // A port for TLS hangs up on HTTP, or answers with an alert.
            HttpError::Broken | HttpError::NotHttp(_) => self.maybe_tls(),
            // One for HTTP may wait for the end of what TLS begins with, longer than the whole look may take.
            HttpError::Silent(_) if self.is_encrypted => "; check whether TLS is spoken there",
            HttpError::Dial(_)
            | HttpError::Encoded(_)
            | HttpError::Status(_)
            | HttpError::Unexpected
            | HttpError::TooLarge
            | HttpError::Silent(_) => "",
        };
        format!("{begun}: {error}. Start it, or correct {setting}{helps}.")
    }

    /// What it answers where its models should be listed, and what to do. `name`: what the sentence begins with.
    pub(super) fn odd_status(&self, name: &str, status: u16) -> String {
        let setting = self.setting;
        let helps = match status {
            300..400 => format!(
                "Redirects are not followed: {setting} must name the server itself, with https:// if that is what it wants."
            ),
            _ => {
                // So Go and nginx answer HTTP where they speak TLS.
                let helps = if status == 400 { self.maybe_tls() } else { "" };
                format!(
                    "Its log says more. Correct {setting} if another server answers there{helps}."
                )
            }
        };
        format!("{name} answers HTTP {status} instead of its list of models. {helps}")
    }

    /// What it answers chats with as if it served none, and what to do. `path`: where chats are sent.
    pub(super) fn no_chats(&self, name: &str, path: &str, status: u16) -> String {
        let setting = self.setting;
        let (came, helps) = match status {
            200 => (
                "a page of HTML".to_owned(),
                "What is between it and the sidecar may want a login, or be out of service; ",
            ),
            300..400 => (format!("HTTP {status}"), "Redirects are not followed; "),
            _ => (format!("HTTP {status}"), ""),
        };
        format!(
            "{name} answers chats ({path}) with {came}, so that no model is offered. {helps}{setting} must name the server itself."
        )
    }

    fn maybe_tls(&self) -> &'static str {
        if self.is_encrypted {
            ""
        } else {
            "; if TLS is spoken there, write https://"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(is_encrypted: bool) -> Way {
        Way {
            setting: "PIN_OLLAMA_URL",
            is_encrypted,
        }
    }

    #[test]
    fn a_server_that_answers_is_not_said_to_be_silent() {
        for status in [302, 400, 429, 500, 502] {
            let told = way(false).odd_status("Ollama", status);
            let began = format!("Ollama answers HTTP {status} instead of its list of models. ");
            assert!(told.starts_with(&began), "{told}");
            assert!(told.contains("PIN_OLLAMA_URL"), "{told}");
            assert!(!told.contains("Start it"), "{told}");
            assert_eq!(told.contains("not followed"), status == 302, "{told}");
        }
    }

    #[test]
    fn a_port_that_may_want_tls_or_none_is_told_as_such_where_the_other_was_spoken() {
        let broken = [
            HttpError::Broken,
            HttpError::NotHttp("invalid HTTP version parsed".to_owned()),
        ];
        for is_encrypted in [false, true] {
            let way = way(is_encrypted);
            let mut sentences = broken
                .each_ref()
                .map(|error| way.silent("It is away", error))
                .to_vec();
            sentences.push(way.odd_status("It", 400));
            for told in sentences {
                let is_told = told.ends_with("; if TLS is spoken there, write https://.");
                assert_ne!(is_told, is_encrypted, "{told}");
            }
        }
        let silent = HttpError::Silent(std::time::Duration::from_secs(10));
        for is_encrypted in [false, true] {
            let told = way(is_encrypted).silent("It is away", &silent);
            let is_told = told.ends_with("; check whether TLS is spoken there.");
            assert_eq!(is_told, is_encrypted, "{told}");
        }
    }
}
