//! Health, metrics and reloading of a KMS, alone or in a node.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::Readiness;
use super::admin::readiness_text;
use super::metrics::{CONTENT_TYPE, Snapshot};
use super::process::{ProcessAccounts, epoch_seconds};
use crate::kms::KmsService;

/// Reads the configuration again; says what is wrong with it, or what was not taken over.
pub type Reload = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// What the handlers of a KMS that stands alone read.
#[derive(Clone)]
pub struct KmsAdmin {
    /// The service.
    pub service: Arc<KmsService>,
    /// Reads its configuration again.
    pub reload: Reload,
    /// Whether requests are taken.
    pub readiness: Arc<Readiness>,
}

/// The routes of the admin listener of a KMS that stands alone.
pub fn router(admin: KmsAdmin) -> Router {
    let start_time_seconds = epoch_seconds();
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(|State(admin): State<KmsAdmin>| async move { readiness_text(&admin.readiness) }),
        )
        .route(
            "/metrics",
            get(move |State(admin): State<KmsAdmin>| async move {
                metrics(&admin.service, start_time_seconds)
            }),
        )
        .route(
            "/api/v1/kms/reload",
            post(|State(admin): State<KmsAdmin>| async move { reload(&admin.reload) }),
        )
        // Nothing here takes a body.
        .layer(DefaultBodyLimit::max(0))
        .with_state(admin)
}

fn metrics(service: &KmsService, start_time_seconds: f64) -> Response {
    let snapshot = Snapshot {
        shards: Vec::new(),
        control: service.families(),
        floor_control: None,
        process: ProcessAccounts::read(),
        start_time_seconds,
    };
    match snapshot.into_text() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Reads the configuration again. One that is wrong changes nothing.
pub(super) fn reload(reload: &Reload) -> Response {
    match reload() {
        Ok(text) => (StatusCode::OK, text).into_response(),
        Err(problem) => (StatusCode::CONFLICT, problem).into_response(),
    }
}
