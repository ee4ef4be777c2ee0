//! One connection through the proxy.
//!
//! Invariant: a direction that is lost stays lost, and then neither end of the connection is told of anything that
//! happens at the other.

use std::{io, sync::Arc, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
};

use super::{Mode, Network, Pace, Way, Weather};
use crate::listener::Reset;

const BUFFER: usize = 64 * 1024;

/// What a slow reader's sockets hold; the system doubles it.
const SMALL_BUFFER: usize = 4096;

/// How often a slow direction moves.
const TICK: Duration = Duration::from_millis(20);

pub(super) struct Line {
    network: Arc<Network>,
    number: usize,
}

/// Why a direction ended other than by the end of what it carried.
enum Broken {
    /// A socket failed.
    Failed,
    /// The network resets both ends.
    Reset,
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Failed
    }
}

impl Line {
    pub(super) async fn serve(network: Arc<Network>, number: usize, mut client: TcpStream) {
        let mut weather = network.weather.subscribe();
        // Each failure ends this connection, as the end of its other half would.
        let _ = weather.wait_for(|now| now.mode == Mode::Whole).await;
        let Ok(mut server) = TcpStream::connect(network.target).await else {
            return;
        };
        let Ok(ends) = Ends::of(&client, &server, weather) else {
            return;
        };
        let line = Self { network, number };
        // Halves that own the stream would say goodbye when dropped, and a cut must not.
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = line.carry(Way::Up, from_client, to_server);
        let back = line.carry(Way::Down, from_server, to_client);
        if let Err(Broken::Reset) = tokio::try_join!(there, back) {
            ends.reset();
        }
    }

    /// Carries one direction to its end; to no end where the connection has lost a direction, since then nobody hears
    /// of it.
    async fn carry(&self, way: Way, from: ReadHalf<'_>, to: WriteHalf<'_>) -> Result<(), Broken> {
        let end = self.pump(way, from, to).await;
        let weather = *self.network.weather.borrow();
        let silent = match end {
            Ok(()) => weather.is_lost(self.number, way),
            Err(_) => [Way::Up, Way::Down]
                .into_iter()
                .any(|way| weather.is_lost(self.number, way)),
        };
        if silent {
            std::future::pending::<()>().await;
        }
        end
    }

    async fn pump(
        &self,
        way: Way,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
    ) -> Result<(), Broken> {
        to.as_ref().set_nodelay(true)?;
        let mut weather = self.network.weather.subscribe();
        let mut buffer = vec![0; BUFFER];
        loop {
            let now = *weather
                .wait_for(|now| now.mode == Mode::Whole)
                .await
                .map_err(|_| Broken::Failed)?;
            let pace = now.condition(way).pace;
            let most = most_at_once(pace, &from, &to).min(self.network.fuse(way));
            let read = tokio::select! {
                biased;
                _ = weather.changed() => continue,
                read = from.read(&mut buffer[..most]) => read?,
            };
            if now.is_lost(self.number, way) {
                if read == 0 {
                    return Ok(());
                }
                continue;
            }
            if read == 0 {
                to.shutdown().await?;
                return Ok(());
            }
            write(pace, &mut to, &buffer[..read]).await?;
            if self.network.burn(way, read) {
                return Err(Broken::Reset);
            }
        }
    }
}

/// How much may be read in one go; a slow direction's buffers are made small on the way.
fn most_at_once(pace: Pace, from: &ReadHalf<'_>, to: &WriteHalf<'_>) -> usize {
    let Pace::Slow { bytes_per_second } = pace else {
        return BUFFER;
    };
    // Fails only on a socket that is gone, and reading will tell.
    let _ = SockRef::from(from.as_ref()).set_recv_buffer_size(SMALL_BUFFER);
    let _ = SockRef::from(to.as_ref()).set_send_buffer_size(SMALL_BUFFER);
    let ticks = usize::try_from(1000 / TICK.as_millis()).unwrap_or(1);
    (bytes_per_second / ticks).clamp(1, BUFFER)
}

async fn write(pace: Pace, to: &mut WriteHalf<'_>, bytes: &[u8]) -> io::Result<()> {
    match pace {
        Pace::Full => to.write_all(bytes).await,
        Pace::Bytewise => {
            for byte in bytes {
                to.write_all(std::slice::from_ref(byte)).await?;
                tokio::task::yield_now().await;
            }
            Ok(())
        }
        Pace::Slow { .. } => {
            tokio::time::sleep(TICK).await;
            to.write_all(bytes).await
        }
    }
}

/// Both ends of a connection; they are reset if it is dropped because the network was cut.
struct Ends {
    resets: [Reset; 2],
    weather: watch::Receiver<Weather>,
}

impl Ends {
    fn of(
        client: &TcpStream,
        server: &TcpStream,
        weather: watch::Receiver<Weather>,
    ) -> io::Result<Self> {
        Ok(Self {
            resets: [Reset::of(client)?, Reset::of(server)?],
            weather,
        })
    }

    fn reset(&self) {
        self.resets.iter().for_each(Reset::on_drop);
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        if self.weather.borrow().mode == Mode::Cut {
            self.reset();
        }
    }
}
