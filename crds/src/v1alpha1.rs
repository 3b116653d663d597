//! The kinds of `streamagg.io/v1alpha1`: what a user declares and what the operator reports.
//! Must not hold rules across fields ([`crate::validate`]) or what follows from a manifest ([`crate::resolved`]).

mod aggregate;
mod derived;
mod event;
mod lifecycle;
mod not_yet;
mod security;
mod sink;
mod source;
mod spec;
mod state;
mod window;

#[cfg(feature = "k8s")]
mod checkpoint;
#[cfg(feature = "k8s")]
mod schema;
#[cfg(feature = "k8s")]
mod status;

pub use aggregate::{
    AggregateSpec, ArgOf, Count, Distinct, FieldOf, Histogram, Percentile, Rate, Ratio, ScalarOf, Spread, TopK,
    WeightedAverage,
};
pub use derived::{ExplodeSpec, LetSpec};
pub use event::{
    BoundedOutOfOrderness, EventSpec, IdleAdvance, IdleSpec, Periodic, Punctuated, TimeUnit, TimestampSpec,
    WatermarkSpec,
};
pub use lifecycle::{
    CheckpointFailurePolicy, DeletionPolicy, IncompatibleStatePolicy, PodTemplate, Resources, RestoreFrom,
    StateRetention, UpgradeSpec, UpgradeStrategy,
};
pub use not_yet::NotYet;
pub use security::{CaSecret, CertificateSecret, KafkaSasl, KafkaTls, SaslMechanism, SinkSecurity, UserSecret};
pub use sink::{Compression, Delivery, KafkaSink, Partitioner, SideOutput, SideTopic, SinkSpec};
pub use source::{
    AnyPartitioning, FormatSpec, JsonFormat, KafkaSource, LoadSheddingSpec, OnTruncated, PartitioningSpec, SourceSpec,
    StartFrom,
};
pub use spec::{Empty, StreamAggregationSpec};
pub use state::{
    AzureStore, Backend, CheckpointStore, Checkpoints, GcsStore, Retention, S3Store, SecretName, StateSpec, VolumeSpec,
    VolumeStore,
};
pub use window::{
    Calendar, CalendarUnit, CountWindow, Cumulative, GroupKey, KeyDefault, Panes, RecordProperty, RepeatSpec, Session,
    Sliding, TriggerSpec, Tumbling, WhenMissing, WindowSpec,
};

#[cfg(feature = "k8s")]
pub use checkpoint::{CheckpointPhase, StreamCheckpoint, StreamCheckpointSpec, StreamCheckpointStatus, TaskCheckpoint};
#[cfg(feature = "k8s")]
pub use spec::StreamAggregation;
#[cfg(feature = "k8s")]
pub use status::{
    CheckpointRef, CheckpointRequest, RequestPhase, RestoreOrder, Rollout, RolloutKind, RolloutStep,
    StreamAggregationStatus, TaskRestore, TasksSummary,
};

/// API group.
pub const GROUP: &str = "streamagg.io";
/// API version within the group.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of a manifest.
pub const API_VERSION: &str = "streamagg.io/v1alpha1";
/// `kind` of a manifest.
pub const KIND: &str = "StreamAggregation";
/// `kind` of a checkpoint on demand.
pub const CHECKPOINT_KIND: &str = "StreamCheckpoint";
