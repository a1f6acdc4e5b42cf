//! The report as one page that needs nothing else.

use salver_plot::escape;

use super::plots;
use super::report::{Found, Report, Run};
use super::text::{HEAD, behind, cells, digits, generator, megabytes, millis, percent};

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;\
color:#222;background:#fff}h1{font-size:1.5em;margin-bottom:0}h2{margin-top:2em;font-size:1.2em}.sub{color:#666;margin-top:.2em}\
table{border-collapse:collapse;margin:1em 0}td,th{padding:.3em .8em;text-align:right;border-bottom:1px solid #ddd;\
font-variant-numeric:tabular-nums}th{font-weight:600}td:first-child,th:first-child{text-align:left}\
.pairs td{text-align:left}.pairs td:first-child{color:#666}.tiles{display:flex;flex-wrap:wrap;gap:1em;margin:1em 0}\
.tile{border:1px solid #ddd;border-radius:8px;padding:.6em 1em;min-width:8em}.tile b{display:block;font-size:1.5em}\
.tile span{color:#666}.bad{background:#fff1e6;border-left:4px solid #d55e00;padding:.5em 1em}.scroll{overflow-x:auto}\
svg{max-width:100%;height:auto;margin:.5em 0}code{overflow-wrap:anywhere}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1d20}td,th,.tile{border-color:#3a3d41}.sub,.tile span,\
.pairs td:first-child{color:#aaa}.bad{background:#3a2a1d}}";

/// The page.
pub(super) fn page(report: &Report) -> String {
    let title = escape(&report.subject());
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{title}</title>\n<style>{STYLE}</style></head>\n<body>\n\
         <h1>{title}</h1>\n<p class=\"sub\">{}</p>\n",
        escape(&report.what)
    );
    for what in &report.broken {
        out.push_str(&format!("<p class=\"bad\">Not held: {}</p>\n", escape(what)));
    }
    match report.found {
        Some(Found::Rate(rate)) => {
            let goal = report.goal.as_ref().map(ToString::to_string).unwrap_or_default();
            out.push_str(&format!(
                "<div class=\"tiles\"><div class=\"tile\"><b>{}/s</b><span>highest rate with {}</span></div></div>\n",
                digits(rate),
                escape(&goal)
            ));
        }
        Some(found) => {
            out.push_str(&format!("<p class=\"bad\">Search: {}</p>\n", escape(&found.to_string())))
        }
        None => {}
    }
    let sweep = report.sweep();
    if !sweep.is_empty() {
        out.push_str("<h2>All rates</h2>\n");
        out.push_str(&table(&sweep));
        plots::sweep(report).iter().for_each(|plot| out.push_str(plot));
        if report.found.is_none() {
            let deadline = sweep.iter().find_map(|run| run.summary.deadline);
            out.push_str(&plots::curves(&sweep, deadline).unwrap_or_default());
        }
    }
    if let Some(run) = details(report) {
        out.push_str(&one(run));
    }
    out.push_str("<h2>Settings</h2>\n");
    out.push_str(&pairs(report.settings.iter().map(|(name, value)| (*name, value.clone()))));
    out.push_str("<h2>Machine of the generator</h2>\n");
    out.push_str(&pairs(report.machine.iter().map(|(name, value)| (*name, value.clone()))));
    out.push_str(
        "<p class=\"sub\">Latency counts from the moment a request was meant to leave to the end of its answer. Late: \
         answered after the deadline. Refused: the server said that it has no room. Expired: the server said that the deadline is \
         past. Not sent: as many requests as are allowed were on their way. Overdue: not sent, because the deadline was over before that. \
         Rates are of what ended in the time that was measured, counts of what was meant to leave in it.</p>\n</body></html>\n",
    );
    out
}

/// The run that is shown by itself: the only one, or what a search found.
fn details(report: &Report) -> Option<&Run> {
    match report.found {
        Some(Found::Rate(_)) => report.winner(),
        _ if report.runs.len() == 1 => report.runs.first(),
        _ => None,
    }
}

fn pairs<'a>(pairs: impl Iterator<Item = (&'a str, String)>) -> String {
    let rows: String = pairs
        .map(|(name, value)| format!("<tr><td>{}</td><td>{}</td></tr>\n", escape(name), escape(&value)))
        .collect();
    format!("<table class=\"pairs\">{rows}</table>\n")
}

fn table(runs: &[&Run]) -> String {
    let row = |cells: &[String], tag: &str| {
        let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let mut head = HEAD.map(str::to_owned).to_vec();
    head.push(String::new());
    let mut out = format!("<div class=\"scroll\"><table>{}", row(&head, "th"));
    for run in runs {
        let mut line = cells(&run.summary).to_vec();
        let mut notes: Vec<String> = run.misses.clone();
        if notes.is_empty() {
            notes.extend(run.summary.invalid.iter().map(|why| format!("not valid: {why}")));
        }
        line.push(notes.join("; "));
        out.push_str(&row(&line, "td"));
    }
    out.push_str("</table></div>\n");
    out
}

fn one(run: &Run) -> String {
    let summary = &run.summary;
    let mut out = format!("<h2>{}</h2>\n", escape(&summary.load));
    for why in &summary.invalid {
        out.push_str(&format!("<p class=\"bad\">Not valid: {}</p>\n", escape(why)));
    }
    if summary.is_stable == Some(false) {
        out.push_str("<p class=\"bad\">The windows did not become alike; all of them count.</p>\n");
    }
    if summary.falls_behind {
        out.push_str(&format!("<p class=\"bad\">{}</p>\n", escape(&behind(summary))));
    }
    let tile = |value: String, name: &str| {
        format!("<div class=\"tile\"><b>{}</b><span>{}</span></div>\n", escape(&value), escape(name))
    };
    out.push_str("<div class=\"tiles\">");
    out.push_str(&tile(format!("{}/s", digits(summary.goodput)), "answered in time"));
    out.push_str(&tile(millis(summary.latency.p50), "p50"));
    out.push_str(&tile(millis(summary.latency.p99), "p99"));
    if let Some(server) = &summary.server {
        out.push_str(&tile(millis(server.cpu_micros_per_request / 1e3), "CPU per request"));
        out.push_str(&tile(megabytes(server.rss_peak), "memory at most"));
    }
    out.push_str("</div>\n");
    let counts = summary.counts;
    let total = counts.total();
    let rows = [
        ("in time", counts.ok, Some(&summary.latency)),
        ("late", counts.late, None),
        ("wrong", counts.wrong, None),
        ("refused", counts.refused, Some(&summary.refused_latency)),
        ("expired", counts.expired, Some(&summary.expired_latency)),
        ("failed", counts.failed, None),
        ("not sent", counts.not_sent, None),
        ("overdue", counts.overdue, None),
    ];
    out.push_str("<div class=\"scroll\"><table><tr><th>outcome</th><th>requests</th><th>share</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr>\n");
    for (name, n, latency) in rows {
        if n == 0 && name != "in time" {
            continue;
        }
        let latency = latency.filter(|latency| latency.n > 0);
        let times = latency.map(|one| [one.p50, one.p90, one.p99, one.p999, one.max].map(millis));
        let times: String = times.unwrap_or_default().iter().map(|time| format!("<td>{time}</td>")).collect();
        out.push_str(&format!(
            "<tr><td>{name}</td><td>{n}</td><td>{}</td>{times}</tr>\n",
            escape(&percent(n, total))
        ));
    }
    out.push_str("</table></div>\n");
    if counts.late + counts.wrong > 0 {
        out.push_str("<p class=\"sub\">The latencies in the first row are those of all answers.</p>\n");
    }
    out.push_str(&plots::curves(&[run], summary.deadline).unwrap_or_default());
    plots::over_time(summary).iter().for_each(|plot| out.push_str(plot));
    if !summary.errors.is_empty() {
        out.push_str("<h2>Errors</h2>\n");
        out.push_str(&pairs(summary.errors.iter().map(|(text, n)| (text.as_str(), n.to_string()))));
    }
    out.push_str(&format!(
        "<p class=\"sub\">Measured for {} s. Generator: {}.</p>\n",
        digits(summary.seconds),
        escape(&generator(summary))
    ));
    out
}
