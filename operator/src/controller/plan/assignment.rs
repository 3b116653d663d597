//! Which ordinal runs which task: balanced, with the fewest moves, the same answer for the same facts.
//! Must not hold: clients, clocks, or when a new assignment may be written (`rollout`).

use std::collections::BTreeMap;

use streamagg_crds::assignment::{ASSIGNMENT_VERSION, Assignment};

/// Spreads tasks `0..task_count` over ordinals `0..replicas`: loads differ by one at most, and as few tasks as
/// possible leave the ordinal they are on. Ordinals beyond the number of tasks stay idle. Tasks the current map
/// knows beyond `task_count` are kept: a pod that read stale metadata must not take a task away.
pub fn balance(current: &BTreeMap<u32, u32>, task_count: u32, replicas: u32) -> BTreeMap<u32, u32> {
    let task_end = current.keys().next_back().map_or(0, |last| last + 1).max(task_count);
    if replicas == 0 {
        return current.clone();
    }
    let mut held: Vec<Vec<u32>> = vec![Vec::new(); replicas as usize];
    let mut homeless = Vec::new();
    for task in 0..task_end {
        match current.get(&task).and_then(|owner| held.get_mut(*owner as usize)) {
            Some(tasks) => tasks.push(task),
            None => homeless.push(task),
        }
    }
    let quotas = quotas(&held, task_end, replicas);
    for (tasks, quota) in held.iter_mut().zip(&quotas) {
        homeless.extend(surplus(tasks, *quota));
    }
    homeless.sort_unstable();
    // One by one to who has least: the tasks of a stage are neighbours, and no ordinal is to have a whole stage.
    for task in homeless {
        let room = held
            .iter_mut()
            .zip(&quotas)
            .filter(|(tasks, quota)| tasks.len() < **quota);
        if let Some((tasks, _)) = room.min_by_key(|(tasks, _)| tasks.len()) {
            tasks.push(task);
        }
    }
    let owners = (0u32..).zip(&held);
    owners
        .flat_map(|(ordinal, tasks)| tasks.iter().map(move |task| (*task, ordinal)))
        .collect()
}

/// Takes what is above the quota out of `tasks`, from all over it.
fn surplus(tasks: &mut Vec<u32>, quota: usize) -> Vec<u32> {
    let held = tasks.len();
    if held <= quota {
        return Vec::new();
    }
    let stays = |index: usize| (index + 1) * quota / held > index * quota / held;
    let (kept, given): (Vec<_>, Vec<_>) = tasks.iter().enumerate().partition(|(index, _)| stays(*index));
    let numbers = |list: Vec<(usize, &u32)>| list.into_iter().map(|(_, task)| *task).collect::<Vec<u32>>();
    let (kept, given) = (numbers(kept), numbers(given));
    *tasks = kept;
    given
}

/// Each ordinal's share; those that hold most keep the larger share, so that least moves.
fn quotas(held: &[Vec<u32>], task_end: u32, replicas: u32) -> Vec<usize> {
    let (share, rest) = ((task_end / replicas) as usize, (task_end % replicas) as usize);
    let mut by_load: Vec<usize> = (0..held.len()).collect();
    by_load.sort_by_key(|index| (std::cmp::Reverse(held[*index].len()), *index));
    let mut quotas = vec![share; held.len()];
    for index in by_load.into_iter().take(rest) {
        quotas[index] += 1;
    }
    quotas
}

/// The assignment after `generation_max`, the highest generation anybody has seen.
pub fn successor(generation_max: u64, tasks: BTreeMap<u32, u32>) -> Assignment {
    Assignment {
        version: ASSIGNMENT_VERSION,
        generation: generation_max + 1,
        tasks,
    }
}

/// Tasks that are on one ordinal now and on another after: `(task, old owner)`.
pub fn moves(from: &BTreeMap<u32, u32>, to: &BTreeMap<u32, u32>) -> Vec<(u32, u32)> {
    from.iter()
        .filter(|(task, owner)| to.get(task) != Some(owner))
        .map(|(task, owner)| (*task, *owner))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(tasks: &BTreeMap<u32, u32>, replicas: u32) -> Vec<usize> {
        (0..replicas)
            .map(|ordinal| tasks.values().filter(|owner| **owner == ordinal).count())
            .collect()
    }

    #[test]
    fn every_change_of_scale_is_balanced_and_moves_no_more_than_it_must() {
        for task_count in 0..14 {
            for before in 1..7 {
                let first = balance(&BTreeMap::new(), task_count, before);
                for after in 1..7 {
                    let second = balance(&first, task_count, after);
                    assert_eq!(second.len(), task_count as usize);
                    let loads = loads(&second, after);
                    let (low, high) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
                    assert!(high - low <= 1, "{task_count} tasks {before}->{after}: {loads:?}");
                    let moved = moves(&first, &second).len();
                    assert_eq!(
                        moved,
                        fewest_moves(&first, task_count, after),
                        "{task_count} tasks {before}->{after}"
                    );
                    assert_eq!(
                        balance(&second, task_count, after),
                        second,
                        "a second look changes nothing"
                    );
                }
            }
        }
    }

    /// Tasks that cannot stay: on ordinals that leave, or above the best split of shares.
    fn fewest_moves(from: &BTreeMap<u32, u32>, task_count: u32, replicas: u32) -> usize {
        let mut loads = loads(from, replicas);
        loads.sort_unstable_by(|left, right| right.cmp(left));
        let (share, rest) = ((task_count / replicas) as usize, (task_count % replicas) as usize);
        let kept: usize = loads
            .iter()
            .enumerate()
            .map(|(place, load)| (*load).min(share + usize::from(place < rest)))
            .sum();
        from.len() - kept
    }

    #[test]
    fn new_partitions_join_without_moving_anybody() {
        let first = balance(&BTreeMap::new(), 4, 2);
        let second = balance(&first, 6, 2);
        assert!(moves(&first, &second).is_empty());
        assert_eq!(loads(&second, 2), [3, 3]);
    }

    #[test]
    fn the_tasks_of_a_stage_are_spread_over_all_ordinals() {
        // Six of the second stage, then six of the first.
        let stage = |task: &u32| *task < 6;
        let count = |tasks: &BTreeMap<u32, u32>, ordinal: u32| {
            tasks
                .iter()
                .filter(|(task, owner)| stage(task) && **owner == ordinal)
                .count()
        };
        let one = balance(&BTreeMap::new(), 12, 1);
        for tasks in [
            balance(&BTreeMap::new(), 12, 3),
            balance(&one, 12, 3),
            balance(&balance(&one, 12, 2), 12, 3),
        ] {
            let counts: Vec<usize> = (0..3).map(|ordinal| count(&tasks, ordinal)).collect();
            assert!(
                counts.iter().all(|count| (1..=3).contains(count)),
                "{counts:?}: {tasks:?}"
            );
        }
    }

    #[test]
    fn a_stale_task_count_takes_nothing_away() {
        let first = balance(&BTreeMap::new(), 4, 2);
        assert_eq!(balance(&first, 2, 2), first);
    }

    #[test]
    fn replicas_above_the_task_count_stand_idle() {
        let tasks = balance(&BTreeMap::new(), 2, 5);
        assert_eq!(loads(&tasks, 5), [1, 1, 0, 0, 0]);
    }
}
