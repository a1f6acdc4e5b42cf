//! Which measurement is best.

use std::cmp::Ordering;

use salver_engine::Precision;

use crate::{Agreement, Measured};

/// What is wanted of a choice.
#[derive(Debug, Clone, PartialEq)]
pub struct Goal {
    /// What it is to be best at.
    pub aim: Aim,
    /// Precisions besides [`Precision::F32`] that it may have.
    pub allowed: Vec<Precision>,
    /// How far its answers may be from the reference's.
    pub tolerance: Tolerance,
}

/// What a choice is to be best at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Aim {
    /// The shortest time for one caller with one row.
    Latency,
    /// The most rows per second.
    Throughput,
    /// The most rows per second among those whose time for one caller is within [`Aim::SLACK`] of the shortest.
    #[default]
    Balanced,
}

impl Aim {
    /// How much longer than the shortest the time for one caller may be, for [`Aim::Balanced`].
    pub const SLACK: f64 = 1.25;
}

/// What differs by less than this is taken to be as good: a simpler choice is preferred. Machines are not quieter.
const TIE: f64 = 0.05;

/// How far answers may be from the reference's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// The largest relative difference at [`Precision::F32`]. Default: 1e-3.
    pub f32_relative: f64,
    /// The largest relative difference at any other precision. Default: 0.05.
    pub reduced_relative: f64,
    /// The smallest share of rows whose class is the same, and of integers that are equal, at any other precision than
    /// [`Precision::F32`]. Default: 0.99.
    pub top_1: f64,
}

impl Default for Tolerance {
    fn default() -> Tolerance {
        Tolerance { f32_relative: 1e-3, reduced_relative: 0.05, top_1: 0.99 }
    }
}

impl Tolerance {
    /// Why answers that agree so far are not good enough at this precision; `None` when they are.
    pub fn refusal(&self, precision: Precision, agreement: &Agreement) -> Option<String> {
        let (relative, least) = match precision {
            Precision::F32 => (self.f32_relative, None),
            _ => (self.reduced_relative, Some(self.top_1)),
        };
        for output in &agreement.outputs {
            let name = &output.output;
            let found = output.max_relative();
            if found > relative || found.is_nan() {
                return Some(format!(
                    "output '{name}' differs by {found:.2e} of its scale, allowed is {relative:.2e}"
                ));
            }
            if let Some(share) = output.equal.filter(|share| share.fraction() < least.unwrap_or(1.0)) {
                return Some(format!("{} of {} elements of output '{name}' are equal", share.n, share.of));
            }
            if let Some((share, least)) =
                output.top_1.zip(least).filter(|(share, least)| share.fraction() < *least)
            {
                let text = format!("{} of {} rows of output '{name}'", share.n, share.of);
                return Some(format!("top-1 agrees in {text}, a share of {least} is asked for"));
            }
        }
        None
    }
}

impl Goal {
    /// Why a measurement cannot be chosen; `None` when it can.
    pub fn refusal(&self, precision: Precision, agreement: &Agreement) -> Option<String> {
        if precision != Precision::F32 && !self.allowed.contains(&precision) {
            return Some(format!("{precision} was not asked for"));
        }
        self.tolerance.refusal(precision, agreement)
    }
}

/// The position of the best measurement; `None` when none may be chosen.
///
/// Of those that are as good within 5 %, the simplest is taken: the more precise, then the engine that is earlier
/// among the candidates, then the smaller batch, then the shorter time for one caller. Does not depend on the order of the
/// measurements but where two are alike in all of this.
pub fn choose(measured: &[Measured], goal: &Goal) -> Option<usize> {
    best_of(measured, goal, |one| goal.refusal(one.precision, &one.agreement).is_none())
}

/// As [`fn@choose`], among those that `may` take, whatever their precision and agreement.
pub fn best_of(measured: &[Measured], goal: &Goal, may: impl Fn(&Measured) -> bool) -> Option<usize> {
    let mut left: Vec<usize> = (0..measured.len()).filter(|&at| may(&measured[at])).collect();
    if goal.aim == Aim::Latency {
        let smallest = left.iter().map(|&at| measured[at].batch).min()?;
        left.retain(|&at| measured[at].batch == smallest);
    }
    let shortest = left.iter().map(|&at| measured[at].one_caller).min()?;
    let slack = match goal.aim {
        Aim::Latency => 1.0 + TIE,
        Aim::Balanced => Aim::SLACK,
        Aim::Throughput => f64::INFINITY,
    };
    left.retain(|&at| measured[at].one_caller.as_secs_f64() <= shortest.as_secs_f64() * slack);
    if goal.aim != Aim::Latency {
        let most = left.iter().map(|&at| measured[at].rows_per_second).fold(0.0, f64::max);
        left.retain(|&at| measured[at].rows_per_second >= most * (1.0 - TIE));
    }
    left.into_iter().min_by(|&a, &b| simplest(&measured[a], &measured[b]))
}

/// Which of two measurements that are about as good is simpler; [`Ordering::Less`] is the simpler.
pub fn simplest(a: &Measured, b: &Measured) -> Ordering {
    let kind = |one: &Measured| (one.precision, one.candidate, one.batch);
    let speed = b.rows_per_second.total_cmp(&a.rows_per_second);
    kind(a).cmp(&kind(b)).then(a.one_caller.cmp(&b.one_caller)).then(speed)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{OutputAgreement, Share, Sharing};

    fn output(max_absolute: f64, top_1: Option<Share>, equal: Option<Share>) -> OutputAgreement {
        let (signature, output) = ("s".into(), "y".into());
        OutputAgreement { signature, output, scale: 1.0, max_absolute, equal, top_1 }
    }

    fn agreement(max_absolute: f64, n_same: usize) -> Arc<Agreement> {
        let top_1 = Some(Share { n: n_same, of: 100 });
        Arc::new(Agreement { outputs: vec![output(max_absolute, top_1, None)], n_rows: 100 })
    }

    /// Candidate, batch, milliseconds for one caller, rows per second.
    fn row(candidate: usize, batch: usize, millis: u64, rows_per_second: f64) -> Measured {
        Measured {
            candidate,
            engine: format!("engine{candidate}").into(),
            precision: Precision::F32,
            sharing: Sharing::ONE,
            batch: NonZeroUsize::new(batch).unwrap(),
            one_caller: Duration::from_millis(millis),
            p50: Duration::from_millis(millis),
            p99: Duration::from_millis(millis),
            rows_per_second,
            cpu_per_row: Duration::ZERO,
            footprint: None,
            load_time: Duration::ZERO,
            n_runs: 1,
            n_rounds: 1,
            agreement: agreement(1e-6, 100),
        }
    }

    fn reduced(precision: Precision, agreement: Arc<Agreement>, row: Measured) -> Measured {
        Measured { precision, agreement, ..row }
    }

    fn goal(aim: Aim, allowed: &[Precision]) -> Goal {
        Goal { aim, allowed: allowed.to_vec(), tolerance: Tolerance::default() }
    }

    #[test]
    fn each_aim_has_its_best() {
        let check = |rows: &[Measured], expected: [Option<usize>; 3]| {
            for (aim, expected) in [Aim::Latency, Aim::Balanced, Aim::Throughput].into_iter().zip(expected) {
                assert_eq!(choose(rows, &goal(aim, &[])), expected, "{aim:?}: {rows:#?}");
            }
        };
        check(&[], [None; 3]);
        check(&[row(0, 1, 10, 100.0)], [Some(0); 3]);
        // Fast alone, fast together, and in between.
        check(
            &[row(0, 1, 10, 100.0), row(1, 1, 20, 200.0), row(2, 1, 12, 150.0)],
            [Some(0), Some(2), Some(1)],
        );
        // Larger batches count only for throughput.
        check(
            &[row(0, 1, 10, 100.0), row(0, 8, 10, 130.0), row(0, 32, 10, 132.0)],
            [Some(0), Some(1), Some(1)],
        );
        // Noise does not install an engine, speed does.
        check(&[row(0, 1, 100, 10.0), row(1, 1, 96, 10.4)], [Some(0); 3]);
        check(&[row(0, 1, 100, 10.0), row(1, 1, 90, 11.0)], [Some(1); 3]);
        // The same engine: what is shorter for one caller.
        check(&[row(0, 1, 12, 99.0), row(0, 1, 10, 100.0)], [Some(1); 3]);
    }

    #[test]
    fn reduced_precision_is_taken_only_if_asked_for_and_close_enough() {
        let bf16 = Precision::Bf16;
        let check = |close: Arc<Agreement>, allowed: &[Precision], expected: usize| {
            let rows = [row(0, 1, 10, 100.0), reduced(bf16, close, row(1, 1, 2, 500.0))];
            assert_eq!(choose(&rows, &goal(Aim::Balanced, allowed)), Some(expected));
        };
        check(agreement(0.01, 100), &[], 0);
        check(agreement(0.01, 100), &[Precision::Int8], 0);
        check(agreement(0.01, 100), &[bf16], 1);
        check(agreement(0.05, 99), &[bf16], 1);
        check(agreement(0.051, 100), &[bf16], 0);
        check(agreement(0.01, 98), &[bf16], 0);
        check(agreement(f64::INFINITY, 100), &[bf16], 0);
        check(agreement(f64::NAN, 100), &[bf16], 0);
        // As fast within 5 %: as exported.
        let rows = [reduced(bf16, agreement(0.0, 100), row(0, 1, 97, 10.3)), row(1, 1, 100, 10.0)];
        assert_eq!(choose(&rows, &goal(Aim::Throughput, &[bf16])), Some(1));
        let wrong = [reduced(Precision::F32, agreement(0.01, 100), row(0, 1, 10, 100.0))];
        assert_eq!(choose(&wrong, &goal(Aim::Latency, &[])), None);
    }

    #[test]
    fn a_refusal_says_why() {
        let goal = goal(Aim::Balanced, &[Precision::Int8]);
        let check = |precision: Precision, output: OutputAgreement, expected: Option<&str>| {
            let agreement = Agreement { outputs: vec![output], n_rows: 1 };
            assert_eq!(goal.refusal(precision, &agreement).as_deref(), expected);
        };
        let share = |n: usize| Some(Share { n, of: 200 });
        check(Precision::Bf16, output(0.0, None, None), Some("bf16 was not asked for"));
        check(Precision::F32, output(1e-3, share(0), share(200)), None);
        check(
            Precision::F32,
            output(2e-3, None, None),
            Some("output 'y' differs by 2.00e-3 of its scale, allowed is 1.00e-3"),
        );
        check(
            Precision::F32,
            output(0.0, None, share(199)),
            Some("199 of 200 elements of output 'y' are equal"),
        );
        check(Precision::Int8, output(0.05, share(198), share(198)), None);
        check(
            Precision::Int8,
            output(0.0, None, share(197)),
            Some("197 of 200 elements of output 'y' are equal"),
        );
        check(
            Precision::Int8,
            output(0.0, share(100), None),
            Some("top-1 agrees in 100 of 200 rows of output 'y', a share of 0.99 is asked for"),
        );
    }

    fn any_row() -> impl Strategy<Value = Measured> {
        let precision = prop::sample::select(Precision::ALL.to_vec());
        let error = prop::sample::select(vec![0.0, 5e-4, 0.01, 0.2, f64::NAN]);
        (0usize..4, 1usize..4, 1u64..60, 1u32..60, precision, error, 97usize..=100).prop_map(
            |(candidate, batch, millis, speed, precision, error, n_same)| {
                reduced(precision, agreement(error, n_same), row(candidate, batch, millis, f64::from(speed)))
            },
        )
    }

    proptest! {
        /// What is chosen may be chosen and is as good as the best; order does not matter; what may not be chosen or is worse
        /// in every way changes nothing.
        #[test]
        fn the_choice_is_allowed_and_best(
            rows in prop::collection::vec(any_row(), 0..20),
            aim in prop::sample::select(vec![Aim::Latency, Aim::Throughput, Aim::Balanced]),
            allowed in prop::sample::subsequence(vec![Precision::Bf16, Precision::Int8], 0..=2),
        ) {
            let goal = goal(aim, &allowed);
            let may = |row: &Measured| goal.refusal(row.precision, &row.agreement).is_none();
            let chosen = choose(&rows, &goal).map(|at| &rows[at]);
            prop_assert_eq!(chosen.is_some(), rows.iter().any(may));
            let Some(chosen) = chosen else { return Ok(()) };
            prop_assert!(may(chosen));
            let smallest = rows.iter().filter(|row| may(row)).map(|row| row.batch).min();
            let is_fair = |row: &&Measured| may(row) && (aim != Aim::Latency || Some(row.batch) == smallest);
            let fair: Vec<&Measured> = rows.iter().filter(is_fair).collect();
            let shortest = fair.iter().map(|row| row.one_caller).min().unwrap().as_secs_f64();
            let alone = chosen.one_caller.as_secs_f64();
            let slack = match aim {
                Aim::Latency => 1.0 + TIE,
                Aim::Balanced => Aim::SLACK,
                Aim::Throughput => f64::INFINITY,
            };
            prop_assert!(alone <= shortest * slack);
            if aim != Aim::Latency {
                let near = fair.iter().filter(|row| row.one_caller.as_secs_f64() <= shortest * slack);
                let most = near.map(|row| row.rows_per_second).fold(0.0, f64::max);
                prop_assert!(chosen.rows_per_second >= most * (1.0 - TIE));
            }
            let mut reversed = rows.clone();
            reversed.reverse();
            prop_assert_eq!(simplest(&reversed[choose(&reversed, &goal).unwrap()], chosen), Ordering::Equal);
            let mut more = rows.clone();
            more.push(Measured { one_caller: chosen.one_caller * 100, rows_per_second: 0.0, ..chosen.clone() });
            more.push(reduced(Precision::F32, agreement(1.0, 0), row(0, 1, 1, 1e9)));
            prop_assert_eq!(choose(&more, &goal), choose(&rows, &goal));
        }
    }
}
