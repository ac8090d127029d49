//! Health, metrics, API and status page.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use mrfp_core::metrics::PublishedMetrics;
use mrfp_core::mp::ShardId;
use serde::Serialize;
use tokio::sync::oneshot;

use super::metrics::{CONTENT_TYPE, Snapshot, shard_families};
use super::process::{ProcessAccounts, epoch_seconds};
use super::{ContextView, Queries, Query, Readiness, ReadinessState, Reload};
use super::{border, floor_metrics, floors, kms_admin, rooms, statistics};
use crate::kms::KmsService;

/// What the handlers read.
#[derive(Clone)]
pub struct AdminServices {
    /// Whether calls are taken.
    pub readiness: Arc<Readiness>,
    /// The shards' published metrics.
    pub shards: Arc<[(ShardId, Arc<PublishedMetrics>)]>,
    /// The way to the loop that owns the calls.
    pub queries: Queries,
    /// The KMS, where it is in this process, and what reads its configuration again.
    pub kms: Option<(Arc<KmsService>, Reload)>,
}

/// The routes of the admin listener.
pub fn router(services: AdminServices) -> Router {
    let start_time_seconds = epoch_seconds();
    let state = Admin { services, start_time_seconds };
    Router::new()
        .route("/", get(status_page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/contexts", get(contexts))
        .route("/api/v1/statistics", get(statistics::realms))
        .route("/api/v1/kms/reload", post(reload_kms))
        .route("/api/v1/border/calls", get(border::calls))
        .route("/api/v1/border/next-hops", get(border::next_hops))
        .route("/api/v1/border/registrations", get(border::registrations))
        .route("/api/v1/rooms", get(rooms::list))
        .route("/api/v1/rooms/{room}", get(rooms::show))
        .route("/api/v1/rooms/{room}/statistics", get(statistics::room))
        .route("/api/v1/rooms/{room}/floors", get(floors::list))
        .route("/api/v1/rooms/{room}/floors/{floor}/members/{call}/grant", post(floors::grant))
        .route("/api/v1/rooms/{room}/floors/{floor}/members/{call}/revoke", post(floors::revoke))
        .route("/api/v1/rooms/{room}/floors/{floor}/members/{call}/chair", post(floors::chair))
        .route("/api/v1/rooms/{room}/floors/{floor}/chair", delete(floors::no_chair))
        .route("/api/v1/rooms/{room}/moderate", post(floors::moderate))
        .route("/api/v1/rooms/{room}/unmoderate", post(floors::unmoderate))
        .route("/api/v1/rooms/{room}/lock", post(rooms::lock))
        .route("/api/v1/rooms/{room}/unlock", post(rooms::unlock))
        .route("/api/v1/rooms/{room}/members/{call}/kick", post(rooms::kick))
        .route("/api/v1/rooms/{room}/members/{call}/mute", post(rooms::mute))
        .route("/api/v1/rooms/{room}/members/{call}/unmute", post(rooms::unmute))
        .route("/api/v1/rooms/{room}/members/{call}/rekey", post(rooms::rekey))
        // Nothing else takes a body.
        .layer(DefaultBodyLimit::max(0))
        .route("/api/v1/rooms/{room}/calls", rooms::calls_route())
        .route("/api/v1/rooms/{room}/floors/{floor}/policy", floors::policy_route())
        .with_state(state)
}

#[derive(Clone)]
pub(super) struct Admin {
    services: AdminServices,
    start_time_seconds: f64,
}

/// The list of `/api/v1/contexts`.
#[derive(Serialize)]
struct Contexts {
    contexts: Vec<ContextView>,
}

async fn readyz(State(admin): State<Admin>) -> Response {
    readiness_text(&admin.services.readiness)
}

pub(super) fn readiness_text(readiness: &Readiness) -> Response {
    let (status, text) = match readiness.get() {
        ReadinessState::Ready => (StatusCode::OK, "ready\n"),
        ReadinessState::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        ReadinessState::ShardLost => (StatusCode::SERVICE_UNAVAILABLE, "a shard does not answer\n"),
        ReadinessState::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    };
    (status, text).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let Some(mut control) = ask(&admin, Query::Counters).await else {
        return overloaded();
    };
    let Some((_, realms)) = ask(&admin, Query::Realms).await else {
        return overloaded();
    };
    control.extend(admin.services.kms.iter().flat_map(|(kms, _)| kms.families()));
    let mut shards = shard_families(&admin.services.shards);
    shards.extend(statistics::families(&realms));
    let floor_control = floor_metrics::total(&admin.services.shards);
    shards.extend(floor_metrics::families(&floor_control));
    let snapshot = Snapshot {
        shards,
        control,
        floor_control: Some(floor_control),
        process: ProcessAccounts::read(),
        start_time_seconds: admin.start_time_seconds,
    };
    match snapshot.into_text() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn reload_kms(State(admin): State<Admin>) -> Response {
    match &admin.services.kms {
        Some((_, reload)) => kms_admin::reload(reload),
        None => (StatusCode::NOT_FOUND, "the KMS is not in this node\n").into_response(),
    }
}

async fn contexts(State(admin): State<Admin>) -> Response {
    match ask(&admin, Query::Contexts).await {
        Some(contexts) => Json(Contexts { contexts }).into_response(),
        None => overloaded(),
    }
}

async fn status_page(State(admin): State<Admin>) -> Response {
    let Some(contexts) = ask(&admin, Query::Contexts).await else {
        return overloaded();
    };
    let members: usize = contexts.iter().map(|context| context.members.len()).sum();
    let readiness = admin.services.readiness.get();
    let mut page = String::new();
    let written = write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>mrf</title>\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;margin:2rem}}</style>\
         <h1>mrf {version}</h1>\
         <p>State: {readiness:?}. Shards: {shards}. Contexts: {count}. Members: {members}.</p>\
         <ul><li><a href=\"/healthz\">/healthz</a>: the process is alive\
         <li><a href=\"/readyz\">/readyz</a>: calls are taken\
         <li><a href=\"/metrics\">/metrics</a>: counters, OpenMetrics text\
         <li><a href=\"/api/v1/contexts\">/api/v1/contexts</a>: who is in which conference, JSON\
         <li><a href=\"/api/v1/rooms\">/api/v1/rooms</a>: rooms and their members, JSON\
         <li>/api/v1/rooms/NAME/floors: who holds and who waits for which floor, JSON\
         <li><a href=\"/api/v1/statistics\">/api/v1/statistics</a>: MSRP traffic by realm, JSON; by \
         room under /api/v1/rooms/NAME/statistics\
         <li><a href=\"/api/v1/border/calls\">/api/v1/border/calls</a>: calls through the border, JSON\
         </ul>",
        version = env!("CARGO_PKG_VERSION"),
        shards = admin.services.shards.len(),
        count = contexts.len(),
    );
    match written {
        Ok(()) => Html(page).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Puts a question to the control loop; `None` where it has too many already, or has ended.
pub(super) async fn ask<T>(
    admin: &Admin,
    query: impl FnOnce(oneshot::Sender<T>) -> Query,
) -> Option<T> {
    let (sender, receiver) = oneshot::channel();
    admin.services.queries.try_send(query(sender)).ok()?;
    receiver.await.ok()
}

pub(super) fn overloaded() -> Response {
    let retry = [(header::RETRY_AFTER, "1")];
    (StatusCode::SERVICE_UNAVAILABLE, retry, "the control plane is busy\n").into_response()
}
