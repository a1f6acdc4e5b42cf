//! Versions, labels, reloads, warm-up and isolation, with models that the test plays and the real life-cycle manager.

#[path = "servables/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use salver_batch::{Batching, Policy};
use salver_engine::{Error as EngineError, ErrorKind};
use salver_lifecycle::Phase;
use salver_predict::{Blame, Code, ModelConfig, Models, State, VersionChoice};
use salver_servable::{KnownCosts, MAX_WARMUP_REQUESTS, WarmupRequest};
use salver_tensor::Tensor;
use salver_testkit::puppet::{FnModel, PuppetModel, half_plus_two_signature};

use world::{SOON, World, block_on, call, hanging, is_pending, model_config, vector};

#[test]
fn a_swap_loses_no_held_request() {
    let (model, puppet) = PuppetModel::new(half_plus_two_signature());
    let world = World::new();
    world.put("m", 1, model);
    world.put("m", 2, FnModel::half_plus_two());
    world.apply(&["m"]);
    world.aspire("m", &[1]);
    world.come_up("m", 1, &puppet);
    let target = world.resolve("m", VersionChoice::Latest).unwrap();
    let mut answer = call(&target, &[1.0]);
    assert!(is_pending(&mut answer));
    let run = puppet.next_run(SOON);

    world.aspire("m", &[2]);
    world.wait("m", 2, Phase::Available);
    world.wait("m", 1, Phase::Unloading);
    assert_eq!(world.resolve("m", VersionChoice::Latest).unwrap().id().version.0, 2);
    let error = world.resolve("m", VersionChoice::Number(1)).unwrap_err();
    assert_eq!(error.message(), "Servable not found for request: Specific(m, 1)");
    drop(target);
    assert_eq!(world.state("m", 1), Some(State::Unloading));
    run.echo();
    assert_eq!(block_on(answer).unwrap().outputs, [vector(&[1.0])]);
    world.wait("m", 1, Phase::End);
}

#[test]
fn versions_roll_under_load_without_a_failed_request() {
    let world = World::new();
    for version in 1..=10 {
        world.put("m", version, FnModel::half_plus_two());
    }
    world.apply(&["m", "other"]);
    world.aspire("m", &[1]);
    world.wait("m", 1, Phase::Available);
    let (is_over, n_answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let target = world.resolve("m", VersionChoice::Latest).unwrap();
                    let answer = block_on(call(&target, &[2.0])).unwrap();
                    assert_eq!(answer.outputs, [vector(&[3.0])]);
                    n_answers.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for version in 2..=10 {
            world.aspire("m", &[version]);
            // A broken model beside it, again and again.
            world.put_broken("other", version);
            world.aspire("other", &[version]);
            world.wait("m", version, Phase::Available);
            world.wait("m", version - 1, Phase::End);
            world.wait("other", version, Phase::End);
        }
        is_over.store(true, Ordering::SeqCst);
    });
    assert!(n_answers.load(Ordering::SeqCst) >= 3);
}

#[test]
fn a_broken_model_does_not_touch_a_good_one() {
    let world = World::new();
    world.put("good", 1, FnModel::half_plus_two());
    world.put_broken("bad", 3);
    let servables = world.servables.clone();
    let mut reload = servables.reload(vec![model_config("bad"), model_config("good")]);
    assert!(is_pending(&mut reload));
    assert_eq!(world.watched(), ["bad", "good"]);
    world.aspire("bad", &[3]);
    world.aspire("good", &[1]);
    let error = block_on(reload).unwrap_err();
    assert_eq!(error.code(), Code::Unknown);
    let text = error.message();
    let start = "1 model(s) did not become available: {{name: bad version: 3} due to error: ";
    assert!(text.starts_with(start) && text.ends_with("broken on purpose, }"), "{text}");
    let target = world.resolve("good", VersionChoice::Latest).unwrap();
    assert_eq!(block_on(call(&target, &[2.0])).unwrap().outputs, [vector(&[3.0])]);
    assert!(!servables.is_ready());
    let status = servables.status("bad").unwrap();
    let (code, message) = status.versions[0].error.clone().unwrap();
    assert_eq!((status.versions[0].state, code), (State::End, Code::InvalidArgument));
    assert!(message.contains("broken on purpose"), "{message}");
}

#[test]
fn a_missing_folder_is_told_and_waited_for_no_longer() {
    let world = World::new();
    world.put("m", 1, FnModel::half_plus_two());
    let servables = world.servables.clone();
    let mut reload = servables.reload(vec![model_config("m")]);
    assert!(is_pending(&mut reload));
    servables.set_source_error(&world.name("m"), Some("no such folder".into()));
    let error = block_on(reload).unwrap_err();
    let expected = "1 model(s) did not become available: {{name: m} due to error: no such folder, }";
    assert_eq!(error.message(), expected);
    let status = servables.status("m").unwrap();
    assert_eq!((status.versions.len(), status.source_error.as_deref()), (0, Some("no such folder")));
    assert!(!servables.is_ready());
    // The folder comes.
    servables.set_source_error(&world.name("m"), None);
    world.aspire("m", &[1]);
    world.wait("m", 1, Phase::Available);
    assert!(servables.is_ready() && servables.status("m").unwrap().source_error.is_none());
}

#[test]
fn what_does_not_resolve() {
    let world = World::new();
    world.put("m", 7, FnModel::half_plus_two());
    world.apply(&["m", "empty"]);
    world.aspire("m", &[7]);
    world.wait("m", 7, Phase::Available);
    let check = |name: &str, version: VersionChoice, code: Code, message: &str| {
        let error = world.resolve(name, version).unwrap_err();
        assert_eq!((error.code(), error.message()), (code, message));
    };
    let label = || VersionChoice::Label("stable".into());
    let latest = "Servable not found for request: Latest";
    let specific = "Servable not found for request: Specific";
    check("no", VersionChoice::Latest, Code::NotFound, &format!("{latest}(no)"));
    check("empty", VersionChoice::Latest, Code::NotFound, &format!("{latest}(empty)"));
    check("m", VersionChoice::Number(8), Code::NotFound, &format!("{specific}(m, 8)"));
    check("m", VersionChoice::Number(-1), Code::NotFound, &format!("{specific}(m, -1)"));
    check("m", label(), Code::InvalidArgument, "Unrecognized servable version label: stable");
    check("no", label(), Code::InvalidArgument, "Unrecognized servable version label: stable");
    assert!(world.resolve("m", VersionChoice::Number(7)).is_ok());
}

fn labelled(version: i64) -> ModelConfig {
    ModelConfig { labels: BTreeMap::from([("stable".to_owned(), version)]), ..model_config("m") }
}

#[test]
fn a_label_given_at_start_applies_when_its_version_is_there() {
    let world = World::new();
    world.put("m", 1, FnModel::half_plus_two());
    world.put("m", 2, FnModel::half_plus_two());
    world.servables.apply(vec![labelled(1)]).unwrap();
    let stable = || world.resolve("m", VersionChoice::Label("stable".into()));
    assert_eq!(stable().unwrap_err().message(), "Servable not found for request: Specific(m, 1)");
    world.aspire("m", &[1]);
    world.wait("m", 1, Phase::Available);
    assert_eq!(stable().unwrap().id().version.0, 1);

    let error = block_on(world.servables.reload(vec![labelled(2)])).unwrap_err();
    let text =
        "Request to assign label to version 2 of model m, which is not currently available for inference";
    assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, text));
    assert_eq!(stable().unwrap().id().version.0, 1, "a refused configuration changes nothing");

    world.aspire("m", &[1, 2]);
    world.wait("m", 2, Phase::Available);
    block_on(world.servables.reload(vec![labelled(2)])).unwrap();
    assert_eq!(stable().unwrap().id().version.0, 2);
    let status = world.servables.status("m").unwrap();
    assert_eq!(status.labels, BTreeMap::from([("stable".to_owned(), salver_predict::Version(2))]));
    block_on(world.servables.reload(vec![model_config("m")])).unwrap();
    assert_eq!(stable().unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn a_strict_server_takes_no_labels_at_start() {
    let world = World::with(|world| world.set.is_strict = true);
    let with_platform = ModelConfig { platform: "tensorflow".into(), ..labelled(1) };
    let error = world.servables.apply(vec![with_platform.clone()]).unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(world.servables.list().is_empty());
    let world = World::with(|world| (world.set.is_strict, world.set.labels_for_unavailable) = (true, true));
    world.servables.apply(vec![with_platform]).unwrap();
}

#[test]
fn a_reload_replaces_everything() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.put(name, 1, FnModel::half_plus_two());
    }
    world.apply(&["a", "b"]);
    world.aspire("a", &[1]);
    world.aspire("b", &[1]);
    world.wait("a", 1, Phase::Available);
    world.wait("b", 1, Phase::Available);
    let mut reload = world.servables.reload(vec![model_config("b"), model_config("c")]);
    assert!(is_pending(&mut reload));
    assert_eq!(world.watched(), ["b", "c"]);
    world.aspire("a", &[1]);
    world.aspire("c", &[1]);
    block_on(reload).unwrap();
    world.wait("a", 1, Phase::End);
    assert!(
        world.resolve("a", VersionChoice::Latest).is_err(),
        "a late report of a removed model is ignored"
    );
    assert!(world.resolve("b", VersionChoice::Latest).is_ok());
    let twice = world.servables.apply(vec![model_config("b"), model_config("b")]).unwrap_err();
    assert_eq!(twice.message(), "Illegal to list model b multiple times in config list");
    assert_eq!(world.watched(), ["b", "c"]);
}

#[test]
fn a_caller_who_leaves_a_reload_ends_its_wait() {
    let world = World::new();
    // More than may wait at once.
    for _ in 0..200 {
        // The threads of those before it may not all have ended yet.
        let is_waiting = || {
            world.servables.apply(vec![]).unwrap();
            is_pending(&mut world.servables.reload(vec![model_config("never")]))
        };
        while !is_waiting() {
            std::thread::yield_now();
        }
    }
}

#[test]
fn unload_and_load() {
    let world = World::new();
    world.put("m", 1, FnModel::half_plus_two());
    world.apply(&["m"]);
    world.aspire("m", &[1]);
    world.wait("m", 1, Phase::Available);
    block_on(world.servables.unload("m")).unwrap();
    assert_eq!(world.state("m", 1), Some(State::End));
    assert!(world.watched().is_empty() && world.servables.is_ready());
    world.aspire("m", &[1]);
    assert!(world.resolve("m", VersionChoice::Latest).is_err());
    let mut load = world.servables.load("m");
    assert!(is_pending(&mut load));
    assert_eq!(world.watched(), ["m"]);
    world.aspire("m", &[1]);
    block_on(load).unwrap();
    assert!(world.resolve("m", VersionChoice::Latest).is_ok());
    for result in [block_on(world.servables.load("no")), block_on(world.servables.unload("no"))] {
        let error = result.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::NotFound, "model 'no' is not configured"));
    }
}

#[test]
fn loading_a_broken_model_says_why() {
    let world = World::new();
    world.put_broken("m", 1);
    world.apply(&["m"]);
    world.aspire("m", &[1]);
    let error = block_on(world.servables.load("m")).unwrap_err();
    assert_eq!((error.code(), error.blame()), (Code::InvalidArgument, Blame::Model));
    assert!(error.message().starts_with("model 'm' did not load: "), "{error}");
}

#[test]
fn an_error_that_can_pass_is_retried() {
    let world = World::new();
    let n_left = AtomicUsize::new(2);
    world.put_with("m", 1, move || {
        let n_before = n_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match n_before {
            Ok(_) => Err(EngineError::new(ErrorKind::Io, "the disk is busy")),
            Err(_) => Ok(FnModel::half_plus_two()),
        }
    });
    world.apply(&["m"]);
    world.aspire("m", &[1]);
    world.wait("m", 1, Phase::Available);
}

#[test]
fn warm_up_requests_run_before_a_version_is_available() {
    let request = |input: &str, elements: &[f32]| WarmupRequest {
        signature_names: vec![String::new()],
        inputs: vec![(input.to_owned(), vector(elements))],
        output_filter: vec![],
    };
    let good = request("x", &[1.0]);
    let check = |requests: Result<Vec<WarmupRequest>, String>, expected: Result<usize, &str>| {
        let world = World::with(|world| {
            world.warmup = Some(requests);
            world.n_warmup_iterations = 2;
        });
        let n_runs = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&n_runs);
        let model = FnModel::new(half_plus_two_signature(), move |inputs| {
            let x = inputs[0].to_slice::<f32>().unwrap();
            seen.fetch_add(usize::from(x.contains(&1.0)), Ordering::SeqCst);
            match x.contains(&13.0) {
                true => Err(EngineError::new(ErrorKind::InvalidInput, "thirteen")),
                false => Ok(inputs.to_vec()),
            }
        });
        world.put("m", 1, model);
        world.apply(&["m"]);
        world.aspire("m", &[1]);
        match expected {
            Ok(n_wanted) => {
                world.wait("m", 1, Phase::Available);
                assert!(n_runs.load(Ordering::SeqCst) >= n_wanted);
            }
            Err(message) => {
                world.wait("m", 1, Phase::End);
                let status = world.servables.status("m").unwrap();
                let error = status.versions[0].error.clone().unwrap();
                assert_eq!(error, (Code::InvalidArgument, message.to_owned()));
            }
        }
    };
    check(Ok(vec![]), Ok(0));
    check(Ok(vec![good.clone(), good.clone()]), Ok(4));
    check(Ok(vec![good.clone(), request("x", &[13.0])]), Err("warm-up record 2: thirteen"));
    check(
        Ok(vec![WarmupRequest { signature_names: vec![String::new(), "no".into()], ..good.clone() }]),
        Err("warm-up record 1: Serving signature key \"no\" not found."),
    );
    check(
        Ok(vec![WarmupRequest { output_filter: vec!["z".into()], ..good.clone() }]),
        Err(
            "warm-up record 1: output tensor alias not found in signature: z Outputs expected to be in the set {y}.",
        ),
    );
    check(Err("record 4 is cut short".into()), Err("warm-up: record 4 is cut short"));
    let many = vec![good.clone(); MAX_WARMUP_REQUESTS + 1];
    check(Ok(many), Err("warm-up: more than 1000 records, the most there may be"));
}

#[test]
fn a_model_that_cannot_run_zeros_is_served() {
    let world = World::new();
    let model = FnModel::new(half_plus_two_signature(), |inputs| {
        assert!(inputs[0].to_slice::<f32>().unwrap()[0] != 0.0, "division by zero");
        Ok(inputs.to_vec())
    });
    world.put("m", 1, model);
    world.apply(&["m"]);
    world.aspire("m", &[1]);
    world.wait("m", 1, Phase::Available);
    let target = world.resolve("m", VersionChoice::Latest).unwrap();
    assert!(block_on(call(&target, &[1.0])).is_ok());
    // And a panic in a request fails that request only.
    let error = block_on(call(&target, &[0.0])).unwrap_err();
    assert_eq!((error.code(), error.blame()), (Code::Internal, Blame::Model));
    assert_eq!(error.message(), "the engine panicked: division by zero");
    assert!(block_on(call(&target, &[1.0])).is_ok());
}

#[test]
fn a_full_queue_refuses_and_a_caller_who_left_is_not_run() {
    let (model, puppet) = PuppetModel::new(half_plus_two_signature());
    let world = World::with(|world| world.lanes.policy.max_queue = NonZeroUsize::MIN);
    world.put("m", 1, model);
    world.apply(&["m"]);
    world.aspire("m", &[1]);
    world.come_up("m", 1, &puppet);
    let target = world.resolve("m", VersionChoice::Latest).unwrap();
    let mut running = call(&target, &[1.0]);
    assert!(is_pending(&mut running));
    let run = puppet.next_run(SOON);
    let mut queued = call(&target, &[2.0]);
    assert!(is_pending(&mut queued));
    let error = block_on(call(&target, &[3.0])).unwrap_err();
    assert_eq!((error.code(), error.blame()), (Code::Unavailable, Blame::Us));
    let text = "The batch scheduling queue to which this task was submitted is full; ";
    assert!(error.retry_after().is_some() && error.message().starts_with(text), "{error}");
    drop(queued);
    let mut last = call(&target, &[4.0]);
    assert!(is_pending(&mut last));
    run.echo();
    let run = puppet.next_run(SOON);
    assert_eq!(run.inputs(), [vector(&[4.0])]);
    run.echo();
    assert!(block_on(running).is_ok() && block_on(last).is_ok());
    let snapshot = &world.servables.snapshot()[0];
    let servable = snapshot.servable.clone().unwrap();
    assert_eq!((servable.info.engine, snapshot.state), ("puppet", State::Available));
    assert_eq!((servable.lanes.n_refused, servable.lanes.n_cancelled), (1, 1));
    assert_eq!((servable.signatures[0].n_answered, servable.signatures[0].n_failed), (2, 1));
}

#[test]
fn a_bad_request_in_a_batch_fails_alone() {
    let world = World::with(|world| {
        let batch_timeout = Duration::from_secs(1000);
        let max_batch_size = NonZeroUsize::new(2).unwrap();
        let batching = Batching { max_batch_size, batch_timeout, ..Batching::default() };
        world.lanes.policy.batching = Some(batching);
    });
    let model = FnModel::new(half_plus_two_signature(), |inputs| {
        match inputs[0].to_slice::<f32>().unwrap().contains(&13.0) {
            true => Err(EngineError::new(ErrorKind::InvalidInput, "thirteen")),
            false => Ok(inputs.to_vec()),
        }
    });
    world.put("m", 1, model);
    world.apply(&["m"]);
    world.aspire("m", &[1]);
    world.wait("m", 1, Phase::Available);
    let target = world.resolve("m", VersionChoice::Latest).unwrap();
    let (mut good, bad) = (call(&target, &[1.0]), call(&target, &[13.0]));
    assert!(is_pending(&mut good));
    let error = block_on(bad).unwrap_err();
    assert_eq!(
        (error.code(), error.blame(), error.message()),
        (Code::InvalidArgument, Blame::Client, "thirteen")
    );
    assert_eq!(block_on(good).unwrap().outputs, [vector(&[1.0])]);
    let error = block_on(call(&target, &[1.0, 2.0, 3.0])).unwrap_err();
    assert_eq!(error.message(), "Task size 3 is larger than maximum input batch size 2");
}

fn joined_in(max_batch_size: usize) -> Batching {
    let max_batch_size = NonZeroUsize::new(max_batch_size).expect("tests join at least one row");
    Batching { max_batch_size, by_cost: false, ..Batching::default() }
}

#[test]
fn batches_are_tried_before_a_version_is_available() {
    let dependent = |inputs: &[Tensor]| {
        // What a row is answered depends on how many there are.
        let n_rows = inputs[0].shape().n_rows().unwrap_or(0) as f32;
        let x = inputs[0].to_slice::<f32>().unwrap();
        Ok(vec![vector(&x.iter().map(|x| x + n_rows).collect::<Vec<_>>())])
    };
    let echo = |inputs: &[Tensor]| Ok(inputs.to_vec());
    type Function = fn(&[Tensor]) -> Result<Vec<Tensor>, EngineError>;
    let check = |function: Function, edit: fn(&mut world::Plan), n_sizes: usize, n_joined: usize| {
        let sizes: Arc<Mutex<Vec<usize>>> = Arc::default();
        let world = World::with(|world| {
            world.lanes.policy.batching = Some(Batching { batch_timeout: SOON, ..joined_in(8) });
            edit(world);
        });
        let seen = Arc::clone(&sizes);
        let model = FnModel::new(half_plus_two_signature(), move |inputs| {
            seen.lock().unwrap().push(inputs[0].shape().n_rows().unwrap_or(0));
            function(inputs)
        });
        world.put("m", 1, model);
        world.apply(&["m"]);
        world.aspire("m", &[1]);
        world.wait("m", 1, Phase::Available);
        let costs = world.servables.snapshot()[0].servable.clone().unwrap().costs;
        assert_eq!(costs.first().map_or(0, |costs| costs.points.len()), n_sizes);
        let target = world.resolve("m", VersionChoice::Latest).unwrap();
        sizes.lock().unwrap().clear();
        // All are begun before any is waited for; one may be answered by then.
        let begun = (0..8).map(|at| call(&target, &[at as f32]));
        let begun: Vec<_> = begun.filter_map(|mut call| is_pending(&mut call).then_some(call)).collect();
        for call in begun {
            block_on(call).unwrap();
        }
        assert_eq!(sizes.lock().unwrap().iter().max(), Some(&n_joined));
    };
    check(echo, |_| (), 4, 8);
    // Whether rows may be joined is found out whatever the budget: one alone, four together.
    check(echo, |world| world.trial_budget = Duration::ZERO, 2, 8);
    check(dependent, |world| world.trial_budget = Duration::ZERO, 1, 1);
    check(dependent, |_| (), 1, 1);
    let single = |world: &mut world::Plan| world.lanes.policy.batching = Some(joined_in(1));
    check(echo, single, 2, 1);
    let known = |world: &mut world::Plan| {
        let runs =
            vec![(1, Duration::from_millis(1)), (4, Duration::from_millis(2)), (8, Duration::from_millis(3))];
        world.costs = Some(KnownCosts { signature: "serving_default".to_owned(), runs });
    };
    check(echo, known, 3, 8);
    // What is known does not make rows joinable that are not, and is of no use then.
    check(dependent, known, 1, 1);
}

/// Joins up to four rows, and cuts requests of more, where it is known that this does no harm.
fn joined_where_known() -> Batching {
    Batching { enable_large_batch_splitting: true, joins_unchecked: false, ..joined_in(4) }
}

#[test]
fn rows_that_depend_on_each_other_are_never_joined_or_cut_apart() {
    type Function = fn(&[f32]) -> Option<Vec<f32>>;
    let check = |function: Function, warmup: Option<Vec<f32>>, joins_unchecked: bool, n_joined: usize| {
        // Joined from the start, and by a policy that comes later.
        let batching = Batching { joins_unchecked, ..joined_where_known() };
        for is_first in [true, false] {
            let world = World::with(|world| {
                world.lanes.policy.batching = is_first.then(|| batching.clone());
                world.trial_budget = Duration::ZERO;
                world.warmup = warmup.as_ref().map(|rows| {
                    let inputs = vec![("x".to_owned(), vector(rows))];
                    let (signature_names, output_filter) = (vec![String::new()], Vec::new());
                    Ok(vec![WarmupRequest { signature_names, inputs, output_filter }])
                });
            });
            let model = FnModel::new(half_plus_two_signature(), move |inputs| {
                let refused = || EngineError::new(ErrorKind::InvalidInput, "no such rows");
                let y = function(&inputs[0].to_slice::<f32>().unwrap()).ok_or_else(refused)?;
                Ok(vec![vector(&y)])
            });
            world.put("m", 1, model);
            world.apply(&["m"]);
            world.aspire("m", &[1]);
            world.wait("m", 1, Phase::Available);
            world.servables.each_loaded(|loaded| {
                let batching = Some(batching.clone());
                loaded.set_policy(Policy { batching, ..Policy::clone(&loaded.policy()) }).unwrap();
            });
            assert_eq!(world.joined(), n_joined, "{warmup:?} {joins_unchecked} {is_first}");
        }
    };
    let echo: Function = |x| Some(x.to_vec());
    let mean: Function = |x| {
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        Some(x.iter().map(|own| own - mean).collect())
    };
    // Takes no rows but these.
    let picky: Function = |x| x.iter().all(|&own| own == 1.0).then(|| x.to_vec());
    check(echo, None, false, 4);
    check(mean, None, false, 16);
    check(mean, None, true, 16);
    // With one recorded row there is nothing to compare, so others like it are made up.
    check(echo, Some(vec![1.0]), false, 4);
    check(mean, Some(vec![1.0]), false, 16);
    check(mean, Some(vec![1.0, 2.0]), false, 16);
    // Where nothing can be told it depends on whether somebody asked for it.
    check(picky, Some(vec![1.0]), false, 16);
    check(picky, Some(vec![1.0]), true, 4);
    check(picky, None, false, 16);
    check(|x| Some(vec![0.0; x.len()]), None, false, 16);
}

#[test]
fn a_load_that_is_called_off_ends_between_runs_of_its_trial() {
    let world = World::with(|world| world.lanes.policy.batching = Some(joined_in(8)));
    let (model, puppet) = PuppetModel::new(half_plus_two_signature());
    world.put("m", 1, model);
    world.apply(&["m"]);
    world.aspire("m", &[1]);
    // Zeros, then the first row that is made up.
    let is_made_up = |x: &[f32]| x.iter().any(|&x| x != 0.0);
    let run = loop {
        let run = puppet.next_run(SOON);
        if is_made_up(&run.inputs()[0].to_slice::<f32>().unwrap()) {
            break run;
        }
        run.echo();
    };
    world.aspire("m", &[]);
    run.echo();
    world.wait("m", 1, Phase::End);
    assert!(puppet.try_next_run(Duration::ZERO).is_none(), "it goes on");
}

#[test]
fn a_policy_changes_while_a_version_is_served() {
    let (model, puppet) = PuppetModel::new(half_plus_two_signature());
    let world = World::new();
    world.put("m", 1, model);
    world.apply(&["m"]);
    world.aspire("m", &[1]);
    world.come_up("m", 1, &puppet);
    let target = world.resolve("m", VersionChoice::Latest).unwrap();
    let mut running = call(&target, &[1.0]);
    assert!(is_pending(&mut running));
    let run = puppet.next_run(SOON);
    let mut changed = 0;
    world.servables.each_loaded(|loaded| {
        let policy = Policy { max_queue: NonZeroUsize::MIN, ..Policy::clone(&loaded.policy()) };
        loaded.set_policy(policy).unwrap();
        let wrong = Batching { allowed_batch_sizes: vec![2, 1], ..Batching::default() };
        let wrong = Policy { batching: Some(wrong), ..Policy::clone(&loaded.policy()) };
        assert!(loaded.set_policy(wrong).is_err());
        changed += 1;
    });
    assert_eq!(changed, 1);
    let mut queued = call(&target, &[2.0]);
    assert!(is_pending(&mut queued));
    assert_eq!(block_on(call(&target, &[3.0])).unwrap_err().code(), Code::Unavailable);
    let policy = world.servables.snapshot()[0].servable.clone().unwrap().policy;
    assert_eq!((policy.max_queue, &policy.batching), (NonZeroUsize::MIN, &None));
    drop(queued);
    run.echo();
    assert!(block_on(running).is_ok());
}

#[test]
fn readiness_goes_first_when_shutting_down() {
    let (model, puppet) = PuppetModel::new(half_plus_two_signature());
    let world = World::new();
    world.put("m", 1, model);
    world.apply(&["m"]);
    assert!(!world.servables.is_ready());
    world.aspire("m", &[1]);
    world.come_up("m", 1, &puppet);
    assert!(world.servables.is_ready());
    let target = world.resolve("m", VersionChoice::Latest).unwrap();
    world.servables.begin_shutdown();
    assert!(!world.servables.is_ready());
    let mut answer = call(&target, &[1.0]);
    drop(target);
    assert!(is_pending(&mut answer));
    std::thread::scope(|scope| {
        let shutdown = scope.spawn(|| world.servables.shutdown(world::soon()));
        world.wait("m", 1, Phase::Unloading);
        puppet.next_run(SOON).echo();
        block_on(answer).unwrap();
        assert!(shutdown.join().unwrap());
    });
    assert!(world.resolve("m", VersionChoice::Latest).is_err());
}

#[test]
fn a_session_bundle_is_refused_with_the_known_text() {
    let world = World::new();
    world.put_file("m", 1, "export.meta");
    world.apply(&["m"]);
    world.aspire("m", &[1]);
    world.wait("m", 1, Phase::End);
    let error = world.servables.status("m").unwrap().versions[0].error.clone();
    assert_eq!(error, Some((Code::Unimplemented, "Session Bundle is deprecated and removed.".into())));
}

#[test]
fn a_bad_lane_setting_fails_the_load() {
    let check = |edit: fn(&mut salver_batch::Config), text: &str| {
        let world = World::with(|world| edit(&mut world.lanes));
        world.put_with("m", 1, || panic!("nothing is loaded"));
        world.apply(&["m"]);
        world.aspire("m", &[1]);
        world.wait("m", 1, Phase::End);
        let error = world.servables.status("m").unwrap().versions[0].error.clone();
        assert_eq!(error, Some((Code::InvalidArgument, text.into())));
    };
    check(
        |lanes| {
            let bad = Batching { allowed_batch_sizes: vec![2, 1], ..Batching::default() };
            lanes.policy.batching = Some(bad);
        },
        "allowed_batch_sizes entries must be positive and ascending, got [2, 1]",
    );
    let many = "n_lanes is 100000, expected at most 1024";
    check(|lanes| lanes.n_lanes = NonZeroUsize::new(100_000).unwrap(), many);
}

#[test]
fn a_version_that_hangs_is_unloaded_once_nobody_waits_for_it() {
    let (model, begun) = hanging();
    let world = World::with(|world| world.lanes.unload_grace = Duration::from_millis(1));
    world.put("m", 1, model);
    world.put("m", 2, FnModel::half_plus_two());
    world.apply(&["m"]);
    world.aspire("m", &[1]);
    world.wait("m", 1, Phase::Available);
    let target = world.resolve("m", VersionChoice::Latest).unwrap();
    let mut answer = call(&target, &[1.0]);
    drop(target);
    assert!(is_pending(&mut answer));
    begun.recv_timeout(SOON).unwrap();

    world.aspire("m", &[2]);
    world.wait("m", 2, Phase::Available);
    world.wait("m", 1, Phase::Unloading);
    assert!(is_pending(&mut answer), "a run that somebody waits for is not cut");
    drop(answer);
    world.wait("m", 1, Phase::End);
}
