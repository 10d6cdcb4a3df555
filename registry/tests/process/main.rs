//! One instance of each model in a process, whoever asks for it (US1, FR-001 to 003, FR-010).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod budget;
mod figures;
mod flight;
mod life;
mod support;
