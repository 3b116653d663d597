//! What is read and how, and what is refused with which words and where.

use super::*;

fn names() -> Vec<Name> {
    vec![
        Name {
            name: "total".to_owned(),
            kind: Kind::Int,
        },
        Name {
            name: "label".to_owned(),
            kind: Kind::Text,
        },
    ]
}

#[test]
fn expressions_have_one_canonical_text() {
    for (text, canonical, kind) in [
        ("event.a<500", "(event/a < 500)", Kind::Bool),
        ("((event.a)) < (500) // comment", "(event/a < 500)", Kind::Bool),
        ("event['a']['b c'][0].`d-e`", "event/a/b c/0/d-e", Kind::Any),
        ("event.a + 2 * 3 - 1", "((event/a + (2 * 3)) - 1)", Kind::Any),
        ("1 + 2", "(1 + 2)", Kind::Int),
        ("1 + 2.5e1", "(1 + 25.0)", Kind::Double),
        ("-9223372036854775808", "-9223372036854775808", Kind::Int),
        ("--5", "5", Kind::Int),
        ("-(5)", "-(5)", Kind::Int),
        ("-event.a", "-(event/a)", Kind::Any),
        ("!!true", "!!true", Kind::Bool),
        ("0x10", "16", Kind::Int),
        (".5", "0.5", Kind::Double),
        (
            "a && b || c".replace(['a', 'b', 'c'], "true").leak(),
            "((true && true) || true)",
            Kind::Bool,
        ),
        ("true ? 1 : false ? 2 : 3", "(true ? 1 : (false ? 2 : 3))", Kind::Int),
        ("true ? 1 : 'a'", "(true ? 1 : \"a\")", Kind::Any),
        ("has(event.usage.prompt)", "has(event/usage/prompt)", Kind::Bool),
        ("event.x in [1, 2.0, 'c',]", "(event/x in [1, 2.0, \"c\"])", Kind::Bool),
        ("{'a': 1, true: null}", "{\"a\": 1, true: null}", Kind::Map),
        ("total + 1", "(total + 1)", Kind::Int),
        ("label.startsWith('x')", "startsWith(label, \"x\")", Kind::Bool),
        (
            "size(event.tags) == event.tags.size()",
            "(size(event/tags) == size(event/tags))",
            Kind::Bool,
        ),
        (
            "event.m.matches(r'^a\\d+$')",
            "matches(event/m, \"^a\\\\d+$\")",
            Kind::Bool,
        ),
        ("matches(event.m, 'x')", "matches(event/m, \"x\")", Kind::Bool),
        (
            "event.l.exists(x, x.a > 1)",
            "event/l.exists($0, ($0[\"a\"] > 1))",
            Kind::Bool,
        ),
        (
            "event.l.all(x, x.exists(y, x == y))",
            "event/l.all($0, $0.exists($1, ($0 == $1)))",
            Kind::Bool,
        ),
        (
            "event.l.map(x, x > 1, x * 2)",
            "event/l.map($0, ($0 > 1), ($0 * 2))",
            Kind::List,
        ),
        ("event.l[event.i].b", "event/l[event/i][\"b\"]", Kind::Any),
        (
            "string(event.a) + '\\u00e9\\n\\x41\\101'",
            "(string(event/a) + \"é\\nAA\")",
            Kind::Text,
        ),
        ("'''it's''' + \"\"\"a\"b\"\"\"", "(\"it's\" + \"a\\\"b\")", Kind::Text),
        ("dyn(1) + 'a'", "(1 + \"a\")", Kind::Text),
        ("event.in_x.size > 1", "(event/in_x/size > 1)", Kind::Bool),
        ("has(event.a[event.i].b)", "has(event/a[event/i][\"b\"])", Kind::Bool),
    ] {
        let expression = compile(text, &names()).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(
            (expression.root.to_string().as_str(), expression.kind),
            (canonical, kind),
            "{text}"
        );
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, column, part) in [
        ("", 1, "found the end of the expression; expected a value"),
        ("event.a +", 10, "found the end"),
        ("event.a = 1", 9, "=="),
        ("event", 1, "event as a whole"),
        ("event + 1", 1, "event as a whole"),
        (
            "evnt.a",
            1,
            "unknown name evnt; write event.NAME for a field; let names so far: total, label",
        ),
        ("1 + 'a'", 3, "+ does not exist between an integer and a text"),
        ("1 < 'a'", 3, "< does not exist"),
        ("1 && true", 1, "a side of && is an integer; expected a boolean"),
        ("event.a ? 1 2", 13, "expected :"),
        ("1 ? 2 : 3", 1, "the condition before ?"),
        ("!1", 2, "what follows !"),
        ("-'a'", 1, "- of a text"),
        ("1u", 1, "unsigned"),
        ("b'a'", 1, "bytes are not supported"),
        ("timestamp(event.a)", 1, "the function timestamp is not supported"),
        ("event.a.getHours()", 9, "the function getHours is not supported"),
        ("event.a.lower()", 9, "supported are has, matches"),
        ("startsWith(event.a, 'b')", 1, "is a method"),
        ("event.a.int()", 9, "is no method"),
        ("event.a.startsWith()", 9, "wrong number"),
        ("size(1)", 1, "size does not exist for an integer"),
        ("event.a.matches(event.b)", 17, "known beforehand"),
        ("event.a.matches('(')", 17, "the pattern of matches"),
        ("event.a.matches('(a{1000}){1000}')", 17, "the pattern of matches"),
        ("has(1)", 5, "has takes one field"),
        ("has(event.a, event.b)", 1, "has takes one field"),
        ("a.b{c: 1}", 1, "unknown name a"),
        ("event.a{c: 1}", 8, "messages"),
        ("event.l.exists(1, true)", 16, "expected a variable"),
        ("event.l.exists(x, 1)", 19, "the condition of exists"),
        ("event.l.exists(x)", 17, "expected ,"),
        ("'abc", 1, "no closing quote"),
        ("'a\nb'", 1, "no closing quote"),
        ("'\\q'", 2, "unknown escape"),
        ("'\\ud800'", 2, "not a character"),
        ("99999999999999999999", 1, "99999999999999999999.0"),
        ("9223372036854775808", 1, "beyond the range"),
        ("1e999", 1, "beyond the range of a double"),
        ("1x", 2, "behind a number"),
        ("event.a.?b", 9, "found ?"),
        ("event.a ; 1", 9, "unexpected character"),
        ("event.ü", 7, "unexpected character"),
        ("for + 1", 1, "reserves"),
        ("true.a", 1, ".a does not exist for a boolean"),
        ("1 in 2", 3, "in does not exist"),
        ("{1.5: 1}", 2, "a key of a map"),
        ("[1, 2", 6, "expected ]"),
        ("(1", 3, "expected )"),
        ("1 2", 3, "expected the end"),
    ] {
        let error = compile(text, &names()).expect_err(text);
        assert!(error.message.contains(part), "{text}: {error}");
        assert_eq!((error.line, error.column), (1, column), "{text}: {error}");
    }
    let error = compile("true &&\n  wrong", &[]).unwrap_err();
    assert_eq!((error.line, error.column), (2, 3), "{error}");
}

#[test]
fn nothing_overflows_the_stack() {
    let repeat =
        |open: &str, n: usize, middle: &str, close: &str| format!("{}{middle}{}", open.repeat(n), close.repeat(n));
    for n in [40, 100, 600, 1300] {
        for text in [
            repeat("(", n, "1", ")"),
            repeat("[", n, "1", "]"),
            repeat("{1:", n, "1", "}"),
            repeat("true?1:", n, "1", ""),
            repeat("!", n, "true", ""),
            repeat("-", n, "event.a", ""),
            repeat("", 1, "event", "").to_string() + &".b".repeat(n),
            "[1]".to_owned() + &"[0]".repeat(n),
            "1".to_owned() + &"+1".repeat(n),
            "true".to_owned() + &"||1==1".repeat(n),
            repeat("size(", n, "'a'", ")"),
            repeat("(", n, "1", ""),
            repeat("[1].map(x,", n, "1", ")"),
        ] {
            if let Ok(expression) = compile(&text, &[]) {
                assert!(expression.root.to_string().len() < 20_000);
            }
        }
    }
    assert!(
        compile(&"event.abc ".repeat(1000), &[])
            .unwrap_err()
            .message
            .contains("longer than")
    );
}
