//! Addresses of topics: `kafka://HOST[:PORT][,HOST[:PORT]]/TOPIC`.

use std::fmt;
use std::str::FromStr;

use salver_records::Error;

/// Where a topic is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Brokers to ask first, with commas between: `host:port`.
    pub brokers: String,
    /// The topic.
    pub topic: String,
}

/// The port of a broker that none is said for.
const PORT: u16 = 9092;
/// As the broker bounds it.
const MAX_TOPIC: usize = 249;

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Address, Error> {
        let wrong = |why: &str| {
            Error::fatal(format!("{text:?} is not kafka://HOST[:PORT][,HOST[:PORT]]/TOPIC: {why}"))
        };
        let rest = text.strip_prefix("kafka://").ok_or_else(|| wrong("it begins otherwise"))?;
        let (brokers, topic) = rest.split_once('/').ok_or_else(|| wrong("the topic is missing"))?;
        let brokers = brokers.split(',').map(|one| broker(one.trim()).map_err(|why| wrong(&why)));
        let brokers = brokers.collect::<Result<Vec<_>, _>>()?.join(",");
        check_topic(topic).map_err(|why| wrong(&why))?;
        Ok(Address { brokers, topic: topic.to_owned() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kafka://{}/{}", self.brokers, self.topic)
    }
}

fn broker(text: &str) -> Result<String, String> {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an address of IPv6 stand in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, ""),
    };
    let n_port = if port.is_empty() && !text.ends_with(':') { PORT } else { port.parse().unwrap_or(0) };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_host = match bracketed {
        Some(inner) => {
            !inner.is_empty() && inner.chars().all(|c| c.is_ascii_hexdigit() || c == ':' || c == '.')
        }
        None => !host.is_empty() && host.chars().all(plain),
    };
    if !is_host {
        return Err(format!("{host:?} is not the name of a host"));
    }
    if n_port == 0 {
        return Err(format!("{port:?} is not a port"));
    }
    Ok(format!("{host}:{n_port}"))
}

/// Whether a broker takes that as the name of a topic; if not, why.
pub(crate) fn check_topic(topic: &str) -> Result<(), String> {
    if topic.is_empty() {
        return Err("the topic is missing".to_owned());
    }
    let is_plain = topic.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if !is_plain || topic.len() > MAX_TOPIC || topic == "." || topic == ".." {
        return Err(format!(
            "{topic:?} cannot name a topic: at most {MAX_TOPIC} of the letters a-z, A-Z, 0-9, '.', '-' and '_'"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let check =
            |text: &str, expected: Result<(&str, &str), &str>| match (text.parse::<Address>(), expected) {
                (Ok(address), Ok((brokers, topic))) => {
                    assert_eq!(
                        (address.brokers.as_str(), address.topic.as_str()),
                        (brokers, topic),
                        "{text}"
                    );
                }
                (Err(error), Err(part)) => assert!(error.message.contains(part), "{text}: {error}"),
                (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
            };
        check("kafka://a:1/t", Ok(("a:1", "t")));
        check("kafka://a/t", Ok(("a:9092", "t")));
        check("kafka://a:1, b.c-d:65535/x.y_z-1", Ok(("a:1,b.c-d:65535", "x.y_z-1")));
        check("kafka://[::1]:9093/t", Ok(("[::1]:9093", "t")));
        check("kafka://[::1]/t", Ok(("[::1]:9092", "t")));
        check("file.csv", Err("begins otherwise"));
        check("kafka://a:1", Err("topic is missing"));
        check("kafka://a:1/", Err("topic is missing"));
        check("kafka:///t", Err("not the name of a host"));
        check("kafka://a:0/t", Err("not a port"));
        check("kafka://a:/t", Err("not a port"));
        check("kafka://a:70000/t", Err("not a port"));
        check("kafka://a:1/t/u", Err("cannot name a topic"));
        check("kafka://a:1/t?x=1", Err("cannot name a topic"));
        check("kafka://a:1/..", Err("cannot name a topic"));
        check("kafka://user@a:1/t", Err("not the name of a host"));
    }
}
