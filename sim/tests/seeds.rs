//! A few hundred stories, each of which must keep every promise; and the promise of the simulation itself, that a seed
//! is one story.

#![allow(clippy::unwrap_used)]

use std::{
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

/// Seeds that once broke a promise, each with what went wrong.
const REGRESSIONS: &[(&str, u64)] = &[
    ("a cancelled job put more chunks into the outbox", 4326),
    ("an answered request was run again, for lack of room", 58),
    ("a rejected answer's request was run again", 358),
    (
        "a PING that had been read waited for several large answers",
        9555,
    ),
    (
        "a gateway that wanted to be left alone was come back to after a drain on request",
        3816,
    ),
    ("an acknowledged failure proved the answer behind it", 10141),
    (
        "SIGTERM in a drain on request added its wait to that",
        11344,
    ),
    ("the same with the gateway away, and chats were lost", 10381),
    (
        "a proven answer counted as lost when it was asked for behind our Close",
        24637,
    ),
    ("a whole answer was thrown away for its last chunks", 11744),
    (
        "a second drain forgot how long the gateway wanted to be left alone",
        12727,
    ),
    (
        "a time to stay away that no clock can count ended the session's task",
        12342,
    ),
    (
        "a job that was stopped and cancelled in one tick answered",
        10026,
    ),
    (
        "a large waiting room filled the outbox over its bound",
        10014,
    ),
    (
        "a Retry-After of 0 was taken for leave to come back without a pause",
        471,
    ),
    (
        "a HEARTBEAT_ACK that came twice proved what the first Pong had not reached",
        800_006_639,
    ),
    (
        "a chat that waited got the slot between two interviews",
        126,
    ),
    (
        "a Close at the last moment of a drain was answered for longer than that may take",
        172_091_315,
    ),
    (
        "a network that failed behind the sidecar's own end was taken for one that cut it off",
        203_362_293,
    ),
    (
        "answers that a gateway broke a session each over were taken for lost while they were held",
        500_023_128,
    ),
    (
        "the answer of an interview that had waited for another was no part of the outbox's bound",
        310_000_323,
    ),
    (
        "a registration that was read only after SIGTERM counted as one in the drain before",
        900_006_168,
    ),
    (
        "an outbox that was full between two looks was no reason to refuse an interview as busy",
        900_001_779,
    ),
];

#[test]
fn three_hundred_bad_days_break_no_promise() {
    let next = AtomicU64::new(0);
    let breached: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..thread::available_parallelism().map_or(1, usize::from))
            .map(|_| {
                scope.spawn(|| {
                    let seeds = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
                    let seeds = seeds.take_while(|seed| *seed < 300);
                    let verdicts = seeds.map(|seed| sim::run(seed, false));
                    verdicts.flat_map(sentences).collect::<Vec<_>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    assert!(breached.is_empty(), "{}", breached.join("\n"));
}

#[test]
fn what_was_mended_stays_mended() {
    for (what, seed) in REGRESSIONS {
        let breaches: Vec<_> = sentences(sim::run(*seed, false)).collect();
        assert!(breaches.is_empty(), "{what}: {}", breaches.join("\n"));
    }
}

#[test]
fn a_seed_is_the_same_story_twice_and_in_another_process() {
    for seed in [3, 11, 18, 35, 42, 63, 105, 196, 268] {
        let (first, second) = (sim::run(seed, true), sim::run(seed, true));
        let differs = first.trace.iter().zip(&second.trace).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        let other = Command::new(env!("CARGO_BIN_EXE_sim"))
            .args(["--seed", &seed.to_string()])
            .output()
            .unwrap();
        let text = String::from_utf8(other.stdout).unwrap();
        let hash = format!("trace {:016x}", first.trace_hash);
        assert!(text.contains(&hash), "seed {seed}: {hash} is not in {text}");
    }
}

fn sentences(verdict: sim::Verdict) -> impl Iterator<Item = String> {
    let seed = verdict.seed;
    let breaches = verdict.breaches.into_iter();
    breaches.map(move |breach| format!("cargo sim -- --seed {seed} --trace: {breach}"))
}
