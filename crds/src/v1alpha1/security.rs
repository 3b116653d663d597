//! How the brokers of a cluster are reached safely: TLS and SASL, with secrets by reference only.
//! Must not hold a secret itself.

#[cfg(feature = "k8s")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "k8s")]
use super::schema;

/// TLS towards the brokers; `{}` trusts the authorities of the image and presents no certificate. The name in a
/// broker's certificate is always checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct KafkaTls {
    /// Certificates (PEM) of the authorities that sign the brokers' certificates. Default: those of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<CaSecret>,
    /// Certificate and private key that the processor presents (mutual TLS). Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_secret_ref: Option<CertificateSecret>,
}

/// A Secret in the same namespace with certificates of authorities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct CaSecret {
    /// Its name.
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::secret_name"))]
    pub name: String,
    /// Its key that holds the certificates.
    #[serde(default = "ca_crt")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::secret_key"))]
    pub key: String,
}

/// A Secret in the same namespace with a client's certificate and private key. The defaults are the keys of a Secret of
/// type `kubernetes.io/tls`; Strimzi writes `user.crt` and `user.key`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct CertificateSecret {
    /// Its name.
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::secret_name"))]
    pub name: String,
    /// Its key that holds the certificate and those between it and the authority (PEM).
    #[serde(default = "tls_crt")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::secret_key"))]
    pub certificate_key: String,
    /// Its key that holds the private key (PEM, without a password).
    #[serde(default = "tls_key")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::secret_key"))]
    pub private_key_key: String,
}

/// SASL towards the brokers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct KafkaSasl {
    /// How the user proves who it is. `Plain` sends the password: use it with `tls` only.
    pub mechanism: SaslMechanism,
    /// Name of the user. Default: what the Secret's `username` holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(length(min = 1, max = 255)))]
    pub username: Option<String>,
    /// The user's password, and the name where `username` is not given.
    pub secret_ref: UserSecret,
}

/// A Secret in the same namespace with a user's password. Strimzi writes `password`; its user is named in `username` of
/// the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct UserSecret {
    /// Its name.
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::secret_name"))]
    pub name: String,
    /// Its key that holds the user's name. Default: `username`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::secret_key"))]
    pub username_key: Option<String>,
    /// Its key that holds the password.
    #[serde(default = "password")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::secret_key"))]
    pub password_key: String,
}

/// How a user proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub enum SaslMechanism {
    /// PLAIN: user and password as they are.
    Plain,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
    /// OAUTHBEARER.
    OAuthBearer,
}

/// Where the sink's `tls` and `sasl` come from when they are not given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub enum SinkSecurity {
    /// Each is the source's.
    #[default]
    FromSource,
    /// Only what the sink names itself counts: for another cluster that wants neither.
    Own,
}

fn ca_crt() -> String {
    "ca.crt".to_owned()
}

fn tls_crt() -> String {
    "tls.crt".to_owned()
}

fn tls_key() -> String {
    "tls.key".to_owned()
}

fn password() -> String {
    "password".to_owned()
}
