//! `tensorbus worker` and `infer` as a user runs them: two shells, a real model, real files, real kills.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use ndarray::{Array1, Array3, Axis};
use ndarray_npy::{ReadNpyExt, write_npy};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use tensorbus::SESSION_VARIABLE;

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits");

struct Session {
    name: String,
    /// Its model cache, and files of inputs.
    scratch: tempfile::TempDir,
}

impl Session {
    fn new(name: &str) -> Self {
        Self { name: format!("cw{}-{name}", std::process::id()), scratch: tempfile::tempdir().unwrap() }
    }

    fn command(&self, args: &[&str]) -> Command {
        // Whoever hangs is ended. In the foreground, so that a signal comes once.
        let mut command = Command::new("timeout");
        command.args(["--foreground", "--signal=KILL", "60", env!("CARGO_BIN_EXE_tensorbus")]).args(args);
        command.env(SESSION_VARIABLE, &self.name).env("XDG_CACHE_HOME", self.scratch.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// A worker of the digits' model that takes requests.
    fn worker(&self) -> Child {
        let model = format!("{DIGITS}/digits.onnx");
        let mut worker = self.command(&["worker", "--model", &model, "--name", "digits", "--batched"]).spawn().unwrap();
        let mut lines = BufReader::new(worker.stderr.take().unwrap()).lines();
        assert_eq!(
            lines.next().unwrap().unwrap(),
            "serving digits: images f32[N, 1, 8, 8] -> logits f32[N, 10], by rows"
        );
        worker
    }

    fn write(&self, name: &str, image: &Array3<f32>) -> PathBuf {
        let path = self.scratch.path().join(name);
        write_npy(&path, image).unwrap();
        path
    }
}

/// Pictures of digits, as the model takes them, and what they show.
fn digits() -> impl Iterator<Item = (Array3<f32>, u8)> {
    let read = |name: &str| File::open(Path::new(DIGITS).join(name)).unwrap();
    let images = Array3::<u8>::read_npy(read("heldout_images.npy")).unwrap();
    let labels = Array1::<u8>::read_npy(read("heldout_labels.npy")).unwrap();
    let images: Vec<_> = images.outer_iter().map(|image| image.mapv(|pixel| f32::from(pixel) / 255.0)).collect();
    images.into_iter().map(|image| image.insert_axis(Axis(0))).zip(labels)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_worker_reads_digits() {
    let session = Session::new("digits");
    let mut worker = session.worker();
    let mut right = 0;
    for (number, (image, digit)) in digits().take(10).enumerate() {
        let file = session.write(&format!("{number}.npy"), &image);
        let input = format!("images={}", file.display());
        let output = session.run(&["infer", "digits", "--input", &input, "--json"]);
        let answer: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        assert_eq!((&answer["logits"]["dtype"], &answer["logits"]["shape"]), (&"f32".into(), &vec![10].into()));
        right += u32::from(answer["logits"]["largest_at"] == digit);
    }
    assert!(right >= 9, "{right} of 10 digits are right");
    let (image, digit) = digits().next().unwrap();
    let input = format!("images={}", session.write("one.npy", &image).display());
    let output = session.run(&["infer", "digits", "--input", &input]);
    assert!(text(&output.stdout).trim_end().ends_with(&format!("largest at {digit}")), "{output:?}");
    assert!(end(&mut worker));
}

/// Tells it to end; whether it did so well.
fn end(worker: &mut Child) -> bool {
    // `timeout` passes it on.
    kill_process(Pid::from_child(worker), Signal::TERM).unwrap();
    worker.wait().unwrap().success()
}

#[test]
fn what_cannot_be_asked_is_said() {
    let session = Session::new("errors");
    let (image, _) = digits().next().unwrap();
    let input = format!("images={}", session.write("image.npy", &image).display());
    let says = |args: &[&str], what: &str| {
        let output = session.run(args);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let error = text(&output.stderr);
        assert!(error.contains(what), "{error}");
    };
    says(&["infer", "digits", "--input", &input], "no worker serves \"digits\"");
    let mut worker = session.worker();
    says(&["infer", "digits"], "takes [\"images\"], and was given []");
    says(&["infer", "digits", "--input", "images=/nowhere.npy"], "/nowhere.npy");
    let flat = session.scratch.path().join("flat.npy");
    write_npy(&flat, &Array1::<f32>::zeros(64)).unwrap();
    says(&["infer", "digits", "--input", &format!("images={}", flat.display())], "does not fit into [1, 8, 8]");
    says(&["worker", "--model", "/nowhere.onnx"], "/nowhere.onnx");
    assert!(end(&mut worker));
    let garbage = session.scratch.path().join("garbage.onnx");
    std::fs::write(&garbage, "no model").unwrap();
    says(&["worker", "--model", garbage.to_str().unwrap()], "garbage.onnx");
}
