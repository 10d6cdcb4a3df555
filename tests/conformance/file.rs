//! The page cache is the memory. Where the directory for temporary files is a tmpfs, the cases pass too, and prove less.

#[path = "cases.rs"]
mod cases;

fn backend() -> Option<tensorbus::Backend> {
    Some(tensorbus::Backend::File)
}
