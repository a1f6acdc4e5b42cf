//! What is sent: made up from the model's metadata, or read from files; and a first look whether it works.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use salver_load::{
    Call, Check, MakeUp, Outcome, ProcessTree, Subject, ask, classify, describe, listening_on, make_up,
    read_calls,
};
use salver_wire::client::Described;

use super::flags::BenchArgs;

/// The largest file that is read.
const MAX_FILE: u64 = 1 << 30;

/// What is sent.
pub(super) struct Asked {
    pub(super) calls: Vec<Call>,
    pub(super) check: Option<Check>,
    /// What to tell before it begins.
    pub(super) notes: Vec<String>,
    /// In words.
    pub(super) what: String,
    /// The version that answers, where it is known.
    pub(super) version: Option<u64>,
}

/// Asks the server what the model takes, encodes the requests, and sends the first one to see that it works.
pub(super) fn prepare(args: &BenchArgs) -> anyhow::Result<Asked> {
    let mut subject = Subject::new(args.protocol(), &args.model, args.model_version)?;
    subject.signature.clone_from(&args.signature);
    subject.format = args.format.into();
    let needs_metadata = args.body.is_empty() || args.check || args.expect.is_some();
    let described = needs_metadata.then(|| describe(&args.target, &subject, args.timeout)).transpose()?;
    let (calls, what, mut notes) = match &described {
        Some(described) if args.body.is_empty() => made_up(args, &subject, described)?,
        _ => from_files(args, &subject)?,
    };
    let check = match &described {
        Some(described) if args.check || args.expect.is_some() => {
            Some(check(args, &subject, described, &calls)?)
        }
        _ => None,
    };
    let first = calls.first().context("there is nothing to send")?;
    first_look(args, first, &mut notes)?;
    let version = described.and_then(|described| described.versions.iter().max().copied());
    Ok(Asked { calls, check, notes, what, version })
}

fn made_up(
    args: &BenchArgs,
    subject: &Subject,
    described: &Described,
) -> anyhow::Result<(Vec<Call>, String, Vec<String>)> {
    let signature =
        described.signature(&args.signature).with_context(|| format!("model '{}'", args.model))?;
    let mut how = MakeUp {
        n_rows: args.batch,
        shapes: args.shapes(),
        seed: args.seed,
        n_bodies: args.bodies,
        ..MakeUp::default()
    };
    if !args.text.is_empty() {
        how.texts.clone_from(&args.text);
    }
    let bodies = make_up(signature, &how)?;
    let calls = bodies.iter().map(|inputs| subject.call(inputs)).collect::<Result<Vec<_>, _>>()?;
    let mut what = format!("{} requests, made up:", calls.len());
    for (name, tensor) in bodies.first().into_iter().flatten() {
        write!(what, " {name} {}{}", tensor.dtype(), tensor.shape())
            .context("a string takes all that is written")?;
    }
    Ok((calls, what, Vec::new()))
}

/// A whole file, of whatever kind it is: pipes and devices do not say how long they are.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).with_context(cannot)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).with_context(cannot)?;
    if bytes.len() as u64 > MAX_FILE {
        bail!("{} is larger than {MAX_FILE} bytes", path.display());
    }
    Ok(bytes)
}

fn from_files(args: &BenchArgs, subject: &Subject) -> anyhow::Result<(Vec<Call>, String, Vec<String>)> {
    let (mut calls, mut notes) = (Vec::new(), Vec::new());
    for path in &args.body {
        let (some, more) = read_calls(&read(path)?, subject).with_context(|| path.display().to_string())?;
        calls.extend(some);
        notes.extend(more.into_iter().map(|note| format!("{}: {note}", path.display())));
    }
    let names: Vec<String> = args.body.iter().map(|path| path.display().to_string()).collect();
    let what = format!("{} requests from {}", calls.len(), names.join(", "));
    Ok((calls, what, notes))
}

fn check(
    args: &BenchArgs,
    subject: &Subject,
    described: &Described,
    calls: &[Call],
) -> anyhow::Result<Check> {
    let signature =
        described.signature(&args.signature).with_context(|| format!("model '{}'", args.model))?;
    let check = Check::new(subject.clone(), std::sync::Arc::clone(signature), args.tolerance, calls.len());
    if let Some(path) = &args.expect {
        if calls.len() != 1 {
            bail!("--expect holds for one request, and --body has {}", calls.len());
        }
        let expected = subject.decode_body(signature, read(path)?.into());
        check.expect(0, expected.with_context(|| path.display().to_string())?);
    }
    Ok(check)
}

/// One request before all others: what is wrong with it is told in one line, instead of a million times.
fn first_look(args: &BenchArgs, call: &Call, notes: &mut Vec<String>) -> anyhow::Result<()> {
    let answer = ask(&args.target, call, args.timeout)?;
    match (classify(answer.reply, std::time::Duration::ZERO, None), answer.error()) {
        (Outcome::Refused | Outcome::Expired, Some(error)) => {
            notes.push(format!("the server is busy: {error}"))
        }
        (_, Some(error)) => bail!("the server refuses the first request: {error}"),
        (_, None) => {}
    }
    Ok(())
}

/// The server's processes: those that were named, or those that can be seen to listen.
pub(super) fn server(args: &BenchArgs) -> anyhow::Result<Option<ProcessTree>> {
    if let Some(pid) = args.pid {
        return Ok(Some(ProcessTree::new(pid)?));
    }
    let is_here = args.target.addresses()?.iter().all(|address| address.ip().is_loopback());
    let pid = is_here.then(|| listening_on(args.target.port())).flatten();
    Ok(pid.and_then(|pid| ProcessTree::new(pid).ok()))
}
