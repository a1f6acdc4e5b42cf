use proptest::prelude::*;

use super::*;

const BOUND: Duration = Duration::from_secs(5);

#[expect(clippy::disallowed_methods, reason = "any moment serves as the start of a test's time")]
fn start() -> Instant {
    Instant::now()
}

fn line(n_all: usize, sets: &[usize]) -> (Line, Vec<u64>) {
    let mut line = Line::new(n_all, BOUND);
    let sets = sets.iter().map(|&n| line.join(n).0).collect();
    (line, sets)
}

/// Those whose threads are granted, who pick them up.
fn picked_up(line: &mut Line, sets: &[u64], now: Instant) -> Vec<(usize, u64)> {
    let mut picked_up = Vec::new();
    for (at, &set) in sets.iter().enumerate() {
        while let Some(held) = line.pick_up(set, now) {
            picked_up.push((at, held));
        }
    }
    picked_up
}

#[test]
fn threads_are_lent_until_they_come_back() {
    let now = start();
    let (mut line, sets) = line(3, &[1, 2, 8]);
    let two = line.try_take(sets[1], now).unwrap();
    assert_eq!(line.try_take(sets[1], now), None);
    let one = line.try_take(sets[0], now).unwrap();
    line.give_back(two, now);
    assert_eq!(line.try_take(sets[2], now), None, "more than there are means all");
    line.give_back(one, now);
    assert!(line.try_take(sets[2], now).is_some());
}

#[test]
fn models_take_turns_however_many_lanes_they_have() {
    let now = start();
    let (mut line, sets) = line(1, &[1, 1, 1]);
    let mut held = line.try_take(sets[2], now).unwrap();
    for (set, n_lanes) in [(0, 4), (1, 2), (2, 1)] {
        (0..n_lanes).for_each(|_| line.stand(sets[set]));
    }
    let mut order = Vec::new();
    while line.n_waiting() > 0 {
        line.give_back(held, now);
        let next = picked_up(&mut line, &sets, now);
        let [(set, id)] = next[..] else { panic!("one at a time: {next:?}") };
        order.push(set);
        held = id;
    }
    assert_eq!(order, [0, 1, 2, 0, 1, 0, 0]);
}

#[test]
fn a_large_run_is_not_passed_by_small_ones() {
    let now = start();
    let (mut line, sets) = line(2, &[1, 2]);
    let held = line.try_take(sets[0], now).unwrap();
    line.stand(sets[1]);
    assert_eq!(line.try_take(sets[0], now), None, "the large run comes first");
    line.stand(sets[0]);
    line.give_back(held, now);
    let large = picked_up(&mut line, &sets, now);
    assert_eq!((large.len(), large[0].0), (1, 1));
    line.give_back(large[0].1, now);
    assert_eq!(picked_up(&mut line, &sets, now)[0].0, 0);
}

#[test]
fn who_steps_out_makes_way() {
    let now = start();
    let (mut line, sets) = line(2, &[1, 2]);
    let held = line.try_take(sets[0], now).unwrap();
    line.stand(sets[1]);
    line.stand(sets[0]);
    line.step_out(sets[1]);
    let small = line.pick_up(sets[0], now).expect("nobody is before it any more");
    line.stand(sets[1]);
    [held, small].into_iter().for_each(|id| line.give_back(id, now));
    line.step_out(sets[1]);
    assert_eq!(line.pick_up(sets[1], now), None);
    assert!(line.try_take(sets[1], now).is_some(), "what was granted and not wanted is free again");
}

#[test]
fn what_is_held_too_long_counts_no_longer() {
    let now = start();
    let (mut line, sets) = line(2, &[2, 1]);
    let hung = line.try_take(sets[0], now).unwrap();
    line.stand(sets[1]);
    assert_eq!((line.next_write_off(), line.write_off(now)), (Some(now + BOUND), 0));
    assert_eq!(line.pick_up(sets[1], now), None);

    let later = now + BOUND;
    assert_eq!((line.write_off(later), line.next_write_off()), (1, None));
    let first = line.pick_up(sets[1], later).unwrap();
    let second = line.try_take(sets[1], later).unwrap();
    assert_eq!(line.try_take(sets[1], later), None);
    line.give_back(hung, now);
    assert_eq!(line.try_take(sets[1], later), None, "what was written off does not come back twice");
    assert_eq!(line.write_off(later), 0);
    [first, second].into_iter().for_each(|id| line.give_back(id, now));
    let again = line.try_take(sets[0], later).unwrap();
    assert_eq!(line.try_take(sets[1], later), None, "{again} holds all");
}

#[test]
fn a_thread_is_left_to_who_is_expected_back() {
    let ms = Duration::from_millis;
    let t0 = start();
    let (mut line, sets) = line(2, &[1, 1]);
    let (greedy, regular) = (sets[0], sets[1]);
    // Nobody is known to come back: all threads are for whoever wants them.
    let both = [line.try_take(greedy, t0).unwrap(), line.try_take(greedy, t0).unwrap()];
    both.into_iter().for_each(|id| line.give_back(id, t0 + ms(10)));
    let run = line.try_take(regular, t0 + ms(10)).unwrap();
    line.give_back(run, t0 + ms(20));

    let now = t0 + ms(30);
    let first = line.try_take(greedy, now).unwrap();
    assert_eq!(line.try_take(greedy, now), None, "one is left");
    line.stand(greedy);
    assert_eq!(line.pick_up(greedy, now), None);
    // The other has it as soon as it comes, though somebody waits.
    line.stand(regular);
    let run = line.pick_up(regular, now).unwrap();
    line.give_back(run, now + ms(10));
    assert_eq!(line.pick_up(greedy, now + ms(10)), None);
    // It comes no more: after twenty times its run nothing is left for it.
    let lapse = now + ms(10) + ms(200);
    assert_eq!(line.next_lapse(), Some(lapse));
    assert_eq!(line.write_off(lapse), 0);
    let second = line.pick_up(greedy, lapse).unwrap();
    [first, second].into_iter().for_each(|id| line.give_back(id, lapse));
}

#[test]
fn a_short_run_slips_in_where_its_model_has_no_threads() {
    let now = start();
    let (mut line, sets) = line(2, &[1, 1, 1, 1]);
    let long = [0, 0].map(|set| line.try_take(sets[set], now).unwrap());
    assert_eq!(line.slip(sets[0], now), None, "it has threads");
    let short = line.slip(sets[1], now).unwrap();
    assert_eq!(line.slip(sets[1], now), None, "one at a time");
    let other = line.slip(sets[2], now).unwrap();
    assert_eq!(line.slip(sets[3], now), None, "no more than there are threads");
    line.give_back(short, now + Duration::from_millis(1));
    assert!(line.may_slip(sets[1]) && line.may_slip(sets[3]));
    // Threads are neither taken by it nor come back with it, and who slipped in is expected back.
    assert_eq!(line.try_take(sets[3], now), None);
    line.give_back(long[0], now + Duration::from_millis(2));
    assert_eq!(line.try_take(sets[0], now + Duration::from_millis(2)), None);
    assert!(line.try_take(sets[1], now + Duration::from_millis(2)).is_some());
    assert_eq!(line.write_off(now + BOUND), 2, "the long one and the short one");
    assert!(line.may_slip(sets[2]));
    line.give_back(other, now + BOUND);
}

#[test]
fn pinned_lanes_go_on_round() {
    let (mut line, _) = line(1, &[]);
    assert_eq!([1, 2, 1, 1].map(|n| line.processor(n)), [0, 1, 3, 4]);
}

#[derive(Debug, Clone)]
enum Step {
    TryTake(usize),
    Stand(usize),
    PickUp(usize),
    Leave(usize),
    GiveBack(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let set = 0usize..4;
    prop_oneof![
        set.clone().prop_map(Step::TryTake),
        set.clone().prop_map(Step::Stand),
        set.clone().prop_map(Step::PickUp),
        set.prop_map(Step::Leave),
        (0usize..8).prop_map(Step::GiveBack),
        (0u64..4).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn never_more_than_there_are_and_everyone_has_a_turn(
        n_all in 1usize..5,
        needs in proptest::array::uniform4(1usize..6),
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let (mut line, sets) = line(n_all, &needs);
        let need = |set: usize| needs[set].min(n_all);
        let mut now = start();
        // What is held and counts: the number, the set, since when. And the places that are taken, per set.
        let mut held: Vec<(u64, usize, Instant)> = Vec::new();
        let mut places = [0usize; 4];
        for step in steps {
            match step {
                Step::TryTake(set) => {
                    let n_waited = line.n_waiting();
                    if let Some(id) = line.try_take(sets[set], now) {
                        prop_assert_eq!(n_waited, 0);
                        held.push((id, set, now));
                    }
                }
                Step::Stand(set) => {
                    places[set] += 1;
                    line.stand(sets[set]);
                }
                Step::PickUp(set) => {
                    if let Some(id) = line.pick_up(sets[set], now) {
                        places[set] -= 1;
                        held.push((id, set, now));
                    }
                }
                Step::Leave(set) if places[set] > 0 => {
                    places[set] -= 1;
                    line.step_out(sets[set]);
                }
                Step::GiveBack(at) if at < held.len() => line.give_back(held.swap_remove(at).0, now),
                Step::Leave(_) | Step::GiveBack(_) => {}
                Step::Pass(seconds) => {
                    now += Duration::from_secs(seconds);
                    let n_before = held.len();
                    held.retain(|&(_, _, since)| now - since < BOUND);
                    prop_assert_eq!(line.write_off(now), n_before - held.len());
                }
            }
            let n_granted: usize = (0..4).map(|set| line.sets[&sets[set]].n_granted * need(set)).sum();
            let n_used = held.iter().map(|&(_, set, _)| need(set)).sum::<usize>() + n_granted;
            prop_assert_eq!(line.n_used, n_used);
            prop_assert!(n_used <= n_all);
            let n_places = |set: usize| line.sets[&sets[set]].n_waiting + line.sets[&sets[set]].n_granted;
            prop_assert_eq!([0, 1, 2, 3].map(n_places), places);
            if let Some(next) = line.turns.front() {
                let n_wanted = line.sets[next].n + line.kept_from(*next);
                prop_assert!(n_used + n_wanted > n_all, "the next waits for no reason");
            }
        }

        // From here on each comes back for more as often as it likes; nobody has two turns while another waits, unless that
        // one has threads already and has to leave some.
        let waiting: Vec<usize> = (0..4).filter(|&set| line.sets[&sets[set]].n_waiting > 0).collect();
        let mut turns = [0; 4];
        held.extend(picked_up(&mut line, &sets, now).into_iter().map(|(set, id)| (id, set, now)));
        while !waiting.iter().all(|&set| turns[set] > 0) {
            prop_assert!(!held.is_empty(), "someone waits and nobody holds anything");
            line.give_back(held.remove(0).0, now);
            for (set, id) in picked_up(&mut line, &sets, now) {
                turns[set] += 1;
                held.push((id, set, now));
                line.stand(sets[set]);
            }
            let is_over = waiting.iter().all(|&set| turns[set] > 0) || line.next_lapse().is_some();
            prop_assert!(is_over || turns.iter().all(|&n| n <= 1), "{:?} of {:?}", turns, waiting);
        }
    }
}
