//! The agent under test as a real process: started with the settings that are given and no others, heard through its
//! log, spoken to by signals and HTTP. It is killed when its handle is dropped.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use socket2::Socket;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use rustix::process::Signal;

use crate::{
    http::{self, Answer},
    journal::{Journal, wait_until},
    listener::reserved_port,
};

const LISTEN_ADDR: &str = "PIN_LISTEN_ADDR";

/// How often a process is asked that cannot tell by itself.
const POLL: Duration = Duration::from_millis(5);

/// How an agent is to be started.
pub struct Builder {
    program: PathBuf,
    arguments: Vec<String>,
    settings: Vec<(String, String)>,
    log_file: Option<PathBuf>,
    apart: bool,
}

/// A running agent.
pub struct Agent {
    pid: u32,
    listen_addr: String,
    log: Arc<Journal<String>>,
    exit: watch::Receiver<Option<ExitStatus>>,
    _kill: DropGuard,
    _port: Option<Socket>,
}

impl Builder {
    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Sets a variable of its environment, which is else empty. Without `PIN_LISTEN_ADDR`, or with its
    /// port 0, a free port is chosen.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.push((name.to_owned(), value.into()));
        self
    }

    /// Sends its output to a file instead of [`Agent::log`].
    #[must_use]
    pub fn log_file(mut self, path: &Path) -> Self {
        self.log_file = Some(path.to_owned());
        self
    }

    /// Keeps a terminal's Ctrl-C from it.
    #[must_use]
    pub fn apart_from_the_terminal(mut self) -> Self {
        self.apart = true;
        self
    }

    /// Starts the process.
    ///
    /// # Errors
    /// The program cannot be started, or the log file not be created.
    pub async fn start(mut self) -> io::Result<Agent> {
        let (listen_addr, port) = self.listen_addr()?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.settings)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if self.apart {
            command.process_group(0);
        }
        match &self.log_file {
            Some(path) => {
                let file = File::create(path)?;
                command.stdout(file.try_clone()?).stderr(file);
            }
            None => {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
        }
        let child = command.spawn()?;
        Ok(Agent::attach(child, listen_addr, port))
    }

    fn listen_addr(&mut self) -> io::Result<(String, Option<Socket>)> {
        let mut settings = self.settings.iter();
        let given = settings.rfind(|(name, _)| name == LISTEN_ADDR);
        let given = given.map_or("127.0.0.1:0", |(_, address)| address);
        let Some(host) = given.strip_suffix(":0") else {
            return Ok((given.to_owned(), None));
        };
        let (port, reservation) = reserved_port()?;
        let chosen = format!("{host}:{port}");
        self.settings.push((LISTEN_ADDR.to_owned(), chosen.clone()));
        Ok((chosen, Some(reservation)))
    }
}

impl Agent {
    /// An agent that is the given program.
    pub fn builder(program: impl Into<PathBuf>) -> Builder {
        Builder {
            program: program.into(),
            arguments: Vec::new(),
            settings: Vec::new(),
            log_file: None,
            apart: false,
        }
    }

    fn attach(mut child: Child, listen_addr: String, port: Option<Socket>) -> Self {
        let log = Arc::new(Journal::default());
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            tokio::spawn(listen(stdout, Arc::clone(&log)));
            tokio::spawn(listen(stderr, Arc::clone(&log)));
        }
        let (exited, exit) = watch::channel(None);
        let kill = CancellationToken::new();
        // It was started just now and nobody has waited for it, so it has one.
        let pid = child.id().unwrap_or_default();
        tokio::spawn(guard(child, kill.clone(), exited));
        Self {
            pid,
            listen_addr,
            log,
            exit,
            _kill: kill.drop_guard(),
            _port: port,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A URL of its HTTP server; `path` begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen_addr)
    }

    /// `GET` from its HTTP server.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn get(&self, path: &str) -> io::Result<Answer> {
        http::get(&self.url(path)).await
    }

    /// Waits until `/readyz` says that it is ready; gives that answer.
    ///
    /// # Errors
    /// It exited, or was not ready by then; the error has its last answer.
    pub async fn wait_until_ready(&self, limit: Duration) -> io::Result<Answer> {
        let deadline = Instant::now() + limit;
        loop {
            let last = match self.get("/readyz").await {
                Ok(answer) if answer.status == 200 => return Ok(answer),
                Ok(answer) => answer.text(),
                Err(error) => error.to_string(),
            };
            if let Some(status) = *self.exit.borrow() {
                return Err(io::Error::other(self.end(status)));
            }
            if Instant::now() >= deadline {
                return Err(io::Error::other(format!(
                    "the agent was not ready within {limit:?}: {last}"
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn end(&self, status: ExitStatus) -> String {
        let last = self.log.all().into_iter().next_back();
        let last = last.map(|line| format!(", its last words being: {line}"));
        format!("the agent ended with {status}{}", last.unwrap_or_default())
    }

    /// Sends a signal; does nothing if it has exited.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let (Some(pid), None) = (pid, *self.exit.borrow()) {
            // Fails only if it is gone just now.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// How it exited, if it has.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits until it exits.
    ///
    /// # Panics
    /// Past [`PATIENCE`](crate::PATIENCE).
    pub async fn wait(&self) -> ExitStatus {
        let status = wait_until(self.exit.clone(), "the agent's exit", Option::is_some).await;
        status.unwrap_or_default()
    }

    /// Waits until it exits, but no longer than this.
    pub async fn wait_for(&self, limit: Duration) -> Option<ExitStatus> {
        let mut exit = self.exit.clone();
        // If there is no exit in time, what was last seen says so.
        let _ = tokio::time::timeout(limit, exit.wait_for(Option::is_some)).await;
        self.exit_status()
    }

    /// Every line of its output so far.
    pub fn log(&self) -> Vec<Arc<String>> {
        self.log.all()
    }

    /// The first line of its output, of the past or the future, that matches.
    ///
    /// # Panics
    /// Past [`PATIENCE`](crate::PATIENCE).
    pub async fn wait_for_log(&self, what: impl Fn(&str) -> bool) -> Arc<String> {
        self.log
            .find(0, "a line of the agent's log", |line| what(line))
            .await
            .1
    }
}

async fn listen(output: impl AsyncRead + Unpin, log: Arc<Journal<String>>) {
    let mut lines = BufReader::new(output).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        log.push(Arc::new(String::from_utf8_lossy(&line).into_owned()));
    }
}

/// Waits for a process, and kills it when it is told to.
async fn guard(
    mut child: Child,
    kill: CancellationToken,
    exited: watch::Sender<Option<ExitStatus>>,
) {
    let status = tokio::select! {
        status = child.wait() => status.ok(),
        () = kill.cancelled() => {
            // Fails only if it is gone already.
            let _ = child.kill().await;
            return;
        }
    };
    exited.send_replace(status);
}
