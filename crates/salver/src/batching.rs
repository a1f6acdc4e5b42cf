//! Who is let in and what runs together: what files and flags may say of it, and what that comes to.
//!
//! Salver's own settings stand in a table `[batching]`. TensorFlow Serving's `BatchingParameters` are the compatibility mode,
//! whose numbers count instead of the own ones on how requests are joined.

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::{Context, bail};
use salver_batch::{Batching, N_PRIORITIES, Padding, Policy, Priorities};
use salver_wire::text_config;
use serde::{Deserialize, Serialize};

/// Rows of a batch at most, when nothing is said. What batches cost decides how many are really joined; this bounds the memory that
/// a batch may take, and is the number that the Open Inference Protocol's `config` gives.
pub(crate) const MAX_BATCH_SIZE: NonZeroUsize = NonZeroUsize::new(128).expect("128 is not zero");

/// Rows of a request that is cut into parts, at most, when nothing is said: a body of small rows could else hold millions, and a
/// model would be busy with one request for minutes.
const MAX_REQUEST_ROWS: NonZeroUsize = NonZeroUsize::new(65_536).expect("65,536 is not zero");

/// The longest time that settings may name.
const MAX_MS: f64 = 3.6e6;

/// Sizes that a list may have.
const MAX_SIZES: usize = 1000;

/// Whether requests are joined, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// A free lane takes what there is; what comes while all are busy is the next batch.
    Natural,
    /// Requests wait for others as long as their deadlines safely allow.
    Deferred,
    /// Each request runs alone.
    Off,
}

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        /// The table `[batching]`. What is left out is said elsewhere or has its default.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct BatchingSettings {
            $(
                $(#[$doc])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(crate) $name: Option<$type>,
            )*
        }

        impl BatchingSettings {
            /// What this says, and for what it leaves out, what `other` says.
            #[must_use]
            pub(crate) fn or(self, other: BatchingSettings) -> BatchingSettings {
                BatchingSettings { $($name: self.$name.or(other.$name),)* }
            }
        }
    };
}

settings! {
    /// `natural`, `deferred` or `off`.
    mode: Mode;
    /// How long a request waits for others though a lane is free, in milliseconds.
    batch_timeout_ms: f64;
    /// Sizes that batches are filled up to, ascending; the last is the largest.
    allowed_batch_sizes: Vec<usize>;
    /// Cut requests of more rows than a batch into several.
    split: bool;
    /// Rows of a request that is cut, at most.
    max_request_rows: NonZeroUsize;
    /// `"off"`, `"longest"`, or a list of sizes.
    padding: toml::Value;
    /// The time that a request has which brings no deadline, in milliseconds.
    timeout_ms: f64;
    /// Refuse at once what would be answered too late.
    refuse_early: bool;
    /// Requests that may wait.
    max_queue: NonZeroUsize;
    /// Their inputs, in MiB.
    max_queue_mb: NonZeroUsize;
    /// `"strict"`, or nine weights.
    priorities: toml::Value;
    /// Whether callers take turns.
    fair_callers: bool;
    /// Runs that take less than this many microseconds are made where the request was decoded; 0 for none.
    inline_below_us: f64;
}

impl BatchingSettings {
    pub(crate) fn is_empty(&self) -> bool {
        *self == BatchingSettings::default()
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// Names the key, its value and what was expected.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let times = [
            ("batch_timeout_ms", self.batch_timeout_ms, MAX_MS),
            ("timeout_ms", self.timeout_ms, MAX_MS),
            ("inline_below_us", self.inline_below_us, 1e6),
        ];
        for (key, time, most) in times {
            if let Some(time) = time.filter(|time| !(0.0..=most).contains(time)) {
                bail!("batching.{key} = {time}, expected a number from 0 to {most}");
            }
        }
        if self.allowed_batch_sizes.as_ref().is_some_and(|sizes| sizes.len() > MAX_SIZES) {
            bail!("batching.allowed_batch_sizes has more than {MAX_SIZES} sizes");
        }
        self.priorities()?;
        self.padding()?;
        // A size that contradicts these alone need not do so in the end: what is put together is checked again.
        Ok(())
    }

    fn priorities(&self) -> anyhow::Result<Option<Priorities>> {
        let Some(value) = &self.priorities else { return Ok(None) };
        let weights = || {
            let all = value
                .as_array()?
                .iter()
                .map(|weight| u32::try_from(weight.as_integer()?).ok().filter(|&n| n > 0));
            <[u32; N_PRIORITIES]>::try_from(all.collect::<Option<Vec<_>>>()?).ok()
        };
        match (value.as_str(), weights()) {
            (Some("strict"), _) => Ok(Some(Priorities::Strict)),
            (_, Some(weights)) => Ok(Some(Priorities::Weighted(weights))),
            _ => bail!(
                "batching.priorities = {value}, expected \"strict\" or a list of {N_PRIORITIES} positive weights"
            ),
        }
    }

    fn padding(&self) -> anyhow::Result<Option<Padding>> {
        let Some(value) = &self.padding else { return Ok(None) };
        let sizes = || {
            let all = value
                .as_array()?
                .iter()
                .map(|size| usize::try_from(size.as_integer()?).ok().filter(|&n| n > 0));
            let sizes = all.collect::<Option<Vec<_>>>()?;
            let is_good = !sizes.is_empty() && sizes.len() <= MAX_SIZES && sizes.is_sorted_by(|a, b| a < b);
            is_good.then_some(sizes)
        };
        match (value.as_str(), sizes()) {
            (Some("off"), _) => Ok(Some(Padding::Off)),
            (Some("longest"), _) => Ok(Some(Padding::Longest)),
            (_, Some(sizes)) => Ok(Some(Padding::Buckets(sizes))),
            _ => bail!(
                "batching.padding = {value}, expected \"off\", \"longest\" or a list of ascending sizes"
            ),
        }
    }

    /// How requests are joined by these settings; `None` for not at all.
    fn batching(&self, max_batch_size: Option<NonZeroUsize>) -> anyhow::Result<Option<Batching>> {
        let mode = self.mode.unwrap_or(Mode::Natural);
        if mode == Mode::Off || max_batch_size == Some(NonZeroUsize::MIN) {
            return Ok(None);
        }
        // Whoever says how to join wants it; else only rows are joined that were seen to be independent.
        let joins_unchecked =
            self.mode.is_some() || max_batch_size.is_some() || self.allowed_batch_sizes.is_some();
        let allowed_batch_sizes = self.allowed_batch_sizes.clone().unwrap_or_default();
        let last = || allowed_batch_sizes.last().copied().and_then(NonZeroUsize::new);
        let max_batch_size = max_batch_size.or_else(last).unwrap_or(MAX_BATCH_SIZE);
        Ok(Some(Batching {
            max_batch_size,
            batch_timeout: millis(self.batch_timeout_ms.unwrap_or(0.0)),
            is_deferred: mode == Mode::Deferred,
            by_cost: true,
            allowed_batch_sizes,
            enable_large_batch_splitting: self.split.unwrap_or(true),
            max_task_rows: Some(self.max_request_rows.unwrap_or(MAX_REQUEST_ROWS.max(max_batch_size))),
            padding: self.padding()?.unwrap_or_default(),
            joins_unchecked,
        }))
    }
}

fn millis(number: f64) -> Duration {
    Duration::try_from_secs_f64(number / 1e3).unwrap_or_default()
}

/// Who says how requests of a model are joined.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Joining<'a> {
    /// Salver's settings.
    Own,
    /// TensorFlow Serving's parameters.
    Parameters(&'a Parameters),
    /// TensorFlow Serving's files, which have none for this model.
    Unbatched,
}

/// What settings come to. `base` has what they leave out.
///
/// # Errors
/// For settings that contradict each other.
pub(crate) fn policy(
    base: &Policy,
    joining: Joining<'_>,
    max_batch_size: Option<NonZeroUsize>,
    settings: &BatchingSettings,
) -> anyhow::Result<Policy> {
    let mut policy = base.clone();
    policy.max_queue = settings.max_queue.unwrap_or(base.max_queue);
    if let Some(megabytes) = settings.max_queue_mb {
        policy.max_queued_bytes = megabytes.get().saturating_mul(1 << 20);
    }
    if let Some(micros) = settings.inline_below_us {
        policy.inline_below = millis(micros / 1e3);
    }
    policy.default_timeout = settings.timeout_ms.map(millis).filter(|timeout| !timeout.is_zero());
    policy.refuses_early = settings.refuse_early.unwrap_or(base.refuses_early);
    policy.priorities = settings.priorities()?.unwrap_or_else(|| base.priorities.clone());
    policy.is_fair = settings.fair_callers.unwrap_or(base.is_fair);
    policy.batching = match joining {
        Joining::Own => settings.batching(max_batch_size)?,
        Joining::Unbatched => None,
        Joining::Parameters(parameters) => {
            policy.max_queue = parameters.max_queue.unwrap_or(policy.max_queue);
            Some(parameters.batching.clone())
        }
    };
    policy.check()?;
    Ok(policy)
}

/// TensorFlow Serving's `BatchingParameters`, as far as they say something here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) batching: Batching,
    /// `num_batch_threads`.
    pub(crate) n_lanes: Option<NonZeroUsize>,
    /// `max_enqueued_batches`, in requests.
    pub(crate) max_queue: Option<NonZeroUsize>,
}

impl Default for Parameters {
    /// What `--enable_batching` means without a file.
    fn default() -> Parameters {
        Parameters {
            batching: Batching { by_cost: false, ..Batching::default() },
            n_lanes: None,
            max_queue: None,
        }
    }
}

impl Parameters {
    /// Reads a text proto. What it leaves out has TensorFlow Serving's default.
    ///
    /// # Errors
    /// When the text is no such proto or a value is out of range.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Parameters> {
        let given = text_config::batching_parameters(text)?;
        let default = Parameters::default();
        let max_batch_size =
            positive("max_batch_size", given.max_batch_size)?.unwrap_or(default.batching.max_batch_size);
        let timeout = given.batch_timeout_micros.unwrap_or(0);
        let timeout = u64::try_from(timeout)
            .with_context(|| format!("batch_timeout_micros is {timeout}, expected 0 or a positive number"))?;
        let allowed = given.allowed_batch_sizes.iter().map(|&size| {
            usize::try_from(size).with_context(|| format!("allowed_batch_sizes has {size}, expected sizes"))
        });
        let allowed_batch_sizes = allowed.collect::<anyhow::Result<Vec<_>>>()?;
        let max_queue = positive("max_enqueued_batches", given.max_enqueued_batches)?;
        let batching = Batching {
            max_batch_size,
            batch_timeout: Duration::from_micros(timeout),
            allowed_batch_sizes,
            padding: if given.pad_variable_length_inputs { Padding::Longest } else { Padding::Off },
            ..default.batching
        };
        Policy { batching: Some(batching.clone()), ..Policy::default() }.check()?;
        let executed = positive("max_execution_batch_size", given.max_execution_batch_size)?;
        let batching = match given.enable_large_batch_splitting.unwrap_or(false) {
            true => split(batching, executed)?,
            false => batching,
        };
        Ok(Parameters {
            batching,
            n_lanes: positive("num_batch_threads", given.num_batch_threads)?,
            // TensorFlow Serving counts the queue in batches; a queued request has at least one row.
            max_queue: max_queue.map(|n_batches| n_batches.saturating_mul(max_batch_size)),
        })
    }
}

/// With splitting, `max_batch_size` bounds requests and `max_execution_batch_size` what runs.
fn split(batching: Batching, executed: Option<NonZeroUsize>) -> anyhow::Result<Batching> {
    let max_request = batching.max_batch_size;
    let executed = executed.unwrap_or(max_request);
    if executed > max_request {
        bail!("max_execution_batch_size is {executed}, expected max_batch_size ({max_request}) at most");
    }
    let mut allowed_batch_sizes = batching.allowed_batch_sizes.clone();
    if !allowed_batch_sizes.is_empty() {
        allowed_batch_sizes.retain(|&size| size < executed.get());
        allowed_batch_sizes.push(executed.get());
    }
    Ok(Batching {
        max_batch_size: executed,
        allowed_batch_sizes,
        enable_large_batch_splitting: true,
        max_task_rows: Some(max_request),
        ..batching
    })
}

fn positive(name: &str, value: Option<i64>) -> anyhow::Result<Option<NonZeroUsize>> {
    let Some(value) = value else { return Ok(None) };
    let number = usize::try_from(value).ok().and_then(NonZeroUsize::new);
    number.map(Some).with_context(|| format!("{name} is {value}, expected a positive number"))
}

/// What is another than before, each as `key old -> new`.
pub(crate) fn changes(before: &Policy, after: &Policy) -> Vec<String> {
    let pairs = facts(before).into_iter().zip(facts(after));
    let changed = pairs.filter(|(before, after)| before != after);
    changed.map(|((key, before), (_, after))| format!("{key} {before} -> {after}")).collect()
}

/// A policy for people, by the names that settings have.
fn facts(policy: &Policy) -> Vec<(&'static str, String)> {
    let batching = policy.batching.as_ref();
    let mode = match batching {
        None => "off",
        Some(batching) if !batching.by_cost => "tensorflow-serving",
        Some(batching) if batching.is_deferred => "deferred",
        Some(_) => "natural",
    };
    let of = |value: &dyn Fn(&Batching) -> String| batching.map_or_else(|| "-".to_owned(), value);
    let priorities = match &policy.priorities {
        Priorities::Strict => "strict".to_owned(),
        Priorities::Weighted(weights) => format!("{weights:?}"),
    };
    vec![
        ("mode", mode.to_owned()),
        ("max_batch_size", of(&|batching| batching.max_batch_size.to_string())),
        ("batch_timeout", of(&|batching| format!("{:?}", batching.batch_timeout))),
        ("allowed_batch_sizes", of(&|batching| format!("{:?}", batching.allowed_batch_sizes))),
        ("split", of(&|batching| batching.enable_large_batch_splitting.to_string())),
        (
            "max_request_rows",
            of(&|batching| batching.max_task_rows.map_or("-".to_owned(), |rows| rows.to_string())),
        ),
        ("padding", of(&|batching| padding_text(&batching.padding))),
        ("timeout", policy.default_timeout.map_or("none".to_owned(), |timeout| format!("{timeout:?}"))),
        ("refuse_early", policy.refuses_early.to_string()),
        ("max_queue", policy.max_queue.to_string()),
        ("max_queue_mb", (policy.max_queued_bytes >> 20).to_string()),
        ("priorities", priorities),
        ("fair_callers", policy.is_fair.to_string()),
        ("inline_below", format!("{:?}", policy.inline_below)),
    ]
}

fn padding_text(padding: &Padding) -> String {
    match padding {
        Padding::Off => "off".to_owned(),
        Padding::Longest => "longest".to_owned(),
        Padding::Buckets(sizes) => format!("{sizes:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> BatchingSettings {
        toml::from_str(text).unwrap()
    }

    fn size(n: usize) -> Option<NonZeroUsize> {
        NonZeroUsize::new(n)
    }

    fn own(text: &str, max_batch_size: usize) -> anyhow::Result<Policy> {
        policy(&Policy::default(), Joining::Own, size(max_batch_size), &settings(text))
    }

    #[test]
    fn batching_is_natural_unless_something_else_is_said() {
        let batching = |text, max| own(text, max).unwrap().batching;
        let natural = batching("", 0).unwrap();
        let expected = Batching {
            max_batch_size: MAX_BATCH_SIZE,
            enable_large_batch_splitting: true,
            max_task_rows: Some(MAX_REQUEST_ROWS),
            by_cost: true,
            joins_unchecked: false,
            ..Batching::default()
        };
        assert_eq!(natural, expected);
        for (text, max, expected) in [
            ("mode = 'natural'", 0, true),
            ("allowed_batch_sizes = [4]", 0, true),
            ("", 8, true),
            ("max_queue = 3", 0, false),
        ] {
            assert_eq!(batching(text, max).unwrap().joins_unchecked, expected, "{text}");
        }
        assert_eq!(batching("", 1), None);
        assert_eq!(batching("mode = 'off'", 8), None);
        assert_eq!(batching("", 8).unwrap().max_batch_size.get(), 8);
        assert!(batching("mode = 'deferred'", 0).unwrap().is_deferred);
        let most = |text, max| batching(text, max).unwrap().max_task_rows;
        assert_eq!(most("max_request_rows = 7", 0), size(7));
        // A request that is a batch is not too large.
        assert_eq!(most("", 1 << 20), size(1 << 20));
        let given = batching(
            "allowed_batch_sizes = [2, 6]\nsplit = false\npadding = [16, 32]\nbatch_timeout_ms = 2",
            0,
        );
        let given = given.unwrap();
        assert_eq!((given.max_batch_size.get(), given.enable_large_batch_splitting), (6, false));
        assert_eq!(
            (given.padding, given.batch_timeout),
            (Padding::Buckets(vec![16, 32]), Duration::from_millis(2))
        );
    }

    #[test]
    fn all_of_a_policy_can_be_set() {
        let text =
            "timeout_ms = 0.5\nrefuse_early = false\nmax_queue = 7\nmax_queue_mb = 3\nfair_callers = true
                    priorities = [9, 8, 7, 6, 5, 4, 3, 2, 1]\ninline_below_us = 12.5\nmode = 'off'";
        let expected = Policy {
            max_queue: size(7).unwrap(),
            max_queued_bytes: 3 << 20,
            inline_below: Duration::from_nanos(12_500),
            default_timeout: Some(Duration::from_micros(500)),
            refuses_early: false,
            priorities: Priorities::Weighted([9, 8, 7, 6, 5, 4, 3, 2, 1]),
            is_fair: true,
            batching: None,
        };
        assert_eq!(own(text, 0).unwrap(), expected);
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, expected: &str| {
            let error = toml::from_str::<BatchingSettings>(text)
                .map_err(|error| error.message().to_owned())
                .and_then(|settings| settings.check().map_err(|error| error.to_string()));
            let error = error.unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("mode = 'fast'", "expected one of `natural`, `deferred`, `off`");
        check("timeout = 3", "unknown field `timeout`");
        check("timeout_ms = -1", "batching.timeout_ms = -1, expected a number from 0 to 3600000");
        check("batch_timeout_ms = nan", "batching.batch_timeout_ms = NaN");
        check("padding = 'some'", "batching.padding = \"some\", expected \"off\", \"longest\" or a list");
        check("padding = [4, 2]", "ascending sizes");
        check("priorities = [1, 2]", "a list of 9 positive weights");
        check("priorities = 'weighted'", "expected \"strict\"");
        let error = own("allowed_batch_sizes = [2, 4]", 8).unwrap_err().to_string();
        let expected =
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8";
        assert_eq!(error, expected);
    }

    #[test]
    fn the_nearer_word_counts_key_by_key() {
        let near = settings("max_queue = 3\nmode = 'deferred'");
        let far = settings("max_queue = 5\nfair_callers = true");
        assert_eq!(near.or(far), settings("max_queue = 3\nmode = 'deferred'\nfair_callers = true"));
    }

    #[test]
    fn parameters_of_tensorflow_serving_are_read() {
        let text = "max_batch_size { value: 8 } batch_timeout_micros { value: 500 } max_enqueued_batches { value: 3 }
                    num_batch_threads { value: 4 } allowed_batch_sizes: [4, 8] pad_variable_length_inputs: true";
        let parameters = Parameters::parse(text).unwrap();
        let expected = Batching {
            max_batch_size: size(8).unwrap(),
            batch_timeout: Duration::from_micros(500),
            allowed_batch_sizes: vec![4, 8],
            padding: Padding::Longest,
            by_cost: false,
            ..Batching::default()
        };
        let expected = Parameters { batching: expected, n_lanes: size(4), max_queue: size(24) };
        assert_eq!(parameters, expected);
        // These count, and not the own settings of how requests are joined; the others do.
        let own = settings("mode = 'off'\ntimeout_ms = 3\nmax_queue = 5");
        let got = policy(&Policy::default(), Joining::Parameters(&parameters), size(2), &own).unwrap();
        assert_eq!((got.batching, got.max_queue.get()), (Some(parameters.batching), 24));
        assert_eq!(got.default_timeout, Some(Duration::from_millis(3)));
        assert_eq!(policy(&Policy::default(), Joining::Unbatched, size(2), &own).unwrap().batching, None);

        for (text, expected) in [
            ("max_batch_size { value: 0 }", "max_batch_size is 0"),
            ("max_batch_size { value: 4 } allowed_batch_sizes: 2", "Last entry in allowed_batch_sizes"),
            (
                "max_batch_size { value: 4 } allowed_batch_sizes: 2 enable_large_batch_splitting { value: true }",
                "Last entry in allowed_batch_sizes",
            ),
            ("max_batch { value: 4 }", "max_batch"),
        ] {
            let error = format!("{:#}", Parameters::parse(text).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn parts_have_the_size_of_an_execution() {
        let check = |text: &str, expected: (usize, Option<usize>, &[usize])| {
            let text = format!("enable_large_batch_splitting {{ value: true }} {text}");
            let batching = Parameters::parse(&text).unwrap().batching;
            let rows = batching.max_task_rows.map(NonZeroUsize::get);
            let got = (batching.max_batch_size.get(), rows, batching.allowed_batch_sizes.as_slice());
            assert_eq!(got, expected, "{text}");
        };
        check("max_batch_size { value: 64 }", (64, Some(64), &[]));
        check("max_batch_size { value: 64 } max_execution_batch_size { value: 16 }", (16, Some(64), &[]));
        check(
            "max_batch_size { value: 64 } max_execution_batch_size { value: 16 } allowed_batch_sizes: [8, 32, 64]",
            (16, Some(64), &[8, 16]),
        );
    }

    #[test]
    fn changes_are_told_key_by_key() {
        let before = own("", 64).unwrap();
        assert!(changes(&before, &before).is_empty());
        let after = own("timeout_ms = 100\npadding = 'longest'", 32).unwrap();
        let expected = ["max_batch_size 64 -> 32", "padding off -> longest", "timeout none -> 100ms"];
        assert_eq!(changes(&before, &after), expected);
        let off = own("mode = 'off'", 0).unwrap();
        assert_eq!(changes(&before, &off)[..2], ["mode natural -> off", "max_batch_size 64 -> -"]);
    }
}
