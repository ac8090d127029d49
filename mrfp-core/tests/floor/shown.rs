//! Messages as a line of text each.

use mrfp_protocol::bfcp::{
    Attributes, ErrorCode, Group, Header, Payload, Primitive, Priority, RequestStatus, Transport,
    Value,
};

/// Such as `FloorRequestStatus 7: #1 Accepted@2 (5 Accepted@2) for 12`.
pub fn shown(bytes: &[u8], transport: Transport) -> String {
    let header = Header::parse(bytes, transport).expect("a header");
    let payload = Payload::parse(header.content(bytes).expect("whole")).expect("sound");
    assert_eq!(header.version, transport.version());
    let name = Primitive::from_code(header.primitive).expect("a primitive").name();
    let says = all(payload.attributes);
    let colon = if says.is_empty() { "" } else { ": " };
    format!("{name} {}{colon}{says}", header.transaction_id)
}

fn all(attributes: Attributes<'_>) -> String {
    let each: Vec<String> = attributes.map(|attribute| value(&attribute.value)).collect();
    each.join(" ")
}

fn text(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8(bytes.to_vec()).expect("text"))
}

fn value(value: &Value<'_>) -> String {
    match *value {
        Value::BeneficiaryId(id) => format!("beneficiary {id}"),
        Value::FloorId(id) => format!("floor {id}"),
        Value::FloorRequestId(id) => format!("request {id}"),
        Value::Priority(code) => Priority::understood(code).name().to_owned(),
        Value::RequestStatus { status, queue_position } => {
            let status = RequestStatus::from_code(status).expect("a status").name();
            match queue_position {
                0 => status.to_owned(),
                position => format!("{status}@{position}"),
            }
        }
        Value::ErrorCode { code, details } => {
            let code = ErrorCode::from_code(code).expect("a code").code();
            if details.is_empty() { format!("{code}") } else { format!("{code} {details:?}") }
        }
        Value::ErrorInfo(info) => text(info),
        Value::ParticipantProvidedInfo(info) => format!("info {}", text(info)),
        Value::StatusInfo(note) => format!("note {}", text(note)),
        Value::SupportedAttributes(types) => format!("attributes {}", types.len()),
        Value::SupportedPrimitives(codes) => format!("primitives {}", codes.len()),
        Value::UserDisplayName(name) => text(name),
        Value::UserUri(uri) => text(uri),
        Value::Grouped(group, inner) => {
            let inner = all(inner);
            let space = if inner.is_empty() { "" } else { " " };
            match group {
                Group::BeneficiaryInformation(id) => format!("for {id}{space}{inner}"),
                Group::FloorRequestInformation(id) => format!("#{id} {inner}"),
                Group::RequestedByInformation(id) => format!("by {id}{space}{inner}"),
                Group::FloorRequestStatus(id) => format!("({id} {inner})"),
                Group::OverallRequestStatus(_) => inner,
            }
        }
        Value::Unknown { attribute_type, .. } => panic!("attribute {attribute_type}"),
    }
}
