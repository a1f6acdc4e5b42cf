//! Which worker gets how many records, and when.

use std::time::{Duration, Instant};

/// The numbers that batches go by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) max_batch: usize,
    pub(crate) linger: Duration,
    pub(crate) in_flight: usize,
    pub(crate) pipeline_after: Duration,
}

/// What is to be done with records that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Give so many to this worker.
    Start { worker: usize, n: usize },
    /// Nothing before this moment, unless more records come or a worker is done.
    Until(Instant),
    /// Nothing before a worker is done.
    Busy,
}

/// Decides for `n_waiting` records (at least one), the oldest taken in at `oldest`, and workers with so many batches each.
///
/// An idle worker takes what there is, shared out over all idle workers. A busy one gets its next batch early only if
/// that batch is full or has waited, so that batches grow with the load and none is small while all are busy.
pub(crate) fn form(now: Instant, rules: &Rules, n_waiting: usize, oldest: Instant, loads: &[usize]) -> Form {
    let Some((worker, &load)) = loads.iter().enumerate().min_by_key(|(_, load)| **load) else {
        return Form::Busy;
    };
    if load >= rules.in_flight {
        return Form::Busy;
    }
    let is_full = n_waiting >= rules.max_batch;
    let wait = if load == 0 { rules.linger } else { rules.pipeline_after };
    if !is_full && now < oldest + wait {
        return Form::Until(oldest + wait);
    }
    if is_full && load > 0 {
        return Form::Start { worker, n: rules.max_batch };
    }
    let n_alike = loads.iter().filter(|&&other| other == load).count();
    let n = n_waiting.div_ceil(n_alike).min(rules.max_batch).max(1);
    Form::Start { worker, n }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn workers_get_their_share() {
        let now = Instant::now();
        let millis = Duration::from_millis;
        let rules = Rules { max_batch: 8, linger: Duration::ZERO, in_flight: 2, pipeline_after: millis(2) };
        let check = |rules: &Rules, n_waiting, waited, loads: &[usize], expected| {
            assert_eq!(form(now + waited, rules, n_waiting, now, loads), expected, "{n_waiting} {loads:?}");
        };
        let none = Duration::ZERO;
        check(&rules, 1, none, &[0, 0], Form::Start { worker: 0, n: 1 });
        check(&rules, 4, none, &[0, 0], Form::Start { worker: 0, n: 2 });
        check(&rules, 2, none, &[1, 0], Form::Start { worker: 1, n: 2 });
        check(&rules, 100, none, &[0, 0], Form::Start { worker: 0, n: 8 });
        check(&rules, 7, none, &[1, 1], Form::Until(now + millis(2)));
        check(&rules, 7, millis(2), &[1, 1], Form::Start { worker: 0, n: 4 });
        check(&rules, 8, none, &[1, 1], Form::Start { worker: 0, n: 8 });
        check(&rules, 16, none, &[2, 1], Form::Start { worker: 1, n: 8 });
        check(&rules, 100, millis(9), &[2, 2], Form::Busy);
        let lingers = Rules { linger: millis(5), ..rules };
        check(&lingers, 7, none, &[0], Form::Until(now + millis(5)));
        check(&lingers, 8, none, &[0], Form::Start { worker: 0, n: 8 });
        check(&lingers, 7, millis(5), &[0], Form::Start { worker: 0, n: 7 });
    }
}
