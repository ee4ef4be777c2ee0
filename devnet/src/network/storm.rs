//! A network that breaks again and again, in ways and at moments that a seed decides.
//!
//! Invariant: the same seed gives the same troubles in the same order. What they hit depends on the ends' own timing.

use std::{io, ops::Range, time::Duration};

use super::{Proxy, Reach, Way};

/// How bad the weather is.
#[derive(Clone, Debug)]
pub struct Storm {
    /// Of the troubles and their moments.
    pub seed: u64,
    /// How many troubles there are.
    pub troubles: usize,
    /// How long, in milliseconds, it is calm before each.
    pub calm: Range<u64>,
    /// How long, in milliseconds, each lasts.
    pub trouble: Range<u64>,
    /// After how many bytes a connection is reset, where that is the trouble.
    pub bytes: Range<u64>,
}

impl Proxy {
    /// Breaks the network again and again, and leaves it whole. It is also whole between two troubles, save that a
    /// direction that an open connection has lost stays lost.
    ///
    /// # Errors
    /// The system refuses the port.
    pub async fn weather(&self, storm: Storm) -> io::Result<()> {
        let mut random = fastrand::Rng::with_seed(storm.seed);
        for _ in 0..storm.troubles {
            pause(random.u64(storm.calm.clone())).await;
            let way = if random.bool() { Way::Up } else { Way::Down };
            match random.u8(0..4) {
                0 => self.cut().await,
                1 => self.stall(),
                2 => self.lose(way, Reach::Open),
                _ => self.reset_after(way, random.u64(storm.bytes.clone())),
            }
            pause(random.u64(storm.trouble.clone())).await;
            self.mend().await?;
        }
        Ok(())
    }
}

async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
