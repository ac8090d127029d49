//! `mrf inspect bfcp` on messages made by another program.

use std::process::Command;

use control_api::inspect::{BfcpOptions, bfcp};
use serde_json::Value;

fn vectors() -> Value {
    let vectors = include_str!("../../mrfp-core/protocol/tests/data/bfcp_vectors.json");
    serde_json::from_str(vectors).expect("JSON")
}

fn vector(name: &str) -> String {
    vectors()[name].as_str().expect("there").to_owned()
}

/// Whether all is well, and what was told.
fn told(input: &[u8], json: bool) -> (bool, String) {
    let options = BfcpOptions { json, colour: false };
    let mut out = Vec::new();
    let inputs = [("trace".to_owned(), input.to_vec())];
    let well = bfcp(&inputs, &options, &mut out).expect("a message");
    (well, String::from_utf8(out).expect("text"))
}

/// What is told of these bytes, blanks squeezed.
fn squeezed(input: &str) -> (bool, String) {
    let (well, text) = told(input.as_bytes(), false);
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    (well, lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn tells_every_field_with_its_place() {
    let (well, text) = squeezed(&vector("FloorStatus_tcp"));
    assert!(well, "{text}");
    for expected in [
        "1. FloorStatus (8), 76 bytes (trace, byte 0)\n",
        "\n0 12 COMMON-HEADER\n",
        "\n0 1 version, R, F 32 version 1, over a reliable transport\n",
        "\n1 1 primitive 8 FloorStatus\n",
        "\n2 2 payload length 16 64 bytes\n",
        "\n4 4 conference ID 4321\n",
        "\n8 2 transaction ID 3\n",
        "\n10 2 user ID 1234\n",
        "\n12 4 FLOOR-ID\n12 1 type, M 5 FLOOR-ID (2), M 1\n13 1 length 4\n14 2 floor ID 543\n",
        "\n16 60 FLOOR-REQUEST-INFORMATION\n",
        "\n18 2 floor request ID 789\n20 8 OVERALL-REQUEST-STATUS\n",
        "\n26 1 request status 3 Granted\n27 1 queue position 0 none\n",
        "\n32 8 STATUS-INFO\n",
        "\n34 6 text \"on air\"\n",
        "\n42 2 user ID 99\n44 8 USER-DISPLAY-NAME\n",
        "\n46 3 text \"Bob\"\n49 3 padding 000000\n",
        "\n54 19 text \"sip:bob@example.com\"\n",
        "\nparsed the node's parser takes it",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing from:\n{text}");
    }
}

#[test]
fn tells_of_errors_lists_and_version_2() {
    let names = ["Error_unknown_mandatory_attr_tcp", "HelloAck_udp", "Fragment2_udp"];
    let input: String = names.iter().map(|name| vector(name) + "\n").collect();
    let (well, text) = squeezed(&input);
    assert!(well, "{text}");
    for expected in [
        "1. Error (13), 20 bytes (trace, line 1, byte 0)\n",
        "error code 4 Unknown Mandatory Attribute\n15 1 unknown attribute 80 unknown code point\n",
        "2. HelloAck (12), 52 bytes (trace, line 2, byte 0)\n",
        "version, R, F 80 version 2, over an unreliable transport; a response, whole\n",
        "\n30 1 primitive 17 GoodbyeAck\n",
        " attribute 36 OVERALL-REQUEST-STATUS\n",
        "version 2, over an unreliable transport; a request, a fragment\n",
        "fragment offset 3 12 bytes\n",
        "16 12 part of the message 050400010504000105040001\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing from:\n{text}");
    }
}

#[test]
fn tells_every_vector_as_json() {
    for (name, hex) in vectors().as_object().expect("an object") {
        let (well, text) = told(hex.as_str().expect("text").as_bytes(), true);
        assert!(well, "{name}: {text}");
        let told: Value = serde_json::from_str(&text).expect("JSON");
        let message = &told["messages"][0];
        assert_eq!(message["broken"], Value::Null, "{name}");
        assert_eq!(message["refused"], Value::Null, "{name}");
        assert_eq!(message["bytes"], hex.as_str().map(|hex| hex.len() / 2).unwrap());
        // Every byte belongs to a field, and to one.
        let mut covered = vec![0; hex.as_str().unwrap().len() / 2];
        let fields = message["fields"].as_array().expect("fields");
        fields.iter().for_each(|field| cover(field, &mut covered));
        assert!(covered.iter().all(|times| *times == 1), "{name}: {covered:?}");
    }
}

/// Counts the bytes of the fields that consist of no others.
fn cover(field: &Value, covered: &mut [i32]) {
    if let Some(fields) = field["fields"].as_array() {
        fields.iter().for_each(|field| cover(field, covered));
        return;
    }
    let (offset, length) = (field["offset"].as_u64().unwrap(), field["length"].as_u64().unwrap());
    let range = usize::try_from(offset).unwrap()..usize::try_from(offset + length).unwrap();
    covered[range].iter_mut().for_each(|times| *times += 1);
}

#[test]
fn says_what_is_broken_and_what_the_node_would_answer() {
    for (hex, broken, refused) in [
        (
            "20070001000010e1000304d20508021f",
            "in FLOOR-ID",
            "Error 10, Unable to Parse Message: byte 12: it ends",
        ),
        ("20070001000010e1000304d20501021f", "in FLOOR-ID: length 1", "Error 10"),
        ("20070002000010e1000304d20506021f00000000", "in FLOOR-ID: 2 byte(s) more", "Error 10"),
        ("20070001000010e1000304d28104021f", "", "Error 4, Unknown Mandatory Attribute"),
        ("20120000000010e1000304d2", "", "Error 3, Unknown Primitive"),
        ("60070000000010e1000304d2", "", "Error 12, Unsupported Version"),
        ("20070002000010e1000304d20504021f", "", "Error 13, Incorrect Message Length"),
        ("2007", "in COMMON-HEADER", "not even a header"),
    ] {
        let (well, text) = squeezed(hex);
        assert!(!well, "{text}");
        assert!(
            text.contains(&format!("refused the node's parser refuses it: {refused}")),
            "{text}"
        );
        let expected = if broken.is_empty() { "parser" } else { broken };
        assert!(text.contains(expected), "{expected:?} is missing from:\n{text}");
        assert_eq!(text.contains("broken at byte"), !broken.is_empty(), "{text}");
    }
}

#[test]
fn no_prefix_of_a_message_does_harm() {
    for (_, hex) in vectors().as_object().expect("an object") {
        let hex = hex.as_str().expect("text");
        for end in (2..hex.len()).step_by(2) {
            let (well, _) = told(&hex.as_bytes()[..end], false);
            assert!(!well, "{}", &hex[..end]);
        }
    }
}

#[test]
fn the_program_reads_files_and_says_by_its_exit_code_whether_all_is_well() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("trace.hex");
    for (hex, code) in [("200b0000000010e1000504d2", 0), ("200b0001000010e1000504d2", 1), ("?", 1)]
    {
        std::fs::write(&file, hex).expect("written");
        let mut mrf = Command::new(env!("CARGO_BIN_EXE_mrf"));
        let output = mrf.args(["inspect", "bfcp", "--json"]).arg(&file).output().expect("it runs");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}
