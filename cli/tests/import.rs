//! `tensorbus models import` as a user runs it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value as Json;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits/digits.onnx");

fn import(cache: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tensorbus"));
    command.args(["models", "import"]).args(args).env("TENSORBUS_MODEL_CACHE", cache);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_model_is_imported_once() {
    let cache = tempfile::tempdir().unwrap();
    let first: Json = serde_json::from_slice(&import(cache.path(), &[MODEL, "--json"]).stdout).unwrap();
    assert_eq!(first["was_cached"], false, "{first}");
    assert!(first["weights"].as_u64().unwrap() > 0 && first["data_bytes"].as_u64().unwrap() > 1024, "{first}");
    let graph = first["graph"].as_str().unwrap();
    assert!(Path::new(graph).starts_with(cache.path()) && Path::new(first["data"].as_str().unwrap()).is_file());
    let again = import(cache.path(), &[MODEL, "--verify"]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(text(&again.stdout), format!("{graph}\n"), "only the path, for scripts");
    assert!(text(&again.stderr).contains("before"), "{again:?}");
    let elsewhere = tempfile::tempdir().unwrap();
    let other = import(cache.path(), &[MODEL, "--cache", elsewhere.path().to_str().unwrap()]);
    assert!(Path::new(text(&other.stdout).trim()).starts_with(elsewhere.path()), "{other:?}");
}

#[test]
fn what_is_no_model_is_told() {
    let cache = tempfile::tempdir().unwrap();
    let file = cache.path().join("text.onnx");
    std::fs::write(&file, "no model").unwrap();
    for (path, word) in [(file.to_str().unwrap(), "not a whole protocol buffer"), ("/none", "No such file")] {
        let refused = import(&cache.path().join("cache"), &[path]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains(word), "{refused:?}");
    }
    assert!(!cache.path().join("cache").exists());
}
