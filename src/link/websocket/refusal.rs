//! A no to the upgrade: whose it is, and what is to be done about it.
//!
//! 401 and 403 are the gateway's no to this operator, mostly without a word. But at the network's edge stands a CDN which
//! answers 403 as well, with a page for people, if it does not like the User-Agent or the address: a login was never tried
//! then (protocol, "The network's own clocks and rules"). Invariant: little of a body is read, in bytes and in time, and
//! nothing of it is shown: it may be anybody's.

use std::time::{Duration, SystemTime};

use http_body_util::BodyExt;
use hyper::{HeaderMap, Response, StatusCode, body::Incoming, header};
use tokio::time::timeout;

use crate::{link::OpenError, protocol::RetryAfter};

/// Enough to see what a body is, in bytes: pages say that they are HTML at their top.
const MAX_BODY: usize = 8 * 1024;

/// How long a body that does not end is read.
const BODY_WAIT: Duration = Duration::from_secs(2);

/// How Cloudflare begins its own codes of errors: 1000 and above, in plain text where no browser asks.
const EDGE_CODE: &str = "error code: 10";

/// What an answer other than 101 means.
pub(super) async fn refusal(response: Response<Incoming>) -> OpenError {
    let (head, body) = response.into_parts();
    let retry_after = retry_after(head.status, &head.headers);
    let status = head.status.as_u16();
    let is_edge =
        head.status == StatusCode::FORBIDDEN && is_edges(&head.headers, &beginning(body).await);
    match head.status {
        _ if is_edge => OpenError::Edge { retry_after },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => OpenError::Refused {
            said: format!("HTTP {status}"),
            retry_after,
        },
        _ => OpenError::Http {
            status,
            retry_after,
        },
    }
}

/// What comes of a body soon.
async fn beginning(mut body: Incoming) -> Vec<u8> {
    let mut beginning = Vec::new();
    let read = async {
        while beginning.len() < MAX_BODY
            && let Some(Ok(frame)) = body.frame().await
        {
            beginning.extend(frame.data_ref().into_iter().flatten());
        }
    };
    // What has come by then has to do.
    let _ = timeout(BODY_WAIT, read).await;
    beginning.truncate(MAX_BODY);
    beginning
}

/// Whether a 403 is an edge's: a page for people, or an error by its code. An empty body is neither, whatever the head says.
fn is_edges(headers: &HeaderMap, body: &[u8]) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE);
    let is_html = media_type
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"));
    let body = String::from_utf8_lossy(body).to_ascii_lowercase();
    let is_page = is_html || body.contains("<!doctype html") || body.contains("<html");
    !body.trim().is_empty() && (is_page || body.contains(EDGE_CODE))
}

/// `Retry-After` of an error (RFC 9110, section 10.2.3): seconds, or a date, which is read against the answer's own
/// `Date`, and where that has none, against this machine's clock.
fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<RetryAfter> {
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let date = |text| httpdate::parse_http_date(text).ok();
    let retry_after = text(header::RETRY_AFTER)?;
    let is_number = !retry_after.is_empty() && retry_after.bytes().all(|b| b.is_ascii_digit());
    if is_number {
        // More seconds than can be counted are more than anybody may ask for.
        let seconds = retry_after.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).into());
    }
    let now = text(header::DATE).and_then(date);
    date(retry_after)?
        .duration_since(now.unwrap_or_else(SystemTime::now))
        .ok()
        .map(RetryAfter::from)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    /// How many seconds an error with these headers asks for.
    fn asks_for(headers: &[(header::HeaderName, &str)]) -> Option<u64> {
        let headers = headers
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), HeaderValue::from_str(value).ok()?)));
        let headers = headers.collect::<HeaderMap>();
        let asked = retry_after(StatusCode::SERVICE_UNAVAILABLE, &headers)?;
        Some(asked.get().as_secs())
    }

    #[test]
    fn a_date_to_come_back_at_is_read_by_our_own_clock_where_the_answer_has_none() {
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(600));
        for headers in [
            &[(header::RETRY_AFTER, date.as_str())][..],
            &[(header::RETRY_AFTER, &date), (header::DATE, "yesterday")],
        ] {
            let asked = asks_for(headers).unwrap_or_default();
            assert!((590..=600).contains(&asked), "{asked}");
        }
        let past = httpdate::fmt_http_date(SystemTime::now() - Duration::from_secs(600));
        assert_eq!(asks_for(&[(header::RETRY_AFTER, &past)]), None);
    }

    #[test]
    fn a_date_to_come_back_at_is_read_by_the_clock_of_whoever_wrote_it() {
        let headers = [
            (header::RETRY_AFTER, "Sun, 06 Nov 1994 08:59:37 GMT"),
            (header::DATE, "Sun, 06 Nov 1994 08:49:37 GMT"),
        ];
        assert_eq!(asks_for(&headers), Some(600));
    }
}
