//! What the spec asks for against what is there, row by row.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use streamagg_crds::admin::PodStatus;
use streamagg_crds::assignment::Assignment;
use streamagg_crds::v1alpha1::RestoreOrder;

use super::*;
use crate::controller::fixtures;
use crate::controller::observed::{AssignmentFacts, PodFacts, StatefulSetFacts};

fn order(nonce: u64, checkpoint: &str) -> Restore {
    Restore {
        nonce,
        checkpoint: checkpoint.to_owned(),
        tasks: (0..2).map(|task| (task, format!("{checkpoint}.{task}"))).collect(),
    }
}

/// Two tasks run, and a StreamCheckpoint `a` of both is complete.
fn observed() -> Observed {
    let mut observed = fixtures::observed(Timestamp::UNIX_EPOCH);
    observed.stateful_set = Some(StatefulSetFacts::default());
    observed.assignment = Some(AssignmentFacts {
        resource_version: "1".to_owned(),
        assignment: Assignment {
            tasks: [(0, 0), (1, 0)].into(),
            ..Assignment::default()
        },
    });
    let row = |task| json!({"task": task, "id": format!("a.{task}"), "epoch": 1, "inputOffset": 1, "bytes": 1});
    let object = json!({
        "apiVersion": "streamagg.io/v1alpha1", "kind": "StreamCheckpoint", "metadata": {"name": "a"},
        "spec": {"aggregation": "sample"},
        "status": {"phase": "Complete", "aggregationUid": "uid-1", "jobId": "default.sample", "tasks": [row(0), row(1)]},
    });
    observed.restore_source = Some(serde_json::from_value(object).unwrap());
    observed
}

fn ask(nonce: i64, observed: &Observed) -> Result<Option<Restore>, Obstacle> {
    let spec = json!({"restoreFrom": {"checkpoint": "a", "nonce": nonce}});
    resolve(&fixtures::aggregation(&spec), observed)
}

#[test]
fn a_checkpoint_of_all_tasks_becomes_an_order_with_their_numbers() {
    assert_eq!(ask(7, &observed()), Ok(Some(order(7, "a"))));
    let nothing = resolve(&fixtures::aggregation(&json!({})), &observed());
    assert_eq!(nothing, Ok(None));
}

#[test]
fn what_cannot_be_gone_back_to_is_refused_by_name() {
    type Change = fn(&mut StreamCheckpoint);
    let refused: [(&str, Change); 4] = [
        ("of StreamAggregation other", |object| {
            object.spec.aggregation = "other".to_owned()
        }),
        ("that was deleted", |object| {
            object.status.as_mut().unwrap().aggregation_uid = Some("uid-0".to_owned())
        }),
        ("of job x, and this is default.sample", |object| {
            object.status.as_mut().unwrap().job_id = Some("x".to_owned())
        }),
        ("does not hold tasks [1] of 2", |object| {
            drop(object.status.as_mut().unwrap().tasks.pop())
        }),
    ];
    for (words, change) in refused {
        let mut observed = observed();
        change(observed.restore_source.as_mut().unwrap());
        let Err(Obstacle::Invalid(problem)) = ask(1, &observed) else {
            panic!("{words}: {:?}", ask(1, &observed));
        };
        assert!(
            problem.message.contains(words) && problem.path == CHECKPOINT_FIELD,
            "{problem}"
        );
    }
    let mut observed = observed();
    let object = observed.restore_source.as_mut().unwrap();
    object.status.as_mut().unwrap().phase = Some(CheckpointPhase::FirstStage);
    assert!(matches!(ask(1, &observed), Err(Obstacle::Waits(_))));
    observed.restore_source.as_mut().unwrap().status = None;
    assert!(matches!(ask(1, &observed), Err(Obstacle::Waits(_))));
    observed.restore_source.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(observed.now));
    assert!(matches!(ask(1, &observed), Err(Obstacle::Stalled(_))));
    observed.restore_source = None;
    let Err(Obstacle::Stalled(verdict)) = ask(1, &observed) else {
        panic!("{:?}", ask(1, &observed));
    };
    assert_eq!(verdict.reason, "CheckpointMissing");
    let without_store = json!({"restoreFrom": {"checkpoint": "a", "nonce": 1}, "state": {"checkpoints": null}});
    let refused = resolve(&fixtures::aggregation(&without_store), &observed);
    assert!(
        matches!(refused, Err(Obstacle::Invalid(problem)) if problem.message.contains("spec.state.checkpoints.store"))
    );
}

#[test]
fn a_nonce_is_used_once_and_what_stands_needs_no_object() {
    let mut observed = observed();
    observed.status.restored = Some(RestoreOrder::from(&order(5, "a")));
    observed.restore_source = None;
    assert_eq!(ask(5, &observed), Ok(Some(order(5, "a"))));
    let taken_off = resolve(&fixtures::aggregation(&json!({})), &observed);
    assert_eq!(taken_off, Ok(Some(order(5, "a"))));
    assert!(matches!(ask(4, &observed), Err(Obstacle::Invalid(problem)) if problem.message.contains("4 is used up")));
    observed.status.restored = Some(RestoreOrder::from(&order(5, "b")));
    assert!(
        matches!(ask(5, &observed), Err(Obstacle::Invalid(_))),
        "another checkpoint"
    );
}

#[test]
fn of_two_stages_none_is_left_where_it_is_once_the_other_went_back() {
    for (stage, nonces, can) in [
        (Stage::Whole, [0, 0], true),
        (Stage::Whole, [1, 0], true),
        (Stage::Window, [0, 0], true),
        (Stage::Window, [1, 0], false),
        (Stage::Whole, [1, 1], false),
    ] {
        let row = |(task, restore_nonce)| TaskStatus {
            task,
            stage,
            restore_nonce,
            state: TaskState::Stopped,
            ..TaskStatus::default()
        };
        let mut observed = observed();
        observed.pods = vec![PodFacts {
            admin: Some(PodStatus {
                tasks: (0..).zip(nonces).map(row).collect(),
                ..PodStatus::default()
            }),
            ..PodFacts::default()
        }];
        assert_eq!(
            can_be_taken_back(&order(1, "a"), &observed),
            can,
            "{stage:?} {nonces:?}"
        );
        let rows = &mut observed.pods[0].admin.as_mut().unwrap().tasks;
        rows.iter_mut().for_each(|row| row.state = TaskState::Restoring);
        assert!(
            !can_be_taken_back(&order(1, "a"), &observed),
            "it may be going back now"
        );
    }
}

#[test]
fn window_tasks_that_wait_for_a_first_stage_that_is_stopped_keep_no_order() {
    let row = |(task, stage, state)| TaskStatus {
        task,
        stage,
        state,
        ..TaskStatus::default()
    };
    let can = |combine: TaskState, window: TaskState, nonces: [u64; 2]| {
        let mut tasks = [(0, Stage::Combine, combine), (1, Stage::Window, window)].map(row);
        (tasks[0].restore_nonce, tasks[1].restore_nonce) = (nonces[0], nonces[1]);
        let mut observed = observed();
        observed.pods = vec![PodFacts {
            admin: Some(PodStatus {
                tasks: tasks.to_vec(),
                ..PodStatus::default()
            }),
            ..PodFacts::default()
        }];
        can_be_taken_back(&order(1, "a"), &observed)
    };
    assert!(can(TaskState::Stopped, TaskState::Starting, [0, 0]));
    assert!(
        !can(TaskState::Starting, TaskState::Starting, [0, 0]),
        "it may be going back now"
    );
    assert!(
        !can(TaskState::Running, TaskState::Stopped, [1, 0]),
        "the first stage is back"
    );
}

#[test]
fn a_set_that_is_gone_comes_back_with_what_it_had() {
    let mut observed = observed();
    observed.stateful_set = None;
    assert_eq!(ask(1, &observed), Ok(None));
    observed.restore_source = None;
    assert!(
        ask(1, &observed).is_err(),
        "and a new job is not born where it should have gone back"
    );
}

#[test]
fn orders_are_read_from_job_files_and_from_nothing_else() {
    let file =
        |name: &str, text: &str| json!({"kind": "ConfigMap", "metadata": {"name": name}, "data": {"job.json": text}});
    let with = json!({"version": 1, "restore": order(3, "a")}).to_string();
    let children = [
        file("with", &with),
        file("without", r#"{"version": 1, "spec": {}}"#),
        file("broken", r#"{"restore":"#),
        json!({"kind": "Service", "metadata": {"name": "sample"}}),
    ];
    assert_eq!(
        in_job_files(&children),
        BTreeMap::from([("with".to_owned(), order(3, "a"))])
    );
}
