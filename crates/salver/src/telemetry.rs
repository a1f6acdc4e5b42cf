//! The log, and what the process says of itself in metrics.

use anyhow::Context;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Opts};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::flags::LogFormat;

/// Starts the log on standard error. Call it once.
///
/// # Errors
/// When `level` is not a filter.
pub(crate) fn start_log(format: LogFormat, level: &str) -> anyhow::Result<()> {
    start_log_through(format, level, std::io::stderr)
}

/// The same through a writer that leads to standard error past something else.
///
/// # Errors
/// As [`start_log`].
pub(crate) fn start_log_through<W>(format: LogFormat, level: &str, writer: W) -> anyhow::Result<()>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(level).with_context(|| {
        format!("--log_level={level}: expected error, warn, info, debug, trace or a filter such as info,salver_servable=debug")
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(is_terminal);
            registry.with(layer.with_target(false)).init();
        }
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(writer);
            registry.with(layer).init();
        }
    }
    Ok(())
}

/// Memory and threads of this process, read from the kernel at each scrape.
#[derive(Debug)]
pub(crate) struct ProcessMetrics {
    resident: IntGauge,
    threads: IntGauge,
    start_time: IntGauge,
}

impl ProcessMetrics {
    /// # Errors
    /// Never in practice: the names are fixed and valid.
    pub(crate) fn new(start_time_seconds: i64) -> prometheus::Result<ProcessMetrics> {
        let gauge = |name: &str, help: &str| IntGauge::with_opts(Opts::new(name, help));
        let start_time = gauge("process_start_time_seconds", "Start of the process, in seconds since 1970.")?;
        start_time.set(start_time_seconds);
        Ok(ProcessMetrics {
            resident: gauge(
                "process_resident_memory_bytes",
                "Memory of the process that is in RAM, in bytes.",
            )?,
            threads: gauge("process_threads", "Threads of the process.")?,
            start_time,
        })
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        [&self.resident, &self.threads, &self.start_time].into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(kibibytes) = status_field(&status, "VmRSS:") {
            self.resident.set(kibibytes.saturating_mul(1024));
        }
        if let Some(threads) = status_field(&status, "Threads:") {
            self.threads.set(threads);
        }
        [&self.resident, &self.threads, &self.start_time].into_iter().flat_map(Collector::collect).collect()
    }
}

/// The number behind a name in `/proc/self/status`.
fn status_field(status: &str, name: &str) -> Option<i64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read() {
        assert_eq!(status_field("Name:\tx\nVmRSS:\t  123 kB\nThreads:\t4\n", "VmRSS:"), Some(123));
        let metrics = ProcessMetrics::new(7).unwrap();
        let families = metrics.collect();
        assert_eq!(families.len(), 3);
        assert!(families[0].get_metric()[0].get_gauge().get_value() > 0.0);
    }
}
