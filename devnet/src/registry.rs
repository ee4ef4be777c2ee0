//! A registry that a real Ollama can pull one model from, without the internet: HTTPS on loopback, as much of the
//! distribution protocol as Ollama asks for, and a blob that can be held back midway.
//!
//! Ollama pulls from a registry only over TLS, and trusts the certificate of this one if `SSL_CERT_FILE` names it.

use std::{collections::HashMap, convert::Infallible, io, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{ACCEPT_RANGES, CONTENT_LENGTH, LOCATION, RANGE},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{net::TcpStream, sync::watch};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use crate::{
    journal::{lock, wait_until},
    listener::{ANY_LOOPBACK, Listener},
};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How much of a blob leaves in one write.
const PIECE: usize = 16 * 1024;

/// What a registry has of a model: its manifest and the blobs that this names.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    manifest: Value,
    blobs: HashMap<String, Bytes>,
}

impl Repository {
    /// A model by its manifest, as Ollama keeps it, with the blobs that it names, by their digests (`sha256:…`).
    pub fn new(manifest: Value, blobs: HashMap<String, Bytes>) -> Self {
        Self { manifest, blobs }
    }

    /// Adds a layer to the manifest that no Ollama has yet.
    #[must_use]
    pub fn with_layer(mut self, media_type: &str, content: Bytes) -> Self {
        let hex: String = Sha256::digest(&content)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let digest = format!("sha256:{hex}");
        let layer = json!({"mediaType": media_type, "digest": digest, "size": content.len()});
        if let Some(layers) = self.manifest["layers"].as_array_mut() {
            layers.push(layer);
        }
        self.blobs.insert(digest, content);
        self
    }
}

/// A running registry; it stops when this is dropped.
pub struct Registry {
    listener: Listener,
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    repository: Repository,
    tls: TlsAcceptor,
    /// Where every blob stops, in bytes from its beginning.
    stop: watch::Sender<Option<usize>>,
    /// Ranges of blobs that were asked for, and how many are being sent.
    asked: std::sync::Mutex<Vec<Range<usize>>>,
    sending: watch::Sender<usize>,
}

impl Registry {
    /// Serves one model under a name such as `library/tiny`, with any tag.
    ///
    /// # Errors
    /// The system gives no port.
    pub async fn start(
        name: &str,
        repository: Repository,
        tls: Arc<ServerConfig>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            repository,
            tls: TlsAcceptor::from(tls),
            stop: watch::Sender::new(None),
            asked: std::sync::Mutex::default(),
            sending: watch::Sender::new(0),
        });
        let connections = Arc::clone(&shared);
        let listener = Listener::start(ANY_LOOPBACK, move |tcp| {
            serve(Arc::clone(&connections), tcp)
        })?;
        Ok(Self { listener, shared })
    }

    /// What to have Ollama pull: the model's name with this registry in front.
    pub fn model(&self, name: &str) -> String {
        format!("{}/{name}:latest", self.listener.addr())
    }

    /// From now on blobs stop after so many bytes.
    pub fn stop_at(&self, bytes: usize) {
        self.shared.stop.send_replace(Some(bytes));
    }

    /// Nothing stops any more.
    pub fn go_on(&self) {
        self.shared.stop.send_replace(None);
    }

    /// Which ranges of blobs were asked for, in order.
    pub fn asked(&self) -> Vec<Range<usize>> {
        lock(&self.shared.asked).clone()
    }

    /// Waits until so many blobs are being sent at once.
    ///
    /// # Panics
    /// Past [`PATIENCE`](crate::PATIENCE).
    pub async fn wait_for_sending(&self, blobs: usize) {
        let sending = self.shared.sending.subscribe();
        wait_until(sending, "blobs to be sent", |sending| *sending == blobs).await;
    }
}

async fn serve(shared: Arc<Shared>, tcp: TcpStream) {
    // Whoever does not trust the certificate ends the connection here.
    let Ok(tls) = shared.tls.accept(tcp).await else {
        return;
    };
    let service =
        service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&shared, &request))));
    // How a client ends its connection is no concern of a server.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(tls), service)
        .await;
}

fn answer(shared: &Arc<Shared>, request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let inside = path
        .strip_prefix("/v2/")
        .and_then(|path| path.strip_prefix(&shared.name));
    let blob = inside.and_then(|path| path.strip_prefix("/blobs/"));
    let blob = blob.and_then(|digest| shared.repository.blobs.get(digest));
    match (inside, blob) {
        (Some(inside), _) if inside.starts_with("/manifests/") => {
            whole(200, shared.repository.manifest.to_string())
        }
        (_, Some(blob)) => send(shared, request, blob),
        _ => whole(404, ""),
    }
}

/// HEAD tells the size, GET where to fetch it, and GET with a range gives it.
fn send(shared: &Arc<Shared>, request: &Request<Incoming>, blob: &Bytes) -> Response<Body> {
    let range = range(request.headers(), blob.len());
    let mut response = match range {
        Some(range) if request.method() == Method::GET => {
            lock(&shared.asked).push(range.clone());
            Response::new(body(shared, blob.clone(), range))
        }
        _ => whole(200, ""),
    };
    let headers = response.headers_mut();
    headers.insert(
        ACCEPT_RANGES,
        hyper::header::HeaderValue::from_static("bytes"),
    );
    if request.method() == Method::HEAD {
        headers.insert(CONTENT_LENGTH, blob.len().into());
    } else if let Ok(location) = request.uri().path().parse() {
        headers.insert(LOCATION, location);
    }
    response
}

fn range(headers: &HeaderMap, size: usize) -> Option<Range<usize>> {
    let (first, last) = headers
        .get(RANGE)?
        .to_str()
        .ok()?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < size).then_some(first..last + 1)
}

/// The blob piece by piece, as far as it may go.
fn body(shared: &Arc<Shared>, blob: Bytes, range: Range<usize>) -> Body {
    let sending = Sending::start(shared);
    let stop = shared.stop.subscribe();
    let pieces = stream::unfold((range, stop, sending), move |(range, mut stop, sending)| {
        let blob = blob.clone();
        async move {
            if range.is_empty() {
                return None;
            }
            let may_go = |stop: &Option<usize>| stop.is_none_or(|stop| stop > range.start);
            // Fails only if the registry is gone.
            let limit = (*stop.wait_for(may_go).await.ok()?).unwrap_or(usize::MAX);
            let end = range.end.min(limit).min(range.start + PIECE);
            let piece = Frame::data(blob.slice(range.start..end));
            Some((Ok(piece), (end..range.end, stop, sending)))
        }
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// A blob that is being sent until this is dropped.
struct Sending(watch::Sender<usize>);

impl Sending {
    fn start(shared: &Shared) -> Self {
        shared.sending.send_modify(|sending| *sending += 1);
        Self(shared.sending.clone())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.send_modify(|sending| *sending -= 1);
    }
}

fn whole(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response
}
