use std::collections::BTreeMap;

use millrace_kernel::{EntityId, Money, Timestamp};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use super::{Node, from_slice, parse};
use crate::Problem;

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "read for its errors")]
struct Order {
    user_id: EntityId,
    items: Option<Vec<Item>>,
    total_amount: Option<Money>,
    paid_at: Option<Timestamp>,
    status: Option<Status>,
    labels: Option<BTreeMap<String, u8>>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "read for its errors")]
struct Item {
    description: String,
    quantity: u32,
    unit_price: Money,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Status {
    Pending,
    Shipped,
}

fn read(text: &str) -> Result<Order, Problem> {
    from_slice(text.as_bytes())
}

/// The errors of a body, as `pointer reason` lines.
fn errors(text: &str) -> Vec<String> {
    let problem = read(text).expect_err(text);
    assert_eq!(problem.status(), 422, "{text}: {problem:?}");
    let errors = problem.errors().iter();
    let mut lines: Vec<String> = errors
        .map(|error| format!("{} {}", error.pointer(), error.reason()))
        .collect();
    lines.sort();
    lines
}

#[test]
fn amounts_and_ids_are_read_as_written() {
    let order =
        read(r#"{"user_id": 12345678901234567890123, "total_amount": 4503599627370497.15}"#);
    let order = order.unwrap();
    assert_eq!(order.user_id.as_str(), "12345678901234567890123");
    // A binary float would have made this 4503599627370497.00.
    assert_eq!(
        order.total_amount.unwrap().to_string(),
        "4503599627370497.15"
    );
    let same = read(r#"{"user_id": "7", "total_amount": "4.50", "status": "SHIPPED"}"#).unwrap();
    assert_eq!(same.total_amount.unwrap().to_string(), "4.50");
    assert!(matches!(same.status, Some(Status::Shipped)));
}

#[test]
fn everything_wrong_is_said_at_once() {
    let text = r#"{"userid": 1, "items": [{"description": 5, "quantity": -1, "unit_price": 0.001},
        {"description": "ok", "quantity": "2", "unit_price": true, "colour": "red"}],
        "total_amount": [], "paid_at": "yesterday", "status": "LOST"}"#;
    assert_eq!(
        errors(text),
        [
            "/items/0/description must be a string",
            "/items/0/quantity must be a whole number from 0 to 4294967295",
            "/items/0/unit_price must have at most 2 decimals",
            "/items/1/colour is not known here",
            "/items/1/quantity must be a whole number from 0 to 4294967295",
            "/items/1/unit_price must be an amount: a decimal string or number",
            "/paid_at must be an RFC 3339 time such as 2026-01-31T12:00:00Z",
            "/status must be one of PENDING, SHIPPED",
            "/total_amount must be an amount: a decimal string or number",
            "/user_id is required",
            "/userid is not known here",
        ]
    );
}

#[test]
fn several_missing_fields_are_all_named() {
    assert_eq!(
        errors(r#"{"items": [{}]}"#),
        [
            "/items/0/description is required",
            "/items/0/quantity is required",
            "/items/0/unit_price is required",
            "/user_id is required",
        ]
    );
}

#[test]
fn a_body_of_another_shape_is_named_as_such() {
    for text in ["null", "[]", "1", "\"x\"", "true"] {
        assert_eq!(errors(text), [" must be an object"], "{text}");
    }
}

#[test]
fn nul_is_refused_where_it_stands() {
    assert_eq!(
        errors(
            r#"{"user_id": "a\u0000", "items": [{"description": "a\u0000b", "quantity": 1, "unit_price": 1}]}"#
        ),
        [
            "/items/0/description must not contain the character U+0000",
            "/user_id must not contain the character U+0000",
        ]
    );
    assert_eq!(
        errors(r#"{"user_id": 1, "labels": {"a\u0000": 1}}"#),
        ["/labels/a\0 must not contain the character U+0000"]
    );
}

#[test]
fn pointers_are_escaped_and_bounded() {
    let long = "x".repeat(100_000);
    let found = errors(&format!(r#"{{"user_id": 1, "a/b~c": 1, "{long}": 1}}"#));
    // A body of this size gets its first error only.
    assert_eq!(found, ["/a~1b~0c is not known here"]);
    let found = errors(&format!(r#"{{"user_id": 1, "{}": 1}}"#, &long[..1000]));
    assert_eq!(found, [format!("/{}… is not known here", &long[..64])]);
}

#[test]
fn errors_are_bounded() {
    let unknown: Vec<String> = (0..100).map(|n| format!("\"u{n}\": 1")).collect();
    let found = errors(&format!("{{{}}}", unknown.join(",")));
    assert_eq!(found.len(), crate::MAX_FIELD_ERRORS);
}

#[test]
fn numbers_that_are_no_integers_are_no_ids() {
    for bad in ["1.0", "1e3", "-1", "-0", "null", "{}"] {
        let text = format!(r#"{{"user_id": {bad}}}"#);
        assert_eq!(errors(&text).len(), 1, "{bad}");
    }
}

#[test]
fn what_is_not_json_is_refused_with_its_place() {
    let deep = "[".repeat(33);
    let cases: [(&[u8], &str); 22] = [
        (b"", "a JSON value is missing at line 1, column 1"),
        (b"  \n ", "a JSON value is missing at line 2, column 2"),
        (b"{", "the text ends too early at line 1, column 2"),
        (
            b"{\"a\":1,}",
            "expected a key in quotes at line 1, column 8",
        ),
        (b"{\"a\" 1}", "expected : at line 1, column 6"),
        (b"{\"a\":1 \"b\":2}", "expected , or } at line 1, column 8"),
        (
            b"{\"a\":1,\n \"a\":2}",
            "the same key stands twice in an object at line 2, column 2",
        ),
        (
            b"{} {}",
            "something follows the JSON value at line 1, column 4",
        ),
        (b"[1,]", "expected a value at line 1, column 4"),
        (b"[1 2]", "expected , or ] at line 1, column 4"),
        (b"tru", "expected a value at line 1, column 1"),
        (b"01", "a number does not begin with 0 at line 1, column 2"),
        (b"+1", "expected a value at line 1, column 1"),
        (b"1.", "a number needs digits at line 1, column 3"),
        (b"-", "a number needs digits at line 1, column 2"),
        (b"1e", "a number needs digits at line 1, column 3"),
        (
            b"\"a\nb\"",
            "a control character in a string must be escaped at line 1, column 3",
        ),
        (b"\"\\x\"", "no such escape at line 1, column 2"),
        (
            b"\"\\ud800\"",
            "half of a surrogate pair is no character at line 1, column 2",
        ),
        (
            b"\"\\udc00\\ud800\"",
            "half of a surrogate pair is no character at line 1, column 2",
        ),
        (
            b"\"\xff\"",
            "the text is not valid UTF-8 at line 1, column 2",
        ),
        (
            deep.as_bytes(),
            "the value is nested too deeply at line 1, column 33",
        ),
    ];
    for (text, want) in cases {
        let got = parse(text).expect_err(&String::from_utf8_lossy(text));
        assert_eq!(got.to_string(), want, "{:?}", String::from_utf8_lossy(text));
    }
    let bom = parse(b"\xef\xbb\xbf{}").expect_err("a byte order mark");
    assert_eq!(bom.what, "expected a value");
}

#[test]
fn duplicates_are_found_among_many_keys() {
    let mut keys: Vec<String> = (0..40).map(|n| format!("\"k{n}\":0")).collect();
    assert!(parse(format!("{{{}}}", keys.join(",")).as_bytes()).is_ok());
    for again in ["\"k3\":0", "\"k39\":0", "\"k\\u0033\":0"] {
        keys.push(again.to_owned());
        let text = format!("{{{}}}", keys.join(","));
        let error = parse(text.as_bytes()).expect_err(again);
        assert_eq!(error.what, "the same key stands twice in an object");
        keys.pop();
    }
}

#[test]
fn odd_characters_come_through() {
    let text = "\"\\ud83d\\ude00 \\u00e9 é 😀 \\/ \\b\\f\\n\\r\\t\\\\\\\" \\uFFFF\"";
    let Ok(Node::String(got)) = parse(text.as_bytes()) else {
        panic!("{text}");
    };
    let want: String = serde_json::from_str(text).unwrap();
    assert_eq!(got, want);
}

/// The tree as `serde_json` has it; numbers through its own reading.
fn plain(node: &Node<'_>) -> Value {
    match node {
        Node::Null => Value::Null,
        Node::Bool(value) => Value::Bool(*value),
        Node::Number(text) => serde_json::from_str(text).unwrap_or(Value::Null),
        Node::String(text) | Node::Untyped(text) => Value::String(text.to_string()),
        Node::Array(items) => items.iter().map(plain).collect(),
        Node::Object(members) => members
            .iter()
            .map(|(name, value)| (name.to_string(), plain(value)))
            .collect(),
    }
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..8)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn what_serde_json_writes_is_read_the_same(value in json()) {
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let node = parse(text.as_bytes()).map_err(|error| error.to_string());
            // Not compared with `value`: serde_json rounds the last digit of some floats.
            let theirs: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(plain(&node.unwrap()), theirs, "{}", text);
        }
    }

    /// Mutilated texts: both readers accept or both refuse, but for what this one is stricter in.
    #[test]
    fn mutilated_texts_are_judged_as_serde_json_judges_them(
        value in json(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut text = value.to_string().into_bytes();
        let at = at.index(text.len());
        if cut { text.truncate(at); } else { text[at] = byte; }
        let ours = parse(&text);
        let theirs = serde_json::from_slice::<Value>(&text);
        match (&ours, &theirs) {
            (Ok(node), Ok(value)) => prop_assert_eq!(&plain(node), value),
            (Ok(_), Err(error)) => prop_assert!(error.to_string().contains("out of range"), "{error}"),
            (Err(error), Ok(_)) => prop_assert_eq!(error.what, "the same key stands twice in an object"),
            (Err(_), Err(_)) => {}
        }
    }

    #[test]
    fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
        let _ = from_slice::<Order>(&bytes);
    }

    #[test]
    fn any_json_as_an_order_is_an_order_or_says_why(value in json()) {
        if let Err(problem) = read(&value.to_string()) {
            prop_assert!(!problem.errors().is_empty(), "{problem:?}");
        }
    }
}
