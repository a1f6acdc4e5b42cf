//! Behaviours one by one, and what holds whatever happens.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const ONE: NonZeroU32 = NonZeroU32::MIN;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A balancer of so many peers, all of which have answered one call in 10 ms.
fn known(n: usize, settings: Settings) -> (Balancer, Vec<Id>, Instant) {
    let mut balancer = Balancer::new(settings, Random::seeded(5));
    let start = crate::clock::now();
    let ids: Vec<Id> = (0..n).map(|_| balancer.add(ONE)).collect();
    for id in &ids {
        let others: Vec<Id> = ids.iter().copied().filter(|other| other != id).collect();
        let ticket = balancer.pick(start, &others).unwrap();
        assert_eq!(ticket.id, *id);
        balancer.done(start + millis(10), &ticket, Outcome::Answered);
    }
    (balancer, ids, start + millis(10))
}

/// A call to this peer, whatever the others are like.
fn call(balancer: &mut Balancer, id: Id, now: Instant) -> Ticket {
    let others: Vec<Id> =
        balancer.entries.iter().map(|entry| entry.id).filter(|other| *other != id).collect();
    let ticket = balancer.pick(now, &others).unwrap();
    assert_eq!(ticket.id, id);
    ticket
}

fn fail(balancer: &mut Balancer, id: Id, now: Instant, n: usize) -> bool {
    (0..n).fold(false, |_, _| {
        let ticket = call(balancer, id, now);
        balancer.done(now + millis(1), &ticket, Outcome::Failed)
    })
}

fn state_of(balancer: &Balancer, id: Id, now: Instant) -> PeerState {
    balancer.report(now).into_iter().find(|report| report.id == id).unwrap().state
}

/// How many of 100 calls, each ended at once by being dropped, this peer gets.
fn share(balancer: &mut Balancer, id: Id, now: Instant) -> usize {
    (0..100)
        .filter(|_| {
            let ticket = balancer.pick(now, &[]).unwrap();
            balancer.done(now, &ticket, Outcome::Dropped);
            ticket.id == id
        })
        .count()
}

#[test]
fn a_peak_counts_at_once_and_fades() {
    let mut load = Load::default();
    let (decay, start) = (Duration::from_secs(10), crate::clock::now());
    let check = |load: &Load, after: u64, expected: f64| {
        let estimate = load.estimate(start + Duration::from_secs(after), decay).unwrap();
        assert!(
            (estimate - expected).abs() < expected * 1e-3,
            "{estimate} after {after} s, expected {expected}"
        );
    };
    assert_eq!(load.estimate(start, decay), None);
    load.took(millis(10), start, decay);
    check(&load, 0, 0.010);
    load.took(millis(2000), start, decay);
    check(&load, 0, 2.0);
    check(&load, 10, 2.0 / std::f64::consts::E);
    load.took(millis(10), start + Duration::from_secs(10), decay);
    check(&load, 10, 0.010 + 1.990 / std::f64::consts::E);
}

#[test]
fn only_answers_make_a_peer_look_faster() {
    for outcome in [
        Outcome::Objected,
        Outcome::Refused(Duration::ZERO),
        Outcome::Dropped,
        Outcome::Late,
        Outcome::Failed,
    ] {
        let (mut balancer, ids, now) = known(2, Settings::default());
        let estimate = |balancer: &Balancer, now| balancer.report(now)[0].estimate.unwrap();
        let ticket = call(&mut balancer, ids[0], now);
        let (before, soon) = (estimate(&balancer, now + millis(1)), now + millis(1));
        balancer.done(soon, &ticket, outcome);
        let after = estimate(&balancer, soon);
        assert!(after >= before, "{outcome:?}: {before:?}, then {after:?}");
        let ticket = call(&mut balancer, ids[0], soon);
        let late = soon + millis(500);
        balancer.done(late, &ticket, outcome);
        assert!(estimate(&balancer, late) > after, "{outcome:?}");
    }
}

#[test]
fn quick_errors_for_long_draw_no_calls() {
    for outcome in [Outcome::Objected, Outcome::Refused(Duration::ZERO)] {
        let (mut balancer, ids, mut now) = known(2, Settings::default());
        let mut n_to_first = 0;
        for _ in 0..10_000 {
            now += millis(20);
            let ticket = balancer.pick(now, &[]).unwrap();
            let is_first = ticket.id == ids[0];
            n_to_first += usize::from(is_first);
            let (took, outcome) =
                if is_first { (millis(1), outcome) } else { (millis(10), Outcome::Answered) };
            balancer.done(now + took, &ticket, outcome);
        }
        assert!((3000..7000).contains(&n_to_first), "{outcome:?}: {n_to_first}");
    }
}

#[test]
fn connecting_is_no_latency() {
    let mut balancer = Balancer::new(Settings::default(), Random::seeded(1));
    balancer.add(ONE);
    let now = crate::clock::now();
    let mut ticket = balancer.pick(now, &[]).unwrap();
    ticket.sent = Some(now + millis(50));
    balancer.done(now + millis(52), &ticket, Outcome::Answered);
    assert_eq!(balancer.report(now + millis(52))[0].estimate, Some(millis(2)));
}

#[test]
fn one_that_does_not_answer_is_left_before_it_fails() {
    let (mut balancer, ids, now) = known(2, Settings::default());
    let _hanging = call(&mut balancer, ids[0], now);
    let later = now + millis(300);
    // Two calls to the other one cost less than one beside that which has waited for 300 ms.
    let other = [call(&mut balancer, ids[1], later), call(&mut balancer, ids[1], later)];
    assert_eq!(share(&mut balancer, ids[0], later), 0);
    assert_eq!(other.len(), 2);
}

#[test]
fn failures_put_a_peer_out_and_one_call_brings_it_back() {
    let (mut balancer, ids, now) = known(4, Settings::default());
    let id = ids[2];
    assert!(!fail(&mut balancer, id, now, 4));
    assert!(fail(&mut balancer, id, now, 1));
    let out = now + millis(1);
    assert_eq!(state_of(&balancer, id, out), PeerState::Ejected);
    assert_eq!(share(&mut balancer, id, out), 0);
    let due = balancer.next_due().unwrap();
    assert!((millis(800)..=millis(1200)).contains(&(due - out)), "{:?}", due - out);
    assert_eq!(balancer.due(due - millis(1)), []);
    assert_eq!(balancer.due(due), [id]);
    assert_eq!(balancer.due(due), []);
    assert_eq!(share(&mut balancer, id, due), 0);
    balancer.checked(due, id, Check::Connected);
    assert_eq!(state_of(&balancer, id, due), PeerState::Trial);
    // One call goes there, with little patience, and no second one until it is decided. Retries go to others.
    for _ in 0..50 {
        let ticket = balancer.pick(due, &ids[..1]).unwrap();
        balancer.done(due, &ticket, Outcome::Dropped);
        assert!(ticket.id != id && ticket.patience.is_none());
    }
    let trial = balancer.pick(due, &[]).unwrap();
    assert_eq!((trial.id, trial.patience), (id, Some(millis(100))));
    assert_eq!(share(&mut balancer, id, due), 0);
    balancer.done(due + millis(5), &trial, Outcome::Answered);
    let report = balancer.report(due + millis(5)).swap_remove(2);
    assert_eq!((report.state, report.estimate), (PeerState::Used, Some(millis(5))));
    assert!(share(&mut balancer, id, due + millis(5)) > 10);
}

#[test]
fn the_time_out_doubles_until_the_peer_is_well_for_long() {
    let settings = Settings::default();
    let (mut balancer, ids, mut now) = known(4, settings.clone());
    let id = ids[0];
    let length = |balancer: &Balancer, now: Instant| (balancer.next_due().unwrap() - now).as_secs_f64();
    fail(&mut balancer, id, now, 5);
    now += millis(1);
    for expected in [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
        let found = length(&balancer, now);
        assert!((expected * 0.79..expected * 1.21).contains(&found), "{found}, expected about {expected}");
        now = balancer.next_due().unwrap();
        balancer.due(now);
        balancer.checked(now, id, Check::Connected);
        let trial = call(&mut balancer, id, now);
        now += millis(1);
        balancer.done(now, &trial, Outcome::Failed);
    }
    now = balancer.next_due().unwrap();
    balancer.due(now);
    balancer.checked(now, id, Check::Connected);
    for pause in [0, 100] {
        now += Duration::from_secs(pause);
        let ticket = call(&mut balancer, id, now);
        balancer.done(now + millis(1), &ticket, Outcome::Answered);
    }
    fail(&mut balancer, id, now, 5);
    let found = length(&balancer, now + millis(1));
    assert!(found < 1.3, "{found}");
}

#[test]
fn unreachable_peers_go_out_at_once_and_are_checked() {
    let (mut balancer, ids, now) = known(2, Settings::default());
    for id in &ids {
        let ticket = call(&mut balancer, *id, now);
        assert!(balancer.done(now, &ticket, Outcome::Unreachable));
        assert_eq!(state_of(&balancer, *id, now), PeerState::Unreachable);
        assert!(!balancer.has_other(&[ids[0]]) || *id == ids[0]);
    }
    // All are out, so all are used.
    assert!(share(&mut balancer, ids[0], now) > 10);
    let due = now + Duration::from_secs(2);
    assert_eq!(balancer.due(due), ids);
    balancer.checked(due, ids[0], Check::Unreachable);
    balancer.checked(due, ids[1], Check::Connected);
    assert_eq!(state_of(&balancer, ids[0], due), PeerState::Unreachable);
    let trial = balancer.pick(due, &[]).unwrap();
    assert_eq!(trial.id, ids[1]);
    balancer.done(due, &trial, Outcome::Answered);
    assert_eq!(share(&mut balancer, ids[1], due), 100);
}

#[test]
fn a_call_that_works_although_a_peer_is_out_brings_it_back() {
    let (mut balancer, ids, now) = known(1, Settings::default());
    let before = call(&mut balancer, ids[0], now);
    let ticket = call(&mut balancer, ids[0], now);
    balancer.done(now + millis(1), &ticket, Outcome::Unreachable);
    // One that was under way before says nothing of what is now.
    balancer.done(now + millis(2), &before, Outcome::Answered);
    assert_eq!(state_of(&balancer, ids[0], now + millis(2)), PeerState::Unreachable);
    let ticket = call(&mut balancer, ids[0], now + millis(2));
    balancer.done(now + millis(3), &ticket, Outcome::Answered);
    assert_eq!(state_of(&balancer, ids[0], now + millis(3)), PeerState::Used);
}

#[test]
fn failures_put_out_no_more_than_a_share() {
    for (n, expected) in [(1, 0), (2, 1), (3, 1), (4, 2), (9, 4)] {
        let (mut balancer, ids, now) = known(n, Settings::default());
        for id in &ids {
            fail(&mut balancer, *id, now, 20);
        }
        let states = balancer.report(now + millis(1));
        let n_out = states.iter().filter(|report| report.state == PeerState::Ejected).count();
        assert_eq!(n_out, expected, "of {n}");
    }
}

#[test]
fn many_failures_among_answers_put_a_peer_out() {
    for (failures_of_10, expected) in [(4, false), (8, true)] {
        let (mut balancer, ids, now) = known(2, Settings::default());
        let mut is_out = false;
        for at in 0..300 {
            let ticket = call(&mut balancer, ids[0], now);
            // Never five in a row.
            let fails = at % 10 < failures_of_10 && at % 5 != 4;
            let outcome = if fails { Outcome::Failed } else { Outcome::Answered };
            is_out |= balancer.done(now + millis(1), &ticket, outcome);
        }
        assert_eq!(is_out, expected, "{failures_of_10} of 10");
    }
}

#[test]
fn answers_that_are_none_put_a_peer_out() {
    for (confirmed_at, expected) in [(None, true), (Some(3), false)] {
        let (mut balancer, ids, now) = known(2, Settings::default());
        let mut is_out = false;
        for at in 0..5 {
            let ticket = call(&mut balancer, ids[0], now);
            assert!(!balancer.done(now + millis(1), &ticket, Outcome::Answered));
            if confirmed_at == Some(at) {
                balancer.confirm(ids[0]);
            } else {
                is_out |= balancer.blame(now + millis(1), ids[0]);
            }
        }
        assert_eq!(is_out, expected, "{confirmed_at:?}");
    }
}

#[test]
fn a_peer_that_asks_for_a_pause_gets_one() {
    let (mut balancer, ids, now) = known(3, Settings::default());
    let ticket = call(&mut balancer, ids[0], now);
    balancer.done(now, &ticket, Outcome::Refused(millis(250)));
    assert_eq!(state_of(&balancer, ids[0], now), PeerState::Held);
    assert_eq!(share(&mut balancer, ids[0], now + millis(249)), 0);
    assert!(share(&mut balancer, ids[0], now + millis(250)) > 10);
    // A pause has a bound, and is no failure.
    let ticket = call(&mut balancer, ids[1], now);
    balancer.done(now, &ticket, Outcome::Refused(Duration::from_secs(3600)));
    assert!(share(&mut balancer, ids[1], now + Duration::from_secs(11)) > 10);
    assert!(balancer.report(now).iter().all(|report| report.counts.failures == 0));
}

#[test]
fn late_is_a_failure_only_of_those_that_had_time() {
    for (took, expected) in [(millis(5), 0), (millis(15), 0), (millis(50), 1)] {
        let (mut balancer, ids, now) = known(2, Settings::default());
        let ticket = call(&mut balancer, ids[0], now);
        balancer.done(now + took, &ticket, Outcome::Late);
        assert_eq!(balancer.report(now)[0].counts.failures, expected, "{took:?}");
    }
}

#[test]
fn those_that_were_tried_come_last() {
    let (mut balancer, ids, now) = known(3, Settings::default());
    for _ in 0..50 {
        let ticket = balancer.pick(now, &ids[..2]).unwrap();
        balancer.done(now, &ticket, Outcome::Dropped);
        assert_eq!(ticket.id, ids[2]);
    }
    assert_eq!(balancer.report(now)[2].counts.retries, 50 + 1);
    assert!(balancer.has_other(&ids[..2]) && !balancer.has_other(&ids));
    assert!(balancer.pick(now, &ids).is_some());
    ids.iter().for_each(|id| balancer.remove(*id));
    assert!(balancer.pick(now, &[]).is_none());
}

#[test]
fn a_trial_that_nobody_waits_for_is_held_again() {
    let (mut balancer, ids, now) = known(2, Settings::default());
    fail(&mut balancer, ids[0], now, 5);
    let due = balancer.next_due().unwrap();
    balancer.due(due);
    balancer.checked(due, ids[0], Check::Connected);
    for outcome in [Outcome::Dropped, Outcome::Late] {
        let trial = balancer.pick(due, &[]).unwrap();
        assert_eq!(trial.id, ids[0]);
        balancer.done(due, &trial, outcome);
    }
    assert_eq!(state_of(&balancer, ids[0], due), PeerState::Trial);
}

/// What may happen to a balancer.
#[derive(Debug, Clone)]
enum Step {
    Add(u32),
    Remove(usize),
    Pick(u8),
    Done(usize, Outcome),
    Blame(usize),
    Pass(u64),
    Due(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Answered),
        1 => Just(Outcome::Objected),
        1 => (0u64..20_000).prop_map(|pause| Outcome::Refused(millis(pause))),
        3 => Just(Outcome::Failed),
        1 => Just(Outcome::Late),
        2 => Just(Outcome::Unreachable),
        1 => Just(Outcome::Dropped),
    ];
    prop_oneof![
        1 => (1u32..5).prop_map(Step::Add),
        1 => (0usize..8).prop_map(Step::Remove),
        8 => (0u8..4).prop_map(Step::Pick),
        8 => ((0usize..30), outcome).prop_map(|(at, outcome)| Step::Done(at, outcome)),
        1 => (0usize..8).prop_map(Step::Blame),
        4 => (0u64..3000).prop_map(Step::Pass),
        3 => any::<bool>().prop_map(Step::Due),
    ]
}

proptest! {
    /// Whatever happens: with a peer there is a choice, and it is one that was not tried where there is such a one that can
    /// be connected to; calls under way are counted exactly; every peer that is out is due some day or on trial with a call that is
    /// under way or none; costs are numbers.
    #[test]
    fn what_always_holds(seed in any::<u64>(), steps in prop::collection::vec(step(), 0..300)) {
        let settings = Settings::default();
        let mut balancer = Balancer::new(settings.clone(), Random::seeded(seed));
        let mut now = crate::clock::now();
        let mut ids: Vec<Id> = Vec::new();
        let mut open: Vec<Ticket> = Vec::new();
        for step in steps {
            match step {
                Step::Add(weight) => ids.push(balancer.add(NonZeroU32::new(weight).unwrap())),
                Step::Remove(at) => if at < ids.len() {
                    balancer.remove(ids.remove(at));
                },
                Step::Pick(n_tried) => {
                    let tried: Vec<Id> = ids.iter().copied().take(usize::from(n_tried)).collect();
                    let had_other = balancer.has_other(&tried);
                    match balancer.pick(now, &tried) {
                        Some(ticket) => {
                            prop_assert!(!had_other || !tried.contains(&ticket.id));
                            open.push(ticket);
                        }
                        None => prop_assert!(ids.is_empty()),
                    }
                }
                Step::Done(at, outcome) => if at < open.len() {
                    let ticket = open.swap_remove(at);
                    balancer.done(now, &ticket, outcome);
                    prop_assert!(!balancer.done(now, &ticket, Outcome::Failed), "a call ends once");
                },
                Step::Blame(at) => if let Some(id) = ids.get(at) {
                    balancer.blame(now, *id);
                },
                Step::Pass(passed) => now += millis(passed),
                Step::Due(is_there) => for id in balancer.due(now) {
                    let check = if is_there { Check::Connected } else { Check::Unreachable };
                    balancer.checked(now, id, check);
                },
            }
            prop_assert_eq!(balancer.entries.len(), ids.len());
            for entry in &balancer.entries {
                let expected = open.iter().filter(|ticket| ticket.id == entry.id).count();
                prop_assert_eq!(entry.load.n_under_way(), expected);
                let cost = entry.load.cost(now, settings.decay, balancer.assumed());
                prop_assert!(cost.is_finite() && cost > 0.0);
                match entry.health.stand() {
                    Stand::In => {}
                    Stand::Out { since, until, .. } => {
                        let most = settings.max_ejection.mul_f64(1.2);
                        prop_assert!(until > since && until - since <= most);
                    }
                    Stand::Checked { .. } => prop_assert!(false, "every check was answered"),
                    Stand::Trial { call, .. } => {
                        let known = open.iter().any(|ticket| Some(ticket.number) == call);
                        prop_assert!(call.is_none() || known, "a trial waits for a call that has ended");
                    }
                }
            }
            if let Some(mean) = balancer.typical.mean() {
                prop_assert!(mean.is_finite() && mean > 0.0);
            }
        }
    }
}
