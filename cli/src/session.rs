//! The session that a command looks at.

use tensorbus::{Bus, BusBuilder, SessionError};

/// The option that names a session, the same in every command.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SessionArg {
    /// Session to look at. Default: the one in TENSORBUS_SESSION, else `default`
    #[arg(long = "session", value_name = "NAME")]
    name: Option<String>,
}

impl SessionArg {
    /// Joins the session.
    pub(crate) fn open(&self) -> Result<Bus, SessionError> {
        self.builder().open()
    }

    /// To join the session with settings.
    pub(crate) fn builder(&self) -> BusBuilder {
        match &self.name {
            Some(name) => Bus::builder().session(name),
            None => Bus::builder(),
        }
    }
}
