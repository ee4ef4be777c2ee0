//! What the operator is told of a server that a look brings nothing of, and of what answers in a server's place, where that is
//! no dialect's own matter.
//!
//! Invariant: a status is an answer, and whoever gives one is not said to be silent. Whoever is there is not to be started.

use super::AskError;
use crate::transport::{
    DialError, Step,
    http::{HttpClient, HttpError},
};

/// What leads to a server.
pub(super) struct Way {
    /// The setting that has its URL.
    pub(super) setting: &'static str,
    /// Whether it is asked by TLS.
    pub(super) is_encrypted: bool,
    /// Whether it is asked with a user and password, which the same setting has.
    pub(super) has_password: bool,
}

impl Way {
    /// The one that a client goes whose URL is in this setting.
    pub(super) fn of(setting: &'static str, client: &HttpClient) -> Self {
        Self {
            setting,
            is_encrypted: client.is_encrypted(),
            has_password: client.has_password(),
        }
    }

    /// Why it does not answer, and what to do. `begun`: the sentence that says so, up to its reason.
    pub(super) fn silent(&self, begun: &str, error: &HttpError) -> String {
        let setting = self.setting;
        let start = "Start it, or correct";
        let (correct, helps) = match error {
            // The error has what helps.
            HttpError::Dial(
                DialError::Tls(_)
                | DialError::Timeout {
                    step: Step::Tls, ..
                },
            ) => ("Do that, or correct", " if another server is meant"),
            HttpError::Encoded(_) => (
                "Have what stands before it pass its answers on as they are, or correct",
                "",
            ),
            HttpError::TooLarge | HttpError::Unexpected | HttpError::Status(_) => {
                ("Correct", " if another server is meant")
            }
            // A port for TLS hangs up on HTTP, or answers with an alert.
            HttpError::Broken => (start, self.maybe_tls()),
            HttpError::NotHttp(_) => ("Correct", self.maybe_tls()),
            // One for HTTP may wait for the end of what TLS begins with, longer than the whole look may take.
            HttpError::Silent(_) if self.is_encrypted => {
                (start, "; check whether TLS is spoken there")
            }
            HttpError::Dial(_) | HttpError::Silent(_) => (start, ""),
        };
        format!("{begun}: {error}. {correct} {setting}{helps}.")
    }

    /// That we are refused (401, 403), and what to do. `begun`: the sentence up to its status; `key`: the key that may be
    /// wanted.
    pub(super) fn refused(&self, begun: &str, status: u16, key: &str) -> String {
        let setting = self.setting;
        // A proxy that keeps a machine out says so whatever it was asked with.
        let may_keep_out = status == 403;
        let helps = if self.has_password {
            let (or_closed, or_open) = if may_keep_out {
                (", or a proxy keeps this machine out", ", or have it let in")
            } else {
                ("", "")
            };
            format!(
                "it does not take the user and password in {setting}{or_closed}. Correct them there{or_open}; if a key is \
                 wanted, take them out and set PIN_BACKEND_API_KEY_FILE."
            )
        } else {
            let or_open = if may_keep_out {
                ", or have this machine let in if a proxy keeps it out"
            } else {
                ""
            };
            format!(
                "set PIN_BACKEND_API_KEY or PIN_BACKEND_API_KEY_FILE to {key}{or_open}, or correct {setting}, where a user and \
                 password would stand."
            )
        };
        format!("{begun} (HTTP {status}): {helps}")
    }

    /// What it answers where its models should be listed, and what to do. `name`: what the sentence begins with.
    pub(super) fn odd_status(&self, name: &str, status: u16) -> String {
        let setting = self.setting;
        let helps = match status {
            300..400 => self.not_followed(),
            502 | 504 => self.not_reached(),
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

    /// What came of a chat that no model server says, and what to do; `None` where it may be one that has said it. `path`:
    /// where chats go.
    pub(super) fn odd_answer(&self, path: &str, error: &AskError) -> Option<String> {
        let setting = self.setting;
        let as_they_are = || {
            format!(
                "Have what stands before the server pass its answers on as they are, or correct {setting}."
            )
        };
        let helps = match error {
            AskError::Http(HttpError::Encoded(_)) => as_they_are(),
            AskError::Refused {
                status,
                is_its_own: false,
                ..
            } => match status {
                200 => as_they_are(),
                300..400 => format!(
                    "{} A proxy before it must let chats pass without a page for a login.",
                    self.not_followed()
                ),
                404 | 405 | 501 => format!(
                    "Correct {setting}, or have what stands before the server pass POST on to it."
                ),
                502 | 504 => format!(
                    "{} The proxy must wait for longer than a model takes to load (nginx: proxy_read_timeout).",
                    self.not_reached()
                ),
                _ => return None,
            },
            AskError::Http(_) | AskError::Refused { .. } => return None,
        };
        let came = error.to_string();
        Some(format!(
            "What came from {path} is no model server's own answer ({came}). {helps}"
        ))
    }

    pub(super) fn not_followed(&self) -> String {
        format!(
            "Redirects are not followed: {} must name the server itself, with https:// if that is what it wants.",
            self.setting
        )
    }

    pub(super) fn not_reached(&self) -> String {
        format!(
            "A proxy before the server has no answer from it: see that the server runs and that the proxy leads to it, or \
             correct {}.",
            self.setting
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
            has_password: false,
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
    fn a_server_that_refuses_us_is_told_with_what_it_was_asked_with_and_where_that_stands() {
        let refused = |has_password, status| {
            let way = Way {
                has_password,
                ..way(false)
            };
            way.refused("It refuses the sidecar", status, "its key")
        };
        for status in [401, 403] {
            let began = format!("It refuses the sidecar (HTTP {status}): ");
            let with_password = refused(true, status);
            assert!(with_password.starts_with(&began), "{with_password}");
            let words = "does not take the user and password in PIN_OLLAMA_URL";
            assert!(with_password.contains(words), "{with_password}");
            // To set a key beside them is a startup error.
            assert!(with_password.contains("take them out"), "{with_password}");
            let without = refused(false, status);
            let words = "set PIN_BACKEND_API_KEY or PIN_BACKEND_API_KEY_FILE to its key";
            assert!(without.starts_with(&format!("{began}{words}")), "{without}");
            for told in [with_password, without] {
                let is_told = told.contains("let in") && told.contains("a proxy keeps");
                assert_eq!(is_told, status == 403, "{told}");
            }
        }
    }

    #[test]
    fn a_server_whose_tls_fails_is_not_to_be_started() {
        let tls = || DialError::Tls("its certificate has expired; have it renewed".to_owned());
        let slow = || DialError::Timeout {
            step: Step::Tls,
            limit: std::time::Duration::from_secs(10),
        };
        for error in [tls(), slow()] {
            let words = error.to_string();
            let told = way(true).silent("It does not answer", &error.into());
            let rest = "Do that, or correct PIN_OLLAMA_URL if another server is meant.";
            assert_eq!(told, format!("It does not answer: {words}. {rest}"));
        }
        let refused = way(true).silent("It does not answer", &DialError::Refused.into());
        assert!(
            refused.ends_with(". Start it, or correct PIN_OLLAMA_URL."),
            "{refused}"
        );
    }

    #[test]
    fn what_no_model_server_says_of_a_chat_is_told_with_its_path_and_what_helps() {
        let odd = |error: &AskError| way(false).odd_answer("/v1/chat", error);
        let refused = |status, is_its_own| AskError::Refused {
            status,
            words: format!("HTTP {status}"),
            is_its_own,
        };
        for (status, helps) in [
            (302, "Redirects are not followed: PIN_OLLAMA_URL must"),
            (404, "Correct PIN_OLLAMA_URL"),
            (405, "pass POST on to it"),
            (502, "see that the server runs"),
            (504, "proxy_read_timeout"),
            (200, "pass its answers on as they are"),
        ] {
            let told = odd(&refused(status, false)).unwrap_or_default();
            let came = format!(
                "What came from /v1/chat is no model server's own answer (HTTP {status}). "
            );
            assert!(told.starts_with(&came), "{told}");
            assert!(told.contains(helps), "{told}");
            assert_eq!(odd(&refused(status, true)), None, "{status} in its words");
        }
        let gzip = odd(&HttpError::Encoded("gzip".to_owned()).into()).unwrap_or_default();
        assert!(gzip.contains("(its answer came encoded (gzip)"), "{gzip}");
        // These a model server may give without a word.
        for status in [400, 429, 500, 503] {
            assert_eq!(odd(&refused(status, false)), None, "{status}");
        }
        assert_eq!(odd(&HttpError::Broken.into()), None);
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
