//! The payloads behind the header, and those inside tickets.

use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

use super::super::shown;
use super::names;
use super::walk::{Dialect, Seens, TicketSeen, byte};
use crate::inspect::field::{Broken, Field, Walker, hex};
use crate::mikey::NtpTime;
use crate::mikey::codec::code_point as code;

/// Reads chains of payloads.
pub(super) struct Reader<'a> {
    pub(super) dialect: Dialect<'a>,
    /// What is wrong inside something whose end is known, so that reading goes on behind it.
    pub(super) broken: &'a mut Vec<Broken>,
    /// Inside a ticket or its policy, where no other one may be.
    pub(super) nested: bool,
}

impl Reader<'_> {
    /// Reads payloads until one says it is the last.
    pub(super) fn chain(
        &mut self,
        walker: &mut Walker<'_>,
        first: u8,
        out: &mut Vec<Field>,
        seen: &mut Seens,
    ) -> Result<(), Broken> {
        let mut next = first;
        // Every payload has a byte at least, so this ends.
        while next != code::LAST {
            let current = next;
            let at = walker.at;
            let Some(name) = names::payload(u64::from(current)) else {
                let why = format!("payload type {current} is unknown, so its length is, too");
                return walker.broken(at, why);
            };
            walker.payload = name;
            let mut payload = Field::group(name, at);
            let read = self.payload(walker, current, &mut payload.children, seen);
            payload.length = walker.at - at;
            out.push(payload);
            next = read?;
        }
        match walker.left() {
            0 => Ok(()),
            left => walker.broken(walker.at, format!("{left} byte(s) follow the last payload")),
        }
    }

    /// One payload; returns the type of the next.
    fn payload(
        &mut self,
        walker: &mut Walker<'_>,
        current: u8,
        out: &mut Vec<Field>,
        seen: &mut Seens,
    ) -> Result<u8, Broken> {
        // SIGN has no next payload: it is always the last (RFC 3830 section 6.5).
        let next = if current == code::SIGN {
            code::LAST
        } else {
            byte(walker.code(out, "next payload", 1, names::payload)?)
        };
        match current {
            code::KEMAC => read_kemac(walker, out, seen)?,
            code::PKE => {
                let length = read_packed(walker, out, "C, data length", 14, names::envelope_cache)?;
                walker.data(out, "PKE data", length)?;
            }
            code::SIGN => {
                let name = "S type, signature length";
                let length = read_packed(walker, out, name, 12, names::signature_type)?;
                walker.data(out, "signature", length)?;
                seen.signed = true;
            }
            code::T => seen.time = Some(read_time(walker, out, 0)?),
            code::ID => {
                let id = read_identity(walker, out)?;
                seen.identities.push((0, id));
            }
            code::CERT => {
                walker.code(out, "certificate type", 1, names::certificate_type)?;
                let length = walker.length(out, "certificate length", 2)?;
                walker.data(out, "certificate", length)?;
            }
            code::CHASH => {
                let at = walker.at;
                let length = match walker.code(out, "hash func", 1, names::hash)? {
                    0 => 20,
                    1 => 16,
                    2 => 32,
                    _ => return walker.broken(at, "a hash function without a known length"),
                };
                walker.data(out, "hash", length)?;
            }
            code::V => seen.verification = Some(read_mac(walker, out, "auth alg", "ver data")?),
            code::SP => self.read_policy(walker, out)?,
            code::RAND => {
                let rand = read_rand(walker, out)?;
                seen.rands.push((0, rand));
            }
            code::ERR => {
                walker.code(out, "error no", 1, names::error)?;
                walker.number(out, "reserved", 2, |_| None)?;
            }
            code::TR => {
                let role = byte(walker.code(out, "TS role", 1, names::time_role)?);
                read_time(walker, out, role)?;
            }
            code::IDR => {
                let role = byte(walker.code(out, "ID role", 1, names::id_role)?);
                let id = read_identity(walker, out)?;
                seen.identities.push((role, id));
            }
            code::RANDR => {
                let role = byte(walker.code(out, "RAND role", 1, names::rand_role)?);
                let rand = read_rand(walker, out)?;
                seen.rands.push((role, rand));
            }
            code::TP | code::TICKET => self.read_ticket(walker, current, out, seen)?,
            code::GENERAL_EXTENSION => read_extension(walker, out)?,
            _ => {
                let why = format!("payload type {current} has no place in such a message");
                return walker.broken(walker.at, why);
            }
        }
        Ok(next)
    }

    fn read_policy(&mut self, walker: &mut Walker<'_>, out: &mut Vec<Field>) -> Result<(), Broken> {
        walker.number(out, "policy no", 1, |_| None)?;
        let name = |code| names::protection_type(code, self.dialect.tls);
        walker.code(out, "prot type", 1, name)?;
        let length = walker.length(out, "policy param length", 2)?;
        let mut inside = walker.inside(length)?;
        while inside.left() > 0 {
            let mut parameter = Field::group("policy param", inside.at);
            let read = read_parameter(&mut inside, &mut parameter.children);
            parameter.length = inside.at - parameter.offset;
            out.push(parameter);
            if let Err(broken) = read {
                self.broken.push(broken);
                break;
            }
        }
        Ok(())
    }

    /// TP, and TICKET, which begins as TP does (RFC 6043 section 6.10).
    fn read_ticket(
        &mut self,
        walker: &mut Walker<'_>,
        current: u8,
        out: &mut Vec<Field>,
        seen: &mut Seens,
    ) -> Result<(), Broken> {
        let begin = walker.at;
        if self.nested {
            return walker.broken(begin, "a ticket inside a ticket");
        }
        let ticket_type = walker.code(out, "ticket type", 2, names::ticket_type)?;
        walker.number(out, "subtype", 1, |_| None)?;
        walker.number(out, "version", 1, |_| None)?;
        let (prf, flags) = read_flags(walker, out)?;
        let mut policy = Seens::default();
        self.read_inside(walker, out, "TP data", &mut policy, None)?;
        if current == code::TP {
            return Ok(());
        }
        let mut content = Seens::default();
        let whole =
            self.read_inside(walker, out, "Ticket Data", &mut content, Some(ticket_type))?;
        let initiator_at = walker.at;
        let mut initiator = Seens::default();
        self.read_inside(walker, out, "Initiator Data", &mut initiator, None)?;
        seen.ticket = Some(Box::new(TicketSeen {
            prf,
            flags,
            begin,
            content: whole.then_some(content),
            initiator_data: initiator_at..walker.at,
        }));
        Ok(())
    }

    /// A 16-bit length and a chain of payloads behind a byte that names the first of them. What is
    /// wrong inside is noted. Returns whether all of it could be read.
    fn read_inside(
        &mut self,
        walker: &mut Walker<'_>,
        out: &mut Vec<Field>,
        name: &'static str,
        seen: &mut Seens,
        ticket_data: Option<u64>,
    ) -> Result<bool, Broken> {
        walker.payload = name;
        let length = walker.length(out, "length", 2)?;
        let mut group = Field::group(name, walker.at);
        group.length = length;
        let mut inside = walker.inside(length)?;
        if length == 0 {
            out.push(group.meaning("none"));
            return Ok(false);
        }
        let mut reader = Reader { dialect: self.dialect, broken: self.broken, nested: true };
        let read = reader.inside(&mut inside, &mut group.children, seen, ticket_data.is_some());
        let whole = read.is_ok();
        match read {
            Ok(()) => {}
            // The layout of other tickets is not known, so it is no mistake.
            Err(_) if ticket_data.is_some_and(|its_type| its_type != BASE_TICKET) => {
                group.children.clear();
                group.text = Some(hex(walker_bytes(walker, &group)));
                group.meaning = Some("not laid out as a MIKEY base ticket".to_owned());
            }
            Err(broken) => self.broken.push(broken),
        }
        out.push(group);
        Ok(whole)
    }

    fn inside(
        &mut self,
        walker: &mut Walker<'_>,
        out: &mut Vec<Field>,
        seen: &mut Seens,
        ticket_data: bool,
    ) -> Result<(), Broken> {
        let first = byte(walker.code(out, "first payload", 1, names::payload)?);
        if ticket_data {
            // THDR has no payload code: it is the beginning of Ticket Data (RFC 6043 appendix A.3).
            walker.payload = "THDR";
            let length = walker.length(out, "THDR data length", 2)?;
            walker.data(out, "THDR data", length)?;
        }
        self.chain(walker, first, out, seen)
    }
}

fn walker_bytes<'a>(walker: &Walker<'a>, group: &Field) -> &'a [u8] {
    walker.slice(group.offset..group.offset + group.length)
}

fn read_kemac(
    walker: &mut Walker<'_>,
    out: &mut Vec<Field>,
    seen: &mut Seens,
) -> Result<(), Broken> {
    let encryption = byte(walker.code(out, "encr alg", 1, names::encryption)?);
    let length = walker.length(out, "encr data length", 2)?;
    let at = walker.at;
    let encrypted = walker.data(out, "encr data", length)?;
    if let (0, Some(field)) = (encryption, out.last_mut()) {
        // In a wished policy it tells which keys are wanted, all of them zero; elsewhere these
        // would be keys, which are not shown.
        let zero = encrypted.iter().filter(|byte| **byte == 0).count();
        field.text = Some(format!("{length} byte(s) in the clear, {zero} of them zero"));
    }
    seen.kemac = Some((encryption, at..at + length));
    read_mac(walker, out, "MAC alg", "MAC")?;
    Ok(())
}

fn read_mac(
    walker: &mut Walker<'_>,
    out: &mut Vec<Field>,
    algorithm_name: &'static str,
    name: &'static str,
) -> Result<(u8, Range<usize>), Broken> {
    let at = walker.at;
    let algorithm = walker.code(out, algorithm_name, 1, names::mac)?;
    let length = match algorithm {
        0 => 0,
        1 => 20,
        2 => 32,
        _ => return walker.broken(at, "a MAC algorithm without a known length"),
    };
    let at = walker.at;
    walker.data(out, name, length)?;
    Ok((byte(algorithm), at..at + length))
}

/// A 16-bit field: a code above `length_bits` bits of length.
fn read_packed(
    walker: &mut Walker<'_>,
    out: &mut Vec<Field>,
    name: &'static str,
    length_bits: u32,
    table: fn(u64) -> names::Name,
) -> Result<usize, Broken> {
    let field = walker.number(out, name, 2, |field| {
        let code = field >> length_bits;
        let length = field & ((1 << length_bits) - 1);
        Some(format!("{}, {length} byte(s)", table(code).unwrap_or("unknown code point")))
    })?;
    Ok(usize::try_from(field & ((1 << length_bits) - 1)).unwrap_or(usize::MAX))
}

fn read_parameter(walker: &mut Walker<'_>, out: &mut Vec<Field>) -> Result<(), Broken> {
    walker.number(out, "type", 1, |_| None)?;
    let length = walker.length(out, "length", 1)?;
    walker.data(out, "value", length)?;
    Ok(())
}

fn read_rand(walker: &mut Walker<'_>, out: &mut Vec<Field>) -> Result<Range<usize>, Broken> {
    let length = walker.length(out, "RAND length", 1)?;
    let at = walker.at;
    walker.data(out, "RAND", length)?;
    Ok(at..at + length)
}

fn read_identity(walker: &mut Walker<'_>, out: &mut Vec<Field>) -> Result<Range<usize>, Broken> {
    walker.code(out, "ID type", 1, names::id_type)?;
    let length = walker.length(out, "ID length", 2)?;
    let at = walker.at;
    let data = walker.take(length)?;
    out.push(Field::data("ID data", at, length, text_or_hex(data)));
    Ok(at..at + length)
}

fn read_extension(walker: &mut Walker<'_>, out: &mut Vec<Field>) -> Result<(), Broken> {
    walker.code(out, "type", 1, names::extension)?;
    let length = walker.length(out, "length", 2)?;
    let at = walker.at;
    let data = walker.take(length)?;
    out.push(Field::data("data", at, length, text_or_hex(data)));
    Ok(())
}

/// A timestamp; returns the 64 bits that enter an IV (RFC 6043 section 6.4).
fn read_time(walker: &mut Walker<'_>, out: &mut Vec<Field>, role: u8) -> Result<u64, Broken> {
    /// TRr carries a period.
    const ROLE_REKEYING: u8 = 4;
    let at = walker.at;
    let kind = walker.code(out, "TS type", 1, names::timestamp_type)?;
    let name = "TS value";
    match kind {
        0 | 1 => walker.number(out, name, 8, |value| Some(date(value))),
        2 => walker.number(out, name, 4, |_| Some("a counter".to_owned())),
        3 if role == ROLE_REKEYING => {
            walker.number(out, name, 4, |seconds| Some(format!("{seconds} second(s)")))
        }
        3 => Ok(walker.number(out, name, 4, |seconds| Some(date(seconds << 32)))? << 32),
        _ => walker.broken(at, "a timestamp type without a known length"),
    }
}

/// The date of an NTP time.
fn date(ntp: u64) -> String {
    match u64::try_from(NtpTime(ntp).to_unix_seconds()) {
        Ok(unix) => httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix)),
        Err(_) => "before 1970".to_owned(),
    }
}

/// PRF and D share a byte, E to O take 16 bits of which five are reserved.
fn read_flags(walker: &mut Walker<'_>, out: &mut Vec<Field>) -> Result<(u8, u32), Broken> {
    let at = walker.at;
    let mut group = Field::group("PRF func, flags", at);
    let bytes = walker.take(3)?;
    let prf = bytes[0] >> 1;
    let flags = u32::from(bytes[0] & 1) << 16 | u32::from(bytes[1]) << 8 | u32::from(bytes[2]);
    let prf_name = names::prf(u64::from(prf)).unwrap_or("unknown PRF");
    let prf_field = Field::number("PRF func", at, 1, u64::from(prf)).meaning(prf_name);
    group.children.push(prf_field);
    for (index, (letter, mask, meaning)) in names::FLAGS.iter().enumerate() {
        // D, then eight flags in the second byte, the rest in the third.
        let byte_at = at + index.div_ceil(8);
        let set = flags & mask != 0;
        let meaning = if set { (*meaning).to_owned() } else { format!("not: {meaning}") };
        let field = Field::number(letter, byte_at, 1, u64::from(set)).meaning(meaning);
        group.children.push(field);
    }
    let broken = names::FLAG_RULES
        .iter()
        .filter(|(cause, when, effect, _)| (flags & cause != 0) == *when && flags & effect == 0);
    let broken: Vec<&str> = broken.map(|(.., rule)| *rule).collect();
    group.length = 3;
    if !broken.is_empty() {
        group.meaning = Some(format!("CONTRADICTION: {}", broken.join("; ")));
    }
    out.push(group);
    Ok((prf, flags))
}

fn text_or_hex(data: &[u8]) -> String {
    match std::str::from_utf8(data) {
        Ok(text) if !text.contains(char::is_control) => format!("\"{}\"", shown(data)),
        _ => hex(data),
    }
}

/// The ticket type whose layout is known.
const BASE_TICKET: u64 = code::TICKET_MIKEY_BASE as u64;
