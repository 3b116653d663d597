//! Settings of a librdkafka client, with the words about who it is. Pure; shown without what is secret.
//! Must not hold: which settings a client has.

use std::collections::BTreeMap;
use std::fmt;

use super::access::Access;

/// Settings whose values are never shown. A user's name comes from a Secret, too.
const SECRET: [&str; 2] = ["sasl.password", "sasl.username"];

/// Settings of a client, by librdkafka's names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<String, String>,
    access: Access,
}

impl Settings {
    /// None yet, for a client that is `access`.
    pub fn new(access: Access) -> Self {
        Self {
            values: BTreeMap::new(),
            access,
        }
    }

    /// Sets one; an earlier value is replaced.
    pub fn set(&mut self, name: &str, value: &str) {
        self.values.insert(name.to_owned(), value.to_owned());
    }

    /// The value of one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Where a client finds its brokers, as one list.
    pub fn servers(&self) -> &str {
        self.get("bootstrap.servers").unwrap_or_default()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Who the client is.
    pub fn access(&self) -> &Access {
        &self.access
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |name: &str, value: &str| -> String {
            if SECRET.contains(&name) {
                "(secret)".to_owned()
            } else {
                value.to_owned()
            }
        };
        out.debug_map()
            .entries(self.iter().map(|(name, value)| (name.to_owned(), shown(name, value))))
            .finish()
    }
}
