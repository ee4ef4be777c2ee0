//! Asks a sidecar whether it is healthy: for HEALTHCHECK in an image that has no shell, and `helm test`.
//!
//! Invariant: it ends within three seconds, and what it prints of an answer is a few plain sentences.

use std::time::Duration;

use hyper::Method;
use serde::Deserialize;

use super::client::{ClientError, Question, Response, Target, ask};

/// Container engines give a check a few seconds.
const TIME_LIMIT: Duration = Duration::from_secs(3);

/// Why the check did not pass.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// There is no answer.
    #[error(transparent)]
    Asking(#[from] ClientError),
    /// The answer says no.
    #[error("HTTP {status} from {place}{}", sentences(.pending))]
    Refused {
        /// Who was asked.
        place: String,
        /// The answer's status.
        status: u16,
        /// What it waits for, where it says.
        pending: Vec<String>,
    },
}

fn sentences(pending: &[String]) -> String {
    pending
        .iter()
        .map(|sentence| format!("\n- {}", sentence.replace(char::is_control, " ")))
        .collect()
}

/// Asks whether the target is alive, or with `ready` whether it is ready. Blocks, so it must not be called from
/// asynchronous code.
///
/// # Errors
/// Any answer but 200, and none within three seconds.
pub fn healthcheck(target: &Target, ready: bool) -> Result<(), HealthcheckError> {
    #[derive(Default, Deserialize)]
    struct Answer {
        #[serde(default)]
        pending: Vec<String>,
    }
    let question = Question {
        method: Method::GET,
        path: if ready { "/readyz" } else { "/healthz" },
        token: None,
        limit: TIME_LIMIT,
    };
    let Response {
        place,
        status,
        body,
    } = ask(target, &question)?;
    if status == 200 {
        return Ok(());
    }
    let answer: Answer = serde_json::from_slice(&body).unwrap_or_default();
    Err(HealthcheckError::Refused {
        place,
        status,
        pending: answer.pending,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{Ipv6Addr, SocketAddr, TcpListener},
        thread,
    };

    use super::*;

    /// Answers one request with these bytes; gives the address and, at the end, what was asked.
    fn answering(bytes: &'static str) -> (SocketAddr, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            stream.write_all(bytes.as_bytes()).unwrap();
            String::from_utf8(head).unwrap()
        });
        (addr, asked)
    }

    #[test]
    fn an_address_for_everybody_is_asked_on_loopback() {
        let (addr, asked) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        let own = SocketAddr::from((Ipv6Addr::UNSPECIFIED, addr.port()));
        assert!(healthcheck(&Target::Own(own), false).is_ok());
        assert!(
            asked
                .join()
                .unwrap()
                .starts_with("GET /healthz HTTP/1.1\r\n")
        );
    }

    #[test]
    fn a_sidecar_that_is_not_ready_says_what_it_waits_for() {
        let (addr, asked) = answering(
            "HTTP/1.1 503 Service Unavailable\r\ntransfer-encoding: chunked\r\n\r\n\
             37\r\n{\"ready\":false,\"pending\":[\"Ollama does\\u001b answer.\"]}\r\n0\r\n\r\n",
        );
        let error = healthcheck(&Target::Url(format!("http://{addr}/")), true).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("HTTP 503 from {addr}\n- Ollama does  answer.")
        );
        assert!(
            asked
                .join()
                .unwrap()
                .starts_with("GET /readyz HTTP/1.1\r\n")
        );
    }

    #[test]
    fn a_path_that_is_given_is_asked() {
        let (addr, asked) = answering("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        let error = healthcheck(&Target::Url(format!("http://{addr}/a?b=c")), true).unwrap_err();
        assert!(
            matches!(error, HealthcheckError::Refused { status: 404, .. }),
            "{error}"
        );
        assert!(asked.join().unwrap().starts_with("GET /a?b=c HTTP/1.1\r\n"));
    }

    #[test]
    fn nobody_there_and_no_http_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = listener.local_addr().unwrap();
        drop(listener);
        let error = healthcheck(&Target::Own(nobody), false).unwrap_err();
        assert!(
            matches!(error, HealthcheckError::Asking(ClientError::Connect(..))),
            "{error}"
        );
        let (addr, asked) = answering("SSH-2.0-OpenSSH_9.6\r\n\r\n");
        let error = healthcheck(&Target::Own(addr), false).unwrap_err();
        assert!(
            matches!(error, HealthcheckError::Asking(ClientError::Http(_, _))),
            "{error}"
        );
        asked.join().unwrap();
    }

    #[test]
    fn a_name_without_an_address_is_told() {
        let target = Target::Url("http://pin-sidecar.invalid:9464".to_owned());
        let error = healthcheck(&target, false).unwrap_err();
        assert!(
            matches!(error, HealthcheckError::Asking(ClientError::Name(..))),
            "{error}"
        );
        let words = "no connection to pin-sidecar.invalid:9464: its name cannot be resolved";
        assert!(error.to_string().starts_with(words), "{error}");
    }

    #[test]
    fn a_url_that_needs_tls_or_has_a_password_is_refused() {
        for url in [
            "https://localhost:9464",
            "localhost:9464",
            "http://",
            "http://user:password@localhost",
        ] {
            let error = healthcheck(&Target::Url(url.to_owned()), false).unwrap_err();
            assert!(
                matches!(error, HealthcheckError::Asking(ClientError::Url)),
                "{url}: {error}"
            );
        }
    }
}
