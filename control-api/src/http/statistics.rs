//! MSRP traffic as operators want to see it: `/api/v1/statistics`, `/api/v1/rooms/NAME/statistics`
//! and the families of `/metrics`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mrfp_core::metrics::MetricKind;
use mrfp_core::mp::{ContextStatistics, RESPONSE_CODES, Statistics, Traffic};
use serde::Serialize;

use super::admin::{Admin, ask, overloaded};
use super::{Family, Query, Sample};

/// What a realm has carried.
#[derive(Clone, Debug)]
pub struct RealmStatistics {
    /// Its name.
    pub realm: String,
    /// Since the node was started.
    pub lifetime: Traffic,
    /// In the last whole window; `None` until there was one.
    pub window: Option<Traffic>,
}

/// What a room has carried.
#[derive(Clone, Copy, Debug)]
pub struct RoomStatistics {
    /// Since the room was made.
    pub lifetime: ContextStatistics,
    /// Between the last two looks at all rooms, a window apart; `None` until there were two.
    pub window: Option<ContextStatistics>,
    /// Length of a window.
    pub window_seconds: u64,
}

#[derive(Serialize)]
struct RealmsView {
    window_seconds: u64,
    realms: Vec<RealmView>,
}

#[derive(Serialize)]
struct RealmView {
    realm: String,
    lifetime: TrafficView,
    window: Option<TrafficView>,
}

#[derive(Serialize)]
struct RoomView {
    room: String,
    window_seconds: u64,
    lifetime: ContextView,
    window: Option<ContextView>,
}

#[derive(Serialize)]
struct ContextView {
    received: DirectionView,
    sent: DirectionView,
    members_dropped: u64,
    messages_skipped: u64,
    messages_undelivered: u64,
}

/// As seen from the node.
#[derive(Serialize)]
struct TrafficView {
    received: DirectionView,
    sent: DirectionView,
}

#[derive(Serialize)]
struct DirectionView {
    send: BTreeMap<&'static str, u64>,
    report: u64,
    nickname: u64,
    auth: u64,
    other: u64,
    /// By code; those nobody has seen are left out.
    responses: BTreeMap<String, u64>,
    body_bytes: u64,
}

pub(super) async fn realms(State(admin): State<Admin>) -> Response {
    let Some((window_seconds, realms)) = ask(&admin, Query::Realms).await else {
        return overloaded();
    };
    let view = |realm: RealmStatistics| RealmView {
        realm: realm.realm,
        lifetime: traffic(&realm.lifetime),
        window: realm.window.as_ref().map(traffic),
    };
    let realms = realms.into_iter().map(view).collect();
    Json(RealmsView { window_seconds, realms }).into_response()
}

pub(super) async fn room(State(admin): State<Admin>, Path(room): Path<String>) -> Response {
    let named = room.clone();
    match ask(&admin, |reply| Query::RoomStatistics { room: named, reply }).await {
        Some(Some(RoomStatistics { lifetime, window, window_seconds })) => Json(RoomView {
            room,
            window_seconds,
            lifetime: context(&lifetime),
            window: window.as_ref().map(context),
        })
        .into_response(),
        Some(None) => (StatusCode::NOT_FOUND, "no such room\n").into_response(),
        None => overloaded(),
    }
}

fn context(statistics: &ContextStatistics) -> ContextView {
    let TrafficView { received, sent } = traffic(&statistics.traffic);
    ContextView {
        received,
        sent,
        members_dropped: statistics.members_dropped,
        messages_skipped: statistics.messages_skipped,
        messages_undelivered: statistics.messages_undelivered,
    }
}

fn traffic(traffic: &Traffic) -> TrafficView {
    TrafficView { received: direction(&traffic.received), sent: direction(&traffic.sent) }
}

fn direction(statistics: &Statistics) -> DirectionView {
    DirectionView {
        send: sends(statistics).into_iter().collect(),
        report: statistics.reports,
        nickname: statistics.nicknames,
        auth: statistics.auths,
        other: statistics.others,
        responses: responses(statistics).filter(|(_, count)| *count > 0).collect(),
        body_bytes: statistics.bytes,
    }
}

fn sends(statistics: &Statistics) -> [(&'static str, u64); 5] {
    [
        ("chat", statistics.send_chat),
        ("is_composing", statistics.send_is_composing),
        ("imdn", statistics.send_imdn),
        ("file", statistics.send_file),
        ("empty", statistics.send_empty),
    ]
}

fn responses(statistics: &Statistics) -> impl Iterator<Item = (String, u64)> {
    let known = RESPONSE_CODES.iter().map(u16::to_string).zip(statistics.responses);
    known.chain([("other".to_owned(), statistics.responses_other)])
}

/// The traffic of the realms for `/metrics`. Rooms come and go under names that callers choose, which
/// would be a series each: they are in the API only.
pub(super) fn families(realms: &[RealmStatistics]) -> Vec<Family> {
    let family = |name, help| Family { name, help, kind: MetricKind::Counter, samples: Vec::new() };
    let mut requests = family("msrp_requests", "MSRP requests by realm, direction and kind");
    let mut answers = family("msrp_responses", "MSRP responses by realm, direction and code");
    let mut bytes = family("msrp_body_bytes", "Bytes of MSRP bodies by realm and direction");
    for realm in realms {
        let directions = [("received", &realm.lifetime.received), ("sent", &realm.lifetime.sent)];
        for (direction, statistics) in directions {
            let labels = vec![("realm", realm.realm.clone()), ("direction", direction.to_owned())];
            let with = |name, label: &str| {
                let mut labels = labels.clone();
                labels.push((name, label.to_owned()));
                labels
            };
            let others = [
                ("report", statistics.reports),
                ("nickname", statistics.nicknames),
                ("auth", statistics.auths),
                ("other", statistics.others),
            ];
            for (kind, value) in sends(statistics).into_iter().chain(others) {
                requests.samples.push(Sample { labels: with("kind", kind), value });
            }
            for (code, value) in responses(statistics) {
                answers.samples.push(Sample { labels: with("code", &code), value });
            }
            bytes.samples.push(Sample { labels, value: statistics.bytes });
        }
    }
    vec![requests, answers, bytes]
}
