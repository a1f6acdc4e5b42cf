//! Who is let in, and who goes first.

use super::*;
use crate::Priorities;

const RUN: Duration = Duration::from_millis(10);

/// One lane whose runs are known to take 10 ms each.
fn known(edit: fn(&mut Policy)) -> (LaneSet, Puppet, Arc<Hand>) {
    let mut config = config(1, None);
    edit(&mut config.policy);
    let (lanes, puppet, clock) = puppet(config);
    lanes.seed(&task(&[0.0]), &[(1, RUN), (1, RUN), (1, RUN)]);
    (lanes, puppet, clock)
}

fn within(clock: &Hand, time: u64, x: f32) -> Task {
    Task { deadline: Some(clock.now() + Duration::from_millis(time)), ..task(&[x]) }
}

#[test]
fn what_is_foreseen_to_be_late_is_refused_at_once() {
    let (lanes, puppet, clock) = known(|_| ());
    let late = |task: Task| match lanes.submit(task) {
        Err(Refused::TooLate { retry_after }) => Some(retry_after.as_millis()),
        Ok(pending) => {
            drop(pending);
            None
        }
        Err(other) => panic!("{other}"),
    };
    assert_eq!(late(within(&clock, 4, 0.0)), Some(6));
    let running = lanes.submit(within(&clock, 10, 1.0)).unwrap();
    let run = puppet.next_run(SOON);
    // A run and its own to come; then half of that run is over.
    assert_eq!((late(within(&clock, 15, 0.0)), late(within(&clock, 20, 0.0))), (Some(5), None));
    clock.pass(RUN / 2);
    assert_eq!(late(within(&clock, 15, 0.0)), None);
    // Behind one that waits and is more urgent, but not behind one that is less.
    let waiting = lanes.submit(within(&clock, 40, 2.0)).unwrap();
    assert_eq!((late(within(&clock, 20, 0.0)), late(within(&clock, 24, 0.0))), (None, None));
    assert_eq!(late(within(&clock, 41, 0.0)), None);
    let urgent = lanes.submit(within(&clock, 16, 3.0)).unwrap();
    assert_eq!(late(within(&clock, 20, 0.0)), Some(5));
    assert_eq!(lanes.stats().n_refused_late, 3);
    run.echo();
    for expected in [3.0, 2.0] {
        let run = puppet.next_run(SOON);
        assert_eq!(run.inputs(), [vector(&[expected])]);
        run.echo();
    }
    for pending in [running, urgent, waiting] {
        wait(pending).unwrap();
    }
}

#[test]
fn a_slow_run_does_not_have_all_that_follow_refused_for_ever() {
    let (lanes, puppet, clock) = known(|_| ());
    let mut taken = None;
    for _ in 0..4 {
        assert!(taken.is_none());
        taken = lanes.submit(within(&clock, 4, 1.0)).ok();
    }
    let probe = taken.expect("the fourth is tried, as nothing else is done");
    assert_eq!(lanes.stats().n_refused_late, 3);
    let run = puppet.next_run(SOON);
    assert!(lanes.submit(within(&clock, 4, 1.0)).is_err());
    clock.pass(Duration::from_millis(1));
    run.echo();
    wait(probe).unwrap();

    // Runs of another kind say nothing of this one: it is tried while they run.
    let other = || Task { inputs: vec![vector(&[0.0; 1000])], ..task(&[]) };
    let running = lanes.submit(other()).unwrap();
    let run = puppet.next_run(SOON);
    lanes.seed(&task(&[0.0]), &[(1, RUN); 20]);
    let n_before = (0..16).take_while(|_| lanes.submit(within(&clock, 4, 1.0)).is_err()).count();
    // One was refused while the first was tried.
    assert_eq!(n_before, 14);
    run.echo();
    wait(running).unwrap();
}

#[test]
fn a_busy_neighbour_is_forgotten_once_it_is_gone() {
    let cores = Cores::with_bound(NonZeroUsize::MIN, Duration::from_secs(3600));
    let (model, neighbour) = PuppetModel::new(half_plus_two_signature());
    let clock = Hand::new();
    let busy = {
        let config = Config { cores: Some(cores.clone()), ..config(1, None) };
        LaneSet::start(model, config, clock.clone()).unwrap()
    };
    let (model, puppet) = PuppetModel::new(half_plus_two_signature());
    let lanes = {
        let config = Config { cores: Some(cores.clone()), ..config(1, None) };
        LaneSet::start(model, config, clock.clone()).unwrap()
    };
    lanes.seed(&task(&[0.0]), &[(1, RUN); 3]);
    for _ in 0..3 {
        let theirs = busy.submit(task(&[1.0])).unwrap();
        let run = neighbour.next_run(SOON);
        let own = lanes.submit(task(&[2.0])).unwrap();
        while cores.n_waiting() == 0 {
            std::thread::yield_now();
        }
        clock.pass(Duration::from_secs(1));
        run.echo();
        wait(theirs).unwrap();
        puppet.next_run(SOON).echo();
        wait(own).unwrap();
    }
    while lanes.stats().n_running > 0 {
        std::thread::yield_now();
    }
    let own = lanes.submit(within(&clock, 20, 3.0)).expect("there is a thread, and nothing waits");
    puppet.next_run(SOON).echo();
    wait(own).unwrap();
}

#[test]
fn nobody_is_refused_early_where_that_is_not_wanted() {
    let (lanes, puppet, clock) = known(|policy| policy.refuses_early = false);
    let pending = lanes.submit(within(&clock, 1, 1.0)).unwrap();
    puppet.next_run(SOON).echo();
    wait(pending).unwrap();
}

#[test]
fn what_cannot_make_it_any_more_is_not_started() {
    let (lanes, puppet, clock) = known(|_| ());
    let first = lanes.submit(task(&[1.0])).unwrap();
    let run = puppet.next_run(SOON);
    let second = lanes.submit(within(&clock, 25, 2.0)).unwrap();
    // The run takes longer than foreseen: half a run is left for the second.
    clock.pass(Duration::from_millis(20));
    run.echo();
    wait(first).unwrap();
    assert_eq!(wait(second).unwrap_err(), RunError::DeadlineExceeded);
    assert!(puppet.try_next_run(Duration::ZERO).is_none());
}

#[test]
fn tasks_without_a_deadline_get_the_usual_one() {
    let (lanes, puppet, clock) = known(|policy| policy.default_timeout = Some(Duration::from_millis(15)));
    let first = lanes.submit(task(&[1.0])).unwrap();
    let run = puppet.next_run(SOON);
    assert!(matches!(lanes.submit(task(&[2.0])), Err(Refused::TooLate { .. })));
    clock.pass(RUN);
    run.echo();
    wait(first).unwrap();
}

#[test]
fn the_urgent_go_first_and_take_the_places_of_others() {
    let (lanes, puppet, _) = known(|policy| policy.max_queue = NonZeroUsize::new(2).unwrap());
    let of = |priority: u8, x: f32| lanes.submit(Task { priority, ..task(&[x]) });
    let first = of(5, 0.0).unwrap();
    let run = puppet.next_run(SOON);
    let [usual, later] = [of(5, 1.0).unwrap(), of(6, 2.0).unwrap()];
    assert!(matches!(of(6, 3.0), Err(Refused::QueueFull { n_waiting: 2, .. })));
    let urgent = of(1, 4.0).unwrap();
    assert!(matches!(wait(later), Err(RunError::Refused(Refused::Displaced { .. }))));
    assert_eq!((lanes.stats().n_displaced, lanes.stats().n_waiting), (1, 2));
    run.echo();
    for expected in [4.0, 1.0] {
        let run = puppet.next_run(SOON);
        assert_eq!(run.inputs(), [vector(&[expected])]);
        run.echo();
    }
    for pending in [first, usual, urgent] {
        wait(pending).unwrap();
    }
}

#[test]
fn weights_share_the_lane() {
    let (lanes, puppet, _) =
        known(|policy| policy.priorities = Priorities::Weighted([3, 1, 1, 1, 1, 1, 1, 1, 1]));
    let first = lanes.submit(task(&[0.0])).unwrap();
    let run = puppet.next_run(SOON);
    let of = |priority: u8| lanes.submit(Task { priority, ..task(&[f32::from(priority)]) }).unwrap();
    let pending: Vec<_> = (0..6).flat_map(|_| [of(1), of(2)]).collect();
    run.echo();
    let order: Vec<f32> = (0..8)
        .map(|_| {
            let run = puppet.next_run(SOON);
            let x = run.inputs()[0].to_slice::<f32>().unwrap()[0];
            run.echo();
            x
        })
        .collect();
    assert_eq!(order.iter().filter(|&&x| x == 1.0).count(), 6, "three of four: {order:?}");
    drop((first, pending));
}

#[test]
fn callers_take_turns() {
    let (lanes, puppet, _) = known(|policy| policy.is_fair = true);
    let first = lanes.submit(task(&[0.0])).unwrap();
    let run = puppet.next_run(SOON);
    let of = |caller: u64| lanes.submit(Task { caller, ..task(&[caller as f32]) }).unwrap();
    let greedy: Vec<_> = (0..20).map(|_| of(1)).collect();
    let modest = of(2);
    run.echo();
    let mut n_before = 0;
    loop {
        let run = puppet.next_run(SOON);
        let x = run.inputs()[0].to_slice::<f32>().unwrap()[0];
        run.echo();
        if x == 2.0 {
            break;
        }
        n_before += 1;
    }
    assert_eq!(n_before, 8, "one turn of the other");
    wait(modest).unwrap();
    drop((first, greedy));
}
