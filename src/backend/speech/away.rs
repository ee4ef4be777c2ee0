//! Which answers to a look show that a speech server cannot be used, and what the operator is told of it.
//!
//! Invariant: an answer that may just mean that there is no list, or that one request fails, shows that the server is there.

use crate::{backend::away::Way, transport::http::HttpError};

/// Whether an answer with this status is that of somebody who leads elsewhere, lets nobody in, or stands before a server that
/// is away.
pub(super) fn keeps_out(status: u16) -> bool {
    matches!(status, 300..=399 | 401 | 403 | 502..=504)
}

/// Why nothing is offered, and what to do.
pub(super) fn why(error: &HttpError, way: &Way) -> String {
    let setting = way.setting;
    match error {
        HttpError::Status(status @ 300..=399) => format!(
            "The speech server answers HTTP {status}, a redirect. {}",
            way.not_followed()
        ),
        HttpError::Status(status @ (401 | 403)) => {
            let helps = if way.has_password {
                format!("correct the user and password in {setting}")
            } else {
                format!(
                    "write a user and password into {setting} (http://user:password@host) if it wants them"
                )
            };
            format!(
                "The speech server refuses the sidecar (HTTP {status}): {helps}, or have it, or a proxy before it, let this \
                 machine in."
            )
        }
        HttpError::Status(status @ (502 | 504)) => format!(
            "The speech server is not ready (HTTP {status}). {}",
            way.not_reached()
        ),
        HttpError::Status(status) => format!(
            "The speech server is not ready (HTTP {status}): it may be loading its model. Its log says more."
        ),
        HttpError::Dial(_)
        | HttpError::Broken
        | HttpError::NotHttp(_)
        | HttpError::Encoded(_)
        | HttpError::Unexpected
        | HttpError::TooLarge
        | HttpError::Silent(_) => way.silent("The speech server does not answer", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_whether_a_password_is_wrong_or_missing() {
        for status in [401, 403] {
            for (has_password, helps) in [
                (true, "correct the user and password in PIN_TTS_URL"),
                (false, "write a user and password into PIN_TTS_URL"),
            ] {
                let way = Way {
                    setting: "PIN_TTS_URL",
                    is_encrypted: false,
                    has_password,
                };
                let told = why(&HttpError::Status(status), &way);
                let began = format!("The speech server refuses the sidecar (HTTP {status}): ");
                assert!(told.starts_with(&began) && told.contains(helps), "{told}");
            }
        }
    }
}
