//! Names of everything the operator creates for one aggregation, and the paths inside a pod.
//! Must not hold: how the objects look (`controller::build`).

/// Field manager of every write; server-side apply tells our fields from other people's by it.
pub const FIELD_MANAGER: &str = "streamagg-operator";
/// Longest aggregation name whose derived names all fit: a pod carries `<statefulset>-<10 hex>` as the value of
/// its `controller-revision-hash` label, which is limited to 63 characters.
pub const NAME_LENGTH_MAX: usize = 52;
/// Where the job file is mounted.
pub const JOB_DIRECTORY: &str = "/etc/streamagg/job";
/// Where the assignment is mounted.
pub const ASSIGNMENT_DIRECTORY: &str = "/etc/streamagg/assignment";
/// Where the admin token is mounted.
pub const TOKEN_DIRECTORY: &str = "/etc/streamagg/token";
/// Where local state lives.
pub const DATA_DIRECTORY: &str = "/var/lib/streamagg";
/// Where a checkpoint store on a volume is mounted.
pub const CHECKPOINT_DIRECTORY: &str = "/var/lib/streamagg-checkpoints";
/// Where the Secrets are mounted that a spec refers to for its brokers: a directory each, a file for each key in use.
pub const SECRETS_DIRECTORY: &str = "/etc/streamagg/secrets";
/// Key of the job file in its ConfigMap.
pub const JOB_KEY: &str = "job.json";
/// Key of the assignment in its ConfigMap.
pub const ASSIGNMENT_KEY: &str = "assignment.json";
/// Key of the admin token in its Secret.
pub const TOKEN_KEY: &str = "token";
/// Name of the container that runs the processor.
pub const CONTAINER: &str = "processor";
/// Name of the volume (and volume claim template) that holds local state.
pub const DATA_VOLUME: &str = "data";

/// Name of the StatefulSet: the aggregation's own, so that pods are called `<name>-0` and so on.
pub fn stateful_set(name: &str) -> String {
    name.to_owned()
}

/// Name of the headless Service.
pub fn service(name: &str) -> String {
    name.to_owned()
}

/// Name of the ServiceAccount the pods run under.
pub fn service_account(name: &str) -> String {
    format!("{name}-processor")
}

/// Name of the Secret with the admin token.
pub fn token_secret(name: &str) -> String {
    format!("{name}-token")
}

/// Name of the ConfigMap with the assignment; fixed, so that a new assignment never changes the pod template.
pub fn assignment_config_map(name: &str) -> String {
    format!("{name}-assignment")
}

/// Name of the immutable ConfigMap with the job file whose content hashes to `hash`.
pub fn job_config_map(name: &str, hash: &str) -> String {
    format!("{name}-job-{hash}")
}

/// Name of the PodDisruptionBudget.
pub fn disruption_budget(name: &str) -> String {
    name.to_owned()
}

/// Name of the NetworkPolicy.
pub fn network_policy(name: &str) -> String {
    name.to_owned()
}

/// Name of the pod with `ordinal`.
pub fn pod(name: &str, ordinal: u32) -> String {
    format!("{name}-{ordinal}")
}

/// The ordinal in the name of a volume claim, if it is one of `name`'s.
pub fn claim_ordinal(name: &str, claim: &str) -> Option<u32> {
    ordinal(name, claim.strip_prefix(DATA_VOLUME)?.strip_prefix('-')?)
}

/// The ordinal in a pod name, if it is one of `name`'s pods.
pub fn ordinal(name: &str, pod: &str) -> Option<u32> {
    pod.strip_prefix(name)?.strip_prefix('-')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_names_fit_a_dns_label_at_the_longest_name() {
        let name = "n".repeat(NAME_LENGTH_MAX);
        let all = [
            stateful_set(&name),
            service(&name),
            service_account(&name),
            token_secret(&name),
            assignment_config_map(&name),
            disruption_budget(&name),
            pod(&name, 9999),
            format!("{name}-{}", "f".repeat(10)),
        ];
        for derived in all {
            assert!(derived.len() <= 63, "{derived} has {} characters", derived.len());
        }
        // ConfigMap names are DNS subdomains (253), so the job hash has room.
        assert!(job_config_map(&name, &"f".repeat(16)).len() <= 253);
    }

    #[test]
    fn ordinal_is_read_from_own_pods_only() {
        assert_eq!(ordinal("a-b", "a-b-12"), Some(12));
        assert_eq!(ordinal("a-b", "a-b-c-1"), None);
        assert_eq!(ordinal("a-b", "a-1"), None);
        assert_eq!(ordinal("a", "a-b-1"), None);
        assert_eq!(claim_ordinal("a-b", "data-a-b-3"), Some(3));
        assert_eq!(claim_ordinal("a", "data-a-b-3"), None);
        assert_eq!(claim_ordinal("a", "a-3"), None);
    }
}
