//! Memory, measured in processes that do nothing else: this program again, once for each candidate.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::str::FromStr;

use anyhow::{Context, bail};
use salver_runtime::Runtimes;
use salver_tune::{Footprint, Goal, Measured, Report, Sharing, best_of};

use super::candidates::Found;
use super::requests;
use super::settled::Settled;
use super::{Subject, TuneArgs};

/// What a process of its own is to load: `ENGINE,PRECISION,THREADS,LANES,BATCH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Load {
    engine: String,
    precision: salver_engine::Precision,
    sharing: Sharing,
    batch: NonZeroUsize,
}

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> Result<Load, String> {
        let wrong = || format!("'{text}', expected ENGINE,PRECISION,THREADS,LANES,BATCH");
        let parts: Vec<&str> = text.split(',').collect();
        let &[engine, precision, threads, lanes, batch] = parts.as_slice() else { return Err(wrong()) };
        let number = |text: &str| text.parse::<NonZeroUsize>().map_err(|_| wrong());
        Ok(Load {
            engine: engine.to_owned(),
            precision: precision.parse().map_err(|_| wrong())?,
            sharing: Sharing { threads: number(threads)?, lanes: number(lanes)? },
            batch: number(batch)?,
        })
    }
}

impl Load {
    fn of(one: &Measured) -> Load {
        let engine = one.engine.to_string();
        Load { engine, precision: one.precision, sharing: one.sharing, batch: one.batch }
    }

    fn text(&self) -> String {
        let Sharing { threads, lanes } = self.sharing;
        format!("{},{},{threads},{lanes},{}", self.engine, self.precision, self.batch)
    }
}

/// Replaces the memory of what was measured by what a process of its own takes, for the choice and the best of every other
/// candidate; the memory of the rest is not known.
pub(super) fn all(
    args: &TuneArgs,
    found: &Found,
    runtimes: &Runtimes,
    goal: &Goal,
    report: &mut Report,
    step: &mut dyn FnMut(&str),
) {
    let chosen = report.choice.and_then(|choice| report.measured.get(choice)).map(|one| one.candidate);
    let best = |candidate: usize| match chosen == Some(candidate) {
        true => report.choice,
        false => best_of(&report.measured, goal, |one| one.candidate == candidate),
    };
    let best: Vec<usize> = (0..report.candidates.len()).filter_map(best).collect();
    for (at, one) in report.measured.iter_mut().enumerate() {
        one.footprint = None;
        if best.contains(&at) {
            step(&format!("{} {}: memory", one.engine, one.precision));
            match apart(args, found, runtimes, &Load::of(one)) {
                Ok(footprint) => one.footprint = Some(footprint),
                Err(error) => report.notes.push(format!(
                    "the memory of {} {} could not be measured: {error:#}",
                    one.engine, one.precision
                )),
            }
        }
    }
}

/// Runs this program again for one load. Its errors go where ours go.
fn apart(args: &TuneArgs, found: &Found, runtimes: &Runtimes, load: &Load) -> anyhow::Result<Footprint> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("tune").arg(&args.model).args(["--engines", &load.engine, "--weigh", &load.text()]);
    command.arg("--allow").arg(load.precision.name());
    if let Some(requests) = &args.requests {
        command.arg("--requests").arg(requests);
    }
    if let Some(ranges) = found.ranges.as_ref().and_then(|ranges| ranges.made()) {
        command.arg("--weigh-ranges").arg(ranges);
    }
    command.args(crate::runtime::flags(runtimes));
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("the process that loaded it ended with {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Option<Vec<u64>> = text.split_whitespace().map(|number| number.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[model, files]) => Ok(Footprint { model, files }),
        _ => bail!("the process that loaded it said '{}'", text.trim()),
    }
}

/// What such a process does: loads, runs, and says what that took.
///
/// # Errors
/// When there is no such candidate, or it fails.
pub(super) fn here(
    args: &TuneArgs,
    subject: &Subject,
    found: &Found,
    load: &Load,
    ranges: Option<PathBuf>,
) -> anyhow::Result<String> {
    if let Some((known, path)) = found.ranges.as_ref().zip(ranges) {
        known.preset(path);
    }
    let candidate = found
        .candidates
        .iter()
        .find(|one| (&*one.engine, one.precision) == (&*load.engine, load.precision))
        .with_context(|| format!("no engine {} {}", load.engine, load.precision))?;
    let make = |signatures: &[std::sync::Arc<salver_tensor::Signature>]| {
        Ok(requests::of(&subject.place, args.requests.as_deref(), signatures)?.0)
    };
    let footprint = salver_tune::weigh(candidate, load.sharing, load.batch, &make, &Settled::new())?;
    Ok(format!("{} {}", footprint.model, footprint.files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_said_and_understood() {
        let text = "openvino,bf16,2,1,8";
        assert_eq!(text.parse::<Load>().unwrap().text(), text);
        for wrong in ["", "openvino", "openvino,f8,1,1,1", "openvino,f32,0,1,1", "openvino,f32,1,1,1,1"] {
            assert!(wrong.parse::<Load>().is_err(), "{wrong}");
        }
    }
}
