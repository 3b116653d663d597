//! Expressions over events: what they give, what fails and how.

use proptest::prelude::*;
use streamagg_crds::expression::{Name, compile};

use super::*;
use crate::core::json::{FieldTree, Slot};

const EVENT: &str = r#"{"i":3,"neg":-4,"d":2.5,"one":1.0,"big":9223372036854775807,"huge":18446744073709551616,"s":"abc",
    "esc":"a\"\u00e9","t":true,"n":null,"list":[1,2,"x",{"y":3}],"map":{"a":1,"b":[1]},"u":{"p":10,"c":5},"empty":[],
    "over":1e999,"bad":01,"deep":{"l":[[1,2],[3]]}}"#;

/// The value for people, or `!` and what is wrong.
fn over(document: &str, text: &str) -> String {
    let expression = compile(text, &[]).unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut fields = FieldTree::new(false);
    let program = Program::compile(&expression.root, &mut fields);
    let mut slots = vec![Slot::MISSING; fields.len()];
    if fields.extract(document.as_bytes(), &mut slots).is_err() {
        return "no JSON".to_owned();
    }
    let event = Event {
        document: document.as_bytes(),
        slots: &slots,
    };
    match program.evaluate(event, &[], &mut Budget::default()) {
        Ok(value) => show(&value),
        Err(error) => format!("!{}", error.describe(&fields)),
    }
}

fn show(value: &Value<'_>) -> String {
    match value {
        Value::List(elements) => format!("[{}]", elements.iter().map(show).collect::<Vec<_>>().join(",")),
        Value::Map(entries) => {
            let entry = |(key, value): &(Value<'_>, Value<'_>)| format!("{}:{}", show(key), show(value));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(","))
        }
        other => other.describe(),
    }
}

#[test]
fn expressions_give_what_cel_says() {
    for (text, expected) in [
        ("event.i + 1", "4"),
        ("event.i + event.d", "5.5"),
        ("event.i / 2", "1"),
        ("event.neg / 3", "-1"),
        ("event.neg % 3", "-1"),
        ("event.d * 2", "5.0"),
        ("event.i == 3.0", "true"),
        ("event.one == 1", "true"),
        ("event.big < 9223372036854775808.0", "true"),
        ("event.huge > event.big", "true"),
        ("-event.i", "-3"),
        ("1.0 / 0", "inf"),
        ("0.1 + 0.2", "0.30000000000000004"),
        ("event.s + 'd'", "\"abcd\""),
        ("event.esc", "\"a\"é\""),
        ("size(event.esc)", "3"),
        ("event.n == null", "true"),
        ("event.s == 1", "false"),
        ("event.s != null", "true"),
        ("event.t && event.i > 2", "true"),
        (
            "event.s.startsWith('ab') && event.s.endsWith('c') && event.s.contains('b')",
            "true",
        ),
        ("event.s.matches('^a.c$')", "true"),
        ("event.s.upperAscii() + 'X'.lowerAscii()", "\"ABCx\""),
        ("event.list", "[1,2,\"x\",{\"y\":3}]"),
        ("event.list[3].y", "3"),
        ("event.list[event.i].y", "3"),
        ("event.list.size()", "4"),
        ("2.0 in event.list", "true"),
        ("'a' in event.map && !('z' in event.map)", "true"),
        ("event.map['b'][0]", "1"),
        ("event.map[event.s.contains('z') ? 'b' : 'a']", "1"),
        ("event.i in [1, 2, 3]", "true"),
        ("[1, event.i] + ['a']", "[1,3,\"a\"]"),
        ("{'k': event.i, 2: 'x'}", "{\"k\":3,2:\"x\"}"),
        ("{'a': 1.0} == {'a': 1}", "true"),
        ("event.t ? 'yes' : 1", "\"yes\""),
        ("has(event.u.p) && !has(event.u.q) && has(event.n)", "true"),
        ("event.list.exists(x, x == 'x')", "true"),
        (
            "event.list.all(x, x > 0)",
            "!> does not exist between a text and an integer",
        ),
        ("event.list.all(x, x != 'x' && x > 0)", "false"),
        ("event.list.exists(x, x > 1)", "true"),
        ("event.list.exists_one(x, x == 1)", "true"),
        ("event.list.filter(x, x == 1 || x == 'x')", "[1,\"x\"]"),
        ("event.deep.l.map(x, size(x))", "[2,1]"),
        ("event.deep.l.map(x, size(x) > 1, x[0])", "[1]"),
        ("event.deep.l.exists(x, x.exists(y, y == 3 && size(x) == 1))", "true"),
        ("event.map.all(k, k < 'c')", "true"),
        ("event.empty.all(x, false) && !event.empty.exists(x, true)", "true"),
        ("int('-12') + int(2.9) + int(-2.9)", "-12"),
        ("double('1.5') + double(event.i)", "4.5"),
        (
            "string(event.d) + string(event.i) + string(true) + string(1e21) + string(0.00001)",
            "\"2.53true1e+211e-05\"",
        ),
        ("bool('true') && !bool('f')", "true"),
        ("true || event.x", "true"),
        ("event.x || true", "true"),
        ("false && event.x > 1", "false"),
        ("event.x > 1 && false", "false"),
        ("event.t || event.s", "true"),
    ] {
        assert_eq!(over(EVENT, text), expected, "{text}");
    }
}

#[test]
fn what_has_no_value_fails_with_a_reason() {
    for (text, expected) in [
        ("event.x", "/x is missing; guard it with has()"),
        ("event.u.q > 1", "/u/q is missing; guard it with has()"),
        ("has(event.v.q)", "/v is missing; guard it with has()"),
        ("has(event.i.q)", "a map has no such key"),
        ("event.x || false", "/x is missing; guard it with has()"),
        ("event.s + 1", "+ does not exist between a text and an integer"),
        ("event.n + 1", "+ does not exist between null and an integer"),
        ("event.s > 1", "> does not exist between a text and an integer"),
        ("event.s && true", "&& does not exist for a text"),
        ("!event.s", "! does not exist for a text"),
        ("event.s ? 1 : 2", "? does not exist for a text"),
        ("event.d % 2", "% does not exist between a double and a double"),
        ("event.i / 0", "division by zero"),
        ("event.i % 0", "division by zero"),
        ("event.big + 1", "an integer is beyond 64 bits"),
        ("-(event.big * -1 - 1)", "an integer is beyond 64 bits"),
        ("int(1e30)", "an integer is beyond 64 bits"),
        ("int(event.s)", "a value cannot be converted to an integer"),
        ("event.over > 1", "/over is beyond the range of a double"),
        ("event.bad > 1", "/bad cannot be read"),
        ("event.list[9 + 0]", "a list has no element at that index"),
        ("event.list[-1]", "a list has no element at that index"),
        ("event.map[event.s]", "a map has no such key"),
        ("event.i[event.s]", "[] does not exist between an integer and a text"),
        ("{event.s: 1, 'abc': 2}", "a map has a key twice"),
        ("{event.d: 1}", "a key of a map does not exist for a double"),
        ("event.i in event.s", "in does not exist between an integer and a text"),
        ("event.i.exists(x, true)", "exists does not exist for an integer"),
        ("event.list.filter(x, x)", "filter does not exist for an integer"),
        (
            "event.l.all(a, event.l.all(b, event.l.all(c, event.l.all(d, event.l.all(e, true)))))",
            "took more than 1000000 steps",
        ),
    ] {
        let document = format!("{},\"l\":[{}]}}", &EVENT[..EVENT.len() - 1], ["1"; 40].join(","));
        assert_eq!(over(&document, text), format!("!{expected}"), "{text}");
    }
}

#[test]
fn values_become_exact_numbers_and_canonical_keys() {
    for (value, number, key) in [
        (
            Value::Int(i64::MIN),
            Ok("-9223372036854775808"),
            Ok("-9223372036854775808"),
        ),
        (Value::Double(0.1 + 0.2), Ok("0.3"), Ok("0.30000000000000004")),
        (Value::Double(1.0), Ok("1"), Ok("1")),
        (Value::Double(-0.0), Ok("0"), Ok("0")),
        (
            Value::Double(1e18),
            Ok("1000000000000000000"),
            Ok("1000000000000000000"),
        ),
        (Value::Double(1e19), Err("NumberOutOfRange"), Ok("10000000000000000000")),
        (
            Value::Double(f64::INFINITY),
            Err("NumberOutOfRange"),
            Err("NumberOutOfRange"),
        ),
        (
            Value::Double(f64::NAN),
            Err("NumberOutOfRange"),
            Err("NumberOutOfRange"),
        ),
        (
            Value::text("a\"b\u{7}"),
            Err("FieldTypeInvalid"),
            Ok("\"a\\\"b\\u0007\""),
        ),
        (Value::Bool(true), Err("FieldTypeInvalid"), Ok("true")),
        (
            Value::List(std::sync::Arc::from([])),
            Err("FieldTypeInvalid"),
            Err("KeyInvalid"),
        ),
    ] {
        let found = value.to_number().map(|number| {
            let mut out = Vec::new();
            crate::core::decimal::write(number.unwrap(), &mut out);
            String::from_utf8(out).unwrap()
        });
        let found = found.as_deref().map_err(|reason| reason.as_str());
        assert_eq!(found, number, "{value:?}");
        let mut out = Vec::new();
        let written = value.write_canonical(&mut out).map_err(|reason| reason.as_str());
        assert_eq!(written.map(|_| std::str::from_utf8(&out).unwrap()), key, "{value:?}");
    }
    assert_eq!(Value::Null.to_number(), Ok(None));
    assert_eq!(Value::Null.write_canonical(&mut Vec::new()), Ok(false));
}

/// Expressions that mostly read, of every form, over fields that events of [`event`] have or lack.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "event\\.[abc]",
        "event\\.[abc]\\.[ab]",
        "event\\.[abc]\\[[012]\\]",
        Just("has(event.a.b)".to_owned()),
        Just("derived".to_owned()),
        any::<i8>().prop_map(|number| number.to_string()),
        Just("9223372036854775807".to_owned()),
        Just("1.5".to_owned()),
        Just("'x'".to_owned()),
        Just("true".to_owned()),
        Just("null".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let binary = prop::sample::select(vec![
            "+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in",
        ]);
        prop_oneof![
            (inner.clone(), binary, inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            inner.clone().prop_map(|a| format!("-({a})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{'k': {a}, 'l': {b}}}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            (
                inner.clone(),
                prop::sample::select(vec!["size", "int", "double", "string", "bool"])
            )
                .prop_map(|(a, name)| format!("{name}({a})")),
            (
                inner.clone(),
                prop::sample::select(vec!["exists", "all", "filter", "map", "exists_one"]),
                inner
            )
                .prop_map(|(a, name, b)| format!("({a}).{name}(x, x == {b})")),
        ]
    })
}

fn event() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>()
            .prop_filter("JSON has no others", |number| number.is_finite())
            .prop_map(|number| format!("{number:?}")),
        "\"[a-zé]{0,3}\"",
        prop::sample::select(vec![
            "null",
            "true",
            "false",
            "[]",
            "{}",
            "\"\\ud800\"",
            "1e400",
            "-",
            "01"
        ])
        .prop_map(str::to_owned),
    ];
    let value = scalar.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|parts| format!("[{}]", parts.join(","))),
            inner.prop_map(|value| format!("{{\"a\":{value},\"b\":1}}")),
        ]
    });
    prop::collection::vec(value, 3).prop_map(|values| {
        let members: Vec<String> = ["a", "b", "c"]
            .iter()
            .zip(&values)
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        format!("{{{}}}", members.join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nothing_panics_and_the_same_event_gives_the_same_value(text in expression(), document in event(), cut in any::<prop::sample::Index>()) {
        let names = [Name { name: "derived".to_owned(), kind: streamagg_crds::expression::Kind::Any }];
        if let Ok(expression) = compile(&text, &names) {
            let canonical = expression.root.to_string();
            prop_assert!(!canonical.is_empty());
            let mut fields = FieldTree::new(false);
            let program = Program::compile(&expression.root, &mut fields);
            let run = |document: &str| {
                let mut slots = vec![Slot::MISSING; fields.len()];
                fields.extract(document.as_bytes(), &mut slots).ok()?;
                let event = Event { document: document.as_bytes(), slots: &slots };
                let lets = [Value::Int(7)];
                let result = program.evaluate(event, &lets, &mut Budget::default());
                Some(result.map(|value| show(&value)).map_err(|error| error.describe(&fields)))
            };
            prop_assert_eq!(run(&document), run(&document));
        }
        // Whatever of the text remains when it is cut is read or refused.
        let at = text.char_indices().map(|(at, _)| at).nth(cut.index(text.chars().count())).unwrap_or(0);
        let _ = compile(&text[..at], &names);
        let _ = compile(&text[at..], &names);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
        let _ = compile(&text, &[]);
    }
}
