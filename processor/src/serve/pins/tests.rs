//! Tests of `pins`. Must not test other modules.

use streamagg_crds::resolved;

use super::*;
use crate::state::store::Credentials;

fn store(directory: &std::path::Path) -> Store {
    let config = resolved::Store::Volume {
        claim_name: None,
        path: Some(directory.display().to_string()),
    };
    Store::open(&config, "ns.job", None, &Credentials::default()).expect("opens")
}

async fn settled(pins: &Pins, question: &Question, store: &Store) -> Vec<TaskOperation> {
    let runtime = tokio::runtime::Handle::current();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let rows = pins.ask(question, store, &runtime).tasks;
        if rows.iter().all(|row| row.phase != OperationPhase::InProgress) {
            return rows;
        }
        assert!(std::time::Instant::now() < deadline, "{rows:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_failure_is_told_once_and_then_tried_again_and_a_release_is_not_answered_from_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, pins) = (store(directory.path()), Pins::default());
    let pin = Question::Pin {
        holder: "x".to_owned(),
        checkpoints: BTreeMap::from([(0, "a".to_owned()), (1, "b".to_owned())]),
    };
    let rows = settled(&pins, &pin, &store).await;
    let reasons: Vec<_> = rows
        .iter()
        .filter_map(|row| row.problem.as_ref())
        .map(|problem| problem.reason.as_str())
        .collect();
    assert_eq!(reasons, [CHECKPOINT_MISSING; 2]);
    for (task, id) in [(0, "a"), (1, "b")] {
        let manifests = directory.path().join(format!("ns.job/tasks/{task}/manifests"));
        std::fs::create_dir_all(&manifests).expect("a directory");
        std::fs::write(manifests.join(format!("{id}.json")), "{}").expect("writes");
    }
    let phases = |rows: Vec<TaskOperation>| rows.iter().map(|row| row.phase).collect::<Vec<_>>();
    assert_eq!(
        phases(settled(&pins, &pin, &store).await),
        [OperationPhase::Complete; 2]
    );
    let object = directory.path().join("ns.job/tasks/1/pins/b/x");
    assert!(object.exists());
    let release = Question::Release {
        holder: "x".to_owned(),
        tasks: BTreeSet::from([0, 1, 7]),
    };
    assert_eq!(
        phases(settled(&pins, &release, &store).await),
        [OperationPhase::Complete; 3]
    );
    assert!(!object.exists());
    assert_eq!(
        phases(settled(&pins, &pin, &store).await),
        [OperationPhase::Complete; 2]
    );
    assert!(object.exists(), "the earlier answer was given from memory");
}
