//! An SDP offer: what is understood of it, and the answer it would get.

use std::io::{self, Write};

use mrfp_core::mp::{self, ShardId};

use super::shown;
use crate::config::Config;
use crate::mikey::NtpTime;
use crate::mrfc::{Action, Answer, CallId, Event, Mrfc, MrfcConfig, Now, ShardDescription};
use crate::node::settings;
use crate::sdp::{
    FileTransfer, FloorDescription, FloorProtocol, MediaDescription, MessageDescription, Offer,
    Unservable,
};

/// Writes what the node reads in an offer, and what it would answer to an INVITE with it that calls
/// this room. `false`: it would refuse.
///
/// # Errors
/// Those of `out`.
pub fn sdp(offer: &[u8], config: &Config, room: &str, out: &mut impl Write) -> io::Result<bool> {
    let certificate = config.tls.certificate.as_ref().and_then(|files| files.load().ok());
    let certificate = certificate.map(|shown| shown.identity.fingerprint());
    let mut mrfc = settings::mrfc(config, &[], certificate);
    let host = config.media.advertised.unwrap_or(config.media.listen);
    let address = (host, config.media.port).into();
    mrfc.shards.push(ShardDescription { id: ShardId(0), address });
    match Offer::parse(offer, &mrfc.offer_rules(room)) {
        Err(error) => writeln!(out, "unreadable: {}", error.warning().1)?,
        Ok(offer) => {
            let has_floors = mrfc.rooms.chat(room).floors.is_some();
            let chosen = offer.select().ok();
            let floor = offer.select_floor().filter(|_| has_floors);
            for (index, media) in offer.media.iter().enumerate() {
                let is_served = chosen == Some(index) || floor == Some(index);
                write_media(out, index, media, is_served, has_floors)?;
            }
            let message = chosen.and_then(|index| offer.media[index].message.as_ref().ok());
            let floor = floor.and_then(|index| offer.media[index].floor.as_ref()?.as_ref().ok());
            let floor = floor.filter(|_| message.is_some());
            let keys = [
                message.and_then(|it| it.key_management.as_ref()),
                floor.and_then(|it| it.key_management.as_ref()),
            ];
            if keys.iter().any(Option::is_some) {
                writeln!(out, "answer: 200, if the KMS resolves the ticket in key-mgmt")?;
                return Ok(true);
            }
        }
    }
    write_answer(out, offer, mrfc, room)
}

fn write_media(
    out: &mut impl Write,
    index: usize,
    media: &MediaDescription,
    is_served: bool,
    has_floors: bool,
) -> io::Result<()> {
    let line = &media.line;
    let [kind, protocol, format] =
        [&line.media, &line.protocol, &line.format].map(|text| shown(text.as_bytes()));
    writeln!(out, "{}. m={kind} {protocol} {format}", index + 1)?;
    match &media.floor {
        Some(Ok(floor)) if is_served => return write_floor(out, floor),
        Some(Ok(_)) if has_floors => return write_refusal(out, Unservable::AnotherServed),
        Some(Err(reason)) if has_floors => return write_refusal(out, *reason),
        Some(_) | None => (),
    }
    match &media.message {
        Ok(message) if is_served => write_message(out, message),
        Ok(_) => write_refusal(out, Unservable::AnotherServed),
        Err(reason) => write_refusal(out, *reason),
    }
}

fn write_refusal(out: &mut impl Write, reason: Unservable) -> io::Result<()> {
    let (code, text) = reason.warning();
    writeln!(out, "   refused               {text} (Warning {code})")
}

fn write_message(out: &mut impl Write, message: &MessageDescription) -> io::Result<()> {
    writeln!(out, "   served                as far as the offer goes")?;
    for uri in message.path.split(' ') {
        writeln!(out, "   path                  {}", shown(uri.as_bytes()))?;
    }
    writeln!(
        out,
        "   c= and m=             {:?} {}",
        message.connection_host, message.connection_port
    )?;
    writeln!(out, "   setup                 {}", message.setup.as_str())?;
    writeln!(out, "   direction             {:?}", message.direction)?;
    writeln!(out, "   accept-types          {}", message.accept_types)?;
    if !message.accept_wrapped_types.is_empty() {
        writeln!(out, "   accept-wrapped-types  {}", message.accept_wrapped_types)?;
    }
    if let Some(bytes) = message.max_size_bytes {
        writeln!(out, "   max-size              {bytes}")?;
    }
    writeln!(out, "   msrp-cema             {}", if message.cema { "yes" } else { "no" })?;
    match message.chatroom {
        None => writeln!(out, "   chatroom              no")?,
        Some(chatroom) => {
            let yes = |it: bool| if it { "yes" } else { "no" };
            let (nicknames, private) = (yes(chatroom.nicknames), yes(chatroom.private_messages));
            writeln!(
                out,
                "   chatroom              nicknames {nicknames}, private messages {private}"
            )?;
        }
    }
    if let Some(file) = &message.file {
        write_file(out, file)?;
    }
    if let Some(offered) = &message.key_management {
        writeln!(out, "   key-mgmt              {}", offered.offered_protocols())?;
    }
    Ok(())
}

fn write_floor(out: &mut impl Write, floor: &FloorDescription) -> io::Result<()> {
    writeln!(out, "   served                as far as the offer goes")?;
    writeln!(
        out,
        "   c= and m=             {:?} {}",
        floor.connection_host, floor.connection_port
    )?;
    if floor.protocol != FloorProtocol::Udp {
        writeln!(out, "   setup                 {}", floor.setup.as_str())?;
        writeln!(out, "   connection            {}", floor.connection.as_str())?;
    }
    let roles = match floor.roles {
        None => "client, as nothing is said",
        Some(roles) if roles.server => "client or server",
        Some(_) => "client",
    };
    writeln!(out, "   floorctrl             {roles}")?;
    let versions: Vec<String> = floor.versions.iter().map(u8::to_string).collect();
    writeln!(out, "   bfcpver               {}", versions.join(" "))?;
    if let Some(offered) = &floor.key_management {
        writeln!(out, "   key-mgmt              {}", offered.offered_protocols())?;
    }
    Ok(())
}

fn write_file(out: &mut impl Write, file: &FileTransfer) -> io::Result<()> {
    let selector = &file.selector;
    let name = selector.name.as_deref().unwrap_or("without a name");
    let kind = selector.media_type.as_deref().unwrap_or("of unknown type");
    writeln!(out, "   file                  {} {kind}", shown(name.as_bytes()))?;
    if let Some(bytes) = file.size_bytes() {
        writeln!(out, "   file, to be sent      {bytes} byte(s)")?;
    }
    writeln!(out, "   file-transfer-id      {}", file.transfer_id)
}

/// Puts the offer to an MRFC whose only shard agrees to everything.
fn write_answer(
    out: &mut impl Write,
    offer: &[u8],
    config: MrfcConfig,
    room: &str,
) -> io::Result<bool> {
    let address = config.shards[0].address;
    let host = config.domains.first().map_or("invalid", String::as_str).to_owned();
    let mut mrfc = Mrfc::new(config, None);
    let now = Now { monotonic_ns: 0, ntp: NtpTime(0) };
    let mut event = Some(Event::Invite {
        call: CallId(1),
        room: room.to_owned(),
        from: "sip:caller@invalid".into(),
        to: format!("sip:{room}@{host}"),
        offer: Some(offer.to_vec()),
    });
    while let Some(next) = event.take() {
        // Nobody is going to connect, so session-ids need not be hard to guess.
        mrfc.handle(now, &mut |bytes| bytes.fill(b'0'), next);
        while let Some(action) = mrfc.poll_action() {
            match action {
                Action::Command { shard, command: mp::Command::ReserveAndConfigure(reserve) } => {
                    let event_of_shard =
                        mp::Event::Reserved { termination: reserve.termination, address };
                    event = Some(Event::Mp { shard, event: event_of_shard });
                }
                Action::Command { shard, command: mp::Command::ReserveFloorControl(reserve) } => {
                    let event_of_shard =
                        mp::Event::Reserved { termination: reserve.termination, address };
                    event = Some(Event::Mp { shard, event: event_of_shard });
                }
                Action::Answer { answer: Answer::Accepted { sdp }, .. } => {
                    writeln!(out, "answer: 200\n\n{}", String::from_utf8_lossy(&sdp))?;
                    return Ok(true);
                }
                Action::Answer { answer: Answer::Refused { status, warning, .. }, .. } => {
                    let warning = warning
                        .map_or(String::new(), |(code, text)| format!(", Warning {code}: {text}"));
                    writeln!(out, "answer: {status}{warning}")?;
                    return Ok(false);
                }
                _ => (),
            }
        }
    }
    Ok(false)
}
