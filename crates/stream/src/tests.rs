//! The whole pipeline with its threads, over a broker in memory and a model that is a closure.

mod broker;
mod model;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use salver_mapping::settings::InputSettings;
use salver_predict::{Blame, Code, Error as CallError};
use salver_records::{CUT_FROM, Header, Output, Record};

use crate::{
    Canary, Class, Config, Counts, Delivery, Ending, Error, ErrorKind, Fields, Joined, Lookup, Outcome,
    Parts, Pipeline, Policies, Policy, Retry, Running, Shadow,
};
use broker::{Broker, Kept};
use model::{Doubler, FnPredictor, Gate, RowWindows, model_spec};

fn n(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn parts(broker: &Arc<Broker>, predictor: &Arc<FnPredictor>) -> Parts {
    Parts {
        source: Box::new(broker.source()),
        sink: Box::new(broker.sink()),
        shadow_sink: None,
        predictor: Arc::clone(predictor) as Arc<dyn salver_predict::Predictor>,
        model: model_spec(),
        mapping: Arc::new(Doubler::default()),
        windows: None,
        enter: Arc::new(|body| body()),
    }
}

fn start(config: &Config, broker: &Arc<Broker>, predictor: &Arc<FnPredictor>) -> Running {
    Pipeline::start(config, parts(broker, predictor)).unwrap()
}

fn run(config: &Config, broker: &Arc<Broker>, predictor: &Arc<FnPredictor>) -> Result<Outcome, Error> {
    start(config, broker, predictor).wait()
}

fn exactly_once() -> Config {
    Config { delivery: Delivery::ExactlyOnce, commit_interval: Some(Duration::from_millis(5)), ..small() }
}

fn small() -> Config {
    Config { max_batch: n(8), workers: Some(n(2)), ..Config::default() }
}

/// The values of what was written for a purpose, as numbers, per partition they came from.
fn numbers(kept: &[Kept], output: Output) -> Vec<(i32, i64, f32)> {
    let mut numbers: Vec<(i32, i64, f32)> = kept
        .iter()
        .filter(|kept| kept.output == output)
        .map(|kept| {
            let text = std::str::from_utf8(kept.value.as_ref().unwrap()).unwrap();
            let header = |name: &str| kept.header(name).unwrap().parse::<i64>().unwrap();
            let partition = i32::try_from(header("salver-source-partition")).unwrap();
            (partition, header("salver-source-offset"), text.parse().unwrap())
        })
        .collect();
    numbers.sort_by_key(|(partition, offset, _)| (*partition, *offset));
    numbers
}

/// The records `0..n` of each partition, as their answers.
fn doubled(n_partitions: i32, n: i64) -> Vec<(i32, i64, f32)> {
    (0..n_partitions)
        .flat_map(|partition| (0..n).map(move |offset| (partition, offset, 2.0 * offset as f32)))
        .collect()
}

#[test]
fn every_record_is_answered_and_committed() {
    for config in [small(), exactly_once()] {
        let config = Config { source_headers: true, ..config };
        let broker = Broker::with_numbers(3, 500);
        let outcome = run(&config, &broker, &FnPredictor::doubling()).unwrap();
        assert_eq!(outcome.ending, Ending::Finished);
        assert_eq!(numbers(&broker.kept(), Output::Main), doubled(3, 500));
        assert_eq!(broker.committed(), [500, 500, 500]);
        let counts = outcome.status.counts;
        assert_eq!((counts.records_in, counts.records_out, counts.records_done), (1500, 1500, 1500));
        assert_eq!((counts.rows, counts.records_scored), (1500, 1500));
        assert!(counts.calls >= 1500 / 8 && counts.commits > 0, "{counts:?}");
        assert_eq!(outcome.status.stages.total.n(), 1500);
        assert_eq!(outcome.status.records_in_flight, 0);
    }
}

#[test]
fn key_headers_and_timestamp_pass_and_the_model_is_named() {
    let broker = Broker::new(1);
    let header = |name: &str, value: &str| Header {
        name: name.into(),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
    };
    let headers = vec![header("traceparent", "00-1"), header("salver-model", "another")];
    broker.push(0, Some("k"), Some("21"), headers, Some(1234));
    run(&small(), &broker, &FnPredictor::doubling()).unwrap();
    let kept = broker.kept();
    let [answer] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!((answer.key.as_deref(), answer.value.as_deref()), (Some(&b"k"[..]), Some(&b"42"[..])));
    assert_eq!(answer.timestamp_ms, Some(1234));
    let names: Vec<&str> = answer.headers.iter().map(|header| &*header.name).collect();
    let expected =
        ["traceparent", "content-type", "salver-model", "salver-model-version", "salver-latency-us"];
    assert_eq!(names, expected);
    assert_eq!(answer.header("salver-model").as_deref(), Some("m"));
    assert_eq!(answer.header("salver-model-version").as_deref(), Some("1"));
    assert!(answer.header("salver-latency-us").unwrap().parse::<u64>().is_ok());
}

#[test]
fn each_class_goes_by_its_policy() {
    let check = |value: Option<&str>, class: Class, predictor: &Arc<FnPredictor>| {
        for (policy, config) in [Policy::Skip, Policy::Dead, Policy::Emit, Policy::Fail]
            .into_iter()
            .flat_map(|policy| [(policy, small()), (policy, exactly_once())])
        {
            let retry = Retry { attempts: 2, backoff: Duration::from_millis(1), ..Retry::default() };
            let config = Config { on: Policies::all(policy), max_record_bytes: 40, retry, ..config };
            let broker = Broker::new(1);
            for number in 0..20 {
                broker.push(0, None, Some(&number.to_string()), Vec::new(), None);
            }
            broker.push(0, None, value, Vec::new(), Some(5));
            broker.push(0, None, Some("7"), Vec::new(), None);
            let outcome = run(&config, &broker, predictor);
            let kept = broker.kept();
            let of = |output| kept.iter().filter(|kept| kept.output == output).count();
            match policy {
                Policy::Fail => {
                    let error = outcome.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Record);
                    let expected = format!("offset 20 of in/0 has no answer ({class}): ");
                    assert!(error.message().starts_with(&expected), "{error}");
                    assert_eq!(broker.committed(), [20], "{class}");
                }
                Policy::Skip => {
                    outcome.unwrap();
                    assert_eq!((of(Output::Main), of(Output::Dead)), (21, 0), "{class}");
                }
                Policy::Dead => {
                    let status = outcome.unwrap().status;
                    assert_eq!((of(Output::Main), of(Output::Dead)), (21, 1), "{class}");
                    let dead = kept.iter().find(|kept| kept.output == Output::Dead).unwrap();
                    assert_eq!(dead.value.as_deref(), value.map(str::as_bytes));
                    assert_eq!(dead.header("salver-error-class").as_deref(), Some(class.name()));
                    assert_eq!(dead.header("salver-error-offset").as_deref(), Some("20"));
                    let counts = status.refused.iter().find(|(other, _)| *other == class).unwrap().1;
                    assert_eq!(counts.dead, 1);
                }
                _ => {
                    outcome.unwrap();
                    assert_eq!((of(Output::Main), of(Output::Dead)), (22, 0), "{class}");
                    let is_error = |kept: &&Kept| kept.header("salver-error-class").is_some();
                    let body: serde_json::Value =
                        serde_json::from_slice(kept.iter().find(is_error).unwrap().value.as_ref().unwrap())
                            .unwrap();
                    assert_eq!(body["error"]["class"], class.name());
                }
            }
            if policy != Policy::Fail {
                assert_eq!(broker.committed(), [22], "{class}");
            }
        }
    };
    let well = FnPredictor::doubling();
    check(Some("what"), Class::Format, &well);
    check(Some("1 2"), Class::Shape, &well);
    check(Some("0000000000000000000000000000000000000000000"), Class::Oversize, &well);
    check(None, Class::Tombstone, &well);
    let fails_on = |code| {
        FnPredictor::new(move |rows| match rows.contains(&13.5) {
            true => Err(CallError::new(code, Blame::Model, "not 13.5")),
            false => Ok(rows.iter().map(|row| 2.0 * row).collect()),
        })
    };
    check(Some("13.5"), Class::Model, &fails_on(Code::InvalidArgument));
}

#[test]
fn a_batch_that_fails_is_halved_to_the_record_at_fault() {
    let predictor = FnPredictor::new(|rows| match rows.contains(&5.0) {
        true => Err(CallError::new(Code::Internal, Blame::Model, "five")),
        false => Ok(rows.iter().map(|row| 2.0 * row).collect()),
    });
    let config = Config {
        on: Policies { model: Policy::Skip, ..Policies::default() },
        source_headers: true,
        ..small()
    };
    let broker = Broker::with_numbers(1, 64);
    run(&config, &broker, &predictor).unwrap();
    let mut expected = doubled(1, 64);
    expected.remove(5);
    assert_eq!(numbers(&broker.kept(), Output::Main), expected);
}

#[test]
fn a_batch_that_takes_too_long_is_halved_until_it_does_not() {
    let predictor = FnPredictor::new(|rows| match rows.len() {
        0..3 => Ok(rows.iter().map(|row| 2.0 * row).collect()),
        _ => Err(CallError::new(Code::DeadlineExceeded, Blame::Us, "too many")),
    });
    let config = Config { source_headers: true, retry: Retry { attempts: 1, ..Retry::default() }, ..small() };
    let broker = Broker::with_numbers(1, 64);
    run(&config, &broker, &predictor).unwrap();
    assert_eq!(numbers(&broker.kept(), Output::Main), doubled(1, 64));
}

#[test]
fn troubles_that_pass_are_tried_again_in_order() {
    for config in [small(), exactly_once()] {
        let predictor = FnPredictor::doubling();
        predictor.fail_next(5, Code::Unavailable);
        let retry = Retry { backoff: Duration::from_millis(1), ..Retry::default() };
        let config = Config { retry, source_headers: true, ..config };
        let broker = Broker::new(1);
        for number in 0..100 {
            broker.push(0, Some("same"), Some(&number.to_string()), Vec::new(), None);
        }
        let outcome = run(&config, &broker, &predictor).unwrap();
        assert!(outcome.status.counts.retries > 0);
        let offsets: Vec<i64> = broker
            .kept()
            .iter()
            .map(|kept| kept.header("salver-source-offset").unwrap().parse().unwrap())
            .collect();
        assert_eq!(offsets, (0..100).collect::<Vec<i64>>());
    }
}

#[test]
fn tries_end_and_the_policy_decides() {
    for (code, class) in [(Code::Unavailable, Class::Unavailable), (Code::DeadlineExceeded, Class::Timeout)] {
        let predictor = FnPredictor::new(move |_| Err(CallError::new(code, Blame::Peer, "away")));
        let retry = Retry { attempts: 3, backoff: Duration::from_millis(1), ..Retry::default() };
        let config = Config { retry, on: Policies::all(Policy::Dead), ..exactly_once() };
        let broker = Broker::with_numbers(1, 4);
        run(&config, &broker, &predictor).unwrap();
        let kept = broker.kept();
        assert_eq!(kept.len(), 4);
        for dead in kept {
            assert_eq!(dead.header("salver-error-class").as_deref(), Some(class.name()));
            assert_eq!(dead.header("salver-error-attempt").as_deref(), Some("3"));
        }
    }
}

#[test]
fn transactions_that_fail_are_begun_again() {
    let config = Config { source_headers: true, ..exactly_once() };
    let broker = Broker::with_numbers(2, 400);
    broker.fail_commits(3);
    let outcome = run(&config, &broker, &FnPredictor::doubling()).unwrap();
    assert_eq!(numbers(&broker.kept(), Output::Main), doubled(2, 400));
    assert_eq!(outcome.status.counts.rollbacks, 3);
    // A sink that never commits is not tried for ever.
    let broker = Broker::with_numbers(1, 10);
    broker.fail_commits(usize::MAX);
    let config = Config { max_failures: 2, ..config };
    let error = run(&config, &broker, &FnPredictor::doubling()).unwrap_err();
    assert_eq!((error.kind(), broker.kept().len()), (ErrorKind::Sink, 0));
}

#[test]
fn what_became_of_a_commit_is_asked_for() {
    for comes_through in [true, false] {
        for n_away in [0, 2] {
            let config = Config { source_headers: true, ..exactly_once() };
            let broker = Broker::with_numbers(2, 400);
            broker.doubt_a_commit(comes_through);
            broker.fail_aborts(n_away);
            let outcome = run(&config, &broker, &FnPredictor::doubling()).unwrap();
            assert_eq!(numbers(&broker.kept(), Output::Main), doubled(2, 400), "{comes_through} {n_away}");
            assert_eq!(broker.committed(), [400, 400]);
            assert!(outcome.status.counts.rollbacks > 0);
        }
    }
}

#[test]
fn what_others_did_unseen_is_not_done_again() {
    let config = Config { source_headers: true, ..exactly_once() };
    let broker = Broker::with_numbers(1, 100);
    let (predictor, gate) = FnPredictor::gated();
    let running = start(&config, &broker, &predictor);
    gate.wait_for_waiting(1);
    broker.leave_to_others(10, 10);
    gate.open();
    running.wait().unwrap();
    let answers = numbers(&broker.kept(), Output::Main);
    let offsets: Vec<i64> = answers.into_iter().map(|(_, offset, _)| offset).collect();
    assert_eq!(offsets, (20..100).collect::<Vec<i64>>());
    assert_eq!(broker.committed(), [100]);
}

#[test]
fn windows_are_those_of_the_commit_that_came_through() {
    for comes_through in [true, false] {
        let broker = Broker::new(1);
        for number in 0..40 {
            broker.push(0, Some(["a", "b"][number % 2]), Some(&number.to_string()), Vec::new(), None);
        }
        broker.doubt_a_commit(comes_through);
        let mut parts = parts(&broker, &FnPredictor::summing());
        let windows = RowWindows { changelog: Some(Arc::clone(&broker)), ..RowWindows::new(3) };
        parts.windows = Some(Box::new(windows));
        Pipeline::start(&exactly_once(), parts).unwrap().wait().unwrap();
        let kept = broker.kept();
        let answers = kept.iter().filter(|kept| kept.output == Output::Main);
        let answers = answers.map(|kept| std::str::from_utf8(kept.value.as_ref().unwrap()).unwrap().parse());
        let answers: Vec<f32> = answers.map(Result::unwrap).collect();
        // Each key has every second number; the first two of each make no window.
        let expected: Vec<f32> = (4..40).map(|number| (3 * number - 6) as f32).collect();
        assert_eq!(answers, expected);
        assert_eq!(kept.iter().filter(|kept| kept.output == Output::Changelog).count(), 40);
    }
}

#[test]
fn nothing_is_taken_before_the_source_has_gone_back() {
    let config = Config { source_headers: true, ..exactly_once() };
    let broker = Broker::with_numbers(2, 400);
    broker.fail_commits(1);
    broker.fail_rewinds(3);
    run(&config, &broker, &FnPredictor::doubling()).unwrap();
    assert_eq!(numbers(&broker.kept(), Output::Main), doubled(2, 400));
}

#[test]
fn offsets_that_go_back_are_not_taken_for_done() {
    for config in [small(), exactly_once()] {
        let broker = Broker::with_numbers(1, 50);
        broker.keep_open();
        let running = start(&config, &broker, &FnPredictor::doubling());
        broker.wait_until(|world| world.kept.len() == 50);
        broker.make_anew(0, &["7"]);
        let error = running.wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        let expected = "in/0 has gone back to offset 0, expected 50 or more: ";
        assert!(error.message().starts_with(expected), "{error}");
        assert_eq!(broker.committed(), [50]);
    }
}

#[test]
fn a_partition_is_given_up_when_its_positions_last() {
    let config = Config { commit_interval: Some(Duration::from_secs(3600)), ..small() };
    let broker = Broker::with_numbers(2, 50);
    broker.keep_open();
    broker.fail_settles(2);
    let running = start(&config, &broker, &FnPredictor::doubling());
    broker.wait_until(|world| world.kept.len() == 100);
    broker.revoke(0);
    broker.wait_until(|world| world.given_up == [0]);
    assert_eq!(broker.committed()[0], 50);
    // At the end the others do, too.
    broker.fail_settles(2);
    running.stop(Duration::from_secs(20));
    running.wait().unwrap();
    assert_eq!(broker.committed(), [50, 50]);
}

#[test]
fn answers_that_do_not_last_come_again_in_order() {
    let config = Config { source_headers: true, ..small() };
    let broker = Broker::with_numbers(1, 300);
    broker.fail_deliveries(1);
    let outcome = run(&config, &broker, &FnPredictor::doubling()).unwrap();
    assert_eq!((outcome.status.counts.rollbacks, broker.committed()), (1, vec![300]));
    let mut answers = numbers(&broker.kept(), Output::Main);
    answers.dedup();
    assert_eq!(answers, doubled(1, 300));
    // Of each key the last answers are those of its last records, in order.
    for key in 0..7 {
        let key = Bytes::from(format!("k{key}"));
        let kept = broker.kept();
        let of_key = kept.iter().filter(|kept| kept.key.as_ref() == Some(&key));
        let offsets: Vec<i64> =
            of_key.map(|kept| kept.header("salver-source-offset").unwrap().parse().unwrap()).collect();
        let n_falls = offsets.windows(2).filter(|pair| pair[1] <= pair[0]).count();
        assert!(n_falls <= 1, "{offsets:?}");
    }
}

#[test]
fn what_is_fenced_is_read_on_if_nobody_else_has_it() {
    let config = Config { source_headers: true, ..exactly_once() };
    let broker = Broker::with_numbers(2, 100);
    broker.fence_a_commit();
    let outcome = run(&config, &broker, &FnPredictor::doubling()).unwrap();
    assert_eq!(outcome.status.counts.rollbacks, 1);
    assert_eq!(numbers(&broker.kept(), Output::Main), doubled(2, 100));
}

#[test]
fn answers_that_the_sink_refuses_are_oversize() {
    for config in [small(), exactly_once()] {
        let config = Config { on: Policies::all(Policy::Dead), ..config };
        let broker = Broker::with_numbers(1, 10);
        broker.refuse_value("8");
        run(&config, &broker, &FnPredictor::doubling()).unwrap();
        let kept = broker.kept();
        let dead: Vec<&Kept> = kept.iter().filter(|kept| kept.output == Output::Dead).collect();
        assert_eq!((kept.len(), dead.len(), broker.committed()), (10, 1, vec![10]));
        assert_eq!(dead[0].value.as_deref(), Some(&b"4"[..]));
        assert_eq!(dead[0].header("salver-error-class").as_deref(), Some("oversize"));
    }
}

#[test]
fn what_is_too_large_and_no_answer_is_written_with_less_or_left_out() {
    for config in [small(), exactly_once()] {
        for even_empty in [false, true] {
            let config = Config { on: Policies::all(Policy::Dead), ..config.clone() };
            let broker = Broker::new(1);
            for value in ["1", "?", "3"] {
                broker.push(0, Some("k"), Some(value), Vec::new(), None);
            }
            broker.refuse_output(Output::Dead, even_empty);
            let outcome = run(&config, &broker, &FnPredictor::doubling()).unwrap();
            let kept = broker.kept();
            let dead: Vec<&Kept> = kept.iter().filter(|kept| kept.output == Output::Dead).collect();
            assert_eq!(broker.committed(), [3]);
            let counts = outcome.status.counts;
            assert_eq!((counts.records_out, counts.emptied, counts.left_out), (2, 1, u64::from(even_empty)));
            if even_empty {
                assert_eq!(dead.len(), 0);
                continue;
            }
            assert_eq!((dead[0].value.as_deref(), dead[0].key.as_deref()), (None, Some(&b"k"[..])));
            assert_eq!(dead[0].header("salver-error-class").as_deref(), Some("format"));
            assert_eq!(dead[0].header("salver-error-value-bytes").as_deref(), Some("1"));
            let crc = crc32c::crc32c(b"?").to_string();
            assert_eq!(dead[0].header("salver-error-value-crc32c"), Some(crc));
        }
    }
}

#[test]
fn windows_that_are_too_large_for_the_changelog_begin_anew_when_they_are_restored() {
    for config in [small(), exactly_once()] {
        let broker = Broker::new(1);
        for number in 0..10 {
            broker.push(0, Some("a"), Some(&number.to_string()), Vec::new(), None);
        }
        broker.refuse_output(Output::Changelog, false);
        let mut parts = parts(&broker, &FnPredictor::summing());
        parts.windows = Some(Box::new(RowWindows::new(3)));
        let outcome = Pipeline::start(&config, parts).unwrap().wait().unwrap();
        let kept = broker.kept();
        let (changes, answers): (Vec<&Kept>, Vec<&Kept>) =
            kept.iter().partition(|kept| kept.output == Output::Changelog);
        assert!(changes.iter().all(|change| change.value.is_none() && change.key.as_deref() == Some(b"a")));
        assert_eq!((changes.len(), answers.len(), outcome.status.counts.emptied), (10, 8, 10));
        assert_eq!(broker.committed(), [10]);
    }
}

#[test]
fn a_revoked_partition_is_finished_committed_and_given_up() {
    for config in [small(), exactly_once()] {
        let broker = Broker::with_numbers(2, 50);
        broker.keep_open();
        let predictor = FnPredictor::doubling();
        let running = start(&config, &broker, &predictor);
        broker.wait_until(|world| world.kept.len() == 100);
        broker.revoke(0);
        broker.wait_until(|world| world.given_up == [0]);
        assert_eq!(broker.committed()[0], 50);
        // It comes back, with records that others have not read.
        broker.push(0, None, Some("50"), Vec::new(), None);
        broker.assign(0);
        broker.wait_until(|world| world.kept.len() == 101);
        running.stop(Duration::from_secs(20));
        let outcome = running.wait().unwrap();
        assert_eq!((outcome.ending, outcome.status.counts.revoked), (Ending::Stopped, 1));
        assert_eq!(broker.committed(), [51, 50]);
    }
}

#[test]
fn a_lost_partition_takes_nothing_with_it() {
    let config =
        Config { source_headers: true, commit_interval: Some(Duration::from_millis(40)), ..exactly_once() };
    let broker = Broker::with_numbers(2, 200);
    broker.keep_open();
    let running = start(&config, &broker, &FnPredictor::doubling());
    broker.lose(1);
    broker.wait_until(|world| world.committed[0] == 200);
    broker.assign(1);
    broker.wait_until(|world| world.committed == [200, 200]);
    running.stop(Duration::from_secs(20));
    running.wait().unwrap();
    assert_eq!(numbers(&broker.kept(), Output::Main), doubled(2, 200));
}

#[test]
fn a_stop_finishes_what_workers_have_and_a_start_goes_on() {
    for config in [small(), exactly_once()] {
        let config = Config { source_headers: true, ..config };
        let broker = Broker::with_numbers(2, 300);
        let (predictor, gate) = FnPredictor::gated();
        let running = start(&config, &broker, &predictor);
        gate.let_through(3);
        gate.wait_for_waiting(1);
        running.stop(Duration::from_secs(20));
        gate.open();
        let outcome = running.wait().unwrap();
        assert_eq!(outcome.ending, Ending::Stopped);
        let n_first = broker.kept().len();
        assert!((1..600).contains(&n_first), "{n_first}");
        assert_eq!(broker.committed().iter().sum::<i64>(), n_first as i64);
        assert_eq!(run(&config, &broker, &predictor).unwrap().ending, Ending::Finished);
        assert_eq!(numbers(&broker.kept(), Output::Main), doubled(2, 300));
    }
}

#[test]
fn a_stop_with_no_grace_left_commits_nothing_unfinished() {
    let broker = Broker::with_numbers(1, 10);
    let (predictor, gate) = FnPredictor::gated();
    let running = start(&exactly_once(), &broker, &predictor);
    gate.wait_for_waiting(1);
    running.stop(Duration::ZERO);
    assert_eq!(running.wait().unwrap().ending, Ending::Cut);
    assert_eq!((broker.committed(), broker.kept().len()), (vec![0], 0));
    gate.open();
}

#[test]
fn versions_switch_at_one_offset_of_each_partition() {
    let config = Config { source_headers: true, workers: Some(n(1)), in_flight: n(1), ..exactly_once() };
    let broker = Broker::with_numbers(2, 300);
    let (predictor, gate) = FnPredictor::gated();
    let running = start(&config, &broker, &predictor);
    gate.let_through(20);
    gate.wait_for_waiting(1);
    predictor.set_version(2);
    gate.open();
    let outcome = running.wait().unwrap();
    assert_eq!((outcome.status.counts.switches, outcome.status.model.unwrap().version.0), (1, 2));
    let mut versions: Vec<(i64, i64, i64)> = broker
        .kept()
        .iter()
        .map(|kept| {
            let header = |name: &str| kept.header(name).unwrap().parse::<i64>().unwrap();
            (
                header("salver-source-partition"),
                header("salver-source-offset"),
                header("salver-model-version"),
            )
        })
        .collect();
    versions.sort_unstable();
    for partition in versions.chunk_by(|a, b| a.0 == b.0) {
        assert!(partition.is_sorted_by_key(|(_, _, version)| *version));
    }
    assert!(versions.iter().any(|(_, _, version)| *version == 1));
    assert!(versions.iter().any(|(_, _, version)| *version == 2));
}

#[test]
fn a_model_that_is_away_is_waited_for_and_not_for_ever() {
    let broker = Broker::with_numbers(1, 5);
    let predictor = FnPredictor::doubling();
    predictor.fail_resolves(3);
    run(&small(), &broker, &predictor).unwrap();
    assert_eq!(broker.kept().len(), 5);
    predictor.fail_resolves(usize::MAX);
    let config = Config { model_wait: Duration::from_millis(150), ..small() };
    let error = run(&config, &Broker::with_numbers(1, 5), &predictor).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model);
    assert!(error.message().starts_with("no version of 'm' can be used"), "{error}");
}

#[test]
fn look_ups_that_have_to_wait_are_waited_for_elsewhere() {
    let broker = Broker::with_numbers(2, 200);
    let predictor = FnPredictor::doubling();
    predictor.resolve_later();
    let outcome = run(&exactly_once(), &broker, &predictor).unwrap();
    assert_eq!((outcome.ending, broker.kept().len()), (Ending::Finished, 400));
}

#[test]
fn look_ups_that_never_end_are_given_up_and_begun_again() {
    let broker = Broker::with_numbers(1, 5);
    let predictor = FnPredictor::doubling();
    predictor.hang_resolves(1);
    let config = Config { model_wait: Duration::from_secs(2), ..small() };
    run(&config, &broker, &predictor).unwrap();
    assert_eq!(broker.kept().len(), 5);
    predictor.hang_resolves(usize::MAX);
    let config = Config { model_wait: Duration::from_millis(100), ..small() };
    let error = run(&config, &Broker::with_numbers(1, 5), &predictor).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model, "{error}");
}

#[test]
fn a_panic_in_any_thread_ends_the_pipeline() {
    let check = |config: &Config, break_it: fn(&Broker, &FnPredictor), expected: &str| {
        let broker = Broker::with_numbers(1, 50);
        let predictor = FnPredictor::doubling();
        break_it(&broker, &predictor);
        let error = run(config, &broker, &predictor).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Internal, expected));
    };
    for config in [small(), exactly_once()] {
        check(&config, |broker, _| broker.panic_in_sink(), "the stream's thread that writes panicked");
        let in_look_up = |_: &Broker, predictor: &FnPredictor| {
            predictor.resolve_later();
            predictor.panic_at_resolves();
        };
        check(&config, in_look_up, "the stream's thread that finds models panicked");
    }
}

#[test]
fn a_mapping_that_does_not_fit_is_told_before_anything_is_read() {
    let broker = Broker::with_numbers(1, 5);
    let mut parts = parts(&broker, &FnPredictor::doubling());
    parts.mapping = Arc::new(Doubler { misfit: Some("field 'x' is not there".into()), ..Doubler::default() });
    let error = Pipeline::start(&small(), parts).unwrap().wait().unwrap_err();
    let expected = (ErrorKind::Model, "model 'm' version 1: field 'x' is not there");
    assert_eq!((error.kind(), error.message()), expected);
    assert_eq!(broker.n_polls(), 0);
}

#[test]
fn a_canary_takes_the_same_keys_every_time() {
    let canary = Canary { percent: 30.0, model: None, version: Some(9), label: None };
    let config = Config { canary: Some(canary), source_headers: true, ..exactly_once() };
    let mut runs = Vec::new();
    for _ in 0..2 {
        let broker = Broker::new(1);
        for number in 0..400 {
            broker.push(
                0,
                Some(&format!("key-{}", number % 100)),
                Some(&number.to_string()),
                Vec::new(),
                None,
            );
        }
        run(&config, &broker, &FnPredictor::doubling()).unwrap();
        let versions: Vec<(Bytes, Option<String>)> = broker
            .kept()
            .iter()
            .map(|kept| (kept.key.clone().unwrap(), kept.header("salver-model-version")))
            .collect();
        for kept in broker.kept() {
            let is_canary = kept.header("salver-model-version").as_deref() == Some("9");
            assert_eq!(kept.header("salver-part").as_deref(), is_canary.then_some("canary"));
        }
        let n_canary = versions.iter().filter(|(_, version)| version.as_deref() == Some("9")).count();
        assert!((60..180).contains(&n_canary), "{n_canary}");
        runs.push(versions);
    }
    assert_eq!(runs[0], runs[1]);
}

#[test]
fn the_primary_answers_while_the_canary_is_gone() {
    for config in [small(), exactly_once()] {
        let canary = Canary { percent: 50.0, model: None, version: Some(9), label: None };
        let config = Config { canary: Some(canary), model_wait: Duration::from_millis(20), ..config };
        let broker = Broker::with_numbers(1, 100);
        broker.keep_open();
        let predictor = FnPredictor::doubling();
        let running = start(&config, &broker, &predictor);
        let answered_by = |from: usize, version: &str| {
            let of = |kept: &&Kept| kept.header("salver-model-version").as_deref() == Some(version);
            broker.kept()[from..].iter().filter(of).count()
        };
        let more = |n: usize| {
            for number in 0..n {
                broker.push(0, Some(&format!("k{}", number % 7)), Some("1"), Vec::new(), None);
            }
        };
        broker.wait_until(|world| world.kept.len() == 100);
        let n_canary = answered_by(0, "9");
        assert!(n_canary > 0 && n_canary < 100);
        predictor.take_away(Some(9));
        more(100);
        broker.wait_until(|world| world.kept.len() == 200);
        assert_eq!(answered_by(100, "9"), 0);
        predictor.take_away(None);
        more(100);
        broker.wait_until(|world| world.kept.len() == 300);
        assert_eq!(answered_by(200, "9"), n_canary);
        running.stop(Duration::from_secs(60));
        let counts = running.wait().unwrap().status.counts;
        let n = u64::try_from(n_canary).unwrap();
        assert_eq!((counts.canary, counts.canary_away), (2 * n, n));
    }
}

fn with_shadow(config: Config, max_records: usize) -> Config {
    let part = Canary { percent: 100.0, model: None, version: Some(9), label: None };
    let shadow = Shadow { part, max_records: n(max_records), max_bytes: 1 << 20 };
    Config { shadow: Some(shadow), source_headers: true, ..config }
}

fn start_beside(
    config: &Config,
    broker: &Arc<Broker>,
    beside: &Arc<Broker>,
    predictor: &Arc<FnPredictor>,
) -> Running {
    let mut parts = parts(broker, predictor);
    parts.shadow_sink = Some(Box::new(beside.sink()));
    Pipeline::start(config, parts).unwrap()
}

#[test]
fn a_shadow_writes_elsewhere_and_delays_nobody() {
    for config in [small(), exactly_once()] {
        let (broker, beside) = (Broker::with_numbers(1, 500), Broker::new(1));
        let (predictor, gate) = FnPredictor::gated_for(9);
        let running = start_beside(&with_shadow(config, 16), &broker, &beside, &predictor);
        // The shadow's model has answered nothing yet.
        broker.wait_until(|world| world.committed == [500]);
        assert_eq!(numbers(&broker.kept(), Output::Main), doubled(1, 500));
        assert!(!running.is_finished());
        gate.open();
        let counts = running.wait().unwrap().status.counts;
        assert!(counts.shadow_dropped >= 500 - 16 - 8, "{counts:?}");
        let shadows = numbers(&beside.kept(), Output::Main);
        assert_eq!(shadows[0], (0, 0, 0.0));
        assert_eq!(counts.shadow_scored, u64::try_from(shadows.len()).unwrap());
        assert_eq!((counts.shadow_scored + counts.shadow_dropped, counts.shadow_failed), (500, 0));
        let says = |kept: &[Kept], version: &str, part: Option<&str>| {
            assert!(kept.iter().all(|kept| kept.header("salver-model-version").as_deref() == Some(version)));
            assert!(kept.iter().all(|kept| kept.header("salver-part").as_deref() == part));
        };
        says(&broker.kept(), "1", None);
        says(&beside.kept(), "9", Some("shadow"));
    }
}

#[test]
fn what_waits_for_the_shadow_at_the_end_is_still_scored() {
    let (broker, beside) = (Broker::with_numbers(3, 100), Broker::new(1));
    broker.push(2, Some("k"), None, Vec::new(), None);
    beside.fail_deliveries(3);
    let config = with_shadow(exactly_once(), 1000);
    let running = start_beside(&config, &broker, &beside, &FnPredictor::doubling());
    let Outcome { ending, status } = running.wait().unwrap();
    assert_eq!(ending, Ending::Finished);
    let Counts { shadow_scored, shadow_failed, shadow_dropped, .. } = status.counts;
    // Without a value there is nothing to be scored.
    assert_eq!((shadow_scored, shadow_failed, shadow_dropped), (297, 3, 0));
    assert_eq!(beside.kept().len(), 297);
}

#[test]
fn a_shadow_is_left_what_has_started_and_no_more() {
    let (broker, beside) = (Broker::with_numbers(1, 500), Broker::new(1));
    let (predictor, gate) = FnPredictor::gated_for(1);
    let config = with_shadow(exactly_once(), 1000);
    let running = start_beside(&config, &broker, &beside, &predictor);
    gate.wait_for_waiting(1);
    broker.wait_until(|world| world.read_at == [500]);
    running.stop(Duration::ZERO);
    let Counts { shadow_scored, shadow_failed, shadow_dropped, .. } = running.wait().unwrap().status.counts;
    let n_left = shadow_scored + shadow_failed + shadow_dropped;
    // Two workers with two batches of eight each.
    assert!((1..=32).contains(&n_left), "{n_left}");
    gate.open();
}

#[test]
fn a_shadow_that_does_not_answer_in_the_grace_is_left() {
    for config in [small(), exactly_once()] {
        let (broker, beside) = (Broker::with_numbers(1, 100), Broker::new(1));
        let (predictor, gate) = FnPredictor::gated_for(9);
        let running = start_beside(&with_shadow(config, 1000), &broker, &beside, &predictor);
        broker.wait_until(|world| world.committed == [100]);
        gate.wait_for_waiting(1);
        running.stop(Duration::from_millis(50));
        let counts = running.wait().unwrap().status.counts;
        assert_eq!((counts.shadow_scored, counts.shadow_failed, counts.shadow_dropped), (0, 0, 100));
        gate.open();
    }
}

#[test]
fn windows_are_gathered_in_order_and_their_changes_are_written() {
    for config in [small(), exactly_once()] {
        let broker = Broker::new(1);
        for number in 0..40 {
            let key = ["a", "b"][number % 2];
            broker.push(0, Some(key), Some(&number.to_string()), Vec::new(), None);
        }
        broker.fail_commits(usize::from(config.delivery == Delivery::ExactlyOnce));
        let mut parts = parts(&broker, &FnPredictor::summing());
        let windows = RowWindows::new(3);
        let ledger = windows.ledger();
        parts.windows = Some(Box::new(windows));
        let outcome = Pipeline::start(&config, parts).unwrap().wait().unwrap();
        let kept = broker.kept();
        let answers: Vec<f32> = kept
            .iter()
            .filter(|kept| kept.output == Output::Main)
            .map(|kept| std::str::from_utf8(kept.value.as_ref().unwrap()).unwrap().parse().unwrap())
            .collect();
        // Each key has every second number; the first two of each make no window.
        let mut expected: Vec<f32> = (4..40).map(|number| (3 * number - 6) as f32).collect();
        let mut sorted = answers.clone();
        sorted.sort_by(f32::total_cmp);
        expected.sort_by(f32::total_cmp);
        assert_eq!(sorted, expected);
        assert_eq!(kept.iter().filter(|kept| kept.output == Output::Changelog).count(), 40);
        assert!(outcome.status.counts.gathering >= 4);
        assert_eq!(ledger.committed.load(SeqCst), 40);
    }
}

/// Two partitions of forty numbers each, of one key each.
fn two_keys() -> Arc<Broker> {
    let broker = Broker::new(2);
    for number in 0..80 {
        let partition = number % 2;
        let (key, value) = (["a", "b"][partition], (number / 2).to_string());
        broker.push(partition, Some(key), Some(&value), Vec::new(), None);
    }
    broker
}

fn sorted_sums(broker: &Broker) -> Vec<f32> {
    let kept = broker.kept();
    let answers = kept.iter().filter(|kept| kept.output == Output::Main);
    let number = |kept: &Kept| std::str::from_utf8(kept.value.as_ref().unwrap()).unwrap().parse().unwrap();
    let mut sums: Vec<f32> = answers.map(number).collect();
    sums.sort_by(f32::total_cmp);
    sums
}

/// What windows of three give of the numbers `0..40`, twice.
fn sums() -> Vec<f32> {
    (2..40).flat_map(|number| [(3 * number - 3) as f32; 2]).collect()
}

#[test]
fn while_windows_are_restored_other_partitions_go_on() {
    for config in [small(), exactly_once()] {
        let broker = two_keys();
        let mut parts = parts(&broker, &FnPredictor::summing());
        let gate = Arc::<Gate>::default();
        let slow = Some((0, Arc::clone(&gate)));
        // The last one is restored first.
        broker.lose(0);
        broker.assign(0);
        parts.windows = Some(Box::new(RowWindows { slow, n_to_fail: 1, ..RowWindows::new(3) }));
        let running = Pipeline::start(&config, parts).unwrap();
        broker.wait_until(|world| world.committed == [0, 40]);
        assert!(!running.is_ready() && !running.is_finished());
        assert_eq!(broker.read_at()[0], 0);
        gate.open();
        let outcome = running.wait().unwrap();
        assert_eq!((outcome.ending, outcome.status.n_restoring), (Ending::Finished, 0));
        assert_eq!(sorted_sums(&broker), sums());
    }
}

/// A run that has done partition 0 and is restoring the windows of partition 1 until the gate opens.
fn restoring() -> (Arc<Broker>, Arc<Gate>, Running) {
    let broker = two_keys();
    broker.keep_open();
    let mut parts = parts(&broker, &FnPredictor::summing());
    let gate = Arc::<Gate>::default();
    let slow = Some((1, Arc::clone(&gate)));
    parts.windows = Some(Box::new(RowWindows { slow, ..RowWindows::new(3) }));
    let running = Pipeline::start(&small(), parts).unwrap();
    gate.wait_for_waiting(1);
    broker.wait_until(|world| world.committed == [40, 0]);
    (broker, gate, running)
}

#[test]
fn a_restoration_holds_up_neither_a_revocation_nor_the_end() {
    let (broker, _gate, running) = restoring();
    broker.revoke(1);
    broker.wait_until(|world| world.given_up == [1]);
    assert!(broker.read_at()[1] == 0 && broker.committed()[1] == 0);
    running.stop(Duration::from_secs(60));
    assert_eq!(running.wait().unwrap().ending, Ending::Stopped);
    assert_eq!(broker.committed(), [40, 0]);
}

#[test]
fn lag_is_told_while_windows_are_restored() {
    let (_broker, gate, running) = restoring();
    running.stop(Duration::from_secs(60));
    let status = running.wait().unwrap().status;
    let told = status.partitions.iter().map(|one| (one.partition.number, one.is_restoring, one.lag));
    assert_eq!(told.collect::<Vec<_>>(), [(0, false, Some(0)), (1, true, Some(40))]);
    assert_eq!(status.n_restoring, 1);
    let times: Vec<bool> = status.partitions.iter().map(|one| one.lag_time > Some(Duration::ZERO)).collect();
    assert_eq!(times, [false, true]);
    gate.open();
}

#[test]
fn behind_a_record_that_cannot_be_read_yet_only_its_partition_waits() {
    let millis = Duration::from_millis;
    for config in [small(), exactly_once()] {
        let retry =
            Retry { attempts: u32::MAX, backoff: millis(1), max_backoff: millis(5), ..Retry::default() };
        let broker = two_keys();
        broker.push(0, Some("a"), Some("forty"), Vec::new(), None);
        broker.push(0, Some("a"), Some("41"), Vec::new(), None);
        broker.fail_commits(usize::from(config.delivery == Delivery::ExactlyOnce));
        let config = Config { retry, on: Policies::all(Policy::Skip), ..config };
        let mut parts = parts(&broker, &FnPredictor::summing());
        let away = Arc::new(std::sync::Mutex::new(Some("forty")));
        parts.mapping = Arc::new(Doubler { away: Arc::clone(&away), ..Doubler::default() });
        parts.windows = Some(Box::new(RowWindows::new(3)));
        let running = Pipeline::start(&config, parts).unwrap();
        broker.wait_until(|world| world.committed == [40, 40]);
        *away.lock().unwrap() = None;
        // It is no number, and is left out then.
        assert_eq!(running.wait().unwrap().ending, Ending::Finished);
        assert_eq!(sorted_sums(&broker), [sums(), vec![(38 + 39 + 41) as f32]].concat());
        assert_eq!(broker.committed(), [42, 40]);
    }
}

#[test]
fn a_record_that_cannot_be_read_is_tried_so_many_times() {
    let retry = Retry { attempts: 3, backoff: Duration::from_millis(1), ..Retry::default() };
    let config = Config { retry, on: Policies::all(Policy::Dead), ..exactly_once() };
    let broker = two_keys();
    let mut parts = parts(&broker, &FnPredictor::summing());
    let away = Arc::new(std::sync::Mutex::new(Some("39")));
    parts.mapping = Arc::new(Doubler { away, ..Doubler::default() });
    parts.windows = Some(Box::new(RowWindows::new(3)));
    let outcome = Pipeline::start(&config, parts).unwrap().wait().unwrap();
    assert_eq!(outcome.ending, Ending::Finished);
    let n_dead = broker.kept().iter().filter(|kept| kept.output == Output::Dead).count();
    assert_eq!((n_dead, broker.committed()), (2, vec![40, 40]));
}

#[test]
fn intake_is_bounded_while_nothing_is_answered() {
    let config = Config { max_records: n(50), max_bytes: 1 << 20, ..small() };
    let broker = Broker::with_numbers(1, 5000);
    let (predictor, gate) = FnPredictor::gated();
    let running = start(&config, &broker, &predictor);
    gate.wait_for_waiting(1);
    // The source is paused when the bound has held for a while.
    broker.wait_until(|world| world.is_paused[0] && world.read_at[0] > 0);
    let read = broker.read_at()[0];
    assert!(read <= 50 + broker::PER_POLL as i64, "{read}");
    gate.open();
    assert_eq!(running.wait().unwrap().ending, Ending::Finished);
    assert_eq!(broker.kept().len(), 5000);
}

#[test]
fn fields_are_mapped_filtered_and_joined() {
    let settings = toml::from_str(
        r#"
        [input]
        tensors = [{ input = "x", field = "prices.price" }]
        [[filter]]
        field = "wanted"
        equals = true
        "#,
    );
    let broker = Broker::new(1);
    for (key, value) in [("a", r#"{"id":1,"wanted":true}"#), ("b", r#"{"id":2,"wanted":false}"#)] {
        broker.push(0, Some(key), Some(value), Vec::new(), None);
    }
    broker.push(0, Some("c"), Some(r#"{"id":3,"wanted":true}"#), Vec::new(), None);
    broker.push(0, Some("d"), Some("{"), Vec::new(), None);
    let mut parts = parts(&broker, &FnPredictor::doubling());
    let prices = Joined {
        name: "prices".into(),
        input: InputSettings::default(),
        columns: None,
        records: Arc::new(Prices),
    };
    parts.mapping =
        Arc::new(Fields { settings: settings.unwrap(), tables: vec![prices], ..Fields::default() });
    let config = Config { on: Policies::all(Policy::Dead), ..exactly_once() };
    let outcome = Pipeline::start(&config, parts).unwrap().wait().unwrap();
    let kept = broker.kept();
    let text = |kept: &Kept| String::from_utf8(kept.value.as_ref().unwrap().to_vec()).unwrap();
    let answers: Vec<String> = kept.iter().filter(|kept| kept.output == Output::Main).map(text).collect();
    assert_eq!(answers, [r#"{"id":1,"wanted":true,"y":5.0}"#]);
    let dead: Vec<Option<String>> = kept
        .iter()
        .filter(|kept| kept.output == Output::Dead)
        .map(|kept| kept.header("salver-error-class"))
        .collect();
    // There is no price of `c`, and `d` is no JSON.
    assert_eq!(dead, [Some("shape".to_owned()), Some("format".to_owned())]);
    assert_eq!((outcome.status.counts.filtered, broker.committed()), (1, vec![4]));
}

/// A table with the price of `a` alone.
#[derive(Debug)]
struct Prices;

impl Lookup for Prices {
    fn find(&self, record: &Record) -> Result<Option<Record>, String> {
        let is_known = record.key.as_deref() == Some(b"a");
        let value = Some(Bytes::from_static(br#"{"price":2.5}"#));
        Ok(is_known.then(|| Record { value, ..record.clone() }))
    }
}

#[test]
fn a_record_that_the_source_has_cut_is_oversize() {
    let broker = Broker::new(1);
    let cut = Header { name: CUT_FROM.into(), value: Some(Bytes::from_static(b"1000")) };
    broker.push(0, None, Some("1"), vec![cut], None);
    let config = Config { on: Policies { oversize: Policy::Dead, ..Policies::default() }, ..small() };
    run(&config, &broker, &FnPredictor::doubling()).unwrap();
    let kept = broker.kept();
    let [dead] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!(dead.header("salver-error-class").as_deref(), Some("oversize"));
    assert_eq!(dead.header(CUT_FROM).as_deref(), Some("1000"));
}

#[test]
fn settings_are_checked_against_the_parts() {
    let broker = Broker::with_numbers(1, 1);
    broker.forbid_transactions();
    let predictor = FnPredictor::doubling();
    let error = Pipeline::start(&exactly_once(), parts(&broker, &predictor)).unwrap_err();
    assert!(error.message().starts_with("delivery is 'exactly_once'"), "{error}");
    let part = Canary { percent: 1.0, model: None, version: None, label: None };
    let shadow = Some(Shadow { part, max_records: n(1), max_bytes: 1 });
    let error = Pipeline::start(&Config { shadow, ..small() }, parts(&broker, &predictor)).unwrap_err();
    assert_eq!(error.message(), "there is a shadow and nowhere to write what it answers");
}
