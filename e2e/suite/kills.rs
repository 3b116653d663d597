//! Ending the processes of a run, and counting that it happened. Must not wait for their successors.

use streamagg_e2e::pod_process::{self, Ending};
use streamagg_e2e::wait::{Seen, await_condition};

use super::run::{JOB, READY_MAX, Run};

/// Every other time the pod goes with its process, as when a node is lost; it also spares waiting for the kubelet,
/// which holds back a container that ends again and again.
fn goes_with_pod(run: &Run, what: &str) -> bool {
    run.endings.iter().filter(|(program, _)| *program == what).count() % 2 == 1
}

/// Ends the processor of an ordinal.
pub fn kill_processor(run: &mut Run, ordinal: u32) -> Result<(), String> {
    let pod = format!("{JOB}-{ordinal}");
    let ending = kill(run, |run| pod_process::kill(&run.cluster, &pod, "streamagg-processor"))?;
    if goes_with_pod(run, "processor") && ending == Ending::Sigkill {
        run.cluster
            .kubectl(&["delete", "pod", &pod, "--grace-period=0", "--force"])?;
    }
    run.endings.push(("processor", ending));
    Ok(())
}

/// Ends the operator.
pub fn kill_operator(run: &mut Run) -> Result<(), String> {
    let selector = "app.kubernetes.io/name=streamagg-operator";
    let pods = || run.operator.kubectl(&["get", "pods", "-l", selector, "-o", "name"]);
    let ending = kill(run, |run| {
        let names = pods()?;
        let pod = names
            .lines()
            .next()
            .ok_or("there is no operator pod")?
            .trim_start_matches("pod/")
            .to_owned();
        let ending = pod_process::kill(&run.operator, &pod, "streamagg-operator")?;
        if goes_with_pod(run, "operator") && ending == Ending::Sigkill {
            run.operator
                .kubectl(&["delete", "pod", &pod, "--grace-period=0", "--force"])?;
        }
        Ok(ending)
    })?;
    run.endings.push(("operator", ending));
    Ok(())
}

/// A process that is just being started again cannot be killed: tries until there is one.
fn kill(run: &Run, attempt: impl Fn(&Run) -> Result<Ending, String>) -> Result<Ending, String> {
    await_condition("a process to kill", READY_MAX, || match attempt(run) {
        Ok(ending) => Seen::Done(ending),
        Err(error) => Seen::NotYet(error),
    })
}
