//! Runs steps one after the other, prints what each took, and sums up.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::counts::Counts;

/// The steps that have run.
#[derive(Debug)]
pub(crate) struct Steps {
    ended: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    name: &'static str,
    took: Duration,
    outcome: Result<Counts>,
}

impl Step {
    fn failed(&self) -> bool {
        self.outcome.as_ref().map_or(true, |counts| counts.failed > 0)
    }

    fn line(&self) -> String {
        let seconds = self.took.as_secs_f64();
        let what = match &self.outcome {
            Err(error) => format!("FAILED: {error:#}"),
            Ok(Counts { passed: 0, failed: 0, skipped: 0 }) => "ok".to_owned(),
            Ok(Counts { passed, failed, skipped }) => {
                format!("{passed} passed, {failed} failed, {skipped} skipped")
            }
        };
        format!("{:<22}{seconds:>8.1} s  {what}", self.name)
    }
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { ended: Vec::new() }
    }

    #[expect(clippy::disallowed_methods, reason = "measures how long a step takes, decides nothing")]
    pub(crate) fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<Counts>) {
        println!("== {name}");
        let start = Instant::now();
        let outcome = step();
        let step = Step { name, took: start.elapsed(), outcome };
        println!("== {}\n", step.line());
        self.ended.push(step);
    }

    /// Prints the table of steps and, last, the line `N passed, N failed`.
    pub(crate) fn finish(&self) -> ExitCode {
        let mut total = Counts::default();
        for step in &self.ended {
            println!("{}", step.line());
            if let Ok(counts) = step.outcome {
                total.add(counts);
            }
        }
        let failed: Vec<_> = self.ended.iter().filter(|step| step.failed()).map(|step| step.name).collect();
        if !failed.is_empty() {
            println!("failed steps: {}", failed.join(", "));
        }
        println!("{} passed, {} failed", total.passed, total.failed);
        if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
