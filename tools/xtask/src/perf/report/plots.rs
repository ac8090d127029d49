//! The plots, each a piece of SVG.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::show;
use crate::perf::results::{Measure, Results};
use crate::perf::statistics::Summary;

/// A plot and what it is about.
pub(super) struct Plot {
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    pub(super) svg: String,
}

/// Whose figure it is, which decides the colour.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    Peers,
    Limit,
}

struct Bar {
    label: String,
    value: Summary,
    whose: Whose,
    /// Where the goal is.
    goal: Option<f64>,
}

/// All that the run has figures for.
pub(super) fn plots(results: &Results) -> Vec<Plot> {
    let all = [
        margins(results),
        cpu_per_message(results),
        throughput(results),
        latency(results),
        sizes(results),
        memory(results),
        per_core(results),
        bulk(results),
    ];
    all.into_iter().flatten().collect()
}

/// Every judged line by how far it is from its goal.
fn margins(results: &Results) -> Option<Plot> {
    let mut rows = Vec::new();
    for (identifier, measure) in &results.measures {
        let Some(median) = measure.goal.margin(measure.ours, measure.ratio) else { continue };
        if measure.parts.is_empty() {
            let [low, high] = margin_range(measure).unwrap_or([median, median]);
            let clamp = |value: f64| value.clamp(MARGIN_MIN, MARGIN_MAX);
            rows.push((identifier.clone(), clamp(median), clamp(low), clamp(high), median));
        }
    }
    if rows.is_empty() {
        return None;
    }
    let height = TOP + ROW * rows.len() as i32 + BOTTOM;
    let svg = draw(height, |area| {
        let right = |margin: f64| {
            let share = (margin / MARGIN_MIN).ln() / (MARGIN_MAX / MARGIN_MIN).ln();
            LEFT + (share * f64::from(WIDTH - LEFT - RIGHT)) as i32
        };
        let bottom = height - BOTTOM;
        for tick in [0.25, 0.5, 1.0, 2.0, 4.0] {
            let at_goal = tick == 1.0;
            let style = if at_goal { GOAL.stroke_width(2) } else { GRID.stroke_width(1) };
            line(area, &[(right(tick), TOP - 6), (right(tick), bottom)], style)?;
            let word = if at_goal { "goal".to_owned() } else { format!("{tick} x") };
            let colour = if at_goal { GOAL } else { FAINT };
            text(area, &word, (right(tick), bottom + 6), colour, HPos::Center, VPos::Top)?;
        }
        for (index, (identifier, median, low, high, exact)) in rows.iter().enumerate() {
            let y = TOP + ROW * index as i32 + ROW / 2;
            let colour = if *exact >= 1.0 { MET } else { MISSED };
            text(area, identifier, (LEFT - 12, y), INK, HPos::Right, VPos::Center)?;
            line(area, &[(right(*low), y), (right(*high), y)], colour.stroke_width(3))?;
            area.draw(&Circle::new((right(*median), y), 6, colour.filled()))?;
            let word = match exact {
                exact if *exact > 1e6 => "none".to_owned(),
                exact => format!("{} x", show(*exact)),
            };
            let beside = (WIDTH - RIGHT + 14, y);
            text(area, &word, beside, colour, HPos::Left, VPos::Center)?;
        }
        Ok(())
    });
    Some(Plot {
        title: "How far from the goals",
        about: "1 is just reached, 2 twice as good as asked for; the line is the spread over the \
                repetitions, the dot their median.",
        svg,
    })
}

/// The margins of the worst and the best repetition, by what the goal is about.
fn margin_range(measure: &Measure) -> Option<[f64; 2]> {
    let end = |index: usize| {
        let ours = measure.spread.ours.map(|range| range[index]);
        let ratio = measure.spread.ratio.map(|range| range[index]);
        measure.goal.margin(ours, ratio)
    };
    let (one, other) = (end(0)?, end(1)?);
    Some([one.min(other), one.max(other)])
}

fn cpu_per_message(results: &Results) -> Option<Plot> {
    let bars = message_bars(results, "node_cpu_us_per_message", |case| {
        let (_, measure) = results.measures.iter().find(|(_, measure)| {
            measure.ours_case == case && measure.parts.is_empty() && measure.unit == "us"
        })?;
        measure.goal.line(measure.anchor, measure.ratio_is == SHARE)
    });
    Some(Plot {
        title: "Processor time per message",
        about: "User and system time of every process of the program, in microseconds, by the messages \
                it passed on: SEND in, 200 out, SEND out, 200 in. Texts of 200 bytes. Shorter is better.",
        svg: bar_chart(&bars?, "us", false),
    })
}

fn throughput(results: &Results) -> Option<Plot> {
    let bars = message_bars(results, "messages_per_second", |_| None);
    Some(Plot {
        title: "Messages per second",
        about: "As many as generator and program managed together, a core each: where the program is \
                fast this is what the generator can do, so judge by the processor time.",
        svg: bar_chart(&bars?, "/s", false),
    })
}

fn message_bars(
    results: &Results,
    path: &str,
    goal: impl Fn(&str) -> Option<f64>,
) -> Option<Vec<Bar>> {
    let cases = [
        ("kamailio-w8", "Kamailio, TCP", Whose::Peers),
        ("relay-w8", "mrf relay, TCP", Whose::Ours),
        ("room-w8", "mrf room, TCP", Whose::Ours),
        ("bare-w8", "bare, TCP", Whose::Limit),
        ("kamailio-w8-tls", "Kamailio, TLS", Whose::Peers),
        ("relay-w8-tls", "mrf relay, TLS", Whose::Ours),
        ("room-w8-psk", "mrf room, TLS-PSK", Whose::Ours),
        ("kamailio-w1", "Kamailio, window 1", Whose::Peers),
        ("relay-w1", "mrf relay, window 1", Whose::Ours),
        ("bare-w1", "bare, window 1", Whose::Limit),
    ];
    let bars = cases.into_iter().filter_map(|(case, label, whose)| {
        let value = results.figure(case, path)?;
        Some(Bar { label: label.to_owned(), value, whose, goal: goal(case) })
    });
    let bars: Vec<_> = bars.collect();
    (!bars.is_empty()).then_some(bars)
}

/// Percentiles at half of what each can carry.
fn latency(results: &Results) -> Option<Plot> {
    let cases = [
        ("half-load", "mrf, TCP", OURS),
        ("half-load-psk", "mrf, TLS-PSK", OURS_LIGHT),
        ("kamailio-half-load", "Kamailio, TCP", PEERS),
        ("bare-half-load", "bare, at mrf's rate", LIMIT),
    ];
    let percentiles =
        [("p50", "50 %"), ("p90", "90 %"), ("p99", "99 %"), ("p999", "99.9 %"), ("max", "max")];
    let lines: Vec<_> = cases
        .into_iter()
        .filter_map(|(case, label, colour)| {
            let values: Option<Vec<_>> = percentiles
                .iter()
                .map(|(key, _)| results.figure(case, &format!("latency_us.{key}")))
                .collect();
            Some(Line { label: label.to_owned(), colour, values: values? })
        })
        .collect();
    let places: Vec<_> = percentiles.iter().map(|(_, label)| (*label).to_owned()).collect();
    Some(Plot {
        title: "Latency at half of saturation",
        about: "From the moment a message was due to its delivery (open loop, so a stall counts for all \
                it delayed), 200 pairs, each program at half of what it can carry, bare at the rate of the relay. Median over the \
                repetitions; the bars are their spread. The scale is logarithmic.",
        svg: line_chart(lines, &places, Some((1_000.0, 3)), "us")?,
    })
}

/// Processor time by the number of pairs.
fn sizes(results: &Results) -> Option<Plot> {
    let sizes = ["10", "1000", "5000"];
    let cases = [
        ("bare-w1-", "", "bare", LIMIT),
        ("relay-w1-", "", "mrf, one shard", OURS),
        ("relay-w1-", "-2shards", "mrf, two shards", OURS_LIGHT),
    ];
    let lines: Vec<_> = cases
        .into_iter()
        .filter_map(|(before, behind, label, colour)| {
            let values: Option<Vec<_>> = sizes
                .iter()
                .map(|size| {
                    results.figure(&format!("{before}{size}{behind}"), "node_cpu_us_per_message")
                })
                .collect();
            Some(Line { label: label.to_owned(), colour, values: values? })
        })
        .collect();
    let places: Vec<_> = sizes.iter().map(|size| format!("{size} pairs")).collect();
    Some(Plot {
        title: "Processor time per message by the number of pairs",
        about: "Window 1, where nothing can be batched for one pair. What rises for bare is the kernel.",
        svg: line_chart(lines, &places, None, "us")?,
    })
}

fn memory(results: &Results) -> Option<Plot> {
    let (connection, reserved) = ("pss_bytes_per_session", "pss_bytes_per_reserved_session");
    let cases = [
        ("kamailio-idle-tls", connection, "Kamailio, TLS", Whose::Peers),
        ("plane-idle", connection, "mrf, its connection alone", Whose::Ours),
        ("plane-idle", reserved, "mrf, the whole session", Whose::Ours),
        ("node-idle", connection, "mrf, with the SIP call", Whose::Ours),
    ];
    let goal = results.measure("P5").and_then(|measure| measure.goal.line(None, false));
    let bars = cases.into_iter().filter_map(|(case, path, label, whose)| {
        let value = results.figure(case, path)?;
        let goal = goal.filter(|_| path == reserved);
        Some(Bar { label: label.to_owned(), value, whose, goal })
    });
    let bars: Vec<_> = bars.collect();
    (!bars.is_empty()).then(|| Plot {
        title: "Memory per idle session",
        about: "Growth of the proportional set size by the number of sessions, all protected and \
                silent. The scale is logarithmic.",
        svg: bar_chart(&bars, "B", true),
    })
}

/// What one core does in a second, where that is asked for.
fn per_core(results: &Results) -> Option<Plot> {
    let mut bars = Vec::new();
    for (identifier, measure) in &results.measures {
        if !measure.unit.ends_with("/core-second") || !measure.parts.is_empty() {
            continue;
        }
        let what = measure.unit.trim_end_matches("/core-second");
        for (is_ours, value, range) in [
            (true, measure.ours, measure.spread.ours),
            (false, measure.anchor, measure.spread.anchor),
        ] {
            let (Some(median), Some([min, max])) = (value, range) else { continue };
            let name = if is_ours { Some("mrf") } else { measure.anchor_name.as_deref() };
            bars.push(Bar {
                label: format!("{identifier} {what}, {}", name.unwrap_or_default()),
                value: Summary { median, min, max },
                whose: if is_ours { Whose::Ours } else { Whose::Peers },
                goal: measure
                    .goal
                    .line(measure.anchor, false)
                    .filter(|_| is_ours && measure.goal.ours_min.is_some()),
            });
        }
    }
    (!bars.is_empty()).then(|| Plot {
        title: "What one core does in a second",
        about: "Handshakes, whole calls and deliveries by the processor time the program used for them. \
                The scale is logarithmic; longer is better.",
        svg: bar_chart(&bars, "/s", true),
    })
}

fn bulk(results: &Results) -> Option<Plot> {
    let cases = [
        ("stunnel-bulk", "stunnel, two hops", Whose::Peers),
        ("haproxy-bulk", "haproxy, plain copy", Whose::Peers),
        ("haproxy-splice-bulk", "haproxy, splice", Whose::Peers),
        ("bulk", "mrf, TLS-PSK in and out", Whose::Ours),
    ];
    // Several are asked for; the highest has to be reached.
    let goals = results.measures.iter().filter(|(_, measure)| measure.ours_case == "bulk");
    let goals = goals.filter_map(|(_, measure)| measure.goal.line(measure.anchor, false));
    let goal = goals.max_by(f64::total_cmp);
    let bars = cases.into_iter().filter_map(|(case, label, whose)| {
        let value = results.figure(case, "node_gbit_per_cpu_second")?;
        Some(Bar { label: label.to_owned(), value, whose, goal: goal.filter(|_| case == "bulk") })
    });
    let bars: Vec<_> = bars.collect();
    (!bars.is_empty()).then(|| Plot {
        title: "Bulk",
        about: "Gigabits passed on per second of processor time, of all processes of the program. \
                Longer is better.",
        svg: bar_chart(&bars, "Gbit", false),
    })
}

/// Bars to the right, one below the other, with whiskers from the smallest to the largest.
fn bar_chart(bars: &[Bar], unit: &str, logarithmic: bool) -> String {
    let height = TOP + ROW * bars.len() as i32 + BAR_BOTTOM;
    let ends = bars.iter().flat_map(|bar| [Some(bar.value.max), bar.goal]).flatten();
    let largest = ends.fold(f64::MIN_POSITIVE, f64::max) * 1.02;
    let smallest = bars.iter().map(|bar| bar.value.min).fold(f64::INFINITY, f64::min);
    let smallest = (smallest / 3.0).max(f64::MIN_POSITIVE);
    let width = f64::from(WIDTH - BAR_LEFT - RIGHT);
    let right = |value: f64| {
        let share = match logarithmic {
            true => (value.max(smallest) / smallest).ln() / (largest / smallest).ln(),
            false => value / largest,
        };
        BAR_LEFT + (share * width) as i32
    };
    draw(height, |area| {
        for (index, bar) in bars.iter().enumerate() {
            let y = TOP + ROW * index as i32 + ROW / 2;
            let (median, colour) = (right(bar.value.median), bar.whose.colour());
            text(area, &bar.label, (BAR_LEFT - 12, y), INK, HPos::Right, VPos::Center)?;
            let corners = [(BAR_LEFT, y - 8), (median.max(BAR_LEFT + 1), y + 8)];
            area.draw(&Rectangle::new(corners, colour.filled()))?;
            let (min, max) = (right(bar.value.min), right(bar.value.max));
            line(area, &[(min, y), (max, y)], INK.stroke_width(1))?;
            for end in [min, max] {
                line(area, &[(end, y - 4), (end, y + 4)], INK.stroke_width(1))?;
            }
            let mut beside = max.max(median) + 8;
            if let Some(goal) = bar.goal.map(right) {
                line(area, &[(goal, y - 13), (goal, y + 13)], GOAL.stroke_width(2))?;
                if goal > beside - 8 && goal < beside + 90 {
                    beside = goal + 8;
                }
            }
            let word = format!("{} {unit}", show(bar.value.median));
            text(area, &word, (beside, y), INK, HPos::Left, VPos::Center)?;
        }
        if bars.iter().any(|bar| bar.goal.is_some()) {
            let y = height - BAR_BOTTOM / 2;
            line(area, &[(BAR_LEFT, y - 7), (BAR_LEFT, y + 7)], GOAL.stroke_width(2))?;
            text(area, "goal", (BAR_LEFT + 8, y), GOAL, HPos::Left, VPos::Center)?;
        }
        Ok(())
    })
}

struct Line {
    label: String,
    colour: RGBColor,
    /// One for each place.
    values: Vec<Summary>,
}

/// Lines over a few places, upwards on a logarithmic scale; `goal` is a height at one of the places.
fn line_chart(
    mut lines: Vec<Line>,
    places: &[String],
    goal: Option<(f64, usize)>,
    unit: &str,
) -> Option<String> {
    if lines.is_empty() {
        return None;
    }
    // The uppermost label first, so that each has its place beside its line.
    lines.sort_by(|one, other| other.last().total_cmp(&one.last()));
    let values = || lines.iter().flat_map(|line| &line.values);
    let ends = values().map(|value| value.max).chain(goal.map(|(goal, _)| goal));
    let largest = ends.fold(f64::MIN_POSITIVE, f64::max) * 1.25;
    let ends = values().map(|value| value.min).chain(goal.map(|(goal, _)| goal));
    let smallest = ends.fold(f64::INFINITY, f64::min).max(1e-3) / 1.25;
    let bottom = LINES_HEIGHT - BOTTOM;
    let (first, last) = (LEFT + 40, WIDTH - RIGHT - 110);
    let x = |index: usize| first + (last - first) * index as i32 / (places.len() as i32 - 1).max(1);
    let y = |value: f64| {
        let share = (value.max(smallest) / smallest).ln() / (largest / smallest).ln();
        bottom - (share * f64::from(bottom - TOP)) as i32
    };
    let svg = draw(LINES_HEIGHT, |area| {
        for tick in ticks(smallest, largest) {
            line(area, &[(LEFT, y(tick)), (last + 20, y(tick))], GRID.stroke_width(1))?;
            let word = format!("{} {unit}", show(tick));
            text(area, &word, (LEFT - 10, y(tick)), FAINT, HPos::Right, VPos::Center)?;
        }
        for (index, place) in places.iter().enumerate() {
            text(area, place, (x(index), bottom + 8), FAINT, HPos::Center, VPos::Top)?;
        }
        if let Some((goal, place)) = goal {
            let ends = [(x(place) - 30, y(goal)), (x(place) + 30, y(goal))];
            line(area, &ends, GOAL.stroke_width(2))?;
            let above = (x(place), y(goal) - 6);
            text(area, "goal", above, GOAL, HPos::Center, VPos::Bottom)?;
        }
        let mut taken = Vec::new();
        for Line { label, colour, values } in &lines {
            let points: Vec<_> = values
                .iter()
                .enumerate()
                .map(|(index, value)| (x(index), y(value.median)))
                .collect();
            line(area, &points, colour.stroke_width(3))?;
            for (index, value) in values.iter().enumerate() {
                let ends = [(x(index), y(value.min)), (x(index), y(value.max))];
                line(area, &ends, colour.stroke_width(1))?;
                area.draw(&Circle::new(points[index], 4, colour.filled()))?;
            }
            let mut at = points.last().map_or(bottom, |point| point.1);
            while taken.iter().any(|other: &i32| (other - at).abs() < 18) {
                at += 6;
            }
            taken.push(at);
            let word = format!("{label}, {}", show(values.last().map_or(0.0, |last| last.median)));
            text(area, &word, (last_x(&points) + 14, at), *colour, HPos::Left, VPos::Center)?;
        }
        Ok(())
    });
    Some(svg)
}

impl Line {
    fn last(&self) -> f64 {
        self.values.last().map_or(0.0, |value| value.median)
    }
}

fn last_x(points: &[(i32, i32)]) -> i32 {
    points.last().map_or(LEFT, |point| point.0)
}

/// 1, 2, 5, 10, … between the two; 1, 2, 3, 4, … where they are near.
fn ticks(smallest: f64, largest: f64) -> Vec<f64> {
    let is_wide = largest / smallest > 10.0;
    let digits: &[f64] =
        if is_wide { &[1.0, 2.0, 5.0] } else { &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0] };
    let mut ticks = Vec::new();
    let mut decade = 10f64.powf(smallest.log10().floor());
    while decade < largest {
        ticks.extend(digits.iter().map(|digit| digit * decade));
        decade *= 10.0;
    }
    ticks.retain(|tick| (smallest..=largest).contains(tick));
    ticks
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn draw(height: i32, content: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut svg = String::new();
    {
        let area =
            SVGBackend::with_string(&mut svg, (WIDTH as u32, height as u32)).into_drawing_area();
        // Into a string there is nothing that could fail.
        content(&area).and_then(|()| area.present()).expect("memory takes what is drawn");
    }
    svg
}

fn line(area: &Area<'_>, points: &[(i32, i32)], style: ShapeStyle) -> Drawn {
    area.draw(&PathElement::new(points.to_vec(), style))
}

fn text(
    area: &Area<'_>,
    word: &str,
    at: (i32, i32),
    colour: RGBColor,
    horizontal: HPos,
    vertical: VPos,
) -> Drawn {
    let style = TextStyle::from(("sans-serif", FONT_SIZE).into_font())
        .color(&colour)
        .pos(Pos::new(horizontal, vertical));
    area.draw(&Text::new(word.to_owned(), at, style))
}

impl Whose {
    fn colour(self) -> RGBColor {
        match self {
            Self::Ours => OURS,
            Self::Peers => PEERS,
            Self::Limit => LIMIT,
        }
    }
}

const SHARE: &str = "anchor / ours";

const WIDTH: i32 = 880;
const LEFT: i32 = 150;
const BAR_LEFT: i32 = 270;
const RIGHT: i32 = 110;
const TOP: i32 = 14;
const BOTTOM: i32 = 34;
const BAR_BOTTOM: i32 = 24;
const ROW: i32 = 30;
const LINES_HEIGHT: i32 = 360;
const FONT_SIZE: i32 = 14;
/// Beyond these a dot stands at the edge.
const MARGIN_MIN: f64 = 0.2;
const MARGIN_MAX: f64 = 5.0;

const INK: RGBColor = RGBColor(30, 41, 59);
const FAINT: RGBColor = RGBColor(100, 116, 139);
const GRID: RGBColor = RGBColor(226, 232, 240);
const GOAL: RGBColor = RGBColor(217, 119, 6);
const MET: RGBColor = RGBColor(21, 128, 61);
const MISSED: RGBColor = RGBColor(185, 28, 28);
const OURS: RGBColor = RGBColor(37, 99, 235);
const OURS_LIGHT: RGBColor = RGBColor(14, 165, 233);
const PEERS: RGBColor = RGBColor(148, 130, 112);
const LIMIT: RGBColor = RGBColor(120, 140, 165);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf::report::tests::fixture;

    #[test]
    fn there_is_a_plot_for_all_there_are_figures_for() {
        let titles: Vec<_> = plots(&fixture()).iter().map(|plot| plot.title).collect();
        assert_eq!(titles.len(), 8, "{titles:?}");
        let mut empty = fixture();
        empty.cases.clear();
        empty.measures.clear();
        assert!(plots(&empty).is_empty());
    }

    #[test]
    fn every_plot_is_well_formed_xml() {
        for plot in plots(&fixture()) {
            let mut reader = quick_xml::Reader::from_str(&plot.svg);
            let (mut elements, mut depth) = (0, 0);
            loop {
                match reader.read_event().unwrap_or_else(|error| panic!("{}: {error}", plot.title))
                {
                    quick_xml::events::Event::Start(_) => depth += 1,
                    quick_xml::events::Event::End(_) => depth -= 1,
                    quick_xml::events::Event::Empty(_) => elements += 1,
                    quick_xml::events::Event::Eof => break,
                    _ => {}
                }
            }
            assert!(elements > 3 && depth == 0, "{}", plot.title);
        }
    }

    #[test]
    fn ticks_are_round_numbers_between_the_ends() {
        assert_eq!(ticks(0.4, 30.0), [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]);
        assert_eq!(ticks(7.0, 17.0), [8.0, 10.0, 15.0]);
    }
}
