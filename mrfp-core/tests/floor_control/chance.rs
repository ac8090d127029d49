//! Chance: whoever asks, releases, is lost, comes back or is overruled, and however the network cuts
//! it, a message passes whole if and only if its sender held the floor from its first byte to its last.

use mrfp_core::mp::*;

use crate::common::{Ue, World};
use crate::phone::*;
use crate::room_support::{ROOM, cpim, send_cpim};

const MEMBERS: usize = 3;
const STEPS: u32 = 120;

/// A xorshift: what it draws depends on the seed and nothing else.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn below(&mut self, bound: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound) as usize
    }
}

/// A message on its way.
struct Saying {
    bytes: Vec<u8>,
    sent: usize,
    body: Vec<u8>,
    /// Its sender has held the floor since it began.
    whole: bool,
}

struct Party {
    ue: Ue,
    phone: Option<Phone>,
    requests: Vec<u16>,
    saying: Option<Saying>,
    /// What the others must have heard of it.
    said: Vec<Vec<u8>>,
}

#[test]
fn what_is_heard_is_what_was_said_with_the_floor() {
    let (mut heard, mut refused) = (0, 0);
    for seed in 1..=25 {
        let (passed, cut) = run(seed);
        heard += passed;
        refused += cut;
    }
    println!("{heard} messages heard, {refused} refused or cut");
    assert!(heard > 100 && refused > 100, "chance has tried both: {heard}, {refused}");
}

fn user(index: usize) -> u16 {
    11 + index as u16
}

fn run(seed: u64) -> (usize, usize) {
    let mut chance = Chance::new(seed);
    let mut world = if seed.is_multiple_of(2) { World::faulty(seed) } else { World::calm() };
    let mut parties: Vec<Party> = (0..MEMBERS)
        .map(|index| {
            let ue = member(&mut world, index as u64 + 1, true);
            let phone = participant(&mut world, user(index), Some(index as u64 + 1));
            let (requests, said) = (Vec::new(), Vec::new());
            Party { ue, phone: Some(phone), requests, saying: None, said }
        })
        .collect();
    let (mut heard, mut refused) = (0, 0);
    for step in 0..STEPS {
        let index = chance.below(MEMBERS as u64);
        let party = &mut parties[index];
        match (chance.below(10), &mut party.phone) {
            (0 | 1, Some(phone)) => {
                let told = phone.request(&mut world, MESSAGES);
                let id =
                    told.split('#').nth(1).and_then(|it| it.split(' ').next()?.parse::<u16>().ok());
                party.requests.extend(id);
            }
            (2 | 3, Some(phone)) => {
                if let Some(request) = party.requests.pop() {
                    phone.release(&mut world, request);
                }
            }
            (4, Some(phone)) if chance.below(2) == 0 => {
                world.shard.driver_mut().peer_reset(phone.peer);
                party.phone = None;
                world.settle();
            }
            (4, _) => {
                let revoke = FloorAction::Revoke { floor_id: MESSAGES, user_id: user(index) };
                act(&mut world, revoke).unwrap();
            }
            (5, _) => {
                let grant = FloorAction::Grant { floor_id: MESSAGES, user_id: user(index) };
                act(&mut world, grant).unwrap();
            }
            (6, None) => party.phone = Some(come_back(&mut world, index)),
            (6, Some(_)) => world.pass(GRACE_SECONDS / 4),
            _ => {}
        }
        let holds = holders(&mut world);
        for (index, party) in parties.iter_mut().enumerate() {
            if let Some(saying) = &mut party.saying {
                saying.whole &= holds.contains(&user(index));
            }
        }
        let party = &mut parties[index];
        match party.saying.take() {
            None => {
                let number = index + 1;
                let text = format!("{step} {}", "x".repeat(200 + chance.below(2_000)));
                let body = cpim(&format!("sip:ue{number}@example.com"), ROOM, &text);
                let bytes = send_cpim(&party.ue, &format!("m{seed}x{step}"), &body);
                let sent = 200 + chance.below((bytes.len() - 300) as u64);
                party.ue.send_raw(&mut world, &bytes[..sent]);
                let whole = holds.contains(&user(index));
                party.saying = Some(Saying { bytes, sent, body, whole });
            }
            Some(saying) => {
                party.ue.send_raw(&mut world, &saying.bytes[saying.sent..]);
                world.settle();
                party.ue.read(&mut world);
                let expected = if saying.whole { 200 } else { 403 };
                assert_eq!(party.ue.take_statuses(), [expected], "seed {seed}, step {step}");
                if saying.whole {
                    heard += 1;
                    party.said.push(saying.body);
                } else {
                    refused += 1;
                }
            }
        }
        world.settle();
    }
    for listener in 0..MEMBERS {
        let ue = &mut parties[listener].ue;
        ue.read(&mut world);
        let whole = ue.messages().into_iter().filter(|(_, _, end)| *end == '$');
        let mut bodies: Vec<Vec<u8>> = whole.map(|(_, body, _)| body).collect();
        let others = parties.iter().enumerate().filter(|(index, _)| *index != listener);
        let mut said: Vec<Vec<u8>> = others.flat_map(|(_, party)| party.said.clone()).collect();
        bodies.sort();
        said.sort();
        assert!(bodies == said, "seed {seed}: {} heard, {} said", bodies.len(), said.len());
    }
    let users = (0..MEMBERS).map(|index| u64::from(user(index)));
    world.subtract_all((1..=MEMBERS as u64).chain(users));
    (heard, refused)
}

fn holders(world: &mut World) -> Vec<u16> {
    let view = act(world, FloorAction::List).unwrap();
    view.floors[0].requests.iter().filter(|it| it.holds).map(|it| it.user_id).collect()
}

fn come_back(world: &mut World, index: usize) -> Phone {
    let stream = FloorStream {
        transport: FloorTransport::Tcp(Setup::Passive),
        security: Security::Plain,
        tls_role: TlsRole::Server,
    };
    let termination = TerminationId(u64::from(user(index)));
    let wanted = ReplaceFloorControl { termination, stream, unanswered: false, own_port: false };
    let address = replace(world, wanted).unwrap();
    let mut phone = Phone::plain(world, address, user(index));
    assert!(phone.hello(world).starts_with("HelloAck"));
    phone.heard(world);
    phone
}
