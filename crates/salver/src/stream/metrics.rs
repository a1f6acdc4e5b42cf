//! What a pipeline says of itself, put into metrics at each scrape.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use salver_predict::ModelId;
use salver_remote::{Address, Peer, PeerState, PeerStatus, Remote};
use salver_stream::{PartitionStatus, RefusedCounts, Status, Times};

/// Buckets of times in a pipeline that are one bucket here: each of these is twice as wide as the one before.
const PER_BUCKET: usize = 4;

/// Where a status comes from.
pub(super) trait Watched: Debug + Send + Sync + 'static {
    /// How things are now. Quick.
    fn status(&self) -> Status;
}

/// Reads every number when it is asked.
#[derive(Debug)]
pub(super) struct StreamMetrics {
    watched: Arc<dyn Watched>,
}

impl StreamMetrics {
    pub(super) fn new(watched: Arc<dyn Watched>) -> StreamMetrics {
        StreamMetrics { watched }
    }
}

impl Collector for StreamMetrics {
    /// None: the names are used by nothing else.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        families(&self.watched.status())
    }
}

/// Reads what is known of servers that are asked.
#[derive(Debug)]
pub(super) struct PeerMetrics {
    remote: Arc<Remote>,
}

impl PeerMetrics {
    pub(super) fn new(remote: Arc<Remote>) -> PeerMetrics {
        PeerMetrics { remote }
    }
}

impl Collector for PeerMetrics {
    /// None: the names are used by nothing else.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = self.remote.status();
        let mut all =
            peers(&[("primary", status)].into_iter().chain(self.remote.apart()).collect::<Vec<_>>());
        all.retain(|family| !family.get_metric().is_empty());
        all
    }
}

/// What each server is called: its address, and where several names lead to one address the name too, or there would be
/// several metrics of the same labels.
fn names(peers: &[PeerStatus]) -> Vec<String> {
    let mut n_names: HashMap<&Address, usize> = HashMap::new();
    for one in peers {
        *n_names.entry(&one.peer.address).or_default() += 1;
    }
    let name = |one: &PeerStatus| {
        let Peer { address, authority, .. } = &one.peer;
        if n_names.get(address) > Some(&1) { format!("{address} ({authority})") } else { address.to_string() }
    };
    peers.iter().map(name).collect()
}

/// Metrics of one server, with the labels that say which one it is and who asks.
type OfPeer = dyn Fn([(&str, &str); 2], &PeerStatus) -> Vec<Metric>;

/// All that is known of servers, by those who ask them.
fn peers(all: &[(&str, salver_remote::Status)]) -> Vec<MetricFamily> {
    let each = |name: &str, help: &str, kind: MetricType, of: &OfPeer| {
        let of_role = |(role, status): &(&str, salver_remote::Status)| {
            let named = names(&status.peers).into_iter().zip(&status.peers);
            named.flat_map(|(peer, one)| of([("peer", &peer), ("role", role)], one)).collect::<Vec<_>>()
        };
        family(name, help, kind, all.iter().flat_map(of_role).collect())
    };
    let denied =
        |(role, status): &(&str, salver_remote::Status)| counter(&[("role", role)], status.retries_denied);
    vec![
        each(
            "salver_remote_peer_state",
            "1 for the state that a server is in: used, held (it asked for a pause), ejected (its calls failed), unreachable, or \
             trial (one call decides whether it comes back).",
            MetricType::GAUGE,
            &|[peer, role], one| vec![gauge(&[peer, role, ("state", state(one.state))], 1.0)],
        ),
        each(
            "salver_remote_peer_seconds",
            "Latency of a server as the balance sees it: it follows peaks at once and comes down slowly.",
            MetricType::GAUGE,
            &|labels, one| one.estimate.iter().map(|time| gauge(&labels, time.as_secs_f64())).collect(),
        ),
        each(
            "salver_remote_calls_under_way",
            "Calls that wait for a server's answer.",
            MetricType::GAUGE,
            &|labels, one| vec![gauge(&labels, one.under_way as f64)],
        ),
        each(
            "salver_remote_calls_total",
            "Calls sent to a server (sent), those of them that failed by its fault (failed), and those sent because another one \
             had failed (retries).",
            MetricType::COUNTER,
            &|[peer, role], one| {
                let counts = &one.counts;
                let all =
                    [("sent", counts.requests), ("failed", counts.failures), ("retries", counts.retries)];
                all.map(|(outcome, n)| counter(&[peer, role, ("outcome", outcome)], n)).into()
            },
        ),
        each(
            "salver_remote_ejections_total",
            "Times that a server went out.",
            MetricType::COUNTER,
            &|labels, one| vec![counter(&labels, one.counts.ejections)],
        ),
        family(
            "salver_remote_retries_denied_total",
            "Retries that were not made because there had been too many.",
            MetricType::COUNTER,
            all.iter().map(denied).collect(),
        ),
    ]
}

fn state(state: PeerState) -> &'static str {
    match state {
        PeerState::Used => "used",
        PeerState::Held => "held",
        PeerState::Ejected => "ejected",
        PeerState::Unreachable => "unreachable",
        PeerState::Trial => "trial",
    }
}

/// All that a status says.
fn families(status: &Status) -> Vec<MetricFamily> {
    let mut all = counters(status);
    all.extend(gauges(status));
    all.extend(each_of(&status.partitions));
    all.push(refused(status));
    all.push(models(status));
    all.push(stages(status));
    all.retain(|family| !family.get_metric().is_empty());
    all
}

fn counters(status: &Status) -> Vec<MetricFamily> {
    let counts = &status.counts;
    let one = |name: &str, help: &str, n: u64| family(name, help, MetricType::COUNTER, vec![counter(&[], n)]);
    let by = |name: &str, help: &str, label: &str, values: &[(&str, u64)]| {
        let metrics = values.iter().map(|(value, n)| counter(&[(label, value)], *n)).collect();
        family(name, help, MetricType::COUNTER, metrics)
    };
    vec![
        one("salver_stream_records_read_total", "Records that were read.", counts.records_in),
        one("salver_stream_bytes_read_total", "Bytes of records that were read.", counts.bytes_in),
        one("salver_stream_answers_total", "Answers that were written and last.", counts.records_out),
        one("salver_stream_bytes_written_total", "Bytes of answers.", counts.bytes_out),
        one(
            "salver_stream_records_done_total",
            "Records that are done with, whatever became of them.",
            counts.records_done,
        ),
        by(
            "salver_stream_records_left_out_total",
            "Records without an answer that are no errors: a filter left them out (filtered), or their window has not enough \
             rows yet (gathering).",
            "why",
            &[("filtered", counts.filtered), ("gathering", counts.gathering)],
        ),
        by(
            "salver_stream_oversize_outputs_total",
            "Dead letters and changes of windows that were too large for where they go: written without their value (emptied), \
             or not at all (left_out).",
            "how",
            &[("emptied", counts.emptied), ("left_out", counts.left_out)],
        ),
        one("salver_stream_scored_total", "Records that the model answered.", counts.records_scored),
        one("salver_stream_rows_total", "Rows that the model answered.", counts.rows),
        one(
            "salver_stream_calls_total",
            "Calls of the model; rows by calls are the fill of batches.",
            counts.calls,
        ),
        one("salver_stream_retries_total", "Records that were tried again.", counts.retries),
        one("salver_stream_canary_total", "Records that the canary answered.", counts.canary),
        one(
            "salver_stream_canary_away_total",
            "Records of the canary's share that the primary model answered, as the canary was gone.",
            counts.canary_away,
        ),
        by(
            "salver_stream_shadow_total",
            "Records of the shadow: answered (scored), left out because too many waited or the end came first (dropped), or \
             failed.",
            "outcome",
            &[
                ("scored", counts.shadow_scored),
                ("dropped", counts.shadow_dropped),
                ("failed", counts.shadow_failed),
            ],
        ),
        one("salver_stream_commits_total", "Commits: transactions, or positions.", counts.commits),
        one(
            "salver_stream_rollbacks_total",
            "Times that what was under way was thrown away and begun again.",
            counts.rollbacks,
        ),
        one("salver_stream_rebalances_total", "Times that the assignment changed.", counts.rebalances),
        by(
            "salver_stream_partitions_moved_total",
            "Partitions that were given to this process (assigned), asked back (revoked) or taken (lost).",
            "how",
            &[("assigned", counts.assigned), ("revoked", counts.revoked), ("lost", counts.lost)],
        ),
        one("salver_stream_switches_total", "Versions that took over from another.", counts.switches),
    ]
}

fn gauges(status: &Status) -> Vec<MetricFamily> {
    let one =
        |name: &str, help: &str, value: f64| family(name, help, MetricType::GAUGE, vec![gauge(&[], value)]);
    vec![
        one(
            "salver_stream_ready",
            "1 while partitions are assigned, a version answers and the last attempt to write did not fail.",
            f64::from(u8::from(status.is_ready)),
        ),
        one("salver_stream_partitions", "Partitions assigned.", status.partitions.len() as f64),
        one(
            "salver_stream_partitions_restoring",
            "Partitions of these whose windows are being restored: nothing of them is read meanwhile.",
            status.n_restoring as f64,
        ),
        one("salver_stream_records_in_flight", "Records read and not done.", status.records_in_flight as f64),
        one("salver_stream_bytes_in_flight", "Memory that they take.", status.bytes_in_flight as f64),
        one(
            "salver_stream_records_waiting",
            "Records that wait for a worker.",
            status.records_waiting as f64,
        ),
        one("salver_stream_batches_in_flight", "Batches that workers have.", status.batches_in_flight as f64),
        one(
            "salver_stream_commit_age_seconds",
            "Time since the last commit.",
            status.commit_age.as_secs_f64(),
        ),
        one("salver_stream_state_bytes", "Bytes that windows take.", status.state_bytes as f64),
    ]
}

fn each_of(partitions: &[PartitionStatus]) -> Vec<MetricFamily> {
    let each = |name: &str, help: &str, value: &dyn Fn(&PartitionStatus) -> Option<f64>| {
        let metric = |partition: &PartitionStatus| {
            let number = partition.partition.number.to_string();
            let labels = [("topic", &*partition.partition.topic), ("partition", number.as_str())];
            value(partition).map(|value| gauge(&labels, value))
        };
        family(name, help, MetricType::GAUGE, partitions.iter().filter_map(metric).collect())
    };
    vec![
        each(
            "salver_stream_lag_records",
            "Records of a partition between what is committed and the newest.",
            &|partition| partition.lag.map(|lag| lag as f64),
        ),
        each(
            "salver_stream_lag_seconds",
            "Age of the oldest record of a partition that is not committed, by the records' own times; while its windows are \
             restored, the time that this has taken.",
            &|partition| partition.lag_time.map(|time| time.as_secs_f64()),
        ),
        each(
            "salver_stream_committed_offset",
            "The first offset of a partition that is not committed.",
            &|partition| partition.committed.map(|offset| offset as f64),
        ),
        each(
            "salver_stream_paused",
            "1 while a partition is held back because as much is in memory as may be.",
            &|partition| Some(f64::from(u8::from(partition.is_paused))),
        ),
    ]
}

fn refused(status: &Status) -> MetricFamily {
    let of = |(class, counts): &(salver_stream::Class, RefusedCounts)| {
        outcomes(counts).map(|(outcome, n)| counter(&[("class", class.name()), ("outcome", outcome)], n))
    };
    family(
        "salver_stream_refused_total",
        "Records without an answer, by what was wrong with them (class) and what became of them: dead letters (dead), left out \
         (skipped), answered by an error record (emitted), passed on as they came (passed), or the end of the run (failed).",
        MetricType::COUNTER,
        status.refused.iter().flat_map(of).collect(),
    )
}

/// What became of refused records, by name.
pub(super) fn outcomes(counts: &RefusedCounts) -> [(&'static str, u64); 5] {
    [
        ("dead", counts.dead),
        ("skipped", counts.skipped),
        ("emitted", counts.emitted),
        ("passed", counts.passed),
        ("failed", counts.failed),
    ]
}

fn models(status: &Status) -> MetricFamily {
    let of = |role: &str, id: &ModelId| {
        let version = id.version.to_string();
        gauge(&[("model_name", id.name.as_str()), ("version", &version), ("role", role)], 1.0)
    };
    let primary = status.model.iter().map(|id| of("primary", id));
    let canary = status.canary.iter().map(|id| of("canary", id));
    family(
        "salver_stream_model_info",
        "1 for the version that answers, and for that of the canary.",
        MetricType::GAUGE,
        primary.chain(canary).collect(),
    )
}

fn stages(status: &Status) -> MetricFamily {
    let stages = &status.stages;
    let all: [(&str, &Times); 7] = [
        ("queue", &stages.queue),
        ("decode", &stages.decode),
        ("predict", &stages.predict),
        ("encode", &stages.encode),
        ("release", &stages.release),
        ("total", &stages.total),
        ("commit", &stages.commit),
    ];
    family(
        "salver_stream_stage_seconds",
        "Time of stages: a record waits for a worker (queue), is decoded and encoded (decode, encode: of a batch, by its \
         records), a call of the model (predict), from reading to giving the answer to the sink (release) and to knowing that \
         it lasts (total), one commit (commit).",
        MetricType::HISTOGRAM,
        all.iter().map(|(stage, times)| histogram(&[("stage", stage)], times)).collect(),
    )
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn metric(labels: &[(&str, &str)]) -> Metric {
    let label = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(label).collect())
}

fn counter(labels: &[(&str, &str)], n: u64) -> Metric {
    let mut metric = metric(labels);
    let mut counter = Counter::default();
    counter.set_value(n as f64);
    metric.set_counter(counter);
    metric
}

fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut metric = metric(labels);
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

fn histogram(labels: &[(&str, &str)], times: &Times) -> Metric {
    let mut metric = metric(labels);
    let mut buckets = Vec::new();
    let mut n = 0;
    for (at, (until, in_bucket)) in times.buckets().enumerate() {
        n += in_bucket;
        if at % PER_BUCKET == PER_BUCKET - 1 {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(until.as_secs_f64());
            bucket.set_cumulative_count(n);
            buckets.push(bucket);
        }
    }
    // What is longer than the last bound was counted in the last bucket; above it nothing is known.
    buckets.pop();
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(n);
    histogram.set_sample_sum(times.total().as_secs_f64());
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use salver_stream::Histogram;

    use super::*;

    #[test]
    fn times_are_in_buckets_that_double() {
        let times = Histogram::default();
        times.record_n(Duration::from_millis(1), 3);
        times.record(Duration::from_secs(500));
        let metric = histogram(&[("stage", "total")], &times.read());
        let histogram = metric.get_histogram();
        let buckets = histogram.get_bucket();
        assert_eq!(histogram.get_sample_count(), 4);
        assert!((histogram.get_sample_sum() - 500.003).abs() < 1e-6);
        assert!(buckets.len() > 20 && buckets.len() < 30, "{}", buckets.len());
        for pair in buckets.windows(2) {
            assert!((pair[1].upper_bound() / pair[0].upper_bound() - 2.0).abs() < 0.01);
            assert!(pair[0].cumulative_count() <= pair[1].cumulative_count());
        }
        // What is beyond the last bound is only in the count.
        assert_eq!(buckets.last().unwrap().cumulative_count(), 3);
        assert_eq!(Histogram::default().read().n(), 0);
    }

    #[test]
    fn servers_are_told_apart() {
        let address = |last: u8| std::net::SocketAddr::from(([127, 0, 0, last], 8500));
        let status = |peer| PeerStatus {
            peer,
            state: PeerState::Used,
            estimate: None,
            under_way: 0,
            counts: salver_remote::Counts::default(),
        };
        let peers = [
            Peer::named(address(1), "localhost:8500"),
            Peer::new(address(1)),
            Peer::named(address(2), "other:8500"),
        ];
        let expected =
            ["127.0.0.1:8500 (localhost:8500)", "127.0.0.1:8500 (127.0.0.1:8500)", "127.0.0.2:8500"];
        assert_eq!(names(&peers.map(status)), expected);
    }

    #[test]
    fn all_metrics_are_documented() {
        let guide = include_str!("../../../../docs/stream.md");
        let mut n_named = 0;
        for start in ["\"salver_stream_", "\"salver_remote_"] {
            for rest in include_str!("metrics.rs").split(start).skip(1) {
                let Some((name, _)) = rest.split_once('"').filter(|(name, _)| !name.is_empty()) else {
                    continue;
                };
                let is_there = ["`", "{", "salver_remote_"].iter().any(|before| {
                    ["`", "{"].iter().any(|after| guide.contains(&format!("{before}{name}{after}")))
                });
                assert!(is_there, "docs/stream.md does not name '{name}'");
                n_named += 1;
            }
        }
        assert!(n_named > 30, "{n_named}");
    }

    #[test]
    fn partitions_that_are_not_known_say_nothing() {
        let partition = |lag| PartitionStatus {
            partition: salver_records::Partition { topic: "t".into(), number: 3 },
            committed: None,
            read: None,
            lag,
            lag_time: None,
            in_flight: 0,
            is_paused: true,
            is_ended: false,
            is_restoring: false,
        };
        let names = |lag| -> Vec<String> {
            let of =
                |family: &MetricFamily| (!family.get_metric().is_empty()).then(|| family.name().to_owned());
            each_of(&[partition(lag)]).iter().filter_map(of).collect()
        };
        assert_eq!(names(None), ["salver_stream_paused"]);
        assert_eq!(names(Some(5)), ["salver_stream_lag_records", "salver_stream_paused"]);
    }
}
