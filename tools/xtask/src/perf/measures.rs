//! The measures themselves: what runs beside what, and what is asked of it.

use super::goal::Goal;
use super::peers::Subject;
use super::plan::{Case, Entry, Round, Value};

/// All of them, in the order of the table.
pub(crate) fn rounds() -> Vec<Round> {
    vec![window_8()]
}

const CPU: Value = Value::Figure("node_cpu_us_per_message");

fn case(name: &'static str, subject: Subject, load: &str) -> Case {
    Case { name, subject, load: load.to_owned(), saturation: None }
}

fn window_8() -> Round {
    let room = "run chat --target sip:pair@@SIP@ --sessions 20 --room-size 2 --rate 1000 --window 8 \
                --duration @TIME@";
    let node = Subject::Node { shards: 1 };
    Round {
        cases: vec![
            case("room-w8", node, room),
            case("room-w8-psk", node, &format!("{room} --security psk")),
        ],
        entries: vec![Entry {
            identifier: "P4-psk",
            title: "test",
            shows: "",
            unit: "us",
            value: CPU,
            ours: "room-w8-psk",
            anchor: Some("room-w8"),
            is_share: true,
            goal: Goal { text: ">= 0.6".to_owned(), ratio_min: Some(0.6), ..Goal::default() },
        }],
    }
}
