//! Signatures that change what later runs give.

use salver_engine::Model;

use crate::engine::{engine, floats, load, own, run, strings, tensor, test_data};

fn keeps(model: &dyn Model, signature: &str) -> bool {
    let found = model.signatures().iter().find(|found| &**found.name() == signature);
    found.unwrap().keeps_state()
}

#[test]
fn what_changes_state_is_known_and_kept_per_loaded_model() {
    let Some(engine) = engine() else { return };
    let model = load(&engine, &own("state")).unwrap();
    for (signature, expected) in [("add", true), ("get", false), ("put", true), ("look", false)] {
        assert_eq!(keeps(&*model, signature), expected, "{signature}");
    }
    let add = |delta: f32| run(&*model, "add", &[("delta", tensor(&[], &[delta]))], "total");
    assert_eq!(floats(&add(2.5).unwrap()), [2.5]);
    assert_eq!(floats(&add(1.0).unwrap()), [3.5]);
    assert_eq!(floats(&run(&*model, "get", &[], "total").unwrap()), [3.5]);
    let other = load(&engine, &own("state")).unwrap();
    assert_eq!(floats(&run(&*other, "get", &[], "total").unwrap()), [0.0]);
}

/// What a table keeps is its own: the request that brought it is gone.
#[test]
fn a_table_keeps_strings() {
    let Some(engine) = engine() else { return };
    let model = load(&engine, &own("state")).unwrap();
    let long = vec![b'k'; 300];
    for at in 0..20i64 {
        let keys = strings(&[2], &[&long, format!("a key, longer than a short string {at}").as_bytes()]);
        run(&*model, "put", &[("keys", keys), ("values", tensor(&[2], &[at, at * 10]))], "n").unwrap();
    }
    let keys = strings(&[3], &[b"a key, longer than a short string 7", &long, b"unknown"]);
    let values = run(&*model, "look", &[("keys", keys)], "values").unwrap();
    assert_eq!(values.to_slice::<i64>().unwrap()[..], [70, 19, -1]);
}

/// The model reads and assigns in steps; no addition is lost.
#[test]
fn runs_that_change_state_take_turns() {
    let Some(engine) = engine() else { return };
    let model = load(&engine, &own("state")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    run(&*model, "add", &[("delta", tensor(&[], &[1.0f32]))], "total").unwrap();
                }
            });
        }
    });
    assert_eq!(floats(&run(&*model, "get", &[], "total").unwrap()), [800.0]);
}

#[test]
fn the_counter_counts() {
    let (Some(engine), Some(folder)) = (engine(), test_data()) else { return };
    let model = load(&engine, &folder.join("tfserving/saved_model_counter/00000123")).unwrap();
    for signature in ["incr_counter", "incr_counter_by", "reset_counter"] {
        assert!(keeps(&*model, signature), "{signature}");
    }
    assert!(!keeps(&*model, "get_counter"));
    let call = |signature: &str| floats(&run(&*model, signature, &[], "output").unwrap());
    assert_eq!(call("get_counter"), [0.0]);
    // An answer is what it was, whatever later runs do to the variable.
    let first = run(&*model, "incr_counter", &[], "output").unwrap();
    for expected in [2.0, 3.0] {
        assert_eq!(call("incr_counter"), [expected]);
    }
    assert_eq!(floats(&first), [1.0]);
    assert_eq!(call("get_counter"), [3.0]);
    let by = run(&*model, "incr_counter_by", &[("delta", tensor(&[], &[2.0f32]))], "output").unwrap();
    assert_eq!(floats(&by), [5.0]);
    assert_eq!(call("reset_counter"), [0.0]);
}
