//! Engines in processes of their own, and what is left of requests when one ends. The worker is this program: it runs
//! `the_worker` alone, with a variable set.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../engine-rten/tests/conformance/differences.rs"]
mod differences;

use std::fs;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use differences::DIFFERENCES;
use rustix::process::{Pid, Signal, kill_process};
use salver_engine::{Engine, Error, ErrorKind, Format, LoadOptions, Model, ModelSource, Registry, Session};
use salver_engine_isolated::{IsolatedEngine, Spawn, serve};
use salver_engine_rten::RtenEngine;
use salver_tensor::{DType, Dims, Shape, Signature, Tensor, TensorSpec};
use salver_testkit::conformance::{Capabilities, run};
use salver_testkit::puppet::{FnModel, PuppetEngine, half_plus_two_signature};

/// Says what a process of this program is to be: `worker` or `server`.
const ROLE: &str = "SALVER_ISOLATED_TEST_ROLE";
/// The model that the `server` loads.
const MODEL: &str = "SALVER_ISOLATED_TEST_MODEL";

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

// What the worker does.

/// Not a test: the program that workers run. Without the variable it does nothing.
#[test]
#[expect(clippy::disallowed_methods, reason = "the program of a test is told by a variable what it is")]
fn the_worker() {
    if std::env::var(ROLE).is_ok_and(|role| role == "worker") {
        let engines = Registry::new(vec![Arc::new(RtenEngine::new()), Arc::new(PuppetEngine::new(brittle))]);
        std::process::exit(i32::from(serve(&engines) != ExitCode::SUCCESS));
    }
}

/// Not a test: a server that loads a model and waits to be killed. Without the variable it does nothing.
#[test]
#[expect(clippy::disallowed_methods, reason = "the program of a test is told by a variable what it is")]
fn the_server() {
    if std::env::var(ROLE).is_ok_and(|role| role == "server") {
        let path = PathBuf::from(std::env::var_os(MODEL).unwrap());
        let _model = puppet().load(&source(&path), &LoadOptions::default()).unwrap();
        fs::write(path.join("loaded"), "").unwrap();
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    }
}

/// A model that halves and adds two, and does what its first element and the files in its folder say.
fn brittle(source: &ModelSource) -> Result<Arc<dyn Model>, Error> {
    let has = |name: &str| source.path.join(name).exists();
    if has("abort") {
        std::process::abort();
    }
    if has("exit") {
        std::process::exit(3);
    }
    assert!(!has("panic"), "a model that cannot be read");
    if has("refuse") {
        return Err(
            Error::new(ErrorKind::InvalidModel, "no operator 'Foo': never heard of it").at("node 'a'")
        );
    }
    let signature = if has("other") { two_outputs() } else { half_plus_two_signature() };
    let (model, four) = (FnModel::half_plus_two(), Arc::new(Barrier::new(4)));
    let path = source.path.clone();
    Ok(FnModel::new(signature, move |inputs| {
        let command = inputs[0].as_slice::<f32>().and_then(|x| x.first()).copied().unwrap_or(0.0);
        act(command, &four, &path);
        model.session()?.run(0, inputs, &[0])
    }))
}

fn act(command: f32, four: &Barrier, path: &Path) {
    match command {
        -1.0 => std::process::abort(),
        -2.0 => std::process::exit(7),
        -3.0 => panic!("a run that cannot be"),
        // The handler that the standard library has for it gives way at the first.
        -4.0 => loop {
            kill_process(rustix::process::getpid(), Signal::SEGV).unwrap();
        },
        -5.0 if four.wait().is_leader() => std::process::exit(9),
        -5.0 => loop {
            std::thread::park();
        },
        -6.0 | -7.0 => {
            fs::write(path.join("runs"), "").unwrap();
            if command == -7.0 {
                kill_process(rustix::process::getpid(), Signal::STOP).unwrap();
            }
            loop {
                std::thread::park();
            }
        }
        _ => {}
    }
}

fn two_outputs() -> Signature {
    let half = half_plus_two_signature();
    let more = TensorSpec {
        name: "z".into(),
        tensor_name: "z:0".into(),
        dtype: DType::F32,
        dims: Dims::unknown(),
        default: None,
    };
    Signature::new(
        "serving_default",
        half.method_name(),
        half.inputs().to_vec(),
        vec![half.outputs()[0].clone(), more],
    )
}

// What the tests use.

fn spawn() -> Spawn {
    Spawn::new(|what| {
        let mut command = Command::new(std::env::current_exe()?);
        // The last filter fits no test and is there to be found in a list of processes.
        command.args(["--exact", "--nocapture", "the_worker", what]).env(ROLE, "worker");
        Ok(command)
    })
}

fn puppet() -> IsolatedEngine {
    let never = PuppetEngine::new(|_| panic!("nothing is loaded in this process"));
    IsolatedEngine::new(Arc::new(never), spawn())
}

fn source(path: &Path) -> ModelSource {
    ModelSource { path: path.to_owned(), format: Format::SavedModel }
}

/// A folder that is the path of a model, with these files.
fn folder(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|file| fs::write(folder.path().join(file), "").unwrap());
    folder
}

fn load(folder: &tempfile::TempDir) -> Arc<dyn Model> {
    puppet().load(&source(folder.path()), &LoadOptions::default()).unwrap()
}

fn ask(session: &mut dyn Session, x: &[f32]) -> Result<Vec<f32>, Error> {
    let input = Tensor::from_vec(Shape::vector(x.len()).unwrap(), x.to_vec()).unwrap();
    let outputs = session.run(0, &[input], &[0])?;
    Ok(outputs[0].to_slice::<f32>().unwrap().into_owned())
}

#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a bound on a wait for another process")]
fn until<T>(what: &str, mut reached: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = reached() {
            return value;
        }
        assert!(start.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::yield_now();
    }
}

/// Asks until the engine is back; every other error is one.
#[track_caller]
fn back(session: &mut dyn Session) -> Vec<f32> {
    until("the engine is back", || match ask(session, &[2.0]) {
        Ok(answer) => Some(answer),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            None
        }
    })
}

/// Processes that serve the model at this path.
fn workers(path: &Path) -> Vec<Pid> {
    let path = path.to_str().unwrap();
    let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw);
    let serves = |pid: &Pid| {
        let read = |file: &str| fs::read(format!("/proc/{}/{file}", pid.as_raw_pid())).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&read("cmdline")).into_owned();
        arguments.contains("the_worker") && arguments.contains(path)
    };
    fs::read_dir("/proc").unwrap().filter_map(|entry| pid(entry.ok()?)).filter(serves).collect()
}

#[track_caller]
fn worker(path: &Path) -> Pid {
    let all = workers(path);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]
}

// The tests.

#[test]
fn the_embedded_engine_conforms_in_a_process_of_its_own() {
    let capabilities = Capabilities { differences: DIFFERENCES };
    run(&IsolatedEngine::new(Arc::new(RtenEngine::new()), spawn()), &capabilities);
}

#[test]
fn an_end_fails_the_run_is_named_and_passes() {
    let (folder, other) = (folder(&[]), folder(&[]));
    let (model, neighbour) = (load(&folder), load(&other));
    let (mut session, mut neighbours) = (model.session().unwrap(), neighbour.session().unwrap());
    let neighbour_id = worker(other.path());
    let ends = [(-1.0, "signal 6, SIGABRT"), (-2.0, "exit code 7"), (-4.0, "signal 11, SIGSEGV")];
    for (command, how) in ends {
        let before = worker(folder.path());
        let error = ask(&mut *session, &[command]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let expected = format!("the process of engine 'puppet' ended ({how}) and is started again");
        assert_eq!(error.message(), expected);
        // Clients read it, and the server's files are not their business.
        assert_eq!(error.location(), None);
        assert_eq!(ask(&mut *neighbours, &[4.0]).unwrap(), [4.0]);
        assert_eq!(back(&mut *session), [3.0]);
        assert_ne!(worker(folder.path()), before);
    }
    assert_eq!(worker(other.path()), neighbour_id);
    let mut another = model.session().unwrap();
    assert_eq!(ask(&mut *another, &[8.0]).unwrap(), [6.0]);
}

#[test]
fn a_panic_fails_one_run_and_ends_nothing() {
    let folder = folder(&[]);
    let model = load(&folder);
    let mut session = model.session().unwrap();
    let before = worker(folder.path());
    let error = ask(&mut *session, &[-3.0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(error.message(), "the engine panicked: a run that cannot be");
    assert_eq!(ask(&mut *session, &[2.0]).unwrap(), [3.0]);
    assert_eq!(worker(folder.path()), before);
}

#[test]
fn all_runs_in_flight_fail() {
    let folder = folder(&[]);
    let model = load(&folder);
    let errors: Vec<_> = std::thread::scope(|scope| {
        let run = |_| scope.spawn(|| ask(&mut *model.session().unwrap(), &[-5.0]).unwrap_err());
        let threads: Vec<_> = (0..4).map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("ended (exit code 9)"), "{error}");
    }
    let mut session = until("a session", || model.session().ok());
    assert_eq!(ask(&mut *session, &[2.0]).unwrap(), [3.0]);
}

#[test]
fn a_process_that_is_killed_comes_back() {
    let folder = folder(&[]);
    let model = load(&folder);
    let mut session = model.session().unwrap();
    let before = worker(folder.path());
    kill_process(before, Signal::KILL).unwrap();
    let error = until("the end is seen", || ask(&mut *session, &[2.0]).err());
    assert!(error.to_string().contains("ended (signal 9, SIGKILL)"), "{error}");
    assert_eq!(back(&mut *session), [3.0]);
    assert_ne!(worker(folder.path()), before);
}

#[test]
fn signals_for_the_server_do_not_end_workers() {
    let folder = folder(&[]);
    let model = load(&folder);
    let mut session = model.session().unwrap();
    let before = worker(folder.path());
    for signal in [Signal::INT, Signal::TERM] {
        kill_process(before, signal).unwrap();
        assert_eq!(ask(&mut *session, &[2.0]).unwrap(), [3.0]);
    }
    assert_eq!(worker(folder.path()), before);
}

#[test]
fn a_worker_is_no_part_of_the_servers_foreground() {
    let folder = folder(&[]);
    let _model = load(&folder);
    let worker = worker(folder.path());
    assert_eq!(rustix::process::getpgid(Some(worker)).unwrap(), worker);
}

#[test]
fn only_threads_made_for_a_model_are_entered() {
    let folder = folder(&[]);
    let (engine, model) = (puppet(), load(&folder));
    let one = NonZeroUsize::MIN;
    engine.enter(one, &mut || {
        assert!(!model.is_entered(), "a thread of the network would wait for a process that hangs");
        model.enter(one, &mut || assert!(model.is_entered()));
        assert!(!model.is_entered());
    });
}

#[test]
fn an_abandoned_model_ends_its_runs_with_its_process() {
    // A run that hangs, and a process that is stopped.
    for command in [-6.0, -7.0] {
        let folder = folder(&[]);
        let model = load(&folder);
        let process = worker(folder.path());
        let error = std::thread::scope(|scope| {
            let run = scope.spawn(|| ask(&mut *model.session().unwrap(), &[command]).unwrap_err());
            until("the run is under way", || folder.path().join("runs").exists().then_some(()));
            model.abandon();
            run.join().unwrap()
        });
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().starts_with("the model is unloaded"), "{error}");
        // One that nobody reaps keeps its folder.
        let proc = PathBuf::from(format!("/proc/{}", process.as_raw_pid()));
        until("the process is reaped", || (!proc.exists()).then_some(()));
        assert_eq!(model.session().err().map(|error| error.kind()), Some(ErrorKind::Unavailable));
    }
}

#[test]
fn errors_of_loading_come_through() {
    let check = |file: &str, kind: ErrorKind, message: &str, place: Option<&str>| {
        let folder = folder(&[file]);
        let place = place.map_or_else(|| folder.path().to_str().unwrap().to_owned(), str::to_owned);
        let error = puppet().load(&source(folder.path()), &LoadOptions::default()).unwrap_err();
        assert_eq!((error.kind(), error.message()), (kind, message));
        assert_eq!(error.location().unwrap_or_default(), place);
        assert_eq!(workers(folder.path()), []);
    };
    let ended = |how: &str| format!("the process of engine 'puppet' ended ({how}) while it loaded the model");
    check("abort", ErrorKind::Unavailable, &ended("signal 6, SIGABRT"), None);
    check("exit", ErrorKind::Unavailable, &ended("exit code 3"), None);
    check("refuse", ErrorKind::InvalidModel, "no operator 'Foo': never heard of it", Some("node 'a'"));
    check("panic", ErrorKind::Internal, "the engine panicked: a model that cannot be read", Some(""));
}

#[test]
fn a_program_that_is_no_worker_is_told() {
    let check = |program: &'static str, expected: &str| {
        let spawn = Spawn::new(move |_| Ok(Command::new(program)));
        let engine = IsolatedEngine::new(Arc::new(RtenEngine::new()), spawn);
        let error = engine.load(&source(Path::new("/m/1")), &LoadOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(expected), "{error}");
    };
    let name = RtenEngine::new().name();
    check("/no/such/program", &format!("a process for engine '{name}' cannot be started: No such file"));
    check("/bin/true", "ended (exit code 0) while it loaded");
}

#[test]
fn a_model_that_cannot_be_loaded_again_is_tried_until_it_can() {
    let folder = folder(&[]);
    let model = load(&folder);
    let mut session = model.session().unwrap();
    let path = folder.path().to_str().unwrap();
    for (file, expected) in [
        ("abort", "ended (signal 6, SIGABRT) while it loaded"),
        ("other", "its signatures are others"),
        ("refuse", "the model does not load; the server's log says why"),
    ] {
        let file = folder.path().join(file);
        fs::write(&file, "").unwrap();
        ask(&mut *session, &[-2.0]).unwrap_err();
        until("the failed start is told", || {
            let error = ask(&mut *session, &[2.0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            let text = error.to_string();
            assert!(!text.contains(path), "{text}");
            (text.contains("cannot be started again yet") && text.contains(expected)).then_some(())
        });
        fs::remove_file(file).unwrap();
        assert_eq!(back(&mut *session), [3.0]);
    }
}

#[test]
fn a_model_is_dropped_with_its_process_whatever_that_does() {
    // At work, away, and with a session that outlives the model.
    let (busy, away, kept) = (folder(&[]), folder(&[]), folder(&[]));
    let model = load(&away);
    fs::write(away.path().join("abort"), "").unwrap();
    ask(&mut *model.session().unwrap(), &[-1.0]).unwrap_err();
    drop(model);
    assert_eq!(workers(away.path()), []);

    drop(load(&busy));
    assert_eq!(workers(busy.path()), []);

    let mut session = load(&kept).session().unwrap();
    assert_eq!(ask(&mut *session, &[2.0]).unwrap(), [3.0]);
    drop(session);
    assert_eq!(workers(kept.path()), []);
}

#[test]
fn a_server_that_is_killed_leaves_no_process() {
    let folder = folder(&[]);
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "the_server"])
        .env(ROLE, "server")
        .env(MODEL, folder.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    until("the server has loaded", || folder.path().join("loaded").exists().then_some(()));
    let before = worker(folder.path());
    server.kill().unwrap();
    server.wait().unwrap();
    // One that nobody reaps yet has no arguments any more.
    until("the worker is gone", || (!workers(folder.path()).contains(&before)).then_some(()));
}

#[test]
fn large_tensors_are_answered_rightly() {
    let folder = folder(&[]);
    let model = load(&folder);
    let mut session = model.session().unwrap();
    for n in [0, 1, 150_000, 3, 5_000_000, 16_384] {
        let x: Vec<_> = (0..n).map(|at| (at % 1000) as f32).collect();
        let expected: Vec<_> = x.iter().map(|x| x / 2.0 + 2.0).collect();
        assert!(ask(&mut *session, &x).unwrap() == expected, "{n} elements");
    }
}
