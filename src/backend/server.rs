//! What is particular to one kind of model server: how it is asked, what it shows, and what to tell whoever runs it.
//!
//! Invariant: it keeps nothing of what it shows beyond what makes the next look or the next request cheaper, and decides
//! nothing by it.

use std::{
    future::{pending, ready},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    future::{BoxFuture, FutureExt},
    stream::iter,
};
use hyper::{
    HeaderMap, Response,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
};

use super::{
    Catalogue, ChatStream, Model,
    completion::unreadable_piece,
    error_text::{what_came, words_of_status},
    ollama::{PullBoard, SentContext},
};
use crate::{
    protocol::{Code, Failure},
    transport::{
        Credentials,
        http::{Body, HttpClient, HttpError, encoding, read_body, stream},
    },
};

/// The largest body of a failed request that is looked at, in bytes: more than any error text is worth.
pub(super) const MAX_ERROR_BODY: usize = 64 * 1024;

/// How far a model suits chats, as its server tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suitability {
    /// It is made for them and runs on this server.
    Suits,
    /// It is not made for them: offered only where the operator names it in full.
    CannotChat,
    /// It runs in somebody's cloud: likewise.
    RunsElsewhere,
    /// The server says that it cannot be asked just now: not offered until it can.
    NotReady,
    /// The server does not tell yet: not offered until it does.
    Unknown,
}

/// What a look at a server that answers has shown, whatever the operator wants of it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Its version, where it tells.
    pub version: Option<String>,
    /// GPU memory that loaded models take, in bytes; 0 where it does not tell.
    pub vram_bytes: u64,
    /// Whether it does not tell which models are in memory: then that none seems to be says nothing.
    pub is_memory_unknown: bool,
    /// Why those models are not offered that are [`Suitability::Unknown`] or [`Suitability::NotReady`], where there are any.
    pub why_unknown: Option<String>,
    /// Whether it tells none of its models, and these are only those that the operator names.
    pub is_list_missing: bool,
    /// All its models as they would be offered, in its order.
    pub models: Vec<(Model, Suitability)>,
}

/// A chat as its server is to get it.
pub struct Prepared {
    /// The model that it is for.
    pub(super) model: Arc<str>,
    /// The body to send.
    pub(super) body: Bytes,
    /// The context that it carries, where that is to be remembered.
    pub(super) context: Option<SentContext>,
}

impl Prepared {
    /// A chat that needs nothing to be remembered.
    pub fn new(model: &Model, body: Bytes) -> Self {
        Self {
            model: Arc::clone(&model.name),
            body,
            context: None,
        }
    }
}

/// Why a server does not do what it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It cannot be asked, or the connection broke before it answered.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It answered with another status than 200.
    #[error("{words}")]
    Refused {
        /// The status.
        status: u16,
        /// Its own words, cleaned; or what came, where it has none.
        words: String,
        /// Whether they are its own. By nothing else than its words is a model server known: whatever stands before it has
        /// the same statuses, and pages.
        is_its_own: bool,
    },
}

impl AskError {
    /// Whether it says that a model is not served at all, or not to this sidecar, whatever it is asked: by the server, or by what
    /// stands in its place or before it. Such is tried with a chat that nobody could mind.
    pub(super) fn is_no_service(&self) -> bool {
        match self {
            Self::Http(error) => matches!(error, HttpError::Encoded(_)),
            Self::Refused {
                status, is_its_own, ..
            } => match status {
                200 => !is_its_own,
                // A request that is at fault, too large, too slow, or one too many.
                400 | 408 | 409 | 413 | 414 | 422 | 425 | 429 | 431 => false,
                300..=499 | 501 => true,
                // It fails, loads or is away: the look tells, or the next chat.
                _ => false,
            },
        }
    }

    /// Whose fault a refusal with this status is, as the network is told.
    pub(super) fn code_of(status: u16) -> Code {
        match status {
            // A malformed request, one that is too large, one that cannot be done as asked.
            400 | 413 | 422 => Code::Rejected,
            _ => Code::Backend,
        }
    }
}

/// What people who run a kind of model server may be told of it.
#[derive(Debug)]
pub struct Guide {
    /// What they call it, as the subject of a sentence.
    pub name: &'static str,
    /// What to do where it fails.
    pub if_broken: &'static str,
    /// What to do where it is too slow.
    pub if_slow: &'static str,
    /// In tokens a second (protocol, "Interviews"): a node below this fails its interview.
    pub floor: f64,
    /// Likewise: one above this gets the best tier.
    pub best: f64,
}

/// A model server, in its own dialect. It is looked at and asked by a [`super::Backend`], which keeps what it shows.
pub trait ModelServer: Send + Sync {
    /// What the network and `/status` call its interface.
    fn mode(&self) -> &'static str;

    /// What people who run it may be told.
    fn guide(&self) -> &'static Guide;

    /// Looks at it. May be dropped in the middle of it.
    fn look(&self) -> BoxFuture<'_, Result<Seen, HttpError>>;

    /// Whether it answers just now; asked every few seconds, so that it should cost little.
    fn answers(&self) -> BoxFuture<'_, bool>;

    /// What the operator is told when it does not answer.
    fn why_silent(&self, error: &HttpError) -> String;

    /// What the operator is told when none of the `models` that it has is offered; `why_unknown` is [`Seen::why_unknown`] where
    /// that alone keeps one back.
    fn why_nothing(&self, models: usize, why_unknown: Option<&str>) -> String;

    /// What the operator is told of an error that was not the server's own doing: what came, and what to do. `None` where it
    /// may have been.
    fn why_odd(&self, _: &AskError) -> Option<String> {
        None
    }

    /// What is wrong with it that does not keep it from being asked, as a sentence for the operator.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// See [`super::Backend::prepare`].
    ///
    /// # Errors
    /// `invalid`, with what is wrong with the request.
    fn prepare(&self, payload: &[u8], model: &Model) -> Result<Prepared, Failure>;

    /// Sends a prepared chat and waits for the head of the answer.
    fn chat(&self, chat: Prepared) -> BoxFuture<'_, Result<ChatStream, AskError>>;

    /// Loads a model as its requests want it, and waits until it is loaded. Dropping it closes the request, upon which a
    /// server may give up loading.
    fn load<'a>(&'a self, model: &'a Model) -> BoxFuture<'a, Result<(), AskError>>;

    /// Frees the memory that a model takes. Gives whether the server can be told to.
    fn unload<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool, AskError>> {
        ready(Ok(false)).boxed()
    }

    /// Holds a connection over which nothing is said, and waits until the server closes it, as it does when its process ends.
    /// Ends at once where none can be opened.
    fn until_closed(&self) -> BoxFuture<'_, ()> {
        pending().boxed()
    }

    /// Pulls what is to be pulled, until all is there. Dropping it stops it.
    fn keep_pulling<'a>(&'a self, _: &'a Catalogue, _: fastrand::Rng) -> BoxFuture<'a, ()> {
        ready(()).boxed()
    }

    /// How far that is.
    fn pulls(&self) -> Arc<PullBoard> {
        Arc::default()
    }
}

/// Asks with POST, and gives the body of an answer whose status is 200.
///
/// # Errors
/// There is none, or its status is another, or it is not the server's.
pub(super) async fn accepted(
    client: &HttpClient,
    path: &str,
    body: Bytes,
) -> Result<Body, AskError> {
    let credentials = client.credentials();
    let answer = client.post(path, body).await?;
    let status = answer.status().as_u16();
    if status != 200 {
        return Err(refused(answer, &credentials).await);
    }
    let is_usual = is_usual(answer.headers());
    let body = stream(answer.into_body());
    if is_usual {
        Ok(body)
    } else {
        unless_a_page(body).await
    }
}

/// Whether a body is of a type that only servers of models give.
fn is_usual(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is = |usual: &[u8]| kind.is_some_and(|kind| kind.starts_with(usual));
    is(b"application/x-ndjson") || is(b"text/event-stream")
}

/// The same body, unless its first piece begins like a page or something that was changed on its way.
async fn unless_a_page(mut body: Body) -> Result<Body, AskError> {
    let first = body.next().await.transpose()?;
    if let Some(first) = &first {
        begins_as_its_own(first)?;
    }
    Ok(iter(first.map(Ok)).chain(body).boxed())
}

/// What an answer says whose status is not the one hoped for, less what was asked with.
pub(super) async fn refused(answer: Response<Incoming>, credentials: &Credentials) -> AskError {
    let status = answer.status().as_u16();
    let said = match encoding(answer.headers()) {
        Some(encoding) => Err(format!("HTTP {status}: {}", HttpError::Encoded(encoding))),
        None => {
            // One that cannot be read whole says no less than one that is no JSON.
            let body = read_body(answer.into_body(), MAX_ERROR_BODY).await;
            words_of_status(status, &body.unwrap_or_default(), credentials)
        }
    };
    AskError::Refused {
        status,
        is_its_own: said.is_ok(),
        words: said.unwrap_or_else(|status| status),
    }
}

fn begins_as_its_own(beginning: &[u8]) -> Result<(), AskError> {
    match what_came(beginning) {
        None => Ok(()),
        Some(_) => Err(AskError::Refused {
            status: 200,
            words: unreadable_piece(beginning).sentence().to_owned(),
            is_its_own: false,
        }),
    }
}
