//! Changes of MIKEY messages that leave them messages: whole payloads, roles, flags, times, keys.

use control_api::mikey::codec::{
    self, CryptoSession, CsIdMap, DataType, KeyData, KeyValidity, Message, Payload, TicketFlags,
    TicketPolicy, Timestamp,
};

use crate::exchange::OPTION_BYTES;

/// A message.
pub(crate) fn message(bytes: &[u8], seed: u64) -> Option<Vec<u8>> {
    let mut message = codec::parse(bytes).ok()?;
    let mut choice = Choice(seed | 1);
    for _ in 0..=choice.below(3) {
        change_message(&mut message, &mut choice);
    }
    Some(codec::encode(&message))
}

/// A message behind the options of its target.
pub(crate) fn behind_options(bytes: &[u8], seed: u64) -> Option<Vec<u8>> {
    let (options, rest) = bytes.split_at_checked(OPTION_BYTES)?;
    let mut choice = Choice(seed.rotate_left(32) | 1);
    let mut options = options.to_vec();
    if choice.below(8) == 0 {
        let at = choice.below(options.len());
        options[at] ^= 1 << choice.below(8);
    }
    Some([options, message(rest, seed)?].concat())
}

/// Numbers that follow from a seed.
struct Choice(u64);

impl Choice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, count: usize) -> usize {
        ((self.next() >> 32) % count.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

fn change_message(message: &mut Message, choice: &mut Choice) {
    match choice.below(10) {
        0 => change_header(message, choice),
        1 => change_map(&mut message.header.map, choice),
        _ => change_payloads(&mut message.payloads, choice, true),
    }
}

fn change_header(message: &mut Message, choice: &mut Choice) {
    let header = &mut message.header;
    match choice.below(4) {
        0 => header.prf = choice.one(&[0, 1, 2, 112]),
        1 => header.response_wanted ^= true,
        2 => header.csb_id ^= 1 << choice.below(32),
        _ => {
            header.data_type = choice.one(&DataType::ALL);
        }
    }
}

fn change_map(map: &mut CsIdMap, choice: &mut Choice) {
    let CsIdMap::GenericId(sessions) = map else {
        *map = CsIdMap::GenericId(Vec::new());
        return;
    };
    let Some(last) = sessions.len().checked_sub(1) else {
        sessions.push(CryptoSession {
            id: 1,
            protection_type: 241,
            session_data_extended: false,
            policy_numbers: vec![0],
            session_data: Vec::new(),
            spi: Vec::new(),
        });
        return;
    };
    let at = choice.below(last + 1);
    match choice.below(7) {
        0 => drop(sessions.remove(at)),
        1 if sessions.len() < 4 => sessions.push(sessions[at].clone()),
        2 => sessions[at].id = choice.byte(),
        3 => sessions[at].protection_type = choice.one(&[0, 1, 241, 242]),
        4 => sessions[at].policy_numbers = vec![choice.one(&[0, 1, 255]); choice.below(3)],
        5 => change_bytes(&mut sessions[at].session_data, choice, 64),
        _ => change_bytes(&mut sessions[at].spi, choice, 255),
    }
}

/// `outer`: tickets and policies may stand in the chain.
fn change_payloads(payloads: &mut Vec<Payload>, choice: &mut Choice, outer: bool) {
    let Some(last) = payloads.len().checked_sub(1) else { return };
    let at = choice.below(last + 1);
    match choice.below(10) {
        0 => drop(payloads.remove(at)),
        1 if payloads.len() < codec::PAYLOADS_MAX => {
            let to = choice.below(last + 1);
            payloads.insert(to, payloads[at].clone());
        }
        2 => {
            let to = choice.below(last + 1);
            payloads.swap(at, to);
        }
        3 => payloads.insert(at, new_payload(choice)),
        _ => change_payload(&mut payloads[at], choice, outer),
    }
    // SIGN has no next payload; it is the last or not there.
    let end = payloads.len().saturating_sub(1);
    let mut index = 0;
    payloads.retain(|payload| {
        index += 1;
        index > end || !matches!(payload, Payload::Sign { .. })
    });
}

fn new_payload(choice: &mut Choice) -> Payload {
    let role = choice.below(9) as u8;
    match choice.below(6) {
        0 => Payload::Randr { role, rand: vec![choice.byte(); choice.one(&[0, 15, 16, 32, 255])] },
        1 => Payload::Tr { role, timestamp: time(choice) },
        2 => {
            let data = choice.one(&["sip:alice@example.com", "sip:room@127.0.0.1", "", "x"]);
            let id_type = choice.below(3) as u8;
            let identity = codec::Identity { id_type, data: data.as_bytes().to_vec() };
            Payload::Idr { role, identity }
        }
        3 => Payload::Error { number: choice.below(17) as u8, reserved: 0 },
        4 => Payload::GeneralExtension { extension_type: 1, data: b"mikey".to_vec() },
        _ => Payload::Timestamp(time(choice)),
    }
}

fn time(choice: &mut Choice) -> Timestamp {
    let base = crate::mikey_world::now().0;
    let at = base.wrapping_add(choice.one(&[0, 1, 30 << 32, 61 << 32, 1 << 63, u64::MAX]));
    match choice.below(4) {
        0 => Timestamp::NtpUtc(at),
        1 => Timestamp::Ntp(at),
        2 => Timestamp::NtpUtc32((at >> 32) as u32),
        _ => Timestamp::Counter(at as u32),
    }
}

fn change_payload(payload: &mut Payload, choice: &mut Choice, outer: bool) {
    match payload {
        Payload::Kemac(kemac) => match choice.below(6) {
            0 => kemac.encryption = choice.one(&[0, 1, 2, 3]),
            _ => change_keys(&mut kemac.encrypted, choice),
        },
        Payload::Pke { data, .. } => change_bytes(data, choice, 600),
        Payload::Sign { signature, .. } => change_bytes(signature, choice, 600),
        Payload::Certificate { data, .. } => change_bytes(data, choice, 2000),
        Payload::CertificateHash { hash, .. } => {
            let at = choice.below(hash.len());
            hash[at] ^= 1;
        }
        Payload::Timestamp(timestamp) => *timestamp = time(choice),
        Payload::Tr { role, timestamp } => match choice.below(3) {
            0 => *role = choice.below(6) as u8,
            _ => *timestamp = time(choice),
        },
        Payload::Id(identity) => change_bytes(&mut identity.data, choice, 1200),
        Payload::Idr { role, identity } => match choice.below(4) {
            0 => *role = choice.below(9) as u8,
            1 => identity.id_type = choice.below(4) as u8,
            _ => change_bytes(&mut identity.data, choice, 1200),
        },
        Payload::Randr { role, rand } => match choice.below(4) {
            0 => *role = choice.below(4) as u8,
            _ => change_bytes(rand, choice, 255),
        },
        Payload::Rand(rand) => change_bytes(rand, choice, 255),
        Payload::SecurityPolicy(policy) => match choice.below(3) {
            0 => policy.number = choice.byte(),
            1 => policy.protection_type = choice.one(&[0, 241, 242]),
            _ => change_bytes(&mut policy.parameters, choice, 64),
        },
        Payload::Verification(verification) => {
            let algorithm = choice.one(&[
                codec::MacAlgorithm::Null,
                codec::MacAlgorithm::HmacSha1,
                codec::MacAlgorithm::HmacSha256,
            ]);
            *verification = codec::Verification { algorithm, mac: vec![0; algorithm.mac_bytes()] };
        }
        Payload::GeneralExtension { extension_type, data } => match choice.below(3) {
            0 => *extension_type = choice.below(8) as u8,
            _ => change_bytes(data, choice, 64),
        },
        Payload::Error { number, .. } => *number = choice.byte(),
        Payload::TicketPolicy(policy) if outer => change_policy(policy, choice),
        Payload::Ticket(ticket) if outer => match choice.below(6) {
            0 => change_bytes(&mut ticket.initiator_data, choice, 200),
            1 | 2 => {
                let Ok(mut base) = codec::parse_base_ticket(&ticket.data) else {
                    return change_bytes(&mut ticket.data, choice, 1200);
                };
                change_payloads(&mut base.payloads, choice, false);
                ticket.data = codec::encode_base_ticket(&base);
            }
            _ => change_policy(&mut ticket.policy, choice),
        },
        Payload::DiffieHellman { .. } | Payload::TicketPolicy(_) | Payload::Ticket(_) => {}
    }
}

fn change_policy(policy: &mut TicketPolicy, choice: &mut Choice) {
    match choice.below(10) {
        0 => policy.ticket_type = choice.one(&[0, 1, 2, 61_440]),
        1 => policy.subtype = choice.below(3) as u8,
        2 => policy.version = choice.below(3) as u8,
        3 => policy.prf = choice.one(&[0, 1, 2]),
        4..=6 => {
            let flag = choice.one(&FLAGS);
            let flags = policy.flags;
            policy.flags = if flags.has(flag) { flags.without(flag) } else { flags.with(flag) };
        }
        _ => change_payloads(&mut policy.payloads, choice, false),
    }
}

/// Keys in the plain form of a KEMAC.
fn change_keys(plain: &mut Vec<u8>, choice: &mut Choice) {
    let Ok(mut keys) = codec::parse_key_data(plain) else {
        return change_bytes(plain, choice, 400);
    };
    let new = |choice: &mut Choice| {
        let key_type = choice.below(7) as u8;
        let length = choice.one(&[0, 15, 16, 32, 64, 65]);
        let salt = matches!(key_type, 1 | 3 | 5).then(|| vec![8; choice.one(&[0, 14, 300])].into());
        let validity = match choice.below(3) {
            0 => KeyValidity::Null,
            1 => KeyValidity::Spi(vec![choice.byte(); choice.below(5)]),
            _ => KeyValidity::Interval(vec![1], vec![2]),
        };
        KeyData { key_type, key: vec![choice.byte(); length].into(), salt, validity }
    };
    let at = choice.below(keys.len());
    match choice.below(5) {
        0 if !keys.is_empty() => drop(keys.remove(at)),
        1 if !keys.is_empty() && keys.len() < 20 => keys.push(keys[at].clone()),
        2 if !keys.is_empty() => keys[at] = new(choice),
        3 if !keys.is_empty() => {
            let last = keys.len() - 1;
            keys.swap(at, last);
        }
        _ if keys.len() < 20 => keys.push(new(choice)),
        _ => {}
    }
    *plain = codec::encode_key_data(&keys).to_vec();
}

fn change_bytes(bytes: &mut Vec<u8>, choice: &mut Choice, bytes_max: usize) {
    match choice.below(5) {
        0 => bytes.truncate(choice.below(bytes.len() + 1)),
        1 => {
            let length = choice.below(bytes_max.min(40));
            bytes.extend((0..length).map(|_| choice.byte()));
        }
        2 if choice.below(8) == 0 => bytes.resize(bytes_max, b'a'),
        3 => bytes.insert(choice.below(bytes.len() + 1), choice.byte()),
        _ if !bytes.is_empty() => {
            let at = choice.below(bytes.len());
            bytes[at] ^= 1 << choice.below(8);
        }
        _ => {}
    }
    bytes.truncate(bytes_max);
}

const FLAGS: [TicketFlags; 12] = [
    TicketFlags::MADE_BY_KMS,
    TicketFlags::RESOLVE_MANDATORY,
    TicketFlags::TRANSFER_RESPONSE,
    TicketFlags::RESPONDER_RAND,
    TicketFlags::INITIATOR_RAND,
    TicketFlags::KEY_FORKING,
    TicketFlags::REUSABLE,
    TicketFlags::CHANGED_BY_KMS,
    TicketFlags::INITIATOR_KEYS,
    TicketFlags::RESPONDER_KEYS,
    TicketFlags::PLAIN_INITIATOR,
    TicketFlags::PLAIN_RESPONDER,
];
