//! A namespace of the real API server with an operator in it, and what tests look at there.
//! Must not hold tests.

use super::faults::Faults;
use super::node::Node;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use streamagg_crds::v1alpha1::{StreamAggregation, StreamAggregationStatus, StreamCheckpoint};
use streamagg_operator::admin_client::AdminClient;
use streamagg_operator::controller::memory::Memory;
use streamagg_operator::controller::{Context, reconcile_once, run};
use streamagg_operator::metrics::Metrics;
use streamagg_operator::preflight;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long anything may take: it takes seconds, and minutes on a machine that builds beside it.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// A controller that runs; told to stop when dropped.
pub struct Operator {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Operator {
    /// Stops it and waits for the last reconcile to end.
    pub async fn stop(self) {
        drop(self.stop);
        tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }
}

/// A namespace with a node and, while `operator` is held, an operator.
pub struct World {
    pub config: Config,
    pub client: Client,
    /// The operator's, for clients that meet faults.
    pub operator_config: Config,
    /// The operator's: its ServiceAccount with the chart's rights.
    pub operator_client: Client,
    pub namespace: String,
    pub node: Node,
}

impl World {
    pub async fn new(name: &str) -> Self {
        Self::at(format!("{name}-{}", std::process::id()), "KUBECONFIG_OPERATOR").await
    }

    /// The namespace in which the chart granted a Role and nothing in the whole cluster.
    pub async fn with_a_role_only() -> Self {
        Self::at("solo".to_owned(), "KUBECONFIG_SOLO").await
    }

    /// `operator` is the variable with the operator's kubeconfig.
    async fn at(namespace: String, operator: &str) -> Self {
        let config = read_config(&variable("KUBECONFIG_API")).await;
        let client = Client::try_from(config.clone()).unwrap();
        let operator_config = read_config(&variable(operator)).await;
        let operator_client = Client::try_from(operator_config.clone()).unwrap();
        install(&client).await;
        let object = json!({"metadata": {"name": namespace}});
        let object: Namespace = serde_json::from_value(object).unwrap();
        let params = PatchParams::apply("operator-test").force();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces
            .patch(&namespace, &params, &Patch::Apply(&object))
            .await
            .unwrap();
        let node = Node::start(client.clone(), &namespace).await;
        Self {
            config,
            client,
            operator_config,
            operator_client,
            namespace,
            node,
        }
    }

    pub fn context(&self) -> Context {
        self.context_of(self.operator_client.clone())
    }

    /// The same, with faults on the way to the API server.
    pub fn context_through(&self, faults: &Faults) -> Context {
        self.context_of(faults.client(&self.operator_config))
    }

    fn context_of(&self, client: Client) -> Context {
        let reporter = Reporter {
            controller: "streamagg-operator".to_owned(),
            instance: None,
        };
        Context {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            admin: AdminClient::new().unwrap(),
            resolver: self.node.resolver.clone(),
            metrics: Metrics::new().unwrap(),
            default_image: Some("example.org/default:1".to_owned()),
            memory: Memory::default(),
            checkpoints: Memory::default(),
            caches: None,
        }
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Runs the controller until what is answered is dropped.
    pub fn operator(&self) -> Operator {
        self.run(self.context())
    }

    /// The same, with faults on the way to the API server.
    pub fn operator_through(&self, faults: &Faults) -> Operator {
        self.run(self.context_through(faults))
    }

    /// Runs the controller with `context` until what is answered is dropped.
    pub fn run(&self, context: Context) -> Operator {
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let task = tokio::spawn(run::run(Arc::new(context), Some(self.namespace.clone()), shutdown));
        Operator { stop, task }
    }

    /// Looks `count` times with an operator that knows nothing; only while no other runs.
    pub async fn look(&self, count: usize) {
        let context = self.context();
        for _ in 0..count {
            reconcile_once(&self.namespace, "sample", &context).await.unwrap();
        }
    }

    pub async fn create(&self, change: &Value) {
        self.create_named("sample", change).await;
    }

    pub async fn create_named(&self, name: &str, change: &Value) {
        let mut spec = json!({
            "image": "example.org/streamagg:1",
            "replicas": 2,
            "source": {
                "kafka": {"bootstrapServers": ["kafka:9092"], "topics": ["events"]},
                "partitioning": {"byKey": {}},
            },
            "event": {"timestamp": {"field": "/ts"}, "watermark": {"boundedOutOfOrderness": {"bound": "5s"}}},
            "windows": [{"name": "minute", "tumbling": {"size": "1m"}}],
            "aggregates": [{"name": "requests", "count": {}}],
            "sink": {"kafka": {"topic": "results"}},
            "state": {
                "backend": "RocksDB",
                "volume": {"size": "1Gi"},
                "checkpoints": {"store": {"volume": {"claimName": "checkpoints"}}},
            },
        });
        for (key, value) in change.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let object = json!({
            "apiVersion": "streamagg.io/v1alpha1", "kind": "StreamAggregation", "metadata": {"name": name}, "spec": spec,
        });
        let object: StreamAggregation = serde_json::from_value(object).unwrap();
        self.api().create(&PostParams::default(), &object).await.unwrap();
    }

    /// Creates a `StreamCheckpoint` of an aggregation.
    pub async fn checkpoint(&self, name: &str, of: &str) -> StreamCheckpoint {
        let object = json!({
            "apiVersion": "streamagg.io/v1alpha1", "kind": "StreamCheckpoint", "metadata": {"name": name},
            "spec": {"aggregation": of},
        });
        let object: StreamCheckpoint = serde_json::from_value(object).unwrap();
        self.api().create(&PostParams::default(), &object).await.unwrap()
    }

    pub async fn change(&self, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.api::<StreamAggregation>()
            .patch("sample", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    pub async fn status(&self, name: &str) -> (i64, StreamAggregationStatus) {
        let object = self.api::<StreamAggregation>().get(name).await.unwrap();
        (object.metadata.generation.unwrap(), object.status.unwrap_or_default())
    }

    /// Asks for the end of the aggregation.
    pub async fn delete(&self) {
        self.api::<StreamAggregation>()
            .delete("sample", &DeleteParams::background())
            .await
            .unwrap();
    }

    /// Waits until the status is as it should be; prints what was seen if it never is.
    pub async fn await_status(
        &self,
        what: &str,
        is_right: impl Fn(&StreamAggregationStatus) -> bool,
    ) -> StreamAggregationStatus {
        let started = Instant::now();
        loop {
            let (_, seen) = self.status("sample").await;
            if is_right(&seen) {
                return seen;
            }
            assert!(started.elapsed() < DEADLINE, "never {what}: {seen:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the current generation has the condition, with the reason; prints what was seen if it never has.
    pub async fn await_condition(
        &self,
        name: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> StreamAggregationStatus {
        let started = Instant::now();
        loop {
            let (generation, seen) = self.status(name).await;
            let holds = seen.conditions.iter().any(|condition| {
                condition.type_ == type_
                    && condition.status == status
                    && condition.reason == reason
                    && condition.observed_generation == Some(generation)
            });
            if holds {
                kstatus_contract(&seen);
                return seen;
            }
            let waited = started.elapsed();
            assert!(
                waited < DEADLINE,
                "{name} never {type_}={status}/{reason}; tasks {:?}; {seen:#?}",
                self.node.processors.running()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the set's own controller has seen that all its pods are ready: it is a round behind them.
    pub async fn await_set(&self) {
        let started = Instant::now();
        loop {
            let set = self.api::<StatefulSet>().get("sample").await.unwrap();
            let (wanted, seen) = (set.spec.and_then(|spec| spec.replicas), set.status.unwrap_or_default());
            if seen.observed_generation == set.metadata.generation && seen.available_replicas == wanted {
                return;
            }
            assert!(started.elapsed() < DEADLINE, "of {wanted:?} pods: {seen:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn await_running(&self) -> StreamAggregationStatus {
        self.await_condition("sample", "Ready", "True", "Running").await
    }

    /// Waits until the status tells of an assignment or a later one: it is written a round after the assignment itself.
    pub async fn await_generation(&self, generation: u64) {
        self.await_status("told of the assignment", |status| {
            status.assignment_generation >= i64::try_from(generation).ok()
        })
        .await;
    }

    /// Waits until pods of another revision run and the change to it is over.
    pub async fn await_another_revision(&self, than: &StreamAggregationStatus) {
        self.await_status("of another revision", |status| {
            status.current_revision != than.current_revision && status.rollout.is_none()
        })
        .await;
    }

    /// No task runs in two pods.
    pub fn nobody_runs_twice(&self) {
        let running = self.node.processors.running();
        let all: Vec<_> = running.values().flatten().collect();
        let distinct: BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), distinct.len(), "{running:?}");
    }

    /// resourceVersion of everything there is.
    pub async fn versions(&self) -> Vec<String> {
        let mut versions = Vec::new();
        self.list::<StreamAggregation>("sagg", &mut versions).await;
        self.list::<StatefulSet>("statefulset", &mut versions).await;
        self.list::<ConfigMap>("configmap", &mut versions).await;
        self.list::<Secret>("secret", &mut versions).await;
        self.list::<Service>("service", &mut versions).await;
        self.list::<ServiceAccount>("serviceaccount", &mut versions).await;
        self.list::<Pod>("pod", &mut versions).await;
        versions
    }

    pub async fn list<K>(&self, kind: &str, into: &mut Vec<String>)
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let list = self.api::<K>().list(&ListParams::default()).await.unwrap();
        into.extend(
            list.iter()
                .map(|object| format!("{kind} {} {:?}", object.name_any(), object.resource_version())),
        );
    }
}

/// A variable that `apiserver.sh` sets.
pub fn variable(name: &str) -> String {
    let value = std::env::var(name);
    assert!(value.is_ok(), "{name} is not set; run operator/tests/apiserver.sh");
    value.unwrap()
}

async fn read_config(path: &str) -> Config {
    let kubeconfig = Kubeconfig::read_from(path).expect("the path of a kubeconfig");
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap()
}

/// Applies the definitions and waits until they are served.
pub async fn install(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply("operator-test").force();
    for crd in [
        streamagg_crds::crd::crd().unwrap(),
        streamagg_crds::crd::checkpoint_crd().unwrap(),
    ] {
        api.patch(&crd.name_any(), &params, &Patch::Apply(&crd)).await.unwrap();
    }
    let started = Instant::now();
    loop {
        match preflight::check(client, None).await {
            Ok(()) => return,
            Err(error) => assert!(started.elapsed() < DEADLINE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Present only while True, and never both.
pub fn kstatus_contract(status: &StreamAggregationStatus) {
    let find = |type_: &str| status.conditions.iter().find(|condition| condition.type_ == type_);
    for type_ in ["Reconciling", "Stalled"] {
        assert!(
            find(type_).is_none_or(|condition| condition.status == "True"),
            "{status:#?}"
        );
    }
    assert!(
        find("Reconciling").is_none() || find("Stalled").is_none(),
        "{status:#?}"
    );
}
