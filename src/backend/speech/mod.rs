//! A speech server: one that has OpenAI's `/v1/audio/speech`. What it speaks with is the operator's to say, since there is
//! no list of models that such servers share; whether it is there is looked at again and again.
//!
//! Invariant: what does not answer, or keeps everybody out, is not offered, and nothing of what it answers reaches a log.

mod away;
mod clip;
mod format;
mod request;
#[cfg(test)]
mod tests;

pub use self::{clip::Clip, request::SpeechRequest};

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use hyper::{body::Body as _, header::CONTENT_TYPE};
use tokio::{
    sync::{Mutex, Notify, watch},
    time::{Instant, sleep, timeout},
};
use tracing::info;

use super::{
    AskError,
    away::Way,
    catalogue::{FRESH, RECOVERY},
    server::refused,
};
use crate::{
    config::{SpeechModel, SpeechSettings},
    protocol::{Code, Failure},
    telemetry::{LogThrottle, Metrics, ServerOutage, throttled},
    transport::{
        Connections, Dial,
        http::{Body, HttpClient, HttpError, KeepAlive, stream},
    },
};

/// Where speech is asked for.
const SPEECH: &str = "/v1/audio/speech";

/// Where a look goes. Many servers have nothing there, and to say so is an answer, too.
const LOOK: &str = "/v1/models";

/// A node's speech server.
pub struct SpeechServer {
    client: HttpClient,
    settings: SpeechSettings,
    /// What it offers just now.
    offer: watch::Sender<SpeechOffer>,
    last_look: watch::Sender<Option<Instant>>,
    look_now: Notify,
    /// Why it is away. Held while a look is under way.
    outage: Mutex<LogThrottle<String>>,
    /// How many requests it is working on.
    asked: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

/// What a speech server offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpeechOffer {
    /// The names of its models, `tts:` included, in the operator's order; none while it cannot be used.
    pub names: Vec<Arc<str>>,
    /// Why there are none, as a sentence for the operator.
    pub why_empty: Option<String>,
}

/// Speech that the server has begun to send. Dropping it closes the request.
pub struct SpeechStream {
    /// The audio's bytes as they come.
    pub body: Body,
    /// What makes a clip of them.
    pub clip: Clip,
    _asked: Asked,
}

/// Counts a request for as long as it lives.
struct Asked(Arc<AtomicUsize>);

impl Asked {
    fn count(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SpeechServer {
    /// The speech server that the settings name. Nothing is asked of it before [`SpeechServer::follow`].
    pub fn new(
        settings: SpeechSettings,
        dial: Arc<dyn Dial>,
        metrics: &Arc<Metrics>,
        connections: Connections,
    ) -> Self {
        Self {
            client: HttpClient::new(dial, settings.url.clone(), connections, KeepAlive::Never),
            settings,
            offer: watch::Sender::default(),
            last_look: watch::Sender::default(),
            look_now: Notify::new(),
            outage: Mutex::new(LogThrottle::outage()),
            asked: Arc::default(),
            metrics: Arc::clone(metrics),
        }
    }

    /// Looks whether the server is there, for as long as it is polled.
    pub async fn follow(&self) {
        loop {
            let began = Instant::now();
            self.look_after(began).await;
            let refresh = self.settings.refresh_interval;
            let pause = if self.has_models() {
                refresh
            } else {
                RECOVERY.min(refresh)
            };
            tokio::select! {
                biased;
                () = sleep(pause.saturating_sub(began.elapsed())) => {}
                () = self.look_now.notified() => {}
            }
        }
    }

    /// Looks whether the server is there.
    pub async fn look_now(&self) {
        self.look_after(Instant::now()).await;
    }

    /// What it offers, now and whenever that changes.
    pub fn offer(&self) -> watch::Receiver<SpeechOffer> {
        self.offer.subscribe()
    }

    /// Whether there is something to offer.
    pub fn has_models(&self) -> bool {
        !self.offer.borrow().names.is_empty()
    }

    /// Why nothing is offered, if nothing is, as a sentence for the operator.
    pub fn why_nothing(&self) -> Option<String> {
        self.offer.borrow().why_empty.clone()
    }

    /// The outage that there is, if one is known.
    pub fn outage(&self) -> Option<ServerOutage> {
        let is_down = self.offer.borrow().why_empty.is_some();
        is_down.then_some(ServerOutage::Down)
    }

    /// Looks up a model that is offered just now, by the name with `tts:` and without regard to case.
    pub fn find(&self, name: &str) -> Option<&SpeechModel> {
        self.model(name).filter(|_| self.has_models())
    }

    /// Whether this model may be offered although it is not known to be: the last look is too long ago.
    pub fn may_offer(&self, name: &str) -> bool {
        let is_fresh = |began: Instant| began.elapsed() <= FRESH;
        self.model(name).is_some() && !self.last_look.borrow().is_some_and(is_fresh)
    }

    /// Asks for speech by this model, and waits for the head of the answer. `max`: the largest base64 of the audio, in bytes.
    ///
    /// # Errors
    /// `rejected`: the server says that the request is at fault. `backend`: it cannot be reached, in which case it is soon
    /// looked at again, or it fails. `too_large`: it announces more than `max`.
    pub async fn speak(
        &self,
        request: &SpeechRequest,
        model: &str,
        max: usize,
    ) -> Result<SpeechStream, Failure> {
        // Offered or not: it may be back, and to find out costs no more than to say that it was away.
        let model = self.model(model).ok_or_else(|| {
            Failure::new(Code::ModelNotFound, "this node does not offer that model")
        })?;
        let body = request.body(model, self.settings.voice.as_deref());
        let counted = Asked::count(&self.asked);
        let credentials = self.client.credentials();
        let asked = self.client.post(SPEECH, body).await;
        let answer = asked.map_err(|error| self.unreachable(&error))?;
        let status = answer.status().as_u16();
        if status != 200 {
            let refused = refused(answer, &credentials).await;
            if away::keeps_out(status) {
                // That is the operator's to mend, whom a look tells.
                self.look_now.notify_one();
            }
            return Err(Failure::new(AskError::code_of(status), refused.to_string()));
        }
        let content_type = answer.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|content_type| content_type.to_str().ok());
        let announced = answer.body().size_hint().exact();
        let announced = announced.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(SpeechStream {
            clip: Clip::new(content_type, announced, max, credentials)?,
            body: stream(answer.into_body()),
            _asked: counted,
        })
    }

    fn model(&self, name: &str) -> Option<&SpeechModel> {
        let mut models = self.settings.models.iter();
        models.find(|model| model.name.eq_ignore_ascii_case(name))
    }

    async fn look_after(&self, since: Instant) {
        let mut outage = self.outage.lock().await;
        if self.last_look.borrow().is_some_and(|last| last >= since) {
            return;
        }
        let began = Instant::now();
        let trouble = self.look().await.err();
        self.publish(trouble.as_ref(), &mut outage);
        self.last_look.send_replace(Some(began));
    }

    /// Whether it gives any answer that keeps nobody out.
    async fn look(&self) -> Result<(), HttpError> {
        let limit = self.settings.connect_timeout;
        let answered = timeout(limit, self.client.get(LOOK)).await;
        let is_speaking = self.asked.load(Ordering::Relaxed) > 0;
        match answered {
            Ok(Ok(answer)) => match answer.status().as_u16() {
                // Some turn everybody else away while they speak.
                503 if is_speaking => Ok(()),
                status if away::keeps_out(status) => Err(HttpError::Status(status)),
                _ => Ok(()),
            },
            Ok(Err(HttpError::Encoded(_))) => Ok(()),
            Ok(Err(error)) => Err(error),
            // And some answer nobody.
            Err(_) if is_speaking => Ok(()),
            Err(_) => Err(HttpError::Silent(limit)),
        }
    }

    fn publish(&self, trouble: Option<&HttpError>, outage: &mut LogThrottle<String>) {
        let offer = match trouble {
            None => SpeechOffer {
                names: self.names(),
                why_empty: None,
            },
            Some(error) => SpeechOffer {
                names: Vec::new(),
                why_empty: Some(away::why(error, &self.way())),
            },
        };
        match &offer.why_empty {
            Some(trouble) => {
                let told = outage.seen(trouble.clone());
                throttled!(warn, told, [] "no speech to offer: {trouble}");
            }
            None => throttled!(info, outage.gone(), [] "the speech server answers"),
        }
        for name in &offer.names {
            self.metrics.start_speech(name);
        }
        // The first look is news whatever it shows: somebody waits for it.
        let is_first = self.last_look.borrow().is_none();
        self.offer.send_if_modified(|current| {
            let is_news = *current != offer;
            if is_news && !offer.names.is_empty() {
                info!(models = offer.names.join(" "), "speech models offered");
            }
            *current = offer;
            is_news || is_first
        });
    }

    fn way(&self) -> Way {
        Way::of("PIN_TTS_URL", &self.client)
    }

    fn names(&self) -> Vec<Arc<str>> {
        let models = self.settings.models.iter();
        models.map(|model| Arc::clone(&model.name)).collect()
    }

    fn unreachable(&self, error: &HttpError) -> Failure {
        self.look_now.notify_one();
        let sentence = match error {
            HttpError::Dial(_) => "the speech server cannot be reached".to_owned(),
            HttpError::Encoded(_) | HttpError::NotHttp(_) => {
                format!("the speech server's answer cannot be read: {error}")
            }
            HttpError::Broken
            | HttpError::Status(_)
            | HttpError::Unexpected
            | HttpError::TooLarge
            | HttpError::Silent(_) => {
                "the connection to the speech server broke before it answered".to_owned()
            }
        };
        Failure::new(Code::Backend, sentence)
    }
}
