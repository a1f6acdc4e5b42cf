//! A message of the client becomes a record.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers, Message};
use salver_records::{Header, Record, Slot};

/// Names of headers that are kept to be shared. A stream uses a handful; more are made anew each time.
const MAX_NAMES: usize = 64;

/// Makes records of messages, each of which is copied once.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    names: HashMap<Box<str>, Arc<str>>,
}

impl Reader {
    pub(crate) fn record(&mut self, slot: Slot, message: &BorrowedMessage<'_>) -> Record {
        Record {
            slot,
            offset: message.offset(),
            key: message.key().map(Bytes::copy_from_slice),
            value: message.payload().map(Bytes::copy_from_slice),
            headers: message.headers().map_or_else(Vec::new, |headers| self.headers(headers)),
            timestamp_ms: message.timestamp().to_millis(),
        }
    }

    /// The client panics on a name that is not UTF-8, which any producer may send: such a header is left out.
    fn headers(&mut self, headers: &BorrowedHeaders) -> Vec<Header> {
        let all = catch_unwind(AssertUnwindSafe(|| {
            let each = (0..headers.count()).filter_map(|i| headers.try_get(i));
            each.map(|header| (header.key, header.value)).collect::<Vec<_>>()
        }));
        let all = all.unwrap_or_else(|_| {
            tracing::warn!("a header is left out, as its name is not UTF-8");
            let one = |i| catch_unwind(AssertUnwindSafe(|| headers.try_get(i))).ok().flatten();
            (0..headers.count()).filter_map(one).map(|header| (header.key, header.value)).collect()
        });
        let all = all.into_iter();
        all.map(|(name, value)| Header { name: self.name(name), value: value.map(Bytes::copy_from_slice) })
            .collect()
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = name.into();
        if self.names.len() < MAX_NAMES {
            self.names.insert(name.into(), Arc::clone(&new));
        }
        new
    }
}
