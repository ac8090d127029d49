//! One file that needs nothing else: the table and the plots.

use std::fmt::Write as _;

use super::markdown::{anchor, limits, ours, ratio, verdict};
use super::{goals, plots, show};
use crate::perf::results::Results;

/// The page.
pub(crate) fn page(results: &Results) -> String {
    let machine = &results.machine;
    let judged: Vec<_> = goals(results)
        .iter()
        .flat_map(|(_, parts)| parts.clone())
        .filter_map(|(_, m)| m.met)
        .collect();
    let met = judged.iter().filter(|met| **met).count();
    let aes = machine.aes_128_gcm_gbit_per_second;
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>MRF performance, {commit}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header><h1>MRF beside its peers</h1>\n\
         <p class=\"lead\">{met} of {judged} judged lines meet their goal. Commit <b>{commit}</b>, {date}. \
         {repetitions} repetitions in turn, medians, the spread is from the smallest to the largest.\
         {quick}</p>\n\
         <p class=\"machine\">{processors} x {model}, {memory} MiB, Linux {kernel}, load average {load:.2} \
         at the beginning; node and peers on processor {node}, generator on {generator}{aes}. \
         <code>{command}</code></p></header>\n",
        commit = escape(&results.commit),
        judged = judged.len(),
        date = escape(&results.date),
        repetitions = results.repetitions,
        quick = if results.quick {
            " <b>Quick: shorter runs, to look at, not to publish.</b>"
        } else {
            ""
        },
        processors = machine.processors,
        model = escape(&machine.processor_model),
        memory = machine.memory_mib,
        kernel = escape(&machine.kernel),
        load = machine.load_average,
        node = escape(&machine.node_processors),
        generator = escape(&machine.generator_processors),
        aes = aes.map_or_else(String::new, |speed| format!(
            "; AES-128-GCM of one core {} Gbit/s",
            show(speed)
        )),
        command = escape(&results.command),
    );
    write_table(&mut html, results);
    for plot in plots::plots(results) {
        let _ = write!(
            html,
            "<section>\n<h2>{}</h2>\n<p>{}</p>\n<figure>{}</figure>\n</section>\n",
            plot.title,
            plot.about,
            plot.svg.trim()
        );
    }
    write_programs(&mut html, results);
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

fn write_table(html: &mut String, results: &Results) {
    html.push_str(
        "<section>\n<div class=\"wide\"><table>\n<thead><tr><th></th><th>measure</th><th>ours</th>\
         <th>beside it</th><th>ratio (spread)</th><th>goal</th><th>met</th></tr></thead>\n<tbody>\n",
    );
    for (goal, parts) in goals(results) {
        for (index, (_, measure)) in parts.iter().enumerate() {
            let first = if index == 0 {
                let rows = parts.len();
                format!(
                    "<th rowspan=\"{rows}\" title=\"cargo xtask perf --only {goal}\">{goal}</th>"
                )
            } else {
                String::new()
            };
            let class = match measure.met {
                Some(true) => "met",
                Some(false) => "missed",
                None => "open",
            };
            let cells = [ours(measure), anchor(measure), ratio(measure), measure.goal.text.clone()];
            let cells: String =
                cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
            let _ = writeln!(
                html,
                "<tr>{first}<td title=\"{}\">{}</td>{cells}<td class=\"{class}\">{}</td></tr>",
                escape(&measure.shows),
                escape(&measure.title),
                verdict(measure).trim_matches('*'),
            );
        }
    }
    html.push_str("</tbody></table></div>\n");
    let mut remarks = String::new();
    for (_, parts) in goals(results) {
        for (identifier, measure) in parts {
            for remark in &measure.remarks {
                let _ = writeln!(remarks, "<li><b>{identifier}</b> {}</li>", escape(remark));
            }
        }
    }
    if !remarks.is_empty() {
        let _ = writeln!(html, "<ul class=\"remarks\">\n{remarks}</ul>");
    }
    html.push_str("</section>\n");
}

fn write_programs(html: &mut String, results: &Results) {
    html.push_str("<section>\n<h2>What ran</h2>\n<ul>\n");
    for (name, version) in &results.peers {
        let _ = writeln!(html, "<li><b>{}</b> {}</li>", escape(name), escape(version));
    }
    for limit in limits(&results.machine.records) {
        let _ = writeln!(html, "<li>{}</li>", escape(&limit));
    }
    html.push_str("</ul>\n<div class=\"wide\"><table>\n");
    for (name, case) in &results.cases {
        let _ = writeln!(
            html,
            "<tr><th>{}</th><td>{}</td><td><code>{}</code></td></tr>",
            escape(name),
            escape(&case.subject),
            escape(&case.load)
        );
    }
    html.push_str("</table></div>\n</section>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "
body{margin:0;background:#f1f5f9;color:#1e293b;font:16px/1.5 system-ui,sans-serif}
main{max-width:980px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:30px;margin:16px 0 8px}h2{font-size:20px;margin:0 0 4px}
.lead{font-size:18px;margin:0 0 8px}.machine,section>p,.remarks{color:#64748b;font-size:14px;margin:0 0 12px}
section{background:#fff;border:1px solid #e2e8f0;border-radius:12px;padding:20px 24px;margin:20px 0}
figure{margin:0;overflow-x:auto}svg{max-width:100%;height:auto}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;vertical-align:top;padding:6px 10px;border-bottom:1px solid #e2e8f0}
thead th{color:#64748b;font-weight:600}
.met{color:#15803d;font-weight:700}.missed{color:#b91c1c;font-weight:700}.open{color:#64748b}
code{font-size:12px;background:#f1f5f9;padding:1px 4px;border-radius:4px}
.remarks{margin:12px 0 0;padding-left:20px}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf::report::document;
    use crate::perf::report::tests::fixture;
    use crate::perf::results::RecordSpeed;

    #[test]
    fn the_page_needs_no_other_file_and_shows_all() {
        let page = page(&fixture());
        for outside in ["<script", "<link", "src=", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(page.matches("<svg").count(), 8);
        assert!(page.contains("haproxy is missing") && page.contains("not measured"));
    }

    #[test]
    fn the_limits_of_the_machine_are_on_the_page_and_in_the_file() {
        let mut results = fixture();
        results.machine.records =
            vec![RecordSpeed { bytes: 1024, seal_and_open_ns: 512.0, gbit_per_second: 16.0 }];
        for text in [page(&results), document(&results, "run.json")] {
            assert!(text.contains("1024 bytes sealed and opened in place"), "{text}");
            assert!(text.contains("512 ns, 16.0 Gbit/s"), "{text}");
        }
    }

    #[test]
    fn what_others_say_is_no_markup() {
        let mut results = fixture();
        results.peers.insert("evil".to_owned(), "<b>&\"".to_owned());
        assert!(page(&results).contains("&lt;b&gt;&amp;&quot;"));
    }
}
