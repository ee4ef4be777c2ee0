//! Writes log lines to where a slow or dead reader cannot hurt. Standard error is often a pipe: when its reader stalls,
//! a write blocks for as long as it likes, and when the reader is gone, every write fails.
//!
//! Invariant: logging never waits and never panics. A line goes into a bounded queue that a thread empties; what finds
//! the queue full is dropped and counted, and the count is told once there is room. Lines that cannot be written are
//! lost, since there is nowhere left to tell.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait: some seconds of a very talkative sidecar.
const MAX_LINES: usize = 1_024;

/// Bytes that may wait, which is what bounds memory where lines are long.
const MAX_BYTES: usize = 1 << 20;

/// How long [`LogGuard`] waits for lines to be written: a part of what a drain may take after its session.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

enum Item {
    Line(Vec<u8>),
    /// Everything before this was written.
    Flush(SyncSender<()>),
}

/// What the lines' authors and the writing thread know of each other.
#[derive(Default)]
struct Backlog {
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

impl Backlog {
    fn reserve(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= MAX_BYTES;
        if !fits {
            self.release(bytes);
        }
        fits
    }

    fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Where log lines are handed over; one event is one line.
#[derive(Clone)]
pub(super) struct LogWriter {
    queue: SyncSender<Item>,
    backlog: Arc<Backlog>,
}

impl LogWriter {
    /// Starts the thread that writes to `sink`. `told` makes the line that tells how many were dropped.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(
        sink: impl Write + Send + 'static,
        told: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<(Self, LogGuard)> {
        let (queue, lines) = sync_channel(MAX_LINES);
        let backlog = Arc::new(Backlog::default());
        let writer = Self {
            queue: queue.clone(),
            backlog: backlog.clone(),
        };
        thread::Builder::new()
            .name("log".into())
            .spawn(move || write_all(&lines, &backlog, sink, told))?;
        Ok((writer, LogGuard { queue }))
    }

    fn hand_over(&self, line: Vec<u8>) {
        let bytes = line.len();
        if !self.backlog.reserve(bytes) {
            self.backlog.dropped.fetch_add(1, Ordering::Relaxed);
        } else if self.queue.try_send(Item::Line(line)).is_err() {
            self.backlog.release(bytes);
            self.backlog.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The writing thread. Ends when the last author is gone.
fn write_all(
    lines: &Receiver<Item>,
    backlog: &Backlog,
    mut sink: impl Write,
    told: impl Fn(u64) -> String,
) {
    for item in lines {
        match item {
            Item::Line(line) => {
                let _ = sink.write_all(&line);
                backlog.release(line.len());
                tell_dropped(backlog, &mut sink, &told);
            }
            Item::Flush(done) => {
                let _ = sink.flush();
                let _ = done.send(());
            }
        }
    }
}

fn tell_dropped(backlog: &Backlog, sink: &mut impl Write, told: &impl Fn(u64) -> String) {
    let dropped = backlog.dropped.swap(0, Ordering::Relaxed);
    if dropped > 0 {
        let _ = writeln!(sink, "{}", told(dropped));
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            writer: self,
            bytes: Vec::new(),
        }
    }
}

/// One line in the making; handed over when dropped.
pub(super) struct Line<'a> {
    writer: &'a LogWriter,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let Some((_newline, text)) = self.bytes.split_last_mut() else {
            return;
        };
        // What a peer said may be part of it, and must not look like a line of ours.
        for byte in text.iter_mut().filter(|byte| b"\r\n".contains(byte)) {
            *byte = b' ';
        }
        self.writer.hand_over(std::mem::take(&mut self.bytes));
    }
}

/// Keeps the end of the log: dropping it waits until what was logged so far is written, for at most a second.
pub struct LogGuard {
    queue: SyncSender<Item>,
}

impl LogGuard {
    /// Waits until what was logged so far is written, for at most a second. For an end that runs no destructors.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        // With a full queue behind a reader that stalls there is nothing to wait for.
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Shared {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A reader that stalls until it is let go.
    struct Stalled {
        go: Receiver<()>,
        sink: Shared,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // An error means that the test let go for good.
            let _ = self.go.recv();
            self.sink.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    fn told(dropped: u64) -> String {
        format!("{dropped} dropped")
    }

    fn log(writer: &LogWriter, line: &str) {
        writer.make_writer().write_all(line.as_bytes()).unwrap();
    }

    #[test]
    fn the_last_lines_are_written_before_the_end() {
        let sink = Shared::default();
        let (writer, guard) = LogWriter::start(sink.clone(), told).unwrap();
        for i in 0..100 {
            log(&writer, &format!("line {i}\n"));
        }
        drop(guard);
        assert!(sink.text().ends_with("line 99\n"));
    }

    #[test]
    fn a_reader_that_stalls_costs_bounded_memory_and_no_time_and_is_told_what_it_missed() {
        let (go, stalled) = mpsc::channel();
        let sink = Shared::default();
        let (writer, guard) = LogWriter::start(
            Stalled {
                go: stalled,
                sink: sink.clone(),
            },
            told,
        )
        .unwrap();
        for _ in 0..4 * MAX_LINES {
            log(&writer, "a line\n");
        }
        log(&writer, &"x".repeat(MAX_BYTES + 1));
        let dropped = writer.backlog.dropped.load(Ordering::Relaxed);
        assert!(dropped > 3 * MAX_LINES as u64 - 2, "{dropped}");
        drop(go);
        while writer.backlog.bytes.load(Ordering::Relaxed) > 0 {
            thread::yield_now();
        }
        guard.flush();
        assert!(
            sink.text().contains(&format!("{dropped} dropped\n")),
            "{}",
            sink.text()
        );
    }

    #[test]
    fn one_event_is_one_line_whatever_is_quoted_in_it() {
        let sink = Shared::default();
        let (writer, guard) = LogWriter::start(sink.clone(), told).unwrap();
        log(&writer, "a peer said: well\r\n2026 ERROR forged\n");
        drop(guard);
        assert_eq!(sink.text(), "a peer said: well  2026 ERROR forged\n");
    }

    #[test]
    fn a_closed_standard_error_ends_nothing() {
        let (writer, guard) = LogWriter::start(Closed, told).unwrap();
        log(&writer, "nobody reads this\n");
        guard.flush();
        log(&writer, "nor this\n");
    }
}
