//! `docs/safety.md`: each promise names tests, and those tests exist.

use std::collections::BTreeSet;
use std::path::Path;

const PAGE: &str = include_str!("../../docs/safety.md");

#[test]
fn every_promise_names_tests_that_exist() {
    let mut tests = BTreeSet::new();
    for folder in ["../tests", "../transport", "../cli/tests"] {
        add_tests(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut tests);
    }
    // A promise is an item of a list.
    for promise in PAGE.split("\n- ").skip(1).map(|rest| rest.split("\n\n").next().unwrap()) {
        let named: Vec<_> = promise.split('`').skip(1).step_by(2).filter(|code| is_name_of_test(code)).collect();
        assert!(!named.is_empty(), "this promise names no test: {promise}");
        for name in named {
            assert!(tests.contains(name), "there is no test {name}");
        }
    }
}

/// `file::name` and nothing else.
fn is_name_of_test(code: &str) -> bool {
    let plain = |part: &str| part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    code.split_once("::").is_some_and(|(file, name)| plain(file) && plain(name))
}

/// Adds the tests in and below a folder, named after their file, or its folder if the file's own name says nothing.
fn add_tests(folder: &Path, tests: &mut BTreeSet<String>) {
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            add_tests(&path, tests);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let file =
                if ["main", "tests"].contains(&stem) { folder.file_name().unwrap().to_str().unwrap() } else { stem };
            let code = std::fs::read_to_string(&path).unwrap();
            // Behind the attribute, or in `proptest!`, which has it too.
            for after in code.split("#[test]").chain(code.split("#[tokio::test")).skip(1) {
                let name = after.split_once("fn ").and_then(|(_, rest)| rest.split_once('('));
                tests.extend(name.map(|(name, _)| format!("{file}::{name}")));
            }
        }
    }
}
