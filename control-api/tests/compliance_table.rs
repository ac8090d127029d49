//! `docs/compliance.md` names code and tests that exist.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn what_the_table_names_exists() {
    let root = root();
    let table = fs::read_to_string(root.join("docs/compliance.md")).expect("the table");
    let mut rows = 0;
    let mut wrong = Vec::new();
    for (index, line) in table.lines().enumerate() {
        let mut say = |what: String| wrong.push(format!("line {}: {what}", index + 1));
        if !line.starts_with("| ") || line.starts_with("| clause |") || line.contains("| code |") {
            continue;
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [.., code, tests] = cells.as_slice() else {
            say("a row of fewer than four cells".to_owned());
            continue;
        };
        if cells.len() != 4 {
            say(format!("{} cells", cells.len()));
        }
        rows += 1;
        for name in names(code) {
            if let Some(problem) = problem_of_code(&root, name) {
                say(problem);
            }
        }
        for name in names(tests) {
            if let Some(problem) = problem_of_test(&root, name) {
                say(problem);
            }
        }
    }
    assert!(rows > 60, "{rows} rows were found");
    assert!(wrong.is_empty(), "docs/compliance.md\n{}", wrong.join("\n"));
}

#[test]
fn what_does_not_exist_is_noticed() {
    let root = root();
    for name in ["control-api/src/none.rs", "control-api/src/lib.rs::none_such"] {
        assert!(problem_of_code(&root, name).is_some(), "{name}");
    }
    let helper = "control-api/tests/compliance_table.rs::root";
    for name in ["control-api/tests/border_sdp/none.txt", "control-api/tests/border_sdp.rs", helper]
    {
        assert!(problem_of_test(&root, name).is_some(), "{name}");
    }
}

/// What stands between backticks; a dash is nothing.
fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// A file, or something in it.
fn problem_of_code(root: &Path, name: &str) -> Option<String> {
    let (file, item) =
        name.split_once("::").map_or((name, None), |(file, item)| (file, Some(item)));
    let Ok(text) = fs::read_to_string(root.join(file)) else {
        return Some(format!("there is no file {file}"));
    };
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let has = |item: &str| text.split(|it| !is_word(it)).any(|word| word == item);
    item.filter(|item| !has(item)).map(|item| format!("there is no {item} in {file}"))
}

/// A test, or a text file that one replays.
fn problem_of_test(root: &Path, name: &str) -> Option<String> {
    let Some((file, test)) = name.split_once("::") else {
        let is_golden = name.ends_with(".txt") && root.join(name).is_file();
        return (!is_golden).then(|| format!("{name} is neither a test nor a golden file"));
    };
    let Ok(text) = fs::read_to_string(root.join(file)) else {
        return Some(format!("there is no file {file}"));
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let signature = format!("fn {test}(");
    let is_test = lines.iter().enumerate().any(|(index, line)| {
        let attributes = lines[..index].iter().rev().take_while(|line| line.starts_with("#["));
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.starts_with(&signature)
            && attributes.into_iter().any(|it| it.starts_with("#[test") || it.contains("::test"))
    });
    (!is_test).then(|| format!("there is no test {test} in {file}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
