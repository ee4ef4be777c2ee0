//! Who may see what, and who may tell the sidecar what to do: programs on this machine or in this pod, and whoever has the
//! token.
//!
//! Invariant: neither somebody from outside whose request a proxy on this machine passes on, nor a web page of another site,
//! can pass for one of them. Each refusal names the setting that would allow it.

use std::{net::IpAddr, sync::Arc};

use hyper::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, FORWARDED, HOST, HeaderName, HeaderValue, ORIGIN},
};

use super::{
    host::{self, Called},
    token::{AdminToken, Worth},
};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It names a host that may be somebody else's: a page whose author points his own domain at this address.
    ForeignHost,
    /// Another site's page sends it.
    ForeignOrigin,
    /// It does not come from this machine, and there is no token that could stand for that.
    NotLocal,
    /// It was passed on, for whom is not known, and there is no token.
    Forwarded,
    /// It brings no token, and needs one.
    NoToken,
    /// It brings a wrong one.
    WrongToken,
    /// It brings one, and too many others do.
    TooManyTokens,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::ForeignHost => StatusCode::MISDIRECTED_REQUEST,
            Self::ForeignOrigin | Self::NotLocal | Self::Forwarded => StatusCode::FORBIDDEN,
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::TooManyTokens => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::ForeignHost => {
                "The Host of this request may be somebody else's. Use an IP address, localhost or a name of the cluster, or name \
                 this one in PIN_ADMIN_HOSTS.\n"
            }
            Self::ForeignOrigin => {
                "Not for pages of other sites. If this is your proxy's name, put it into PIN_ADMIN_HOSTS.\n"
            }
            Self::NotLocal => {
                "Only from this machine, or from within this pod or container: ask at 127.0.0.1 or [::1] there. Or set \
                 PIN_ADMIN_TOKEN_FILE, and send `Authorization: Bearer TOKEN`.\n"
            }
            Self::Forwarded => {
                "This request came through a proxy (Forwarded, X-Forwarded-...). Ask at 127.0.0.1 directly, or set \
                 PIN_ADMIN_TOKEN_FILE, and send `Authorization: Bearer TOKEN`.\n"
            }
            Self::NoToken => {
                "Send the token of PIN_ADMIN_TOKEN as `Authorization: Bearer TOKEN`.\n"
            }
            Self::WrongToken => "This is not the token of PIN_ADMIN_TOKEN.\n",
            Self::TooManyTokens => "Too many tokens are being looked at. Ask again in a second.\n",
        }
    }
}

/// Who may do what.
#[derive(Clone, Default)]
pub struct Access {
    token: Option<Arc<AdminToken>>,
    hosts: Arc<[String]>,
}

impl Access {
    /// `token` stands for being on this machine; `hosts` are more names to be called by, in lower case.
    pub fn new(token: Option<Arc<AdminToken>>, hosts: impl Into<Arc<[String]>>) -> Self {
        Self {
            token,
            hosts: hosts.into(),
        }
    }

    /// Whether a token would help somebody who may not.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether a request with these headers may see the page, of which nothing is private.
    pub(super) fn may_open(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match host::called(headers, &self.hosts) {
            Called::Own | Called::Allowed => Ok(()),
            Called::Foreign => Err(Refusal::ForeignHost),
        }
    }

    /// Whether it may see how the sidecar does.
    pub(super) async fn may_read(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match host::called(headers, &self.hosts) {
            Called::Own => Ok(()),
            Called::Allowed => self.brings_token(headers).await,
            Called::Foreign => Err(Refusal::ForeignHost),
        }
    }

    /// Whether it may change what the sidecar does, coming from this address.
    pub(super) async fn may_command(
        &self,
        caller: IpAddr,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let called = host::called(headers, &self.hosts);
        if called == Called::Foreign {
            return Err(Refusal::ForeignHost);
        }
        let page_called = self.page_called(headers);
        if page_called == Called::Foreign {
            return Err(Refusal::ForeignOrigin);
        }
        let elsewhere = if !caller.to_canonical().is_loopback() {
            Refusal::NotLocal
        } else if headers.keys().any(is_of_a_proxy) {
            Refusal::Forwarded
        } else if called == Called::Allowed || page_called == Called::Allowed {
            // It came by a name that others know, through whatever stands behind that, even if that tells us nothing of it.
            Refusal::Forwarded
        } else {
            return Ok(());
        };
        if self.has_token() {
            self.brings_token(headers).await
        } else {
            Err(elsewhere)
        }
    }

    async fn brings_token(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let brought = headers.get(AUTHORIZATION).and_then(bearer);
        let (Some(token), Some(brought)) = (&self.token, brought) else {
            return Err(Refusal::NoToken);
        };
        match token.look_at(brought).await {
            Worth::Right => Ok(()),
            Worth::Wrong => Err(Refusal::WrongToken),
            Worth::NotLookedAt => Err(Refusal::TooManyTokens),
        }
    }

    /// By what name the page that sends this was asked for. Browsers send its origin with every POST (Fetch standard, "Origin"
    /// header); other programs send none. A proxy may have given another host than the browser named, which then is an
    /// allowed one.
    fn page_called(&self, headers: &HeaderMap) -> Called {
        let own = headers.get(HOST).map(HeaderValue::as_bytes);
        let mut called = Called::Own;
        for origin in headers.get_all(ORIGIN) {
            let origin = origin.to_str().unwrap_or_default();
            let host = origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"));
            match host {
                Some(host) if Some(host.as_bytes()) == own => {}
                Some(host) if host::by_name(host, &self.hosts) == Called::Allowed => {
                    called = Called::Allowed;
                }
                _ => return Called::Foreign,
            }
        }
        called
    }
}

fn is_of_a_proxy(name: &HeaderName) -> bool {
    name == FORWARDED || name.as_str().starts_with("x-forwarded-")
}

/// The token of a header, by RFC 6750: the scheme's case does not matter.
fn bearer(header: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = header.as_bytes().split_at_checked("bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then_some(token.trim_ascii())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use crate::secret::SecretSource;

    const TOKEN: (&str, &str) = ("authorization", "Bearer t0ken");
    const LOCAL: &str = "127.0.0.1";

    fn without_token() -> Access {
        Access::default()
    }

    fn with_token() -> Access {
        let source = SecretSource::Value(SecretString::from("t0ken"));
        let token = AdminToken::new(source).unwrap();
        Access::new(Some(Arc::new(token)), ["gpu.example".to_owned()])
    }

    fn headers(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let headers = headers.iter();
        headers
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    async fn of(
        access: &Access,
        address: &str,
        named: &[(&'static str, &'static str)],
    ) -> Result<(), Refusal> {
        let address = address.parse().unwrap();
        access.may_command(address, &headers(named)).await
    }

    #[tokio::test]
    async fn a_program_of_this_machine_or_pod_may_command_with_and_without_a_token() {
        for access in [without_token(), with_token()] {
            for address in [LOCAL, "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
                let named = [("host", "localhost:9464")];
                assert_eq!(of(&access, address, &named).await, Ok(()));
            }
            for origin in ["http://127.0.0.1:9464", "https://127.0.0.1:9464"] {
                let own_page = [("host", "127.0.0.1:9464"), ("origin", origin)];
                assert_eq!(of(&access, LOCAL, &own_page).await, Ok(()));
            }
        }
    }

    #[tokio::test]
    async fn somebody_from_elsewhere_may_with_the_token_alone_whatever_he_says_he_is() {
        for address in ["10.0.0.7", "169.254.1.1", "::ffff:10.0.0.7", "fe80::1"] {
            let named = [("host", "localhost"), TOKEN];
            let refused = of(&without_token(), address, &named).await;
            assert_eq!(refused, Err(Refusal::NotLocal), "{address}");
            let refused = of(&with_token(), address, &named[..1]).await;
            assert_eq!(refused, Err(Refusal::NoToken), "{address}");
            assert_eq!(of(&with_token(), address, &named).await, Ok(()));
        }
        for passed_on in ["forwarded", "x-forwarded-for", "x-forwarded-proto"] {
            let named = [("host", "localhost"), (passed_on, "127.0.0.1"), TOKEN];
            let refused = of(&without_token(), LOCAL, &named).await;
            assert_eq!(refused, Err(Refusal::Forwarded), "{passed_on}");
            let refused = of(&with_token(), LOCAL, &named[..2]).await;
            assert_eq!(refused, Err(Refusal::NoToken), "{passed_on}");
            assert_eq!(of(&with_token(), LOCAL, &named).await, Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_right_or_wrong_as_a_whole() {
        let refused = |scheme| async move {
            let named = [("host", "10.0.0.7"), ("authorization", scheme)];
            of(&with_token(), "10.0.0.9", &named).await.err()
        };
        for right in ["Bearer t0ken", "bearer t0ken", "BEARER  t0ken"] {
            assert_eq!(refused(right).await, None, "{right}");
        }
        for wrong in ["Bearer t0ke", "Bearer t0ken2", "Bearer T0KEN", "Bearer "] {
            assert_eq!(refused(wrong).await, Some(Refusal::WrongToken), "{wrong}");
        }
        for none in ["Basic t0ken", "t0ken", "Bear"] {
            assert_eq!(refused(none).await, Some(Refusal::NoToken), "{none}");
        }
    }

    #[tokio::test]
    async fn no_page_of_another_site_may_nor_one_that_points_its_name_here() {
        for access in [without_token(), with_token()] {
            for origin in [
                "http://example.org",
                "null",
                "ftp://localhost:9464",
                "http://localhost:80",
                "",
            ] {
                let named = [("host", "localhost:9464"), ("origin", origin), TOKEN];
                let refused = of(&access, LOCAL, &named).await;
                assert_eq!(refused, Err(Refusal::ForeignOrigin), "{origin}");
            }
            let rebound = [
                ("host", "evil.example"),
                ("origin", "http://evil.example"),
                TOKEN,
            ];
            assert_eq!(
                of(&access, LOCAL, &rebound).await,
                Err(Refusal::ForeignHost)
            );
            assert_eq!(of(&access, LOCAL, &[]).await, Err(Refusal::ForeignHost));
        }
    }

    #[tokio::test]
    async fn by_a_name_that_the_operator_allows_everything_but_the_page_needs_the_token() {
        let access = with_token();
        for host in ["gpu.example", "GPU.example:8443", "gpu.example."] {
            let named = [("host", host), ("origin", "https://gpu.example"), TOKEN];
            assert_eq!(access.may_open(&headers(&named[..1])), Ok(()));
            let read = access.may_read(&headers(&named[..1])).await;
            assert_eq!(read, Err(Refusal::NoToken), "{host}");
            assert_eq!(access.may_read(&headers(&named)).await, Ok(()));
            let refused = of(&access, LOCAL, &named[..2]).await;
            assert_eq!(refused, Err(Refusal::NoToken), "{host}");
            assert_eq!(of(&access, LOCAL, &named).await, Ok(()));
        }
        // A proxy that names us by our address, while the browser knows it by its name.
        let named = [
            ("host", "127.0.0.1:9464"),
            ("origin", "https://gpu.example"),
            TOKEN,
        ];
        assert_eq!(of(&access, LOCAL, &named).await, Ok(()));
        let refused = of(&access, LOCAL, &named[..2]).await;
        assert_eq!(refused, Err(Refusal::NoToken));
        let foreign = headers(&[("host", "other.example"), TOKEN]);
        assert_eq!(access.may_open(&foreign), Err(Refusal::ForeignHost));
        assert_eq!(access.may_read(&foreign).await, Err(Refusal::ForeignHost));
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_wrong_tokens_are_looked_at_slowly_and_keep_nobody_out_for_long() {
        let access = with_token();
        let wrong = [("host", "10.0.0.7"), ("authorization", "Bearer wrong")];
        let began = tokio::time::Instant::now();
        let guesses = (0..1_000).map(|_| of(&access, "10.0.0.9", &wrong));
        let right = [("host", "10.0.0.7"), TOKEN];
        let (guesses, ()) =
            futures_util::future::join(futures_util::future::join_all(guesses), async {
                while of(&access, "10.0.0.9", &right).await.is_err() {
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            })
            .await;
        assert!(began.elapsed().as_secs() <= 3, "{:?}", began.elapsed());
        let looked_at = guesses
            .iter()
            .filter(|guess| **guess == Err(Refusal::WrongToken));
        assert!(looked_at.count() <= 8);
        assert!(guesses.iter().all(Result::is_err));
    }
}
