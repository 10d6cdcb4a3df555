use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::exposition::{self, Seen};
use crate::watch::Watch;

/// Prometheus' text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) fn router(watch: Arc<Watch>) -> Router {
    Router::new().route("/metrics", get(metrics)).route("/healthz", get(health)).with_state(watch)
}

/// To look at a session is file access, and done off the reactor.
async fn metrics(State(watch): State<Arc<Watch>>) -> Response {
    match tokio::task::spawn_blocking(move || page(&watch).map_err(|error| error.to_string())).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, PROMETHEUS)], text).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn page(watch: &Watch) -> Result<String, Box<dyn std::error::Error>> {
    let bus = watch.bus();
    let ((living, dead), (processes, rejected)) = (bus.members()?, watch.processes()?);
    let seen = Seen {
        session: bus.session(),
        living: living.len(),
        dead: dead.len(),
        deaths: watch.deaths(),
        processes: &processes,
        rejected,
        topics: &bus.topics()?,
        quota: bus.quota()?,
    };
    Ok(exposition::text(&seen)?)
}

async fn health(State(watch): State<Arc<Watch>>) -> Response {
    let trouble = watch.trouble();
    let status = if trouble.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let said = json!({
        "status": if trouble.is_none() { "ok" } else { "failing" },
        "session": watch.bus().session(),
        "pid": std::process::id(),
        "trouble": trouble,
    });
    (status, Json(said)).into_response()
}
