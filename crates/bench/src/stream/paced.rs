//! Records that come at their own times whatever the scorer does, and when their answers are there.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::Message;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};

use super::kafka::{Topic, send};
use super::record::{Form, Records};
use super::run::epoch_us;
use super::stage::Stage;

/// How long the producer waits for a fuller batch, in milliseconds.
pub(crate) const LINGER_MS: u32 = 5;
/// The header that says when a record was to be sent, in microseconds since 1970.
const AT: &str = "at";
/// How long the last answers may take.
const LAST: Duration = Duration::from_secs(20);
/// A producer that is later than this for one record in a hundred does not keep up.
const LATE_MS: f64 = 5.0;

/// An answer: when its record was to be sent, when the broker appended the answer, and when a reader of committed records had
/// it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) sent_us: i64,
    appended_ms: i64,
    seen_us: i64,
}

impl Seen {
    /// Milliseconds until it was appended, which the broker tells in whole ones.
    pub(crate) fn appended(&self) -> f64 {
        (self.appended_ms as f64 + 0.5 - self.sent_us as f64 / 1e3).max(0.0)
    }

    /// Milliseconds until it was read.
    pub(crate) fn visible(&self) -> f64 {
        (self.seen_us - self.sent_us) as f64 / 1e3
    }
}

/// All answers of one run.
#[derive(Debug)]
pub(crate) struct Paced {
    pub(crate) seen: Vec<Seen>,
    /// Why the figures are the producer's, if they are.
    pub(crate) invalid: String,
}

/// Sends so many records per second for so long, evenly, and reads the answers. `while_sending` is told the time since the
/// first.
pub(crate) fn paced(
    stage: &Stage<'_>,
    [input, output]: [&Topic<'_>; 2],
    per_second: f64,
    time: Duration,
    while_sending: impl Fn(Duration),
) -> Result<Paced> {
    let records = Records::new(Form::Json, stage.n_numbers());
    let n = (per_second * time.as_secs_f64()) as u64;
    let reader = stage.kafka()?.reader(&output.name)?;
    let producer = stage.kafka()?.producer(LINGER_MS)?;
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| -> Result<Vec<Seen>> {
            let mut seen = Vec::with_capacity(n as usize);
            let give_up = Instant::now() + time + LAST;
            while (seen.len() as u64) < n && Instant::now() < give_up {
                match reader.poll(Duration::from_millis(100)) {
                    Some(Ok(message)) => {
                        let seen_us = epoch_us();
                        let headers = message.headers().context("an answer without headers")?;
                        let at = headers.iter().find(|header| header.key == AT);
                        let at = at.and_then(|header| header.value).context("an answer without its time")?;
                        let sent_us = i64::from_le_bytes(at.try_into()?);
                        let appended_ms = message.timestamp().to_millis().context("no time of appending")?;
                        seen.push(Seen { sent_us, appended_ms, seen_us });
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) | None => {}
                    Some(Err(error)) => return Err(error.into()),
                }
            }
            Ok(seen)
        });
        let (begin, begin_us) = (Instant::now() + Duration::from_millis(20), epoch_us() + 20_000);
        let (mut value, mut late) = (Vec::new(), Vec::with_capacity(n as usize));
        for index in 0..n {
            let after = Duration::from_secs_f64(index as f64 / per_second);
            while let Some(left) = (begin + after).checked_duration_since(Instant::now()) {
                std::thread::sleep(left);
            }
            late.push((begin + after).elapsed().as_secs_f64() * 1e3);
            while_sending(after);
            let sent_us = begin_us + i64::try_from(after.as_micros())?;
            records.write(index, sent_us / 1_000, &mut value);
            let at = sent_us.to_le_bytes();
            let headers = OwnedHeaders::new().insert(Header { key: AT, value: Some(&at[..]) });
            send(&producer, BaseRecord::<(), [u8]>::to(&input.name).payload(&value).headers(headers))?;
        }
        producer.flush(LAST)?;
        let seen = reading.join().map_err(|_| anyhow!("the reader panicked"))??;
        ensure!(seen.len() as u64 == n, "{} of {n} answers came in time", seen.len());
        let late = quantile(&mut late, 0.99);
        let invalid =
            if late > LATE_MS { format!("the producer was {late:.1} ms late") } else { String::new() };
        Ok(Paced { seen, invalid })
    })
}

/// The value that `part` (0 to 1) of the values do not exceed; 0 of none.
pub(crate) fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (part * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}
