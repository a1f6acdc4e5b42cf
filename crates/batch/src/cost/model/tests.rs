use proptest::prelude::*;

use super::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Sizes and times in milliseconds, each run a few times.
fn model(runs: &[(usize, u64)]) -> CostModel {
    let mut model = CostModel::default();
    for &(n_rows, ran) in runs {
        for _ in 0..5 {
            model.record(n_rows, ms(ran));
        }
    }
    model
}

#[test]
fn sizes_are_fewer_and_fewer() {
    let check = |n_rows, expected| assert_eq!(size(n_rows), expected, "{n_rows}");
    for (n_rows, expected) in [(0, 1), (1, 1), (16, 16), (17, 16), (19, 16), (20, 20), (31, 28), (32, 32)] {
        check(n_rows, expected);
    }
    for (n_rows, expected) in
        [(39, 32), (40, 40), (1000, 896), (1024, 1024), (usize::MAX, 7 << (usize::BITS - 3))]
    {
        check(n_rows, expected);
    }
}

#[test]
fn sizes_between_and_beyond_are_estimated() {
    let check = |runs: &[(usize, u64)], n_rows, expected| {
        assert_eq!(
            model(runs).estimate(n_rows).map(|estimate| estimate.p50),
            expected,
            "{n_rows} of {runs:?}"
        );
    };
    check(&[], 1, None);
    check(&[(4, 8)], 4, Some(ms(8)));
    // Fewer rows take no longer; more in proportion, while there is but one size.
    check(&[(4, 8)], 1, Some(ms(8)));
    check(&[(4, 8)], 8, Some(ms(16)));
    check(&[(4, 8), (8, 12)], 6, Some(ms(10)));
    check(&[(4, 8), (8, 12)], 16, Some(ms(20)));
    // Time never falls with the rows: sizes that would are taken for one.
    check(&[(4, 8), (8, 6)], 4, Some(ms(7)));
    check(&[(4, 8), (8, 6)], 16, Some(ms(7)));
    check(&[(1, 3), (2, 9), (4, 8), (8, 4), (16, 20)], 2, Some(ms(7)));
}

#[test]
fn enough_is_where_more_rows_gain_little() {
    let check = |runs: &[(usize, u64)], max, expected| {
        assert_eq!(model(runs).enough(max), expected, "{runs:?} up to {max}");
    };
    check(&[], 32, 32);
    // In proportion: one is enough.
    check(&[(1, 10), (2, 20), (4, 40)], 32, 1);
    check(&[(1, 100), (2, 196), (4, 390)], 32, 1);
    // Hardly dearer with more rows: as many as there may be, found out by doublings.
    check(&[(1, 10)], 32, 2);
    check(&[(1, 10), (2, 11), (4, 12)], 32, 8);
    check(&[(1, 10), (2, 11), (4, 12)], 6, 6);
    // A best size between.
    check(&[(1, 10), (2, 12), (4, 24), (8, 60)], 32, 2);
    check(&[(1, 10), (2, 12), (4, 24), (8, 60)], 1, 1);
}

#[test]
fn a_first_run_counts_until_there_is_another() {
    let mut model = CostModel::default();
    model.record_first(1, ms(900));
    assert_eq!(model.estimate(1).map(|estimate| estimate.p50), Some(ms(900)));
    model.record_first(1, ms(10));
    model.record_first(1, ms(12));
    let Estimate { p50, p99, .. } = model.estimate(1).unwrap();
    assert_eq!((p50, p99, model.points()[0].n_runs), (ms(10), ms(12), 2));
    // What is known to be warm stays.
    model.record(2, ms(20));
    model.record(2, ms(21));
    assert_eq!(model.points()[1].n_runs, 2);
}

/// Serves a backlog for so many runs: each batch is as large as is enough.
fn serve(model: &mut CostModel, n_runs: usize, max: usize, time: impl Fn(usize) -> u64) -> Vec<usize> {
    let run = |_| {
        let n_rows = model.enough(max);
        model.record(n_rows, Duration::from_micros(time(n_rows)));
        n_rows
    };
    (0..n_runs).map(run).collect()
}

#[test]
fn larger_sizes_are_tried_again_now_and_then() {
    let dip = |n: usize| if n == 1 { 500 } else { 2000 + 10 * n as u64 };
    let check = |measured: &[(usize, u64)], time: &dyn Fn(usize) -> u64, n_runs: usize, expected: usize| {
        let mut model = CostModel::default();
        for &(n_rows, micros) in measured {
            (0..3).for_each(|_| model.record(n_rows, Duration::from_micros(micros)));
        }
        serve(&mut model, n_runs, 64, time);
        let usual = serve(&mut model, 200, 64, time);
        let n_usual = usual.iter().filter(|&&n_rows| n_rows == expected).count();
        assert!(n_usual > 180, "{expected}: {usual:?}");
    };
    // A trial that saw only the dip, and one on a machine that was busy after the first size.
    check(&[(1, 500), (2, 2020)], &dip, 5000, 64);
    check(&[(1, 500), (2, 9000), (4, 20_000), (8, 50_000)], &|n| 400 + 10 * n as u64, 5000, 64);
    // What does not pay is not run more often than now and then.
    check(&[(1, 500), (2, 1000), (4, 2000)], &|n| 500 * n as u64, 5000, 1);
    let mut model = model(&[(1, 10), (2, 20), (4, 40), (8, 80)]);
    let sizes = serve(&mut model, 10_000, 64, |n| 10_000 * n as u64);
    let n_large: usize = sizes.iter().filter(|&&n_rows| n_rows > 1).sum();
    assert!((100..600).contains(&n_large), "{n_large} rows");
}

#[test]
fn the_99th_percentile_is_seen_and_forgotten() {
    let mut model = CostModel::default();
    for n in 0..200 {
        model.record(1, if n % 40 == 0 { ms(30) } else { ms(10) });
    }
    assert_eq!(model.estimate(1), Some(Estimate { p50: ms(10), p90: ms(10), p99: ms(30) }));
    for _ in 0..140 {
        model.record(1, ms(10));
    }
    assert_eq!(model.estimate(1), Some(Estimate { p50: ms(10), p90: ms(10), p99: ms(10) }));
}

#[test]
fn runs_that_vary_are_told() {
    let mut model = CostModel::default();
    for _ in 0..100 {
        model.record(1, ms(10));
    }
    assert!(model.is_steady());
    // Slower and slower: each run is longer than any before.
    for n in 0..20 {
        model.record(1, ms(11 + n));
    }
    assert!(!model.is_steady());
    for _ in 0..64 {
        model.record(1, ms(10));
    }
    assert!(model.is_steady());
    // Now and then a run that takes much longer is no reason.
    for n in 0..128 {
        model.record(1, if n % 40 == 0 { ms(500) } else { ms(10) });
    }
    assert!(model.is_steady());
    // One run of ten that takes ten times as long is.
    let mut model = CostModel::default();
    for n in 0..128 {
        model.record(1, if n % 10 == 0 { ms(100) } else { ms(10) });
    }
    assert!(!model.is_steady());
}

#[test]
fn one_slow_run_of_a_rare_size_is_not_what_is_usual() {
    let mut model = model(&[(1, 10), (2, 11), (8, 16), (16, 24)]);
    for n in 0..200 {
        model.record(8, ms(15 + n % 3));
    }
    model.record(16, ms(900));
    let p99 = model.estimate(16).map(|estimate| estimate.p99);
    assert!(p99.is_some_and(|p99| p99 < ms(30)), "{p99:?}");
    // When it is usual, it is seen.
    (0..128).for_each(|_| model.record(16, ms(900)));
    assert!(model.estimate(16).is_some_and(|estimate| estimate.p50 >= ms(900)));
}

#[test]
fn a_change_of_pace_is_followed() {
    let mut model = model(&[(1, 10)]);
    (0..200).for_each(|_| model.record(1, ms(10)));
    (0..20).for_each(|_| model.record(1, ms(20)));
    assert_eq!(model.estimate(1).map(|estimate| estimate.p50), Some(ms(20)));
}

proptest! {
    /// Whatever ran, estimates never fall with the rows, the 99th percentile is never below the median, and what is
    /// enough lies within the bound.
    #[test]
    fn estimates_are_monotone(runs in prop::collection::vec((1usize..300, 1u64..1000), 1..100), max in 1usize..400) {
        let mut model = CostModel::default();
        for &(n_rows, ran) in &runs {
            model.record(n_rows, ms(ran));
        }
        let mut last = Estimate::default();
        for n_rows in 1..400 {
            let estimate = model.estimate(n_rows).unwrap();
            prop_assert!(estimate.p50 >= last.p50 && estimate.p99 >= last.p99, "{} rows", n_rows);
            prop_assert!(estimate.p90 >= last.p90);
            prop_assert!(estimate.p50 <= estimate.p90 && estimate.p90 <= estimate.p99);
            last = estimate;
        }
        prop_assert!((1..=max).contains(&model.enough(max)));
    }
}
