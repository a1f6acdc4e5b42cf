//! Trying a library: a small model is loaded and run with it, in a process of its own, since what is wrong with a library
//! may end the process that opens it.

use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::{Context, bail};
use salver_engine::{Choice, LoadOptions, ModelSource};
use salver_runtime::{Found, Kind, Runtimes};
use salver_tensor::{Shape, Tensor};

use crate::parts;

/// This program, also after its file was replaced.
const PROGRAM: &str = "/proc/self/exe";

/// How long a trial may take. Opening TensorFlow from a slow disk takes the longest, some ten seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// The most that is read of what a library prints.
const MAX_PRINTED: u64 = 1 << 20;

/// Tries a library in a process of its own and waits for it, at most a minute.
///
/// # Errors
/// What went wrong, in one line.
pub(super) fn apart(found: &Found) -> Result<(), String> {
    let mut library = std::ffi::OsString::from(format!("--library={}=", found.kind));
    library.push(&found.folder);
    let mut command = Command::new(PROGRAM);
    command.arg0(env!("CARGO_BIN_NAME")).args(["doctor", "--try", found.kind.name()]).arg(library);
    run(&mut command, LIMIT)
}

/// Runs a command that says in its last line why it fails, and kills it when the time is over.
fn run(command: &mut Command, limit: Duration) -> Result<(), String> {
    let cannot = |error: io::Error| format!("cannot be tried: {error}");
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(cannot)?;
    let mut printed = child.stdout.take().expect("it was piped");
    let (give, take) = sync_channel(1);
    // Reading ends with the process, which holds the other end, and waiting for a message has a limit.
    let reading = std::thread::Builder::new().name("trial".to_owned()).spawn(move || {
        let mut said = Vec::new();
        let read = printed.by_ref().take(MAX_PRINTED).read_to_end(&mut said);
        // What comes behind is let go, so that whoever prints it can end.
        let rest = read.and_then(|_| io::copy(&mut printed, &mut io::sink()));
        // Nobody listens any more when the time is over.
        drop(give.send(rest.map(|_| said)));
    });
    let said = reading.map_err(cannot).and_then(|_| match take.recv_timeout(limit) {
        Ok(said) => said.map_err(cannot),
        Err(_) => Err(format!("it did not run a small model within {} s", limit.as_secs())),
    });
    if said.is_err() {
        child.kill().map_err(cannot)?;
    }
    let status = child.wait().map_err(cannot)?;
    let said = said?;
    if status.success() {
        return Ok(());
    }
    match String::from_utf8_lossy(&said).lines().last().filter(|_| status.code().is_some()) {
        Some(line) => Err(line.to_owned()),
        None => Err(format!("the process that opens it ends with {status}")),
    }
}

/// Tries a library in this process.
///
/// # Errors
/// What went wrong.
pub(super) fn here(kind: Kind, runtimes: &Runtimes) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (name, bytes) = match kind {
        Kind::TensorFlow => ("negative.pb", frozen_graph()),
        _ => ("negative.onnx", onnx()),
    };
    let path = folder.path().join(name);
    std::fs::write(&path, bytes)?;
    let source = ModelSource::find(&path)?;
    let choice = Choice::Named(kind.name().into());
    let loaded = parts::engines(runtimes).load(&source, &LoadOptions::default(), &choice)?;
    let x = Tensor::from_vec(Shape::new(&[2])?, vec![1.5f32, -2.0])?;
    let mut answer = None;
    loaded.model.enter(NonZeroUsize::MIN, &mut || {
        let session = loaded.model.session();
        answer = Some(session.and_then(|mut session| session.run(0, std::slice::from_ref(&x), &[0])));
    });
    let outputs = answer.context("the engine did not run")??;
    let y = outputs.first().and_then(|y| y.as_slice::<f32>()).unwrap_or_default();
    if y != [-1.5, 2.0] {
        bail!("{kind} says that the negative of [1.5, -2] is {y:?}");
    }
    Ok(())
}

/// A field of a message: text or another message. These are short: lengths are one byte.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("the messages here are short");
    assert!(length < 128 && number < 16, "longer ones have another form");
    [&[number << 3 | 2, length], content].concat()
}

/// A field of a message: a small number.
fn number(number: u8, value: u8) -> [u8; 2] {
    [number << 3, value]
}

/// A `ModelProto` that computes `y = -x` for two floats (the numbers of fields are those of onnx.proto).
fn onnx() -> Vec<u8> {
    let dims = field(1, &number(1, 2));
    let tensor = [&number(1, 1)[..], &field(2, &dims)].concat();
    let value = |name: &[u8]| [field(1, name), field(2, &field(1, &tensor))].concat();
    let node = [field(1, b"x"), field(2, b"y"), field(4, b"Neg")].concat();
    let ports = [field(11, &value(b"x")), field(12, &value(b"y"))].concat();
    let graph = [field(1, &node), field(2, b"negative"), ports].concat();
    let operators = [&field(1, b"")[..], &number(2, 13)].concat();
    [&number(1, 8)[..], &field(7, &graph), &field(8, &operators)].concat()
}

/// A `GraphDef` that computes the same (the numbers of fields are those of graph.proto, node_def.proto, attr_value.proto).
fn frozen_graph() -> Vec<u8> {
    let attribute = |name: &[u8], value: &[u8]| field(5, &[field(1, name), field(2, value)].concat());
    let shape = field(7, &field(2, &number(1, 2)));
    let float = number(6, 1);
    let x =
        [field(1, b"x"), field(2, b"Placeholder"), attribute(b"dtype", &float), attribute(b"shape", &shape)];
    let y = [field(1, b"y"), field(2, b"Neg"), field(3, b"x"), attribute(b"T", &float)];
    [field(1, &x.concat()), field(1, &y.concat())].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_are_what_they_should_be() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [("n.onnx", onnx()), ("n.pb", frozen_graph())] {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let opened = crate::opened::open(&path).unwrap();
            let signature = &opened.model.signatures[0];
            assert_eq!((signature.inputs.len(), signature.outputs.len()), (1, 1), "{name}");
        }
    }

    #[test]
    fn a_trial_ends_with_its_process_or_with_its_time() {
        let check = |script: &str, limit: Duration, expected: Result<(), &str>| {
            let tried = run(Command::new("sh").args(["-c", script]), limit);
            assert_eq!(tried, expected.map_err(str::to_owned), "{script}");
        };
        check("echo fine", LIMIT, Ok(()));
        check("echo first; echo 'no such symbol'; exit 1", LIMIT, Err("no such symbol"));
        check("exit 1", LIMIT, Err("the process that opens it ends with exit status: 1"));
        let killed = "the process that opens it ends with signal: 9 (SIGKILL)";
        check("echo first; kill -9 $$", LIMIT, Err(killed));
        let hangs = "exec tail -f /dev/null";
        check(hangs, Duration::ZERO, Err("it did not run a small model within 0 s"));
        check("yes | head -c 3000000; exec true", LIMIT, Ok(()));
        let nothing = run(&mut Command::new("/no/such/program"), LIMIT).unwrap_err();
        assert!(nothing.starts_with("cannot be tried: "), "{nothing}");
    }

    #[test]
    fn a_library_that_is_none_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for kind in Kind::ALL {
            let error = here(kind, &Runtimes::new(dir.path())).unwrap_err();
            assert!(format!("{error:#}").contains(&format!("salver runtime install {kind}")), "{error:#}");
        }
    }
}
