//! Topics as ends of a pipeline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use salver_kafka::{
    Aside, Bound, Connection, ConnectionSettings, Isolation, KafkaRestore, KafkaSink, KafkaSource, KafkaTail,
    Keeps, NewTopic, Protocol, Registry, Replay, SinkSettings, SourceSettings, Start, Topics,
    TransactionSettings,
};
use salver_lifecycle::{Clock, SystemClock};
use salver_mapping::Schemas;
use salver_records::{Error, Record, Severity, Sink};
use salver_steps::Table;
use salver_stream::Delivery;
use tracing::{error, info, warn};

use super::{CalledOff, Follow, Opened, Whole};
use crate::announce::Changes;
use crate::stream::bounds;
use crate::stream::config::{self, Config};
use crate::stream::file;
use crate::stream::place::{Place, Topic};
use crate::stream::tables::Last;
use crate::stream::windows::Kept;

/// How long a transaction may be open, in milliseconds. One that a killed process leaves behind holds up readers for so long,
/// unless its successor has the same id; a broker may be away for as long without one being lost.
const TRANSACTION_MS: u32 = 20_000;

/// How much longer than it may take a transaction may be open: brokers look for those whose time is over every ten seconds.
const TRANSACTION_MARGIN: Duration = Duration::from_secs(30);

/// How long brokers are asked again that are away for a moment, and after what time each time.
const PATIENCE: Duration = Duration::from_secs(60);
const TRY_AFTER: Duration = Duration::from_millis(500);

/// How long to wait before a table is followed anew that could not be followed any more.
const FOLLOW_AFTER: Duration = Duration::from_secs(5);

/// How long a table's topic is waited for at a time, and how much is taken in at once.
const TAIL_WAIT: Duration = Duration::from_millis(500);
const TAIL_BYTES: usize = 4 << 20;

/// How the brokers of a topic are reached.
///
/// # Errors
/// Settings that cannot be.
pub(in crate::stream) fn connection(config: &Config, topic: &Topic) -> anyhow::Result<Connection> {
    let settings = ConnectionSettings { brokers: topic.brokers.clone(), ..config.kafka.connection.clone() };
    Connection::new(&settings, &crate::config::variable).context("[kafka.connection]")
}

/// Opens a topic as a member of its group, which is joined by the first poll, or a part of it.
///
/// # Errors
/// Settings that cannot be, topics that are not there, brokers that cannot be reached.
pub(super) fn open(config: &Config, topic: &Topic, is_called_off: &CalledOff<'_>) -> anyhow::Result<Opened> {
    let connection = self::connection(config, topic)?;
    let (source, whole) = match &config.replay {
        Some(replay) => {
            let settings = replay_settings(config, topic, replay);
            let source = patiently(is_called_off, || KafkaSource::replay(&connection, &settings))?;
            let whole = source.n_offsets().map_or(Whole::Unknown, Whole::Records);
            (source, whole)
        }
        None => {
            let settings = source_settings(config, topic);
            if let Some(text) = unheeded(&config.shown, settings.protocol) {
                warn!("{text}");
            }
            (patiently(is_called_off, || KafkaSource::join(&connection, &settings))?, Whole::Unknown)
        }
    };
    Ok(Opened { source: Box::new(source), columns: config.source.columns.clone(), whole, progress: None })
}

/// The same to look at the first records: no group is joined, and nothing is remembered.
///
/// # Errors
/// As [`open`].
pub(super) fn look(config: &Config, topic: &Topic, is_called_off: &CalledOff<'_>) -> anyhow::Result<Opened> {
    let part = config.replay.clone().unwrap_or(config::Replay {
        from: bounds::Bound::Earliest,
        until: bounds::Bound::End,
        partitions: None,
    });
    let settings = Replay { group: None, ..replay_settings(config, topic, &part) };
    let connection = connection(config, topic)?;
    let source = patiently(is_called_off, || KafkaSource::replay(&connection, &settings))?;
    let columns = config.source.columns.clone();
    Ok(Opened { source: Box::new(source), columns, whole: Whole::Unknown, progress: None })
}

/// What was said that brokers may not listen to, as they may have the newer protocol of groups.
fn unheeded(said: &toml::Table, protocol: Protocol) -> Option<String> {
    if protocol == Protocol::Classic {
        return None;
    }
    let keys: Vec<_> = config::classic_keys(said).map(|key| format!("kafka.source.{key}")).collect();
    (!keys.is_empty()).then(|| {
        format!(
            "{}: said for the classic protocol of groups, which brokers from 4.0 on do not use unless kafka.source.protocol is \
             'classic'; it is their group.consumer.session.timeout.ms (45 s unless set) and group.consumer.assignors that hold \
             there",
            keys.join(" and ")
        )
    })
}

fn source_settings(config: &Config, topic: &Topic) -> SourceSettings {
    SourceSettings {
        topics: vec![topic.name.clone()],
        group: config.group.clone(),
        instance: config.source.instance.clone(),
        start: match config.start {
            file::Start::Earliest => Start::Earliest,
            file::Start::Latest => Start::Latest,
        },
        ..config.kafka.source.clone()
    }
}

fn replay_settings(config: &Config, topic: &Topic, replay: &config::Replay) -> Replay {
    let source = &config.kafka.source;
    let (from, from_each) = bound(&replay.from);
    let (to, to_each) = bound(&replay.until);
    // Whoever names offsets of partitions means these partitions.
    let named = from_each.keys().chain(to_each.keys()).copied().collect::<BTreeSet<_>>();
    let named = (!named.is_empty()).then(|| named.into_iter().collect());
    Replay {
        topic: topic.name.clone(),
        partitions: replay.partitions.clone().or(named),
        from,
        to,
        from_each,
        to_each,
        group: Some(config.group.clone()),
        isolation: source.isolation,
        read_ahead_bytes: source.read_ahead_bytes,
        properties: source.properties.clone(),
    }
}

/// A bound for all partitions, and others for some.
fn bound(bound: &bounds::Bound) -> (Bound, BTreeMap<i32, i64>) {
    match bound {
        bounds::Bound::Earliest => (Bound::Beginning, BTreeMap::new()),
        bounds::Bound::End => (Bound::Now, BTreeMap::new()),
        bounds::Bound::Offset(offset) => (Bound::Offset(*offset), BTreeMap::new()),
        bounds::Bound::Time(millis) => (Bound::TimeMs(*millis), BTreeMap::new()),
        bounds::Bound::Offsets(each) => (Bound::Offset(0), each.clone()),
    }
}

/// Opens the topics of answers, dead letters and state.
///
/// # Errors
/// As [`KafkaSink::open`].
pub(super) fn open_sink(
    config: &Config,
    topic: &Topic,
    is_called_off: &CalledOff<'_>,
) -> anyhow::Result<Box<dyn Sink>> {
    let is_once = config.pipeline.delivery == Delivery::ExactlyOnce;
    if is_once && config.kafka.source.isolation != Isolation::ReadCommitted {
        bail!(
            "kafka.source.isolation = 'read_uncommitted' with delivery.mode = 'exactly_once': records whose transaction is thrown \
             away would be answered; expected read_committed, or at_least_once"
        );
    }
    let transactions = is_once.then(|| {
        let said = transactions(config);
        TransactionSettings { id: said.id.clone().or_else(|| transactional_id(config)), ..said }
    });
    let dead = config.dead.as_ref().and_then(Place::topic).map(|topic| topic.name.clone());
    let settings = SinkSettings {
        topic: Some(topic.name.clone()),
        dead_letters: dead,
        changelog: config.window.as_ref().and_then(|window| changelog(config, window)),
        transactions,
        ..config.kafka.sink.clone()
    };
    let connection = connection(config, topic)?;
    Ok(Box::new(patiently(is_called_off, || KafkaSink::open(&connection, &settings))?))
}

/// What was said of transactions, or what is chosen.
fn transactions(config: &Config) -> TransactionSettings {
    let chosen = TransactionSettings { timeout_ms: TRANSACTION_MS, ..TransactionSettings::default() };
    config.kafka.sink.transactions.clone().unwrap_or(chosen)
}

/// The id under which this process alone writes, so that a new start ends what a killed one left open. A group's members without
/// a name of their own have none: each makes one up.
fn transactional_id(config: &Config) -> Option<String> {
    let instance = config.source.instance.as_ref().map(|instance| format!("{}-{instance}", config.group));
    let replay = config.replay.as_ref().map(|_| config.group.clone());
    config.transactional_id.clone().or(instance).or(replay)
}

/// Does something that asks brokers, again and again while they are away for a moment: as they are while they start, or while
/// the group's coordinator moves. Ends with the last error when it is called off.
fn patiently<T>(
    is_called_off: &CalledOff<'_>,
    mut what: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let pause = Changes::default();
    let deadline = SystemClock.now() + PATIENCE;
    loop {
        match what() {
            Err(error)
                if error.severity == Severity::Passing
                    && SystemClock.now() < deadline
                    && !is_called_off() =>
            {
                warn!("{error}; trying again");
                pause.wait(TRY_AFTER);
            }
            done => return done,
        }
    }
}

/// The name of the topic that windows are kept in, if they are.
fn changelog(config: &Config, window: &file::Window) -> Option<String> {
    match window.changelog.as_deref() {
        Some("none") => None,
        // The group of a replay is not that of the stream, and no more are its windows.
        Some(name) if config.replay.is_some() => Some(format!("{name}-{}", config.group)),
        Some(name) => Some(name.to_owned()),
        None => Some(format!("{}-windows", config.group)),
    }
}

/// Windows that are kept in a topic beside that of the answers. The topic is made if it is not there, with as many
/// partitions as the stream has: a partition's windows are those of its records.
///
/// # Errors
/// When the topic cannot be had, has another number of partitions, or the store cannot be opened.
pub(super) fn windows(config: &Config, window: &file::Window, to: &Topic) -> anyhow::Result<Kept> {
    let Some(name) = changelog(config, window) else {
        warn!("windows are kept nowhere: they begin anew with every restart and every rebalance");
        return Kept::open(window, &config.group, None);
    };
    let connection = self::connection(config, to)?;
    if let Some(from) = config.from.topic() {
        let topics = Topics::new(&self::connection(config, from)?)?;
        let n = topics.require(&from.name, "input")?;
        let new = NewTopic { name: name.clone(), partitions: n, replicas: None, keeps: Keeps::LastOfKey };
        let there = Topics::new(&connection)?.create(&new)?;
        if there != n {
            bail!("the changelog {name} has {there} partitions, expected {n}, as {} has", from.name);
        }
    }
    // What a killed scorer wrote last may be committed yet.
    let transaction = Duration::from_millis(u64::from(transactions(config).timeout_ms.max(TRANSACTION_MS)));
    let restore = KafkaRestore::open(&connection, &name, &config.group, &config.kafka.source.properties)?
        .waiting(transaction + TRANSACTION_MARGIN)?;
    Kept::open(window, &name, Some(Box::new(restore)))
}

/// Opens the topic of the shadow's answers.
///
/// # Errors
/// As [`KafkaSink::open`].
pub(super) fn open_shadow(
    config: &Config,
    topic: &Topic,
    is_called_off: &CalledOff<'_>,
) -> anyhow::Result<Box<dyn Sink>> {
    let settings = SinkSettings {
        topic: Some(topic.name.clone()),
        dead_letters: None,
        changelog: None,
        transactions: None,
        ..config.kafka.sink.clone()
    };
    let connection = connection(config, topic)?;
    Ok(Box::new(patiently(is_called_off, || KafkaSink::open(&connection, &settings))?))
}

/// Fills a table from a topic, and gives what follows it.
///
/// # Errors
/// When the topic is not there, the table cannot hold it, or it is called off.
pub(in crate::stream) fn fill(
    config: &Config,
    topic: &Topic,
    table: &mut Table,
    is_called_off: &CalledOff<'_>,
) -> anyhow::Result<Follow> {
    let connection = connection(config, topic)?;
    let mut restore =
        KafkaRestore::open(&connection, &topic.name, &config.group, &config.kafka.source.properties)?;
    let (_, ends) = patiently(is_called_off, || Ok(table.fill(&mut restore, &|| !is_called_off())?))?;
    let from: Vec<_> = (0..).zip(ends).collect();
    let tail = restore.follow(&from)?;
    let name = topic.name.clone();
    Ok(Box::new(move |last| {
        let follower = Follower { name, last, from: from.into_iter().collect(), told: String::new() };
        let body = move || follower.run(&restore, tail);
        std::thread::Builder::new().name("table".into()).spawn(body)?;
        Ok(())
    }))
}

/// Takes into a table what comes of its topic.
struct Follower {
    name: String,
    last: Arc<Last>,
    /// Where each partition is read on.
    from: BTreeMap<i32, i64>,
    /// The last trouble that was told of and passes.
    told: String,
}

/// What is left to do after a poll.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    Poll,
    /// The topic cannot be read like that any more.
    Follow,
    /// The table takes nothing more.
    End,
}

impl Follower {
    /// Follows until the table takes nothing more. While the topic cannot be read, nothing is found in the table. Blocks.
    fn run(mut self, restore: &KafkaRestore, mut tail: KafkaTail) {
        let (pause, mut records) = (Changes::default(), Vec::new());
        loop {
            let polled = tail.poll(TAIL_WAIT, TAIL_BYTES, &mut records);
            match self.heard(polled, &mut records) {
                Then::Poll => {}
                Then::Follow => {
                    pause.wait(FOLLOW_AFTER);
                    let from: Vec<_> = self.from.iter().map(|(number, next)| (*number, *next)).collect();
                    match restore.follow(&from) {
                        Ok(anew) => tail = anew,
                        Err(error) => warn!("the table of {} is not followed yet: {error}", self.name),
                    }
                }
                Then::End => return,
            }
        }
    }

    fn heard(&mut self, polled: Result<bool, Error>, records: &mut Vec<Record>) -> Then {
        let polled = match polled {
            Ok(is_heard) => {
                self.told.clear();
                if is_heard && self.last.set_trouble(None) {
                    info!("the table of {} is followed again", self.name);
                }
                Then::Poll
            }
            Err(error) if error.severity == Severity::Passing => {
                if self.told != error.message {
                    warn!("the table of {} may be behind: {error}", self.name);
                    self.told = error.message;
                }
                Then::Poll
            }
            Err(error) => {
                self.fail(&error);
                Then::Follow
            }
        };
        for record in records.drain(..) {
            let (number, next) = (i32::try_from(record.slot.0).unwrap_or(i32::MAX), record.offset + 1);
            if let Err(error) = self.last.apply(record) {
                self.fail(&error.into());
                return Then::End;
            }
            self.from.insert(number, next);
        }
        polled
    }

    fn fail(&self, error: &Error) {
        let trouble = format!("the table of {} is not followed any more: {error}", self.name);
        if self.last.set_trouble(Some(trouble.clone())) {
            error!("{trouble}");
        }
    }
}

/// The schema registry, if there is one.
///
/// # Errors
/// Settings that cannot be.
pub(super) fn schemas(config: &Config) -> anyhow::Result<Option<Arc<dyn Schemas>>> {
    Ok(registry(config)?.map(|registry| Arc::new(registry) as Arc<dyn Schemas>))
}

/// The same for a thread that must not wait.
///
/// # Errors
/// Settings that cannot be.
pub(super) fn schemas_aside(config: &Config) -> anyhow::Result<Option<Arc<dyn Schemas>>> {
    let Some(registry) = registry(config)? else { return Ok(None) };
    Ok(Some(Arc::new(Aside::start(registry)?)))
}

fn registry(config: &Config) -> anyhow::Result<Option<Registry>> {
    let open = |settings| Registry::new(settings, &crate::config::variable);
    let registry = config.registry.as_ref().map(open);
    registry.transpose().context("[registry]")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use salver_records::Slot;
    use salver_steps::TableSettings;

    use super::*;

    fn record(offset: i64, key: &'static str) -> Record {
        let key = Some(Bytes::from_static(key.as_bytes()));
        Record { slot: Slot(2), offset, value: key.clone(), key, headers: Vec::new(), timestamp_ms: None }
    }

    #[test]
    fn what_brokers_may_not_listen_to_is_told() {
        let said = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
        let both = said("[kafka.source]\nsession_timeout_ms = 6000\nassignment = 'range'");
        let text = unheeded(&both, Protocol::Auto).unwrap();
        let expected =
            "kafka.source.session_timeout_ms and kafka.source.assignment: said for the classic protocol";
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(unheeded(&both, Protocol::Classic), None);
        assert_eq!(unheeded(&said("[kafka.source]\nmax_poll_interval_ms = 9"), Protocol::Auto), None);
        assert_eq!(unheeded(&said(""), Protocol::Auto), None);
    }

    #[test]
    fn what_is_called_off_is_not_tried_again() {
        let check = |is_called_off: bool, n_failures: u32, n_expected: u32| {
            let mut n_tries = 0;
            let tried = patiently(&|| is_called_off, || {
                n_tries += 1;
                let away = Error::new(Severity::Passing, "away");
                if n_tries <= n_failures { Err(away) } else { Ok(()) }
            });
            assert_eq!((tried.is_ok(), n_tries), (n_tries > n_failures, n_expected));
        };
        check(false, 1, 2);
        check(true, 0, 1);
        check(true, 1, 1);
    }

    #[test]
    fn a_table_that_is_not_followed_is_followed_anew_or_finds_nothing_more() {
        let settings = TableSettings { max_keys: 2, ..TableSettings::of("t") };
        let last = Arc::new(Last::new(Table::open(&settings).unwrap()));
        let from = BTreeMap::from([(2, 5)]);
        let mut follower = Follower { name: "t".into(), last: Arc::clone(&last), from, told: String::new() };
        let mut heard = |polled: Result<bool, Error>, records: &[Record]| {
            let then = follower.heard(polled, &mut records.to_vec());
            (then, follower.from[&2])
        };
        let has = |key: &str| last.find(key.as_bytes()).map(|found| found.is_some());
        assert_eq!(heard(Ok(true), &[record(7, "a")]), (Then::Poll, 8));
        let passing = Error::new(Severity::Passing, "away");
        assert_eq!(heard(Err(passing), &[]), (Then::Poll, 8));
        assert_eq!(has("a"), Ok(true));
        // What cannot be read any more is of the past until something is heard of it.
        assert_eq!(heard(Err(Error::fatal("not allowed")), &[record(8, "b")]), (Then::Follow, 9));
        assert!(has("a").is_err_and(|error| error.contains("not allowed")));
        assert_eq!(heard(Ok(false), &[]), (Then::Poll, 9));
        assert!(has("a").is_err());
        assert_eq!(heard(Ok(true), &[]), (Then::Poll, 9));
        assert_eq!((has("a"), has("b")), (Ok(true), Ok(true)));
        // A table that is full stays so.
        assert_eq!(heard(Ok(true), &[record(9, "c")]), (Then::End, 9));
        assert!(has("a").is_err());
    }
}
