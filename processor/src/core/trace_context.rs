//! W3C trace context as records carry it: the header `traceparent`. Must not make ids: everything is taken from the log.

/// Header with the context.
pub const TRACEPARENT: &str = "traceparent";
/// Header with what vendors add to it.
pub const TRACESTATE: &str = "tracestate";
/// Longest `traceparent` that is passed on: that of the present version has 55 bytes, later ones may append to it.
pub const TRACEPARENT_MAX: usize = 128;
/// Longest `tracestate` that is passed on, as the standard has it.
pub const TRACESTATE_MAX: usize = 512;

/// The context of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Id of the trace.
    pub trace_id: u128,
    /// Id of the span.
    pub span_id: u64,
    /// Whether it is recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// Parses `00-<32 hex>-<16 hex>-<2 hex>`; what is no valid context is none.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(header).ok()?;
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, length: usize| {
            let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            (text.len() == length && text.bytes().all(is_hex)).then(|| u128::from_str_radix(text, 16).ok())?
        };
        let version = hex(version, 2)?;
        // Later versions may append parts; this one has none.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let (trace_id, span_id, flags) = (hex(trace, 32)?, hex(span, 16)?, hex(flags, 2)?);
        let context = Self {
            trace_id,
            span_id: u64::try_from(span_id).ok()?,
            sampled: flags & 1 == 1,
        };
        (context.trace_id != 0 && context.span_id != 0).then_some(context)
    }
}

/// What of a record's headers is passed on with what it puts out: `traceparent`, when it is a context, and `tracestate`.
/// Of several the last counts.
pub fn passed_on<'a>(headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Vec<(String, Option<Vec<u8>>)> {
    let (mut parent, mut state) = (None, None);
    for (name, value) in headers {
        match name {
            TRACEPARENT => parent = value,
            TRACESTATE => state = value,
            _ => {}
        }
    }
    let is_context = |parent: &&[u8]| parent.len() <= TRACEPARENT_MAX && TraceContext::parse(parent).is_some();
    let Some(parent) = parent.filter(is_context) else {
        return Vec::new();
    };
    let state = state.filter(|state| state.len() <= TRACESTATE_MAX);
    let both = [(TRACEPARENT, Some(parent)), (TRACESTATE, state)];
    both.into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), Some(value?.to_vec()))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_passed_on_as_it_came_and_what_is_none_is_not() {
        const PARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let long = [b'x'; TRACESTATE_MAX + 1];
        let of = |headers: &[(&str, &[u8])]| -> Vec<String> {
            let headers = headers.iter().map(|(name, value)| (*name, Some(*value)));
            passed_on(headers).into_iter().map(|(name, _)| name).collect()
        };
        let both = [("tracestate", &b"a=1"[..]), ("other", b"o"), ("traceparent", PARENT)];
        assert_eq!(of(&both), ["traceparent", "tracestate"]);
        assert_eq!(of(&[("traceparent", b"00-1"), ("tracestate", b"a=1")]), [""; 0]);
        assert_eq!(of(&[("traceparent", PARENT), ("tracestate", &long)]), ["traceparent"]);
        assert_eq!(of(&[("traceparent", PARENT), ("traceparent", b"bad")]), [""; 0]);
        let later = |added: usize| [b"01", &PARENT[2..], b"-", &vec![b'x'; added]].concat();
        let rest = TRACEPARENT_MAX - PARENT.len() - 1;
        assert_eq!(of(&[("traceparent", &later(rest))]), ["traceparent"]);
        assert_eq!(
            of(&[("traceparent", &later(rest + 1))]),
            [""; 0],
            "it could outgrow its topic"
        );
        assert_eq!(passed_on([("traceparent", None)].into_iter()), []);
    }

    #[test]
    fn only_what_the_standard_allows_is_a_context() {
        let good = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(good).unwrap();
        assert_eq!(
            (context.trace_id, context.span_id, context.sampled),
            (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7, true)
        );
        for (header, is_good) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true),
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", false),
            ("00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("00", false),
            ("", false),
        ] {
            assert_eq!(TraceContext::parse(header.as_bytes()).is_some(), is_good, "{header}");
        }
    }
}
