//! A user who orders to go back to checkpoints: what was published behind one comes again in a higher revision.
//! Must not decide what the protocol decides.

use streamagg_processor::state::recovery::{Owner, rewind};

use super::World;

impl World {
    /// The user orders to go back to any checkpoint.
    pub(super) fn order(&mut self, pod: u32) {
        if self.store.is_empty() {
            return;
        }
        let any = usize::try_from(self.below(self.store.len() as u64)).unwrap();
        // Often the one that has come furthest: behind a rewind that is the history that it left.
        let manifests = self.store.iter().map(|checkpoint| &checkpoint.manifest);
        let chosen = match self.random.is_multiple_of(2) {
            true => manifests
                .max_by_key(|manifest| manifest.position.place())
                .expect("not empty"),
            false => &self.store[any].manifest,
        };
        let id = chosen.id.clone();
        let nonce = self.order.as_ref().map_or(0, |(nonce, _)| *nonce) + 1 + self.below(3);
        self.order = Some((nonce, id));
        self.note("ordered", pod);
    }

    /// Goes back: one commit, then local state. False: the process dies between.
    pub(super) fn rewind(&mut self, pod: u32, owner: &Owner, id: &str) -> bool {
        let (local, checkpoints) = self.found(pod);
        let facts = self.facts(owner, &local, &checkpoints, &[]);
        let order = rewind::pending(&facts).expect("decided on");
        let found = self.store.iter().find(|checkpoint| checkpoint.manifest.id == id);
        let (stored, store) = &found.expect("decided on").held;
        let (stored, store) = (stored.clone(), store.snapshot());
        let committed = self.committed.as_ref().expect("K is there");
        let lineage = rewind::lineage(order.nonce, committed.epoch.into());
        let rewound = rewind::position(&facts, &order, &stored, lineage, 0);
        assert!(rewound.epoch > committed.epoch && rewound.lineage != committed.lineage);
        let forward = rewound.place() > committed.place();
        // The newest revision of a result holds: what comes from here on takes the place of what came then.
        let before = usize::try_from(stored.engine_position.output_seq).unwrap();
        self.published = self.expected[..before].to_vec();
        self.publish(pod, &rewound);
        self.note(if forward { "forward again" } else { "rewound" }, pod);
        if self.crashes(pod) {
            return false;
        }
        self.pods[pod as usize].volume = Some((stored, store));
        true
    }
}
