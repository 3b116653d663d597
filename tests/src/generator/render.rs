//! How a generated time is written in an event, and a generated spec as a manifest. Must not draw at random.

use serde_json::{Value, json};

use super::window::ZONES;
use crate::oracle::{Function, Missing, Repeat, Shape, Spec, Unit, Watermark, Window};

/// `time_ms` in the given unit, plus at times a fraction of a millisecond that has to be floored away.
pub(super) fn time(unit: Unit, time_ms: i64, spelling: usize) -> String {
    let fraction = ["", "0", "25", "999", "5", "000001"][spelling];
    // As a number of nanoseconds, then with the decimal point put where the unit wants it.
    let nanoseconds = i128::from(time_ms) * 1_000_000 + format!("{fraction:0<6}").parse::<i128>().unwrap_or(0);
    let digits = match unit {
        Unit::Rfc3339 => return format!("\"{}\"", rfc3339(time_ms, fraction, spelling)),
        Unit::Seconds => 9,
        Unit::Milliseconds => 6,
        Unit::Microseconds => 3,
        Unit::Nanoseconds => 0,
    };
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let text = format!("{:0>width$}", nanoseconds.unsigned_abs(), width = digits + 1);
    let (whole, rest) = text.split_at(text.len() - digits);
    match (digits, spelling) {
        (0, 3) => format!("{sign}{whole}.75"),
        (0, _) => format!("{sign}{whole}"),
        // No JSON number begins with a zero and goes on.
        (_, 4) => match format!("{whole}{rest}").trim_start_matches('0') {
            "" => "0".to_owned(),
            number => format!("{sign}{number}e-{digits}"),
        },
        _ if rest.bytes().all(|digit| digit == b'0') && spelling == 0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{rest}"),
    }
}

fn rfc3339(time_ms: i64, fraction: &str, spelling: usize) -> String {
    let (shift_minutes, zone) = [
        (0, "Z"),
        (0, "+00:00"),
        (90, "+01:30"),
        (-480, "-08:00"),
        (0, "Z"),
        (0, "Z"),
    ][spelling];
    let local = time_ms + shift_minutes * 60_000;
    let (days, ms) = (local.div_euclid(86_400_000), local.rem_euclid(86_400_000));
    // The civil date by walking the years and months: slow and plain.
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let (mut year, mut rest) = (1970, days);
    while rest < 0 {
        year -= 1;
        rest += 365 + i64::from(leap(year));
    }
    while rest >= 365 + i64::from(leap(year)) {
        rest -= 365 + i64::from(leap(year));
        year += 1;
    }
    let mut month = 0;
    let lengths = [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while rest >= lengths[month] {
        rest -= lengths[month];
        month += 1;
    }
    let seconds = ms / 1000;
    let (hour, minute, second, ms) = (seconds / 3600, seconds / 60 % 60, seconds % 60, ms % 1000);
    let digits = if ms == 0 && spelling == 4 {
        String::new()
    } else {
        format!(".{ms:03}{fraction}")
    };
    format!(
        "{year:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}{digits}{zone}",
        month + 1,
        rest + 1
    )
}

fn window_spec(window: &Window) -> Value {
    let ms = |ms: i64| format!("{ms}ms");
    let (size, slide, offset) = (ms(window.size_ms), ms(window.slide_ms), ms(window.offset_ms));
    let (kind, value) = match window.shape {
        Shape::Sliding if window.size_ms == window.slide_ms => ("tumbling", json!({"size": size, "offset": offset})),
        Shape::Sliding => ("sliding", json!({"size": size, "slide": slide, "offset": offset})),
        Shape::Cumulative => ("cumulative", json!({"size": size, "step": slide, "offset": offset})),
        Shape::Session if window.size_ms == 0 => ("session", json!({"gap": slide})),
        Shape::Session => ("session", json!({"gap": slide, "maxDuration": size})),
        Shape::SessionByField => ("session", json!({"gapField": "/gap", "maxDuration": size})),
        Shape::Day => {
            let zone = ZONES.iter().find(|(_, offset_ms)| *offset_ms == window.offset_ms);
            (
                "calendar",
                json!({"unit": "Day", "timeZone": zone.map(|(name, _)| name)}),
            )
        }
        Shape::Global => ("global", json!({})),
        Shape::Count if window.size_ms == window.slide_ms => ("count", json!({"size": window.size_ms})),
        Shape::Count => ("count", json!({"size": window.size_ms, "slide": window.slide_ms})),
    };
    let repeat = |repeat: Repeat| match repeat {
        Repeat::Events(events) => json!({"everyEvents": events}),
        Repeat::Time(every) => json!({"every": ms(every)}),
    };
    let mut trigger = json!({
        "onTime": window.trigger.on_time,
        "late": repeat(window.trigger.late),
        "final": window.trigger.closing,
    });
    if let Some(early) = window.trigger.early {
        trigger["early"] = repeat(early);
    }
    json!({
        "name": window.name,
        kind: value,
        "allowedLateness": ms(window.lateness_ms),
        "trigger": trigger,
        "panes": format!("{:?}", window.panes),
    })
}

/// The manifest's `spec` for these parameters, as a user would write it.
pub fn manifest(spec: &Spec) -> Value {
    let pointer = |path: &[String]| format!("/{}", path.join("/"));
    let ms = |ms: i64| format!("{ms}ms");
    let key = |(name, path, missing): &(String, Vec<String>, Missing)| {
        let rule = match missing {
            Missing::Reject => json!({"reject": {}}),
            Missing::Null => json!({"null": {}}),
            Missing::Default(text) => json!({"default": serde_json::from_str::<Value>(text).unwrap_or_default()}),
        };
        match path.first().and_then(|name| name.strip_prefix('@')) {
            Some(property @ ("Topic" | "Partition" | "Key" | "Timestamp")) => {
                json!({"name": name, "metadata": property, "whenMissing": rule})
            }
            Some(header) => json!({"name": name, "header": header, "whenMissing": rule}),
            None => json!({"name": name, "field": pointer(path), "whenMissing": rule}),
        }
    };
    let unit = format!("{:?}", spec.unit);
    let timestamp = if spec.timestamp.is_empty() {
        json!({"record": {}, "unit": unit})
    } else {
        json!({"field": pointer(&spec.timestamp), "unit": unit})
    };
    let watermark = match &spec.watermark {
        Watermark::Bounded => json!({"boundedOutOfOrderness": {"bound": ms(spec.bound_ms)}}),
        Watermark::Monotonic => json!({"monotonic": {}}),
        Watermark::Punctuated { field } => json!({"punctuated": {"field": pointer(field)}}),
        Watermark::Periodic { step_ms } => json!({"periodic": {"bound": ms(spec.bound_ms), "step": ms(*step_ms)}}),
    };
    json!({
        "explode": spec.explode.as_ref().map(|path| json!({"field": pointer(path)})),
        "source": {
            "kafka": {
                "bootstrapServers": ["127.0.0.1:9092"],
                "topics": ["events"],
                "loadShedding": spec.sheds.then(|| json!({})),
            },
            "format": {"json": {"strict": false}},
            "partitioning": {"byKey": {}},
        },
        "event": {
            "timestamp": timestamp,
            "watermark": watermark,
            "maxFutureSkew": spec.skew_ms.map(ms),
        },
        "groupBy": spec.group_by.iter().map(key).collect::<Vec<_>>(),
        "windows": spec.windows.iter().map(window_spec).collect::<Vec<_>>(),
        "aggregates": aggregates(spec),
        "sink": {"kafka": {"topic": "results"}},
        "lateEvents": {"kafka": {"topic": "late"}},
        "deadLetters": {"kafka": {"topic": "dead"}},
        "maxBadRatio": 1.0,
    })
}

/// The aggregates, those of a composite together.
fn aggregates(spec: &Spec) -> Vec<Value> {
    let composite = |name: &str| name.split_once('.').map(|(composite, _)| composite.to_owned());
    let mut list: Vec<Value> = Vec::new();
    for group in spec
        .aggregates
        .chunk_by(|a, b| composite(&a.0).is_some() && composite(&a.0) == composite(&b.0))
    {
        let named = |(name, function, path): &(String, Function, Vec<String>)| {
            let mut document = self::function(function, path);
            document["name"] = json!(name.rsplit('.').next());
            document
        };
        match composite(&group[0].0) {
            Some(name) => list.push(json!({"name": name, "composite": group.iter().map(named).collect::<Vec<_>>()})),
            None => list.extend(group.iter().map(named)),
        }
    }
    list
}

fn function(function: &Function, path: &[String]) -> Value {
    let pointer = |path: &[String]| format!("/{}", path.join("/"));
    let other = |path: &[String]| json!({"field": pointer(path)});
    let numbers = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| json!(text.parse::<f64>().unwrap_or_default()))
            .collect::<Vec<_>>()
    };
    let of = pointer(path);
    match function {
        Function::Count => json!({"count": {}}),
        Function::Sum => json!({"sum": {"field": of}}),
        Function::Average => json!({"average": {"field": of}}),
        Function::Min => json!({"min": {"field": of}}),
        Function::Max => json!({"max": {"field": of}}),
        Function::First => json!({"first": {"field": of}}),
        Function::Last => json!({"last": {"field": of}}),
        Function::ArgMin(by) => json!({"argMin": {"field": of, "by": other(by)}}),
        Function::ArgMax(by) => json!({"argMax": {"field": of, "by": other(by)}}),
        Function::Variance(population) => json!({"variance": {"field": of, "population": population}}),
        Function::Stddev(population) => json!({"stddev": {"field": of, "population": population}}),
        Function::Percentile(shares) => json!({"percentile": {"field": of, "quantiles": numbers(shares)}}),
        Function::Distinct => json!({"distinct": {"field": of}}),
        Function::TopK(k) => json!({"topK": {"field": of, "k": k}}),
        Function::Histogram(bounds) => json!({"histogram": {"field": of, "bounds": numbers(bounds)}}),
        Function::EventRate(per) => json!({"rate": {"per": format!("{per}ms")}}),
        Function::SumRate(per) => json!({"rate": {"field": of, "per": format!("{per}ms")}}),
        Function::Ratio(divisor) => json!({"ratio": {"numerator": {"field": of}, "denominator": other(divisor)}}),
        Function::WeightedAverage(weight) => json!({"weightedAverage": {"field": of, "weight": other(weight)}}),
    }
}
