//! The KMS's HTTP binding: one binary MIKEY message each way (RFC 6043 section 7 leaves the
//! transport to others; 3GPP's is HTTP POST with `application/mikey`, RFC 3830 section 10).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use crate::kms::{Exchange, HttpBinding};

/// What the KMS does with one message.
pub type KmsHandler =
    Arc<dyn Fn(Bytes) -> Pin<Box<dyn Future<Output = KmsResponse> + Send>> + Send + Sync>;

/// What the KMS says to a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KmsResponse {
    /// A MIKEY message: the response, or a MIKEY Error.
    Message(Vec<u8>),
    /// The bytes are no MIKEY message that could be answered.
    Malformed,
    /// The user has asked too often.
    TooMany {
        /// When it may ask again.
        retry_after: Duration,
    },
    /// The KMS cannot do its work at the moment.
    Unavailable,
}

impl KmsResponse {
    /// Of what the KMS has to say, which may be nothing.
    #[must_use]
    pub fn of(message: Vec<u8>) -> Self {
        if message.is_empty() { Self::Malformed } else { Self::Message(message) }
    }
}

/// The routes of the KMS's own listener.
pub fn router(binding: HttpBinding, handler: KmsHandler) -> Router {
    let path = binding.path().to_owned();
    Router::new()
        .route(&path, post(key_management))
        .layer(DefaultBodyLimit::max(MESSAGE_BYTES_MAX))
        .with_state((Arc::new(binding), handler))
}

async fn key_management(
    State((binding, handler)): State<(Arc<HttpBinding>, KmsHandler)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(is_mikey) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    // The message says itself what it asks for; a parameter that contradicts it is a mistake.
    let exchange = Exchange::of(&body);
    if !exchange.is_some_and(|exchange| binding.is_for(query.as_deref(), exchange)) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    match handler(body).await {
        KmsResponse::Message(message) => {
            ([(header::CONTENT_TYPE, CONTENT_TYPE)], message).into_response()
        }
        KmsResponse::Malformed => StatusCode::BAD_REQUEST.into_response(),
        // RFC 6585 section 4.
        KmsResponse::TooMany { retry_after } => {
            let seconds = HeaderValue::from(retry_after.as_secs().saturating_add(1));
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds)]).into_response()
        }
        KmsResponse::Unavailable => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Whether a Content-Type is that of MIKEY messages.
pub(crate) fn is_mikey(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(CONTENT_TYPE)
}

/// The media type of MIKEY messages.
pub(crate) const CONTENT_TYPE: &str = "application/mikey";
/// Payload lengths of MIKEY are 16 bits, and a message has one ticket; anything longer is refused
/// with 413 before it is read.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024;
