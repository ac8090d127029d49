//! `records` as a program: a line for each size.
#![forbid(unsafe_code)]

use std::process::Command;

#[test]
fn tells_what_each_size_takes() {
    let output = Command::new(env!("CARGO_BIN_EXE_records")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    let sizes: Vec<_> = lines.iter().map(|words| (words[0], words[1])).collect();
    assert_eq!(sizes, [("records", "200"), ("records", "1024"), ("records", "16384")]);
    for words in lines {
        assert!(words[2].parse::<f64>().unwrap() > 0.0, "{words:?}");
    }
}
