//! Which requests go wrong, and how.

use std::sync::Mutex;

use super::record::Request;
use crate::journal::lock;

/// The faults to come, by path; the first that fits is used, and used up.
pub(crate) struct Faults<F>(Mutex<Vec<Planned<F>>>);

impl<F> Default for Faults<F> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

struct Planned<F> {
    path: String,
    /// The one model that it is about; `None` for any.
    model: Option<String>,
    /// How many more times; `None` for always.
    times: Option<usize>,
    fault: F,
}

impl<F: Clone> Faults<F> {
    pub(crate) fn plan(&self, path: &str, model: Option<&str>, times: Option<usize>, fault: F) {
        lock(&self.0).push(Planned {
            path: path.to_owned(),
            model: model.map(str::to_owned),
            times,
            fault,
        });
    }

    /// Forgets what was planned for a path.
    pub(crate) fn clear_path(&self, path: &str) {
        lock(&self.0).retain(|planned| planned.path != path);
    }

    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }

    pub(crate) fn take(&self, request: &Request) -> Option<F> {
        let mut planned = lock(&self.0);
        planned.retain(|planned| planned.times != Some(0));
        let next = planned.iter_mut().find(|planned| planned.fits(request))?;
        next.times = next.times.map(|times| times - 1);
        Some(next.fault.clone())
    }
}

impl<F> Planned<F> {
    fn fits(&self, request: &Request) -> bool {
        let is_named = |model: &String| request.json()["model"] == **model;
        self.path == request.path && self.model.as_ref().is_none_or(is_named)
    }
}
