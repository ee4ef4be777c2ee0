//! What a test's relay has logged.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, Once},
};

use serde_json::Value;
use tracing_subscriber::filter::LevelFilter;

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

thread_local! {
    /// This thread's test's; nothing that it starts runs on another one.
    static LOG: Log = Log::default();
}

impl Log {
    /// This test's, from before anything is logged.
    pub(crate) fn listen() -> Self {
        static LISTENING: Once = Once::new();
        LISTENING.call_once(|| {
            tracing_subscriber::fmt()
                .json()
                .flatten_event(true)
                .with_max_level(LevelFilter::INFO)
                .with_writer(|| LOG.with(Self::clone))
                .init();
        });
        LOG.with(Self::clone)
    }

    /// The line of a request's end.
    pub(crate) fn end_of(&self, request_id: &str) -> Value {
        let bytes = self.0.lock().unwrap().clone();
        let lines = String::from_utf8(bytes).unwrap();
        let events = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut ends = events
            .filter(|event| event["request_id"] == request_id && event["outcome"].is_string());
        ends.next()
            .unwrap_or_else(|| panic!("no end of {request_id} in\n{lines}"))
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
