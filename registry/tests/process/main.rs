//! One instance of each model in a process, whoever asks for it (US1, FR-001 to 003, FR-010).

mod budget;
mod flight;
mod life;
mod support;
