//! Runs seeds and tells which of them broke a promise.

#![allow(clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    ops::Range,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use sim::{Verdict, count_panics, run, run_hour};

/// Every so many seeds of a range are an hour long.
const HOUR_EVERY: u64 = 500;

/// The real relay, in a world that follows from a seed.
#[derive(Parser)]
struct Arguments {
    /// One seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// A range of seeds: from, `..`, and the first that is not run.
    #[arg(long, value_parser = range, default_value = "0..1000")]
    seeds: Range<u64>,
    /// Print what happened.
    #[arg(long)]
    trace: bool,
    /// Make the seed, or all of them, an hour long.
    #[arg(long)]
    hours: bool,
    /// Threads.
    #[arg(long)]
    jobs: Option<usize>,
    /// Run no more seeds once one has failed.
    #[arg(long)]
    fail_fast: bool,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("a range is written A..B")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    Ok(number(from)?..number(to)?)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    count_panics();
    let breached = match arguments.seed {
        Some(seed) => one(seed, &arguments),
        None => many(&arguments),
    };
    if breached {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn is_hour(seed: u64) -> bool {
    seed % HOUR_EVERY == HOUR_EVERY - 1
}

fn one(seed: u64, arguments: &Arguments) -> bool {
    let verdict = if arguments.hours || is_hour(seed) {
        run_hour(seed, arguments.trace)
    } else {
        run(seed, arguments.trace)
    };
    verdict.trace.iter().for_each(|line| println!("{line}"));
    tell(&verdict, arguments.hours);
    println!(
        "seed {seed}: {:?} of virtual time, trace {:016x}",
        verdict.virtual_time, verdict.trace_hash
    );
    !verdict.breaches.is_empty()
}

fn tell(verdict: &Verdict, hours: bool) {
    if verdict.breaches.is_empty() {
        return;
    }
    let hours = if hours { " --hours" } else { "" };
    println!(
        "FAILED: cargo sim -- --seed {}{hours} --trace",
        verdict.seed
    );
    verdict
        .breaches
        .iter()
        .for_each(|breach| println!("    {breach}"));
}

/// What a range came to.
#[derive(Default)]
struct Sum {
    seeds: u64,
    failed: u64,
    virtual_time: Duration,
    /// Of the hashes of all traces: the same for the same range, always.
    traces: u64,
    counts: BTreeMap<String, u64>,
    /// In how many seeds it happened at all.
    seen: BTreeMap<String, u64>,
}

impl Sum {
    fn add(&mut self, verdict: &Verdict) {
        self.seeds += 1;
        self.failed += u64::from(!verdict.breaches.is_empty());
        self.virtual_time += verdict.virtual_time;
        self.traces = self.traces.wrapping_add(verdict.trace_hash);
        for (name, count) in verdict.counts.iter().filter(|(_, count)| **count > 0) {
            *self.counts.entry(name.clone()).or_default() += count;
            *self.seen.entry(name.clone()).or_default() += 1;
        }
    }

    fn join(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.failed += other.failed;
        self.virtual_time += other.virtual_time;
        self.traces = self.traces.wrapping_add(other.traces);
        for (mine, others) in [
            (&mut self.counts, other.counts),
            (&mut self.seen, other.seen),
        ] {
            for (name, count) in others {
                *mine.entry(name).or_default() += count;
            }
        }
    }
}

fn many(arguments: &Arguments) -> bool {
    let began = Instant::now();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(arguments.seeds.start);
    let sum = thread::scope(|scope| {
        let workers: Vec<_> = (0..arguments.jobs.unwrap_or(cores).max(1))
            .map(|_| scope.spawn(|| work(&next, arguments)))
            .collect();
        let mut sum = Sum::default();
        for worker in workers {
            // A panic of ours is a defect of the simulation and ends it.
            sum.join(
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            );
        }
        sum
    });
    println!("{:>12} {:>9}", "times", "in seeds");
    for (name, count) in &sum.counts {
        println!("{count:>12} {:>9}  {name}", sum.seen[name]);
    }
    println!(
        "{} seeds, {:.1} virtual hours, {:.1} s, traces {:016x}; {} failed",
        sum.seeds,
        sum.virtual_time.as_secs_f64() / 3_600.0,
        began.elapsed().as_secs_f64(),
        sum.traces,
        sum.failed
    );
    sum.failed > 0
}

fn work(next: &AtomicU64, arguments: &Arguments) -> Sum {
    let mut sum = Sum::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= arguments.seeds.end {
            return sum;
        }
        let verdict = if arguments.hours || is_hour(seed) {
            run_hour(seed, false)
        } else {
            run(seed, false)
        };
        tell(&verdict, arguments.hours);
        sum.add(&verdict);
        if arguments.fail_fast && sum.failed > 0 {
            next.store(arguments.seeds.end, Ordering::Relaxed);
        }
    }
}
