//! A benchmark as a picture: speed over context length, prompts against the left axis, decoding
//! against the right one, with a whisker from the slowest run to the fastest.

use std::fmt::Write;

use super::Report;
use crate::Summary;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 730.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 380.0;
/// Lines of the grid.
const STEPS: usize = 5;
const PREFILL: &str = "#1f6fb4";
/// One for each batch size, again from the start where there are more.
const DECODE: [&str; 5] = ["#c0392b", "#e08e2b", "#7d3c98", "#138d75", "#5d6d7e"];

/// A line of the chart.
struct Series<'a> {
    name: String,
    colour: &'a str,
    /// Whether it is read from the right axis.
    right: bool,
    /// Context length and speed.
    points: Vec<(usize, &'a Summary)>,
}

/// The picture, as SVG.
pub fn chart(report: &Report) -> String {
    let series = series(report);
    let longest = report.frontiers.last().map_or(1, |frontier| frontier.tokens).max(1) as f64;
    let most = |right: bool| {
        let side = series.iter().filter(|series| series.right == right);
        nice(side.flat_map(|s| &s.points).map(|(_, speed)| speed.max()).fold(0.0, f64::max))
    };
    let (left_most, right_most) = (most(false), most(true));
    let x = |tokens: usize| LEFT + (RIGHT - LEFT) * tokens as f64 / longest;
    let y = |speed: f64, right: bool| {
        BOTTOM - (BOTTOM - TOP) * speed / if right { right_most } else { left_most }
    };

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let file = report.subject.file.rsplit('/').next().unwrap_or_default();
    let title = format!("{file} on {}", report.machine.processor);
    text(&mut svg, (LEFT, 22.0), "start", "black", &title);
    axes(&mut svg, [left_most, right_most], longest);
    let mut legend = LEFT;
    for line in &series {
        let colour = line.colour;
        let mut path = String::new();
        for (tokens, speed) in &line.points {
            let (x, y) = (x(*tokens), |speed: f64| y(speed, line.right));
            let median = y(speed.median());
            let _ = write!(path, "{x:.1},{median:.1} ");
            let _ = writeln!(
                svg,
                "<path d=\"M{x:.1} {:.1}V{:.1}\" stroke=\"{colour}\" opacity=\"0.5\"/>\n\
                 <circle cx=\"{x:.1}\" cy=\"{median:.1}\" r=\"3\" fill=\"{colour}\"/>",
                y(speed.min()),
                y(speed.max()),
            );
        }
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.trim_end()
        );
        text(&mut svg, (legend, 44.0), "start", colour, &line.name);
        legend += 130.0;
    }
    svg.push_str("</svg>\n");
    svg
}

fn series(report: &Report) -> Vec<Series<'_>> {
    let prefill = report.frontiers.iter().map(|frontier| (frontier.tokens, &frontier.prefill));
    let prompts = Series {
        name: "prompt t/s (left)".into(),
        colour: PREFILL,
        right: false,
        points: prefill.collect(),
    };
    let decode = report.options.batches.iter().zip(DECODE.iter().cycle()).enumerate();
    let decode = decode.map(|(which, (batch, colour))| {
        let points = report.frontiers.iter().filter_map(|frontier| {
            frontier.decode.get(which).map(|decode| (frontier.tokens, &decode.rate))
        });
        let name = match batch {
            1 => "decode t/s (right)".to_owned(),
            batch => format!("{batch} together"),
        };
        Series { name, colour, right: true, points: points.collect() }
    });
    [prompts].into_iter().chain(decode.filter(|series| !series.points.is_empty())).collect()
}

fn axes(svg: &mut String, most: [f64; 2], longest: f64) {
    for step in 0..=STEPS {
        let part = step as f64 / STEPS as f64;
        let y = BOTTOM - (BOTTOM - TOP) * part;
        let _ = writeln!(svg, "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#dddddd\"/>");
        let [left, right] = most.map(|most| short(most * part));
        text(svg, (LEFT - 8.0, y + 4.0), "end", PREFILL, &left);
        text(svg, (RIGHT + 8.0, y + 4.0), "start", DECODE[0], &right);
        let x = LEFT + (RIGHT - LEFT) * part;
        let tokens = format!("{:.0}", longest * part);
        text(svg, (x, BOTTOM + 18.0), "middle", "black", &tokens);
    }
    text(svg, ((LEFT + RIGHT) / 2.0, BOTTOM + 40.0), "middle", "black", "tokens of context");
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, colour: &str, text: &str) {
    let text = escape(text);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>"
    );
}

/// File names may spell anything.
fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut safe, c| {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
        safe
    })
}

/// The end of an axis: the next of 1, 2, 5, 10, 20, ... that is no less.
fn nice(most: f64) -> f64 {
    if !(most > 0.0 && most.is_finite()) {
        return 1.0;
    }
    let power = 10f64.powf(most.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|end| *end >= most)
        .unwrap_or(most)
}

fn short(value: f64) -> String {
    match value {
        value if value >= 10.0 || value == 0.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::example, *};

    /// Every element is closed in order, every attribute quoted, every `&` a known entity.
    #[track_caller]
    fn check_well_formed(svg: &str) {
        let mut open = Vec::new();
        let mut rest = svg;
        while let Some((text, tail)) = rest.split_once('<') {
            assert!(!text.contains('>'), "{text}");
            let entities = text.split('&').skip(1);
            entities.for_each(|e| {
                assert!(["lt;", "gt;", "amp;"].iter().any(|k| e.starts_with(k)), "{e}")
            });
            let (tag, tail) = tail.split_once('>').expect("a tag ends");
            rest = tail;
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
                continue;
            }
            let (name, attributes) = tag.split_once(' ').expect("all tags have attributes");
            let attributes = attributes.trim_end_matches('/');
            assert_eq!(attributes.matches('"').count() % 2, 0, "{attributes}");
            assert!(
                attributes.split('"').step_by(2).all(|key| key.is_empty() || key.ends_with('='))
            );
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn a_chart_is_well_formed_and_has_a_line_for_each_series() {
        let mut report = example::report();
        report.subject.file = "folder/a <b> & \"c\"\n.gguf".into();
        let svg = chart(&report);
        check_well_formed(&svg);
        assert!(svg.contains(">a &lt;b&gt; &amp; \"c\" .gguf on Example 9000"));
        assert_eq!(svg.matches("<polyline").count(), 3, "prompts, alone, four together");
        assert_eq!(svg.matches("<circle").count(), 6);
        assert!(svg.contains(">4 together</text>"));
    }

    #[test]
    fn little_is_drawn_of_little() {
        let mut report = example::report();
        report.frontiers.truncate(1);
        report.frontiers[0].decode.clear();
        report.frontiers[0].prefill = Summary::default();
        check_well_formed(&chart(&report));
        report.frontiers.clear();
        check_well_formed(&chart(&report));
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (most, end) in [
            (0.0, 1.0),
            (0.7, 1.0),
            (1.0, 1.0),
            (1.1, 2.0),
            (47.0, 50.0),
            (51.0, 100.0),
            (f64::NAN, 1.0),
        ] {
            assert!((nice(most) - end).abs() < 1e-9, "{most}: {}", nice(most));
        }
    }
}
