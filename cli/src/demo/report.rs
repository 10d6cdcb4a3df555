//! What the demo found out, as a table for people or as JSON for programs.

use std::fmt::Write;

use serde::Serialize;

use super::classify::{NODES, TOGETHER};
use super::tally::{Latencies, NodeReport, from_recorded};

/// Everything that the demo found out.
pub(super) struct Summary {
    pub(super) frames: u64,
    pub(super) digits: u64,
    pub(super) correct: u64,
    pub(super) lost: u64,
    pub(super) rejected: u64,
    pub(super) tensor_bytes_copied: u64,
    pub(super) processes: usize,
    /// Bytes of tensors that the camera handed to preprocess.
    bytes: u64,
    /// From the first frame's publishing to the last one's arrival.
    elapsed_ns: u64,
    /// By name, in the order of the pipeline; the first is the frames'.
    hops: Vec<(&'static str, Latencies)>,
    baseline: Latencies,
    /// Bytes that the models of the classify nodes take, sharing and not.
    model_bytes: (u64, u64),
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Json {
    frames: u64,
    accuracy: f64,
    lost: u64,
    tensor_bytes_copied: u64,
    hop_us: Hop,
    throughput_gbps: f64,
    baseline_hop_us: BaselineHop,
    processes: usize,
}

#[derive(Debug, Serialize)]
struct Hop {
    p50: f64,
    p99: f64,
    p999: f64,
}

#[derive(Debug, Serialize)]
struct BaselineHop {
    p50: f64,
    p99: f64,
}

impl Summary {
    /// Puts together what camera, preprocess, both classify processes and sink reported, the baseline's reader, and the bytes
    /// that the models take with and without sharing.
    pub(super) fn new(nodes: &[NodeReport; 5], baseline: &NodeReport, shared: u64, private: u64) -> Self {
        let [_, preprocess, classify, classify_2, sink] = nodes;
        let classify = NodeReport::of_all(vec![classify.clone(), classify_2.clone()]);
        let sum = |field: fn(&NodeReport) -> u64| nodes.iter().map(field).sum();
        let mut processes: Vec<_> = nodes.iter().map(|node| node.process).collect();
        processes.sort_unstable();
        processes.dedup();
        Self {
            frames: sink.frames,
            digits: sink.digits,
            correct: sink.correct,
            lost: sum(|node| node.lost),
            rejected: sum(|node| node.rejected),
            tensor_bytes_copied: sum(|node| node.copied_bytes),
            processes: processes.len(),
            bytes: preprocess.bytes,
            elapsed_ns: preprocess.elapsed_ns,
            hops: vec![
                ("camera -> preprocess", from_recorded(&preprocess.hop)),
                ("preprocess -> classify", from_recorded(&classify.hop)),
                ("classify -> sink", from_recorded(&sink.hop)),
            ],
            baseline: from_recorded(&baseline.hop),
            model_bytes: (shared, private),
        }
    }

    /// Share of the digits that were recognised.
    pub(super) fn accuracy(&self) -> f64 {
        ratio(self.correct as f64, self.digits as f64)
    }

    /// One line of JSON.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        let (hop, baseline) = (&self.hops[0].1, &self.baseline);
        serde_json::to_string(&Json {
            frames: self.frames,
            accuracy: rounded(self.accuracy(), 4),
            lost: self.lost,
            tensor_bytes_copied: self.tensor_bytes_copied,
            hop_us: Hop {
                p50: rounded(microseconds(hop, 0.5), 1),
                p99: rounded(microseconds(hop, 0.99), 1),
                p999: rounded(microseconds(hop, 0.999), 1),
            },
            throughput_gbps: rounded(self.throughput(), 3),
            baseline_hop_us: BaselineHop {
                p50: rounded(microseconds(baseline, 0.5), 1),
                p99: rounded(microseconds(baseline, 0.99), 1),
            },
            processes: self.processes,
        })
    }

    /// Several lines of text.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_table(&mut text);
        text
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let (frames, processes) = (self.frames, self.processes);
        writeln!(out, "{frames} frames through {processes} processes\n")?;
        writeln!(
            out,
            "  digits recognised     {} of {} ({:.1} %)",
            self.correct,
            self.digits,
            100.0 * self.accuracy()
        )?;
        writeln!(out, "  messages lost         {}", self.lost)?;
        if self.rejected > 0 {
            writeln!(out, "  messages not valid    {}", self.rejected)?;
        }
        writeln!(out, "  tensor bytes copied   {}", self.tensor_bytes_copied)?;
        writeln!(out, "  frames handed over    {:.3} GB/s\n", self.throughput())?;
        writeln!(out, "  published to received, µs     {:>9} {:>9} {:>9}", "p50", "p99", "p99.9")?;
        for (name, hop) in &self.hops {
            write_hop(out, name, hop)?;
        }
        write_hop(out, "frames through a socket", &self.baseline)?;
        let ratio = ratio(microseconds(&self.baseline, 0.5), microseconds(&self.hops[0].1, 0.5));
        writeln!(
            out,
            "\n  A frame of 6 MB reaches the next process {ratio:.0} times sooner than through a socket (p50)."
        )?;
        let (shared, private) = self.model_bytes;
        writeln!(
            out,
            "  The model of {TOGETHER} nodes in one process and {} in another takes {} KiB, and without sharing {} KiB (PSS).",
            NODES - TOGETHER,
            shared >> 10,
            private >> 10,
        )
    }

    /// GB/s (10^9 bytes a second) of tensors that the camera handed to preprocess, from the first frame's publishing
    /// to the last one's arrival. Each frame counts once, though the sink sees it too. At a fixed `--fps` that is what
    /// the camera makes; with `--fps 0` it is what the pipeline takes.
    fn throughput(&self) -> f64 {
        ratio(self.bytes as f64, self.elapsed_ns as f64)
    }
}

fn write_hop(out: &mut String, name: &str, hop: &Latencies) -> std::fmt::Result {
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| microseconds(hop, quantile));
    writeln!(out, "    {name:<28}{p50:>9.1} {p99:>9.1} {p999:>9.1}")
}

fn microseconds(latencies: &Latencies, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1000.0
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn rounded(value: f64, decimals: i32) -> f64 {
    let unit = 10f64.powi(decimals);
    (value * unit).round() / unit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let node = |process, hop| NodeReport {
            process,
            frames: 300,
            hop: vec![(hop, 299), (hop * 10, 1)],
            bytes: 6_000_000_000,
            elapsed_ns: 10_000_000_000,
            digits: 9600,
            correct: 9360,
            ..NodeReport::default()
        };
        let mut nodes = [node(1, 1), node(2, 50_000), node(3, 30_000), node(6, 30_000), node(4, 20_000)];
        nodes[2].lost = 2;
        nodes[4].lost = 1;
        nodes[1].copied_bytes = 64;
        Summary::new(&nodes, &node(5, 3_000_000), 100 << 10, 400 << 10)
    }

    fn keys(value: &serde_json::Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn json_has_exactly_these_keys() {
        let json: serde_json::Value = serde_json::from_str(&summary().json().unwrap()).unwrap();
        let mut expected = [
            "frames",
            "accuracy",
            "lost",
            "tensor_bytes_copied",
            "hop_us",
            "throughput_gbps",
            "baseline_hop_us",
            "processes",
        ];
        expected.sort_unstable();
        let mut found = keys(&json);
        found.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(keys(&json["hop_us"]), ["p50", "p99", "p999"]);
        assert_eq!(keys(&json["baseline_hop_us"]), ["p50", "p99"]);
    }

    #[test]
    fn json_has_the_figures() {
        let json: serde_json::Value = serde_json::from_str(&summary().json().unwrap()).unwrap();
        assert_eq!(json["frames"], 300);
        assert_eq!(json["accuracy"], 0.975);
        assert_eq!(json["lost"], 3);
        assert_eq!(json["tensor_bytes_copied"], 64);
        assert_eq!(json["throughput_gbps"], 0.6);
        assert_eq!(json["processes"], 5);
        assert!((json["hop_us"]["p50"].as_f64().unwrap() - 50.0).abs() < 0.1);
        assert!((json["hop_us"]["p999"].as_f64().unwrap() - 500.0).abs() < 1.0);
        assert!((json["baseline_hop_us"]["p50"].as_f64().unwrap() - 3000.0).abs() < 3.0);
    }

    #[test]
    fn the_table_says_what_matters() {
        let table = summary().table();
        for part in [
            "9360 of 9600 (97.5 %)",
            "lost         3",
            "copied   64",
            "60 times sooner",
            "takes 100 KiB, and without sharing 400 KiB",
        ] {
            assert!(table.contains(part), "{part:?} is missing in\n{table}");
        }
    }

    #[test]
    fn nothing_done_is_no_division_by_zero() {
        let nodes: [NodeReport; 5] = Default::default();
        assert_eq!(Summary::new(&nodes, &nodes[0], 0, 0).accuracy(), 0.0);
    }
}
