//! Where state is kept and how it is saved. Must not hold how pods are run.

#[cfg(feature = "k8s")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "k8s")]
use super::schema;
use crate::value::{Duration, Quantity};

/// Where state is kept and how it is saved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StateSpec {
    /// What holds the state of a pod. Cannot change.
    #[serde(default)]
    pub backend: Backend,
    /// The volume of each pod; needed with `backend: RocksDB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeSpec>,
    /// Memory for state and buffers of a pod: half of it for the state of its tasks (where that is more, what was
    /// not changed for the longest is on the volume only), the rest for the database and records fetched ahead.
    /// Default: three quarters of the pod's memory limit; without one, state takes what it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_budget: Option<Quantity>,
    /// Copies of the state outside the pods. Without them a lost volume is rebuilt from the source topic, as far as
    /// it reaches back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<Checkpoints>,
}

/// What holds the state of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub enum Backend {
    /// Memory; a restart rebuilds it from a checkpoint and the source topic.
    #[default]
    Memory,
    /// RocksDB on the pod's volume.
    RocksDB,
}

/// The volume of each pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct VolumeSpec {
    /// Its size. It can grow where the storage class allows that, without a restart; it cannot shrink.
    pub size: Quantity,
    /// Its storage class. Default: the cluster's. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(length(min = 1, max = 253)))]
    pub storage_class_name: Option<String>,
}

/// Copies of the state outside the pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Checkpoints {
    /// How often one is taken.
    #[serde(default = "every_minute")]
    pub interval: Duration,
    /// How many are kept.
    #[serde(default)]
    pub retain: Retention,
    /// Where they are kept.
    pub store: CheckpointStore,
}

/// How many checkpoints are kept. The newest one that can be read is never deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// At most so many of a task.
    #[serde(default = "five")]
    #[cfg_attr(feature = "k8s", schemars(range(min = 1, max = 1000)))]
    pub count: i32,
    /// None older than this. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            count: five(),
            age: None,
        }
    }
}

/// Where checkpoints are kept; exactly one member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct CheckpointStore {
    /// A bucket behind the S3 protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Store>,
    /// A directory on a volume that all pods share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeStore>,
    /// Google Cloud Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs: Option<GcsStore>,
    /// Azure Blob Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<AzureStore>,
}

/// A bucket behind the S3 protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct S3Store {
    /// Name of the bucket; it must exist.
    #[cfg_attr(feature = "k8s", schemars(length(min = 1, max = 255)))]
    pub bucket: String,
    /// Put before the names of all objects. Default: none; the job's id always follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(length(max = 512)))]
    pub prefix: Option<String>,
    /// Address of the service, `http://` or `https://`. Default: Amazon's for the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::endpoint"))]
    pub endpoint: Option<String>,
    /// Region. Default: `us-east-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(length(min = 1, max = 63)))]
    pub region: Option<String>,
    /// Secret in the same namespace with the keys `accessKeyId` and `secretAccessKey`. Default: what the pod's
    /// identity allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretName>,
}

/// A bucket of Google Cloud Storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct GcsStore {
    /// Name of the bucket; it must exist.
    #[cfg_attr(feature = "k8s", schemars(length(min = 1, max = 255)))]
    pub bucket: String,
    /// Put before the names of all objects. Default: none; the job's id always follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(length(max = 512)))]
    pub prefix: Option<String>,
    /// Address of the service, `http://` or `https://`. Default: Google's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::endpoint"))]
    pub endpoint: Option<String>,
    /// Secret in the same namespace with the key `serviceAccountKey`, the JSON document of a service account's key.
    /// Default: what the pod's identity allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretName>,
}

/// A container of Azure Blob Storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AzureStore {
    /// Name of the storage account.
    #[cfg_attr(feature = "k8s", schemars(length(min = 3, max = 24)))]
    pub account: String,
    /// Name of the container; it must exist.
    #[cfg_attr(feature = "k8s", schemars(length(min = 3, max = 63)))]
    pub container: String,
    /// Put before the names of all objects. Default: none; the job's id always follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(length(max = 512)))]
    pub prefix: Option<String>,
    /// Address of the service, `http://` or `https://`, the account in its path where it is not in its name. Default:
    /// Azure's for the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::endpoint"))]
    pub endpoint: Option<String>,
    /// Secret in the same namespace with the key `accountKey`. Default: what the pod's identity allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretName>,
}

/// A secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SecretName {
    /// Its name.
    #[cfg_attr(feature = "k8s", schemars(length(min = 1, max = 253)))]
    pub name: String,
}

/// A directory on a volume that all pods share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct VolumeStore {
    /// Claim of the volume, in the same namespace; it must allow all pods to write. On a laptop it is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(length(min = 1, max = 253)))]
    pub claim_name: Option<String>,
    /// Directory within the volume (on a laptop: within the file system). Default: its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(length(min = 1, max = 1024)))]
    pub path: Option<String>,
}

fn every_minute() -> Duration {
    Duration::from_ms(60_000)
}

fn five() -> i32 {
    5
}
