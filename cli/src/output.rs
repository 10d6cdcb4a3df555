//! What the commands print: tables, units, and a standard output that its reader may close.

use std::io::{self, Write};
use std::process::ExitCode;

use tensorbus::Overflow;

/// Takes a closed standard output (`| head`) for the end of the command, not for an error.
pub(crate) fn until_closed(outcome: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match outcome {
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            Ok(ExitCode::SUCCESS)
        }
        outcome => outcome,
    }
}

/// Tells the user something that is no result. A closed standard error is no reason to end.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// One line a row, columns aligned: those named in `right` to the right, the others to the left.
pub(crate) fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width_of = |cell: &String| cell.chars().count();
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(width_of).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// `1 message`, `2 messages`.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// What a topic does when a queue is full, as people write it.
pub(crate) fn overflow(overflow: Overflow) -> String {
    match overflow {
        Overflow::Block(bound) => format!("block up to {bound:?}"),
        other => other.to_string(),
    }
}

/// A number in few digits: integers as they are, others with four decimals or an exponent.
pub(crate) fn short(number: f64) -> String {
    let size = number.abs();
    if number.is_nan() {
        "nan".to_owned()
    } else if number == number.trunc() && size < 1e15 {
        format!("{number:.0}")
    } else if (1e-3..1e6).contains(&size) {
        format!("{number:.4}").trim_end_matches('0').to_owned()
    } else if number.is_infinite() {
        number.to_string()
    } else {
        format!("{number:.3e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn columns_are_aligned() {
        let rows = [["NAME", "SLOTS", "X"], ["a", "10", ""], ["äöü-long", "8", "x"]]
            .map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows, &[1]), "NAME      SLOTS  X\na            10\näöü-long      8  x\n");
        assert_eq!(table(&[], &[]), "");
    }

    #[test]
    fn numbers_are_short() {
        let written = [0.0, 255.0, -3.0, 127.5, 0.1234567, 1e-9, 1.5e9, 1.25e30, f64::INFINITY, f64::NAN].map(short);
        let expected = ["0", "255", "-3", "127.5", "0.1235", "1.000e-9", "1500000000", "1.250e30", "inf", "nan"];
        assert_eq!(written, expected);
        assert_eq!((count(1, "bus", "buses"), count(0, "bus", "buses")), ("1 bus".to_owned(), "0 buses".to_owned()));
    }

    #[test]
    fn policies_have_units() {
        assert_eq!(overflow(Overflow::Block(Duration::from_millis(1500))), "block up to 1.5s");
        assert_eq!(overflow(Overflow::DropOldest), "drop-oldest");
    }

    #[test]
    fn only_a_closed_output_is_no_error() {
        let closed = || anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(until_closed(Err(closed())).is_ok());
        assert!(until_closed(Err(io::Error::from(io::ErrorKind::NotFound).into())).is_err());
        assert!(until_closed(Err(anyhow::anyhow!("other"))).is_err());
    }
}
