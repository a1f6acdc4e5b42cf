//! Checked settings of a connection, from which clients are made.

use std::path::Path;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use salver_records::Error;

use crate::settings::{ConnectionSettings, Mechanism, Role, Secret, add};

/// How brokers are reached: checked, with its password.
#[derive(Debug, Clone)]
pub struct Connection {
    config: ClientConfig,
    brokers: String,
    timeout: Duration,
}

/// Whether TLS is part of this build.
const HAS_TLS: bool = cfg!(feature = "tls");

impl Connection {
    /// Checks settings; `env` is how variables of the environment are read. Asks no broker.
    ///
    /// # Errors
    /// Settings that cannot be, and a password that cannot be read.
    pub fn new(
        settings: &ConnectionSettings,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Connection, Error> {
        if settings.brokers.trim().is_empty() {
            return Err(Error::fatal("no brokers are named: set brokers to host:port,host:port"));
        }
        if settings.timeout_ms < 1_000 {
            return Err(Error::fatal(format!(
                "timeout_ms is {}, expected 1000 at least",
                settings.timeout_ms
            )));
        }
        let mut config = ClientConfig::new();
        add(&mut config, &settings.properties)?;
        config
            .set("bootstrap.servers", &settings.brokers)
            .set("client.id", &settings.client_id)
            .set("security.protocol", settings.security.name())
            .set("enable.metrics.push", "false")
            .set_log_level(RDKafkaLogLevel::Info);
        for (name, value) in [
            ("socket.keepalive.enable", "true"),
            ("reconnect.backoff.max.ms", "2000"),
            ("log.connection.close", "false"),
        ] {
            if !settings.properties.contains_key(name) {
                config.set(name, value);
            }
        }
        add_tls(&mut config, settings)?;
        add_user(&mut config, settings, env)?;
        Ok(Connection {
            config,
            brokers: settings.brokers.clone(),
            timeout: Duration::from_millis(u64::from(settings.timeout_ms)),
        })
    }

    /// The brokers that were named.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// How long one call may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What a client of that kind begins with.
    pub(crate) fn config(&self, role: Role) -> ClientConfig {
        let mut config = self.config.clone();
        if role != Role::Producer {
            config.set("allow.auto.create.topics", "false");
        }
        config
    }
}

fn add_tls(config: &mut ClientConfig, settings: &ConnectionSettings) -> Result<(), Error> {
    if settings.security.is_encrypted() && !HAS_TLS {
        return Err(Error::fatal(format!(
            "security is {:?}, and this build has no TLS to brokers: it was made without the feature \"tls\"",
            settings.security.name()
        )));
    }
    let files = [
        ("ca_file", "ssl.ca.location", &settings.ca_file),
        ("certificate_file", "ssl.certificate.location", &settings.certificate_file),
        ("key_file", "ssl.key.location", &settings.key_file),
    ];
    for (key, property, file) in files {
        let Some(file) = file else { continue };
        if !settings.security.is_encrypted() {
            let name = settings.security.name();
            return Err(Error::fatal(format!(
                "{key} is set, and security is {name:?}: nothing is encrypted"
            )));
        }
        let path =
            file.to_str().ok_or_else(|| Error::fatal(format!("{key} is not UTF-8: {}", file.display())))?;
        config.set(property, path);
    }
    Ok(())
}

fn add_user(
    config: &mut ClientConfig,
    settings: &ConnectionSettings,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(), Error> {
    let name = settings.security.name();
    let password = password(settings, env)?;
    if !settings.security.names_the_client() {
        if settings.user.is_some() || password.is_some() || settings.mechanism.is_some() {
            return Err(Error::fatal(format!(
                "a user is set, and security is {name:?}: set it to \"sasl_ssl\" or \"sasl_plaintext\""
            )));
        }
        return Ok(());
    }
    let mechanism = settings.mechanism.ok_or_else(|| {
        Error::fatal(format!("security is {name:?}: set mechanism to PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"))
    })?;
    if mechanism != Mechanism::Plain && !HAS_TLS {
        return Err(Error::fatal(format!(
            "mechanism is {}, and this build has none but PLAIN: it was made without the feature \"tls\"",
            mechanism.name()
        )));
    }
    let (Some(user), Some(password)) = (&settings.user, password) else {
        return Err(Error::fatal(format!(
            "security is {name:?}: set user, and password_env or password_file"
        )));
    };
    config.set("sasl.mechanism", mechanism.name()).set("sasl.username", user).set("sasl.password", password);
    Ok(())
}

fn password(
    settings: &ConnectionSettings,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, Error> {
    let ConnectionSettings { password, password_env, password_file, .. } = settings;
    secret("password", password.as_ref(), password_env.as_deref(), password_file.as_deref(), env)
        .map_err(Error::fatal)
}

/// A secret from where it is said: by itself under that key, by the name of a variable (`KEY_env`) or in a file (`KEY_file`).
pub(crate) fn secret(
    key: &str,
    said: Option<&Secret>,
    variable: Option<&str>,
    file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, String> {
    match (said, variable, file) {
        (None, None, None) => Ok(None),
        (Some(secret), None, None) => Ok(Some(secret.0.clone())),
        (None, Some(name), None) => match env(name) {
            Some(secret) => Ok(Some(secret)),
            None => Err(format!("{key}_env names {name}, which is not set")),
        },
        (None, None, Some(file)) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| format!("cannot read {key}_file {}: {error}", file.display()))?;
            Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
        }
        _ => Err(format!("only one of {key}, {key}_env and {key}_file can be set")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Connection, Error> {
        let settings: ConnectionSettings = toml::from_str(text).expect("the keys are right");
        Connection::new(&settings, &|name| (name == "THERE").then(|| "pass".to_owned()))
    }

    #[test]
    fn a_password_comes_from_where_it_is_said() {
        let text = "brokers = 'a:1'\nsecurity = 'sasl_plaintext'\nmechanism = 'PLAIN'\nuser = 'u'\n";
        let connection = read(&format!("{text}password_env = 'THERE'")).expect("it is right");
        assert_eq!(connection.config(Role::Any).get("sasl.password"), Some("pass"));
        assert!(!format!("{connection:?}").contains("pass\""), "{connection:?}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let check = |text: &str, part: &str| {
            let error = read(text).expect_err(part);
            assert!(error.message.contains(part), "{text}: {error}");
        };
        let sasl = "brokers = 'a:1'\nsecurity = 'sasl_plaintext'\n";
        check("", "no brokers");
        check("brokers = 'a:1'\ntimeout_ms = 10", "1000 at least");
        check("brokers = 'a:1'\nuser = 'u'", "sasl_ssl");
        check("brokers = 'a:1'\nca_file = '/x'", "nothing is encrypted");
        check(sasl, "set mechanism");
        check(&format!("{sasl}mechanism = 'PLAIN'\nuser = 'u'"), "password_env or password_file");
        check(&format!("{sasl}mechanism = 'PLAIN'\nuser = 'u'\npassword_env = 'AWAY'"), "AWAY");
        check(&format!("{sasl}mechanism = 'PLAIN'\nuser = 'u'\npassword_file = '/no/such'"), "/no/such");
        check("brokers = 'a:1'\npassword = 'x'\npassword_env = 'THERE'", "only one of");
        check("brokers = 'a:1'\nproperties = { 'acks' = 1 }", "acks");
    }
}
