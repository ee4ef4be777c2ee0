//! A past for the page's plots and sums: some weeks with a gap, or two seconds.

use pin_sidecar::admin::{Day, History, Outage, Point, Series, Verdict};

use crate::scenes::{DAY, Scene};

/// Of the last days two are not known, and nothing before this many.
const KNOWN_DAYS: u64 = 24;
const UNKNOWN: [u64; 2] = [12, 13];

pub fn history(scene: Scene, now: u64, since: u64) -> History {
    if scene == Scene::Starting {
        let known_since = now - 2;
        return History {
            now,
            known_since,
            fine: series(5, 0, now, since),
            coarse: series(120, 0, now, since),
            ..History::default()
        };
    }
    let midnight = now - now % DAY;
    let known = (0..=KNOWN_DAYS)
        .rev()
        .filter(|back| !UNKNOWN.contains(back));
    History {
        now,
        known_since: midnight - KNOWN_DAYS * DAY,
        fine: series(5, 720, now, since),
        coarse: series(120, 1_440, now, since),
        days: known.map(|back| day(midnight, back, now)).collect(),
        outages: outages(scene, now),
        interviews: interviews(now),
    }
}

/// Comes and goes, the same for the same moment.
fn wave(at: u64, length: u32) -> f64 {
    let phase = u32::try_from(at % u64::from(length)).unwrap();
    (f64::from(phase) / f64::from(length) * std::f64::consts::TAU).sin() + 1.0
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small and positive"
)]
fn series(step: u64, count: u64, now: u64, since: u64) -> Series {
    let last = now - now % step;
    let ages = (0..count)
        .rev()
        .filter(|age| !(count * 50 / 100..count * 58 / 100).contains(age));
    let points = ages.map(|age| {
        let at = last - age * step;
        let busy = wave(at, 1_500) * 2.0;
        let speed = wave(at, 130).mul_add(12.0, 20.0) * busy;
        Point {
            at,
            running: busy as u32,
            waiting: (busy - 3.0).max(0.0).round() as u32,
            requests: 1,
            failures: 0,
            tokens: (speed * step as f64) as u64,
            first_token_p50_ms: (busy >= 1.0).then_some((wave(at, 300) * 60.0 + 160.0) as u32),
            first_token_p95_ms: (busy >= 1.0).then_some((wave(at, 420) * 300.0 + 380.0) as u32),
            up_seconds: step as u32,
            usd: 0.000_1,
        }
    });
    let points = points.filter(|point| point.at > since).collect();
    Series { step, points }
}

fn day(midnight: u64, back: u64, now: u64) -> Day {
    let from = midnight - back * DAY;
    let known_seconds = if back == 0 { now - midnight } else { DAY };
    let share = |value: u64| value * known_seconds / DAY;
    let requests = share(700 + back * 379 % 400);
    let at = humantime::format_rfc3339_seconds(
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(from),
    );
    Day {
        date: at.to_string()[..10].to_owned(),
        from,
        known_seconds,
        up_seconds: known_seconds - share(if back % 6 == 2 { 3_120 } else { 0 }),
        requests,
        failures: 2,
        tokens: requests * 410,
        usd: f64::from(u32::try_from(requests).unwrap()) * 0.001,
    }
}

fn outages(scene: Scene, now: u64) -> Vec<Outage> {
    let open = Outage {
        from: now - 754,
        to: None,
        why: "The gateway cannot be reached: its name cannot be resolved.".to_owned(),
    };
    let broke = Outage {
        from: now - 2 * DAY - 7_300,
        to: Some(now - 2 * DAY - 7_200),
        why: "The connection to the gateway broke; a new one is being opened.".to_owned(),
    };
    let is_out = matches!(scene, Scene::NoNetwork | Scene::Refused);
    is_out.then_some(open).into_iter().chain([broke]).collect()
}

fn interviews(now: u64) -> Vec<Verdict> {
    let verdict = |at, tier, accuracy, speed| Verdict {
        at,
        node: "gpu-attic".to_owned(),
        tier,
        accuracy: Some(accuracy),
        tokens_per_second: Some(speed),
    };
    vec![
        verdict(now - 2 * DAY, "elite", 0.956, 41.7),
        verdict(now - 9 * DAY, "failed", 0.61, 7.2),
    ]
}
