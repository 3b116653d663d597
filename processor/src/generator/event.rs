//! One LLM request as a JSON line. Must not decide how often anything happens between events: that is the generator.

use super::random::Random;

const MODELS: [&str; 6] = [
    "atlas-large",
    "atlas-small",
    "nova-pro",
    "nova-mini",
    "quartz-70b",
    "quartz-7b",
];
const REGIONS: [&str; 4] = ["eu-west-1", "eu-central-1", "us-east-1", "ap-south-1"];
const ROUTES: [&str; 3] = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"];
const CLIENTS: [&str; 4] = ["python/1.52.0", "node/4.71.1", "go/0.1.0-beta.9", "curl/8.5.0"];
/// Errors as seen in front of model servers, most frequent first.
const ERRORS: [u64; 4] = [429, 500, 503, 400];
const ERROR_PER_MILLION: u64 = 18_000;

/// In which way a bad event is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defect {
    /// The line ends in the middle.
    Truncated,
    /// There is no `ts`.
    TimestampMissing,
    /// `ts` is no time.
    TimestampInvalid,
    /// `tenant` is null.
    TenantNull,
    /// `latency_ms` is text.
    LatencyText,
}

impl Defect {
    pub(super) const COUNT: u64 = 5;

    pub(super) fn nth(index: u64) -> Self {
        match index {
            0 => Self::Truncated,
            1 => Self::TimestampMissing,
            2 => Self::TimestampInvalid,
            3 => Self::TenantNull,
            _ => Self::LatencyText,
        }
    }
}

/// One request, drawn but not yet written.
#[derive(Debug)]
pub(super) struct Event {
    timestamp_ms: i64,
    user: u64,
    tenant: u64,
    model: u64,
    region: usize,
    route: usize,
    client: usize,
    identity: [u64; 4],
    status: u64,
    stream: bool,
    prompt_tokens: u64,
    completion_tokens: u64,
    queue_us: u64,
    first_token_us: u64,
    latency_us: u64,
    cost_nano_usd: u64,
    feedback: Option<bool>,
    temperature_tenths: u64,
    defect: Option<Defect>,
}

fn pick(random: &mut Random, count: usize) -> usize {
    usize::try_from(random.below(count as u64)).unwrap_or(0)
}

impl Event {
    /// Draws how the request went. The product of two draws gives the long right tail of token counts.
    pub(super) fn draw(
        random: &mut Random,
        timestamp_ms: i64,
        user: u64,
        tenant: u64,
        model: u64,
        defect: Option<Defect>,
    ) -> Self {
        let failed = random.chance(ERROR_PER_MILLION);
        let status = if failed {
            ERRORS[pick(random, ERRORS.len()).min(pick(random, ERRORS.len()))]
        } else {
            200
        };
        let prompt_tokens = 16 + random.below(90) * random.below(90);
        let completion_tokens = if failed {
            0
        } else {
            1 + random.below(40) * random.below(40)
        };
        let queue_us = random.below(300) * random.below(300);
        let first_token_us = 60_000 + queue_us + prompt_tokens * 45 + random.below(40_000);
        let token_us = 8_000 + 3_000 * (model % 6) + random.below(4_000);
        Self {
            timestamp_ms,
            user,
            tenant,
            model,
            region: pick(random, REGIONS.len()),
            route: pick(random, ROUTES.len()).min(pick(random, ROUTES.len())),
            client: pick(random, CLIENTS.len()),
            identity: [random.next(), random.next(), random.next(), random.next()],
            status,
            stream: random.chance(700_000),
            prompt_tokens,
            completion_tokens,
            queue_us,
            first_token_us,
            latency_us: first_token_us + completion_tokens * token_us,
            cost_nano_usd: prompt_tokens * 250 * (1 + model % 6) + completion_tokens * 1_250 * (1 + model % 6),
            feedback: if random.chance(50_000) {
                Some(random.chance(800_000))
            } else {
                None
            },
            temperature_tenths: random.below(11),
            defect,
        }
    }

    /// Appends the event, without a newline. The fields that jobs use lie at the front, in the middle and at the end.
    pub(super) fn write(&self, line: &mut Vec<u8>) {
        let start = line.len();
        line.push(b'{');
        self.write_identity(line);
        self.write_request(line);
        self.write_outcome(line);
        line.push(b'}');
        if self.defect == Some(Defect::Truncated) {
            line.truncate(start + (line.len() - start) / 2);
        }
    }

    fn write_identity(&self, line: &mut Vec<u8>) {
        match self.defect {
            Some(Defect::TimestampMissing) => {}
            Some(Defect::TimestampInvalid) => text(line, "\"ts\":\"yesterday\","),
            Some(Defect::Truncated | Defect::TenantNull | Defect::LatencyText) | None => {
                text(line, "\"ts\":\"");
                rfc3339(line, self.timestamp_ms);
                text(line, "\",");
            }
        }
        text(line, "\"request_id\":\"");
        hexadecimal(line, self.identity[0]);
        text(line, "\",\"trace_id\":\"");
        hexadecimal(line, self.identity[1]);
        hexadecimal(line, self.identity[2]);
        if self.defect == Some(Defect::TenantNull) {
            text(line, "\",\"tenant\":null");
        } else {
            text(line, "\",\"tenant\":\"tenant-");
            padded(line, self.tenant, 4);
            line.push(b'"');
        }
        text(line, ",\"region\":\"");
        text(line, REGIONS[self.region]);
        text(line, "\",\"route\":\"");
        text(line, ROUTES[self.route]);
        text(line, "\",\"model\":\"");
        match usize::try_from(self.model).ok().and_then(|index| MODELS.get(index)) {
            Some(name) => text(line, name),
            None => {
                text(line, "model-");
                padded(line, self.model, 4);
            }
        }
        text(line, "\",\"user\":\"user-");
        padded(line, self.user, 6);
        text(line, "\",");
    }

    fn write_request(&self, line: &mut Vec<u8>) {
        text(line, "\"status\":");
        padded(line, self.status, 1);
        text(
            line,
            if self.stream {
                ",\"stream\":true"
            } else {
                ",\"stream\":false"
            },
        );
        text(line, ",\"client\":{\"sdk\":\"");
        text(line, CLIENTS[self.client]);
        text(line, "\",\"tags\":[\"prod\",\"batch-");
        padded(line, self.identity[3] % 64, 2);
        text(line, "\"],\"session\":\"");
        hexadecimal(line, self.identity[3]);
        text(line, "\"},\"queue_ms\":");
        tenths(line, self.queue_us / 100);
        if self.defect == Some(Defect::LatencyText) {
            text(line, ",\"latency_ms\":\"slow\"");
        } else {
            text(line, ",\"latency_ms\":");
            tenths(line, self.latency_us / 100);
        }
        text(line, ",\"ttft_ms\":");
        tenths(line, self.first_token_us / 100);
    }

    fn write_outcome(&self, line: &mut Vec<u8>) {
        text(line, ",\"temperature\":");
        tenths(line, self.temperature_tenths);
        text(line, ",\"usage\":{\"prompt\":");
        padded(line, self.prompt_tokens, 1);
        text(line, ",\"completion\":");
        padded(line, self.completion_tokens, 1);
        text(line, "},\"cost_usd\":");
        nanos(line, self.cost_nano_usd);
        text(line, ",\"finish_reason\":\"");
        text(line, if self.completion_tokens == 0 { "error" } else { "stop" });
        text(line, "\",\"feedback\":");
        text(line, self.feedback.map_or("null", |good| if good { "1" } else { "-1" }));
        text(line, ",\"node\":\"gpu-");
        padded(line, self.identity[0] % 48, 2);
        line.push(b'"');
    }
}

fn text(line: &mut Vec<u8>, text: &str) {
    line.extend_from_slice(text.as_bytes());
}

/// Decimal digits, with leading zeros up to `width`.
fn padded(line: &mut Vec<u8>, mut number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    while number > 0 || digits.len() - first < width.min(digits.len()) {
        first -= 1;
        digits[first] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
    line.extend_from_slice(&digits[first..]);
}

fn hexadecimal(line: &mut Vec<u8>, number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bytes = number.to_be_bytes();
    line.extend(
        bytes
            .iter()
            .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
    );
}

fn tenths(line: &mut Vec<u8>, tenths: u64) {
    padded(line, tenths / 10, 1);
    line.push(b'.');
    padded(line, tenths % 10, 1);
}

/// A number of 10^-9, without trailing zeros.
fn nanos(line: &mut Vec<u8>, nanos: u64) {
    padded(line, nanos / 1_000_000_000, 1);
    line.push(b'.');
    padded(line, nanos % 1_000_000_000, 9);
    while line.ends_with(b"0") && !line.ends_with(b".0") {
        line.pop();
    }
}

/// `2026-01-01T00:00:00.000Z`; days to civil date by Howard Hinnant's algorithm. Times before the year 0 are clamped.
fn rfc3339(line: &mut Vec<u8>, timestamp_ms: i64) {
    const YEAR_0_MS: i64 = -62_167_219_200_000;
    let timestamp_ms = timestamp_ms.max(YEAR_0_MS);
    let (day, of_day) = (timestamp_ms.div_euclid(86_400_000), timestamp_ms.rem_euclid(86_400_000));
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    for (number, width, after) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day_of_month, 2, b'T'),
        (of_day / 3_600_000, 2, b':'),
        (of_day / 60_000 % 60, 2, b':'),
        (of_day / 1_000 % 60, 2, b'.'),
        (of_day % 1_000, 3, b'Z'),
    ] {
        padded(line, number.unsigned_abs(), width);
        line.push(after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut line = Vec::new();
        write(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn times_are_rfc_3339_with_milliseconds() {
        for (ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_767_225_599_007, "2025-12-31T23:59:59.007Z"),
            (-62_167_219_200_000, "0000-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(written(|line| rfc3339(line, ms)), expected);
        }
    }

    #[test]
    fn numbers_are_written_in_plain_digits() {
        assert_eq!(written(|line| padded(line, 0, 1)), "0");
        assert_eq!(written(|line| padded(line, 42, 4)), "0042");
        assert_eq!(written(|line| padded(line, u64::MAX, 1)), u64::MAX.to_string());
        assert_eq!(written(|line| tenths(line, 8_124)), "812.4");
        assert_eq!(written(|line| nanos(line, 3_420_000)), "0.00342");
        assert_eq!(written(|line| nanos(line, 2_000_000_000)), "2.0");
        assert_eq!(written(|line| hexadecimal(line, 0xab)), "00000000000000ab");
    }
}
