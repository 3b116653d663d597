//! Reads the Secrets that a job refers to, as files `<directory>/<secret>/<key>`: in a pod they are mounted so, elsewhere
//! they are laid out so by hand. Read anew for every client, so that a changed one counts from the next connection on.
//! Must not log or keep what it reads, but for the user in the settings it hands out.

use std::path::{Path, PathBuf};

use streamagg_crds::resolved::{Resolved, Sasl, SecretKey, Security, Tls, Username};
use streamagg_crds::v1alpha1::SaslMechanism;

use super::access::{Access, place};
use super::config::Settings;
use crate::state::recovery::{Reason, Stop};

/// Largest file that is read, bytes: a bundle of authorities has some hundred thousand, a Secret at most a million.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where secrets are.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    directory: Option<PathBuf>,
}

impl Secrets {
    /// Secrets below `directory`.
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self { directory }
    }

    /// Whether `job` can be reached at all: one that refers to a Secret needs a directory.
    pub fn check(&self, job: &Resolved) -> Result<(), Stop> {
        let mut keys = job
            .source
            .security
            .secret_keys()
            .into_iter()
            .chain(job.sink.security.secret_keys());
        match (&self.directory, keys.next()) {
            (None, Some(key)) => Err(no_directory(key)),
            (_, _) => Ok(()),
        }
    }

    /// How clients reach a cluster: settings that every client of it begins with.
    pub fn connection(&self, security: &Security) -> Result<Settings, Stop> {
        let mut settings = Settings::new(Access::new(security));
        let protocol = match (&security.tls, &security.sasl) {
            (None, None) => return Ok(settings),
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        settings.set("security.protocol", protocol);
        if let Some(tls) = &security.tls {
            self.tls(tls, &mut settings)?;
        }
        if let Some(sasl) = &security.sasl {
            self.sasl(sasl, &mut settings)?;
        }
        Ok(settings)
    }

    fn tls(&self, tls: &Tls, settings: &mut Settings) -> Result<(), Stop> {
        if let Some(key) = &tls.authorities {
            settings.set("ssl.ca.location", &self.pem(key, "CERTIFICATE-----")?);
        }
        if let Some(certificate) = &tls.certificate {
            // As files: only from a file librdkafka takes the certificates between the client's and the authority.
            let chain = self.pem(&certificate.chain, "CERTIFICATE-----")?;
            settings.set("ssl.certificate.location", &chain);
            let private_key = self.pem(&certificate.private_key, "PRIVATE KEY-----")?;
            settings.set("ssl.key.location", &private_key);
        }
        Ok(())
    }

    fn sasl(&self, sasl: &Sasl, settings: &mut Settings) -> Result<(), Stop> {
        let mechanism = match sasl.mechanism {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
            // Refused by name before; a broker refuses it again.
            SaslMechanism::OAuthBearer => "OAUTHBEARER",
        };
        settings.set("sasl.mechanism", mechanism);
        let username = match &sasl.username {
            Username::Text(name) => name.clone(),
            Username::Secret(key) => self.line(key)?,
        };
        settings.set("sasl.username", &username);
        settings.set("sasl.password", &self.line(&sasl.password)?);
        Ok(())
    }

    /// Path of a document with a begin line of `kind`.
    fn pem(&self, key: &SecretKey, kind: &str) -> Result<String, Stop> {
        let text = self.read(key)?;
        let begins = |line: &str| line.starts_with("-----BEGIN ") && line.ends_with(kind);
        if text.contains("ENCRYPTED") {
            Err(unusable(key, "is a private key with a password; give one without"))
        } else if text.lines().any(|line| begins(line.trim())) {
            Ok(self.path(key)?.display().to_string())
        } else {
            let message = format!("is no PEM document (no line -----BEGIN … {kind}); give it in that form");
            Err(unusable(key, &message))
        }
    }

    /// A text of one line; the line's end, which editors add, is no part of it.
    fn line(&self, key: &SecretKey) -> Result<String, Stop> {
        let text = self.read(key)?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            Err(unusable(key, "is empty"))
        } else if line.contains(char::is_control) {
            Err(unusable(
                key,
                "holds a line end or another control character; give one line",
            ))
        } else {
            Ok(line.to_owned())
        }
    }

    fn path(&self, key: &SecretKey) -> Result<PathBuf, Stop> {
        let directory = self.directory.as_deref().ok_or_else(|| no_directory(key))?;
        Ok(directory.join(&key.secret).join(&key.key))
    }

    fn read(&self, key: &SecretKey) -> Result<String, Stop> {
        let path = self.path(key)?;
        let failed = |error: std::io::Error| unusable(key, &words(&path, &error));
        if std::fs::metadata(&path).map_err(failed)?.len() > FILE_BYTES_MAX {
            return Err(unusable(key, "is larger than a Secret can be"));
        }
        let bytes = std::fs::read(&path).map_err(failed)?;
        // Not the error: it quotes the bytes.
        String::from_utf8(bytes).map_err(|_| unusable(key, "is no text"))
    }
}

fn words(path: &Path, error: &std::io::Error) -> String {
    let path = path.display();
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("is missing: there is no file {path}; add the key to the Secret"),
        _ => format!("cannot be read: {path}: {error}"),
    }
}

/// Secrets are put right elsewhere, so the task tries again by itself.
fn unusable(key: &SecretKey, what: &str) -> Stop {
    Stop::new(Reason::KafkaUnauthorized, format!("{} {what}", place(key)))
}

fn no_directory(key: &SecretKey) -> Stop {
    Stop::new(
        Reason::SpecInvalid,
        format!(
            "{} is needed: give --secrets-dir (or STREAMAGG_SECRETS_DIR), a directory with the file {}/{}",
            place(key),
            key.secret,
            key.key
        ),
    )
}

#[cfg(test)]
mod tests;
