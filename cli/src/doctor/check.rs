use serde::Serialize;

/// How one thing stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// Works, and could be faster.
    Info,
    /// Works now, and may fail under load.
    Warn,
    /// Does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) status: Status,
    pub(super) fact: String,
    /// What to do about it, if anything is to be done.
    pub(super) advice: Option<String>,
}

impl Check {
    pub(super) fn ok(name: &'static str, fact: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, fact: fact.into(), advice: None }
    }

    /// The same fact, less well.
    pub(super) fn but(self, status: Status, advice: impl Into<String>) -> Self {
        Self { status, advice: Some(advice.into()), ..self }
    }
}

impl Status {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}
