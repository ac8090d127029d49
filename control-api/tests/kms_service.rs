//! The KMS as a service: what it keeps over a restart, whom it makes wait, what it takes over.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use control_api::http::KmsResponse;
use control_api::kms::{Kms, KmsConfig, KmsService, ServicePolicy, TicketResolver};
use control_api::mikey::codec::{self, DataType, Ticket};
use control_api::mikey::{
    GrantedTicket, Initiator, NtpTime, Parameters, PendingRequest, PreSharedKey,
    TicketProtectionKey, UriPattern,
};
use zeroize::Zeroizing;

const ALICE: &str = "sip:alice@example.com";
const ROOM: &str = "sip:room@127.0.0.1";
const KMS_URI: &str = "sip:kms@example.com";
const LIFETIME: Duration = Duration::from_secs(600);
const ROTATION: Duration = Duration::from_secs(1000);

fn at(seconds: u64) -> NtpTime {
    NtpTime::from_unix(Duration::from_secs(1_790_000_000 + seconds))
}

fn random(out: &mut [u8]) {
    getrandom::fill(out).expect("the kernel has randomness");
}

fn key(name: &str, fill: u8) -> PreSharedKey {
    PreSharedKey { identity: name.as_bytes().to_vec(), key: Zeroizing::new(vec![fill; 16]) }
}

fn config() -> KmsConfig {
    let only = |uri: &str| vec![UriPattern::Exact(uri.to_owned())];
    KmsConfig {
        uri: KMS_URI.to_owned(),
        users: vec![key("node", 2), key("alice", 3)],
        ticket_protection_keys: Vec::new(),
        ticket_lifetime: LIFETIME,
        may_act_as: BTreeMap::from([
            (b"alice".to_vec(), only(ALICE)),
            (b"node".to_vec(), only(ROOM)),
        ]),
        groups: BTreeMap::new(),
        parameters: Parameters::default(),
    }
}

fn policy(requests: u32) -> ServicePolicy {
    ServicePolicy {
        requests_per_user_per_second_max: requests,
        user_requests: BTreeMap::new(),
        rotation: ROTATION,
        audit_resolved_here: true,
    }
}

fn open(directory: &Path, now: NtpTime) -> KmsService {
    KmsService::open(Kms::new(config()), policy(1000), directory, now, &mut random).expect("opens")
}

fn request_with(alice: &PreSharedKey, now: NtpTime) -> (PendingRequest, Vec<u8>) {
    let parameters = Parameters::default();
    let made =
        Initiator::request_ticket(&parameters, ALICE, ROOM, KMS_URI, alice, now, &mut random);
    made.expect("a request")
}

fn request(now: NtpTime) -> (PendingRequest, Vec<u8>) {
    request_with(&key("alice", 3), now)
}

async fn ask(service: &KmsService, message: &[u8], now: NtpTime) -> KmsResponse {
    service.handle(message, now, &mut random).await
}

async fn granted(service: &KmsService, now: NtpTime) -> GrantedTicket {
    let (pending, message) = request(now);
    let KmsResponse::Message(response) = ask(service, &message, now).await else {
        panic!("answered");
    };
    pending.finish(&response, now).expect("granted")
}

/// The number of the MIKEY Error message it is.
fn error_number(response: &KmsResponse) -> Option<u8> {
    let KmsResponse::Message(bytes) = response else { panic!("{response:?}") };
    let message = codec::parse(bytes).expect("a message");
    (message.header.data_type == DataType::Error).then(|| message.error_number().expect("one"))
}

fn resolves(service: &KmsService, ticket: &Ticket, now: NtpTime) -> bool {
    service.resolve_here(ticket, ROOM, b"node", now, &mut random).is_ok()
}

/// RFC 3830 section 6.12.
const INVALID_TIMESTAMP: Option<u8> = Some(1);

#[tokio::test]
async fn a_restart_keeps_tickets_alive_and_refuses_what_was_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let service = open(folder.path(), at(0));
    let ticket = granted(&service, at(1)).await;
    let (_, accepted) = request(at(2));
    assert_eq!(error_number(&ask(&service, &accepted, at(2)).await), None);
    let (_, never_sent) = request(at(3));
    service.close().await.expect("written");
    drop(service);

    let service = open(folder.path(), at(4));
    assert!(resolves(&service, ticket.ticket(), at(4)));
    assert_eq!(error_number(&ask(&service, &accepted, at(4)).await), INVALID_TIMESTAMP);
    // It was stopped, so it knows exactly what it had accepted.
    assert_eq!(error_number(&ask(&service, &never_sent, at(4)).await), None);
    granted(&service, at(4)).await;
}

#[tokio::test]
async fn after_a_crash_whatever_may_have_been_accepted_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let service = open(folder.path(), at(0));
    let ticket = granted(&service, at(10)).await;
    let (_, accepted) = request(at(11));
    assert_eq!(error_number(&ask(&service, &accepted, at(11)).await), None);
    let (_, maybe) = request(at(9));
    drop(service);

    let service = open(folder.path(), at(12));
    assert!(resolves(&service, ticket.ticket(), at(12)));
    assert_eq!(error_number(&ask(&service, &accepted, at(12)).await), INVALID_TIMESTAMP);
    assert_eq!(error_number(&ask(&service, &maybe, at(12)).await), INVALID_TIMESTAMP);
    // And it is soon over.
    granted(&service, at(14)).await;
    // A second crash forgets nothing of the first.
    drop(service);
    let service = open(folder.path(), at(15));
    assert_eq!(error_number(&ask(&service, &accepted, at(15)).await), INVALID_TIMESTAMP);
}

#[tokio::test]
async fn without_a_place_for_its_state_nothing_is_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state");
    let service = open(&path, at(0));
    std::fs::remove_dir_all(&path).expect("removed");
    let (_, message) = request(at(1));
    assert_eq!(ask(&service, &message, at(1)).await, KmsResponse::Unavailable);
}

#[tokio::test]
async fn who_asks_too_often_waits_and_nobody_can_make_others_wait() {
    let service = KmsService::new(Kms::new(config()), policy(3));
    // Whoever has not the key uses nothing up.
    for _ in 0..10 {
        let (_, forged) = request_with(&key("alice", 9), at(0));
        assert_eq!(error_number(&ask(&service, &forged, at(0)).await), Some(0));
    }
    for _ in 0..3 {
        granted(&service, at(0)).await;
    }
    let (_, message) = request(at(0));
    let KmsResponse::TooMany { retry_after } = ask(&service, &message, at(0)).await else {
        // A machine that took a third of a second for this has refilled the bucket.
        return;
    };
    assert!(retry_after <= Duration::from_secs(1), "{retry_after:?}");
    let counted = outcomes(&service);
    assert_eq!(counted["request_init_psk answered"], 3);
    assert_eq!(counted["request_init_psk WrongMac"], 10);
    assert_eq!(counted["request_init_psk rate-limited"], 1);
}

fn outcomes(service: &KmsService) -> BTreeMap<String, u64> {
    let families = service.families();
    let requests = families.iter().find(|family| family.name == "kms_requests").expect("there");
    let label = |labels: &[(&str, String)]| format!("{} {}", labels[0].1, labels[1].1);
    requests.samples.iter().map(|sample| (label(&sample.labels), sample.value)).collect()
}

#[tokio::test]
async fn a_new_key_makes_tickets_and_the_old_one_opens_its_own_until_they_expire() {
    let folder = tempfile::tempdir().expect("a folder");
    let service = open(folder.path(), at(0));
    let late = at(ROTATION.as_secs());
    let old = granted(&service, late).await;
    service.look_after_keys(late, &mut random).await.expect("kept");
    let same = granted(&service, late).await;
    assert_eq!(key_of(&old), key_of(&same), "not yet due");

    let rotated = at(ROTATION.as_secs() + 1);
    service.look_after_keys(rotated, &mut random).await.expect("kept");
    let new = granted(&service, rotated).await;
    assert_ne!(key_of(&old), key_of(&new));
    service.close().await.expect("written");
    drop(service);

    let service = open(folder.path(), rotated);
    assert!(resolves(&service, old.ticket(), rotated) && resolves(&service, new.ticket(), rotated));
    let another = granted(&service, at(ROTATION.as_secs() + 2)).await;
    assert_eq!(key_of(&new), key_of(&another), "a restart makes no new key");
    // The old one's tickets have expired by then, and the skew is over.
    let later = at(ROTATION.as_secs() + LIFETIME.as_secs() + 90);
    service.look_after_keys(later, &mut random).await.expect("kept");
    let keys = service.families().into_iter().find(|family| family.name == "kms_own_keys");
    assert_eq!(keys.expect("there").samples[0].value, 1);
}

/// Names the key that protects a ticket.
fn key_of(ticket: &GrantedTicket) -> Vec<u8> {
    let base = codec::parse_base_ticket(&ticket.ticket().data).expect("a base ticket");
    let identity = base.payloads.iter().find_map(|payload| match payload {
        codec::Payload::Idr { identity, .. } => Some(identity.data.clone()),
        _ => None,
    });
    identity.expect("IDRpsk")
}

#[tokio::test]
async fn users_and_policies_are_taken_over_while_it_runs_and_nothing_is_forgotten() {
    let service = KmsService::new(Kms::new(config()), policy(1000));
    let ticket = granted(&service, at(0)).await;
    let (_, accepted) = request(at(1));
    assert_eq!(error_number(&ask(&service, &accepted, at(1)).await), None);

    let shorter = KmsConfig { ticket_lifetime: Duration::from_secs(60), ..config() };
    service.reload(Kms::new(shorter), policy(1000));
    assert_eq!(error_number(&ask(&service, &accepted, at(1)).await), INVALID_TIMESTAMP);
    assert!(resolves(&service, ticket.ticket(), at(2)));
    let short = granted(&service, at(2)).await;
    assert!(
        resolves(&service, short.ticket(), at(60)) && !resolves(&service, short.ticket(), at(70))
    );

    let mut without_alice = config();
    without_alice.users.retain(|user| user.identity != b"alice");
    service.reload(Kms::new(without_alice), policy(1000));
    let (_, message) = request(at(3));
    assert_eq!(error_number(&ask(&service, &message, at(3)).await), Some(0));
}

/// A KMS that the operator has given these keys for its tickets.
fn issuing(keys: &[u8]) -> Kms {
    let key =
        |fill: &u8| TicketProtectionKey { identity: vec![*fill], key: vec![*fill; 32].into() };
    let mut kms = Kms::new(config());
    kms.issue_with(keys.iter().map(key).collect());
    kms
}

#[tokio::test]
async fn those_with_the_same_keys_resolve_one_anothers_tickets_and_rotation_loses_none() {
    let service = |keys: &[u8]| KmsService::new(issuing(keys), policy(1000));
    let (first, second) = (service(&[1]), service(&[1]));
    let old = granted(&first, at(0)).await;
    assert!(resolves(&second, old.ticket(), at(1)));
    assert!(!resolves(&service(&[2]), old.ticket(), at(1)));
    assert!(!resolves(&KmsService::new(Kms::new(config()), policy(1000)), old.ticket(), at(1)));

    // The new key opens everywhere before it makes anything anywhere.
    second.reload(issuing(&[1, 2]), policy(1000));
    first.reload(issuing(&[2, 1]), policy(1000));
    let new = granted(&first, at(2)).await;
    for service in [&first, &second] {
        assert!(resolves(service, old.ticket(), at(3)) && resolves(service, new.ticket(), at(3)));
    }
    first.reload(issuing(&[2]), policy(1000));
    assert!(resolves(&first, new.ticket(), at(3)) && !resolves(&first, old.ticket(), at(3)));
}

#[tokio::test]
async fn keys_of_the_operator_take_the_place_of_its_own_and_are_not_written_down() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = |kms: Kms, now| {
        KmsService::open(kms, policy(1000), folder.path(), now, &mut random).expect("opens")
    };
    let service = open(Kms::new(config()), at(0));
    let before = granted(&service, at(1)).await;
    service.close().await.expect("written");
    drop(service);

    let service = open(issuing(&[1]), at(2));
    let ticket = granted(&service, at(3)).await;
    // The key it made itself opens what it protects, until that has expired.
    assert!(resolves(&service, before.ticket(), at(4)));
    let rotated = at(4).after(ROTATION + ROTATION);
    service.look_after_keys(rotated, &mut random).await.expect("written");
    let state = std::fs::read_to_string(folder.path().join("kms-state")).expect("there");
    assert_eq!(state.matches("\nkey ").count(), 1, "no other is made");
    assert!(!state.contains(&"01".repeat(32)), "{state}");
    let other = KmsService::new(issuing(&[1]), policy(1000));
    assert!(resolves(&other, ticket.ticket(), at(4)));
}

#[tokio::test]
async fn a_group_in_a_ticket_is_whoever_belongs_to_it() {
    let group = "sip:helpdesk@example.com";
    let mut with_group = config();
    with_group.groups.insert(group.to_owned(), vec![UriPattern::Exact(ROOM.to_owned())]);
    let service = KmsService::new(Kms::new(config()), policy(1000));
    let parameters = Parameters::default();
    let (pending, message) = Initiator::request_ticket(
        &parameters,
        ALICE,
        group,
        KMS_URI,
        &key("alice", 3),
        at(0),
        &mut random,
    )
    .expect("a request");
    let KmsResponse::Message(response) = ask(&service, &message, at(0)).await else {
        panic!("answered");
    };
    let ticket = pending.finish(&response, at(0)).expect("granted");
    assert!(!resolves(&service, ticket.ticket(), at(0)));
    service.reload(Kms::new(with_group), policy(1000));
    assert!(resolves(&service, ticket.ticket(), at(0)));
}
