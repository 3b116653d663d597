//! Changes of the spec with partials on their way between the stages. Must not repeat what `migration` shows of one stage.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use streamagg_processor::pipeline::operator::merge::WindowTask;
use streamagg_processor::state::backend::{Backend, Changes};
use streamagg_processor::state::memory::MemoryBackend;

use super::judged::results;
use super::scene::{Scene, scene};
use super::{FirstStage, consume, merge, stops, turns};
use crate::engine::{cases, plan};
use crate::migration::widened;

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(60), failure_persistence: None, ..ProptestConfig::default() })]

    /// A window task that begins under a spec reads what was written under the one before, as a task that has had it:
    /// whichever combine task changes first, whatever crashes, whether aggregates come or go.
    #[test]
    fn a_window_task_born_under_a_changed_spec_reads_what_was_written_before(
        scene in scene(1..=3, 120), before in turns(), between in turns(), after in turns(), first_to_change in any::<Index>(),
        widens in any::<bool>(), stops in stops(), batch in 1..20usize,
    ) {
        let wide = Scene { spec: widened(&scene.spec), ..scene.clone() };
        let (old, new) = if widens { (scene, wide) } else { (wide, scene) };
        let (old_plan, new_plan) = (plan(&old.spec), plan(&new.spec));
        let mut first = FirstStage::new(&old);
        first.run(&before);
        first.plan = Arc::clone(&new_plan);
        let sources = first.stages.len();
        for (turns, changes) in [(&between, first_to_change.index(sources)..sources), (&after, 0..sources)] {
            for index in changes {
                let committed = first.stages[index].committed.clone();
                first.restore(index, &committed, None);
            }
            first.run(turns);
        }
        first.finish();
        for log in &first.partitions {
            let (mut had, mut backend, mut changes) =
                (WindowTask::new(Arc::clone(&old_plan), 0), MemoryBackend::default(), Changes::default());
            had.take_changes(&mut changes);
            backend.apply(&changes).unwrap();
            let mut had = WindowTask::restore(Arc::clone(&new_plan), &backend).unwrap().unwrap();
            let expected = results(&merge(&mut had, log, log.len()).unwrap());
            prop_assert_eq!(results(&consume(&new, log, &stops, batch)), expected);
        }
    }
}
