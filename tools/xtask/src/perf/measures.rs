//! The measures themselves: what runs beside what, and what is asked of it.

use super::goal::Goal;
use super::peers::{Profile, Subject};
use super::plan::{Case, Entry, Rate, Round, Value};

/// All of them, in the order of the table.
pub(crate) fn rounds() -> Vec<Round> {
    vec![
        window_8(),
        window_1(),
        memory(),
        handshakes(),
        calls(),
        fan_out(),
        bulk(),
        half_load(),
        sizes(),
        first_words(),
        key_exchange(),
        floors(),
        protection_converted(),
        bytes_passed_on(),
        faxes(),
    ]
}

/// P1, P2, P4: ten pairs with eight messages of each end on their way.
fn window_8() -> Round {
    let talk = "--pairs 10 --window 8 --duration @TIME@ --warmup @WARMUP@";
    let pairs =
        format!("{ROOM_PAIRS} --sessions 20 --window 8 --duration @TIME@ --warmup @WARMUP@");
    let goals = [
        ratio_max(1.0 / 8.0, "ratio <= 1/8"),
        ratio_max(1.0 / 7.0, "ratio <= 1/7"),
        ratio_min(0.7, "share >= 0.7"),
        ratio_min(0.6, "share >= 0.6"),
    ];
    let [eighth, seventh, plain, psk] = goals;
    Round {
        cases: vec![
            case("relay-w8", NODE, &format!("{OUR_RELAY} {talk}")),
            case("kamailio-w8", KAMAILIO, &format!("{KAMAILIO_RELAY} {talk}")),
            case("bare-w8", BARE_RELAY, &format!("{BARE} {talk}")),
            case("room-w8", NODE, &pairs),
            case("room-w8-psk", NODE, &format!("{pairs} --security psk")),
            case("relay-w8-tls", NODE, &format!("{OUR_RELAY_TLS} {talk}")),
            case("kamailio-w8-tls", KAMAILIO_TLS, &format!("{KAMAILIO_RELAY_TLS} {talk}")),
        ],
        entries: vec![
            Entry::new("P1", "relay, TCP, 200 B, 10 pairs, window 8", CPU)
                .between("relay-w8", "kamailio-w8")
                .judged(eighth)
                .shows("The same relaying by both, node and Kamailio's one child on the same core."),
            Entry::new("P2-certificate", "relay, TLS with certificate", CPU)
                .between("relay-w8-tls", "kamailio-w8-tls")
                .judged(seventh.clone())
                .shows("As P1 over TLS 1.3 with the same suite, TLS_AES_128_GCM_SHA256, for both."),
            Entry::new("P2-psk", "room of two, TLS-PSK", CPU)
                .between("room-w8-psk", "kamailio-w8-tls")
                .judged(seventh)
                .shows(
                    "Kamailio has no TLS-PSK, so its TLS stands beside it; and a room does more than a \
                     relay: it checks and rewrites CPIM.",
                ),
            Entry::new("P4-plain", "relay, TCP, share of bare", CPU)
                .share("relay-w8", "bare-w8")
                .judged(plain)
                .shows(
                    "What the node's work on the protocol leaves of what its ring and the kernel can do: \
                     bare moves the same messages without reading them.",
                ),
            Entry::new("P4-psk", "room of two, TLS-PSK, share of bare", CPU)
                .share("room-w8-psk", "bare-w8")
                .judged(psk)
                .shows("Bare does not encrypt: what is missing to 1 is TLS and the room."),
            Entry::new("P4-room", "room of two, TCP, share of bare", CPU)
                .share("room-w8", "bare-w8")
                .shows("Beside P4-psk: what is the room's and what is encryption's."),
        ],
    }
}

/// P3: a hundred pairs that wait for each answer, so that nothing can be batched for one of them.
fn window_1() -> Round {
    let talk = "--pairs 100 --window 1 --duration @TIME@ --warmup @WARMUP@";
    Round {
        cases: vec![
            case("relay-w1", NODE, &format!("{OUR_RELAY} {talk}")),
            case("kamailio-w1", KAMAILIO, &format!("{KAMAILIO_RELAY} {talk}")),
            case("bare-w1", BARE_RELAY, &format!("{BARE} {talk}")),
        ],
        entries: vec![
            Entry::new("P3", "relay, TCP, 100 pairs, window 1", CPU)
                .between("relay-w1", "kamailio-w1")
                .judged(ratio_max(0.5, "ratio <= 1/2"))
                .shows("Four socket operations per message are most of it, for everybody."),
            Entry::new("P3-share", "the same, share of bare", CPU)
                .share("relay-w1", "bare-w1")
                .shows("How much of P3 is not the kernel's."),
        ],
    }
}

/// P5: sessions that are there and say nothing.
fn memory() -> Round {
    let memory = Value::Figure("pss_bytes_per_session", "B");
    let reserved = Value::Figure("pss_bytes_per_reserved_session", "B");
    let plane = "run plane --target tls-psk://@IN@ --idle --sessions 15000 --duration 4s \
                 --warmup 500ms --source 127.0.1.1-127.0.1.16 --suite PSK-AES128-GCM-SHA256";
    let node = format!(
        "{ROOM_PAIRS} --sessions 3000 --security psk --message-rate 0.001 --duration 500ms --warmup 500ms"
    );
    let kamailio = "--pairs 1000 --message-rate 0.001 --duration 500ms --warmup 500ms";
    Round {
        cases: vec![
            case("plane-idle", Subject::Plane { sessions: 15_000 }, plane),
            case("kamailio-idle-tls", KAMAILIO_TLS, &format!("{KAMAILIO_RELAY_TLS} {kamailio}")),
            case("node-idle", NODE, &node),
        ],
        entries: vec![
            Entry::new("P5", "memory per idle bound TLS-PSK session, 15,000 of them", reserved)
                .alone("plane-idle")
                .judged(ours_max(1_000.0, "<= 1 kB"))
                .shows(
                    "User memory: growth of the proportional set size from before the first session was \
                     reserved to when all have been silent for four seconds: Termination, connection and \
                     keys. What the media plane has set aside at its start counts only as it is touched, \
                     sockets are the kernel's.",
                ),
            Entry::new("P5-connection", "the connection's part of it", memory)
                .between("plane-idle", "kamailio-idle-tls")
                .shows(
                    "From before the first connection. Kamailio at 2,000 connections with TLS that have \
                     sent AUTH.",
                ),
            Entry::new("P5-call", "the same with the SIP call that set it up, 3,000 of them", memory)
                .alone("node-idle")
                .shows("The whole node, dialog and conference included, two parties to a room."),
        ],
    }
}

/// P6.
fn handshakes() -> Round {
    let load = "run plane --target tls-psk://@IN@ --handshakes \
                --suite PSK-AES128-GCM-SHA256 --duration @TIME@ --warmup @WARMUP@";
    // A key is free again a moment after its session has ended; s_server has but one, and no queue
    // for hundreds.
    let many_keys = "--sessions 512 --concurrency 512";
    let one_key = "--concurrency 32 --psk-identity perf --psk-key-file @DIRECTORY@/psk.hex";
    let goal = Goal {
        text: ">= 20,000/s and >= 1.5 x s_server".to_owned(),
        ours_min: Some(20_000.0),
        ratio_min: Some(1.5),
        ..Goal::default()
    };
    let value = Value::PerSecond("node_cpu_us_per_handshake", "handshakes/core-second");
    Round {
        cases: vec![
            case("plane-handshakes", Subject::Plane { sessions: 512 }, &format!("{load} {many_keys}")),
            case("s_server-handshakes", Subject::OpensslServer, &format!("{load} {one_key}")),
        ],
        entries: vec![
            Entry::new("P6", "TLS-PSK handshakes with TCP accept, per core", value)
                .between("plane-handshakes", "s_server-handshakes")
                .judged(goal)
                .shows(
                    "Accept, handshake (TLS 1.2, PSK-AES128-GCM-SHA256), close, by the processor time of \
                     the server. The node also binds the session and reserves the next; s_server \
                     takes one connection after the other.",
                ),
        ],
    }
}

/// P7.
fn calls() -> Round {
    let value = Value::PerSecond("node_cpu_us_per_call", "calls/core-second");
    let load = "run calls --target sip:call@@SIP@ --security psk --concurrency 64 --duration @TIME@ \
                --warmup @WARMUP@";
    Round {
        cases: vec![case("calls", NODE, load)],
        entries: vec![
            Entry::new("P7", "whole call: INVITE, MIKEY, TLS-PSK, first message, BYE", value)
                .alone("calls")
                .judged(ours_min(6_000.0, ">= 6,000/s"))
                .shows(
                    "All processor time of the node, control plane and media plane on one core, by calls                      that went through from INVITE to the answered BYE.",
                ),
        ],
    }
}

/// P8.
fn fan_out() -> Round {
    let value = Value::PerSecond("node_cpu_us_per_delivery", "deliveries/core-second");
    // 80,000 copies are under way all the time; what is measured has to be many times that.
    let hall = "run chat --target sip:hall@@SIP@ --sessions 1000 --rooms 1 --senders 10 --window 8 \
                --rate 2000 --duration 3s --warmup 1s";
    Round {
        cases: vec![
            case("fan-out", NODE, hall),
            case("fan-out-psk", NODE, &format!("{hall} --security psk")),
        ],
        entries: vec![
            Entry::new("P8-plain", "fan-out, room of 1,000, 200 B, 10 senders, window 8", value)
                .alone("fan-out")
                .judged(ours_min(500_000.0, ">= 500,000/s"))
                .shows("Each message goes to 999 others, each of whom answers it; who answers is included."),
            Entry::new("P8-psk", "the same over TLS-PSK", value)
                .alone("fan-out-psk")
                .judged(ours_min(400_000.0, ">= 400,000/s"))
                .shows("Every copy is encrypted with its receiver's key."),
        ],
    }
}

/// P9.
fn bulk() -> Round {
    let value = Value::Figure("node_gbit_per_cpu_second", "Gbit/CPU-second");
    let copy =
        "run bulk --target tcp://@IN@ --sink @OUT@ --pairs 1 --duration @TIME@ --warmup @WARMUP@";
    let ours = "run bulk --target sip:bulk@@SIP@ --sessions 2 --window 128 --security psk \
                --duration @TIME@ --warmup @WARMUP@";
    Round {
        cases: vec![
            case("bulk", NODE, ours),
            case("haproxy-bulk", Subject::Haproxy { splice: false }, copy),
            case("haproxy-splice-bulk", Subject::Haproxy { splice: true }, copy),
            case("stunnel-bulk", Subject::Stunnel, copy),
        ],
        entries: vec![
            Entry::new("P9-haproxy", "bulk, in by one TLS-PSK leg and out by another", value)
                .between("bulk", "haproxy-bulk")
                .judged(ratio_min(1.0, ">= haproxy's plain copy"))
                .shows("haproxy copies bytes it need not understand, in the clear, on one thread."),
            Entry::new("P9-stunnel", "the same beside two hops of stunnel", value)
                .between("bulk", "stunnel-bulk")
                .judged(ratio_min(1.5, ">= 1.5 x stunnel"))
                .shows(
                    "Between stunnel's two processes runs TLS-PSK with the same suite, and what they                      both use counts: decrypting once and encrypting once, as the node does.",
                ),
            Entry::new("P9-splice", "the same beside haproxy with splice", value)
                .between("bulk", "haproxy-splice-bulk")
                .shows("With splice haproxy never sees the bytes: the kernel moves them."),
        ],
    }
}

/// P10: half of what each can carry, in the open loop.
fn half_load() -> Round {
    let tail = Value::Figure("latency_us.p999", "us");
    let fairness = Value::Quotient(
        "fairness.slowest_pair_mean_us",
        "fairness.median_pair_mean_us",
        "slowest/median",
    );
    let time = "--duration @TIME@ --warmup @WARMUP@";
    let half = |name, subject, load: String| {
        let rate = Rate::HalfOfSaturation { closed: format!("{load} --window 1"), senders: 400 };
        Case { rate: Some(rate), ..case(name, subject, &format!("{load} --message-rate @RATE@")) }
    };
    let relay = |relay: &str| format!("{relay} --pairs 200 {time}");
    let rooms = format!("{ROOM_PAIRS} --sessions 400 --security psk {time}");
    let floor = |name, of| {
        let load = format!("{} --message-rate @RATE@", relay(BARE));
        Case { rate: Some(Rate::Of(of)), ..case(name, BARE_RELAY, &load) }
    };
    let (quick, even) = (ours_max(1_000.0, "<= 1 ms"), ours_max(1.3, "<= 1.3"));
    Round {
        cases: vec![
            half("half-load", NODE, relay(OUR_RELAY)),
            half("kamailio-half-load", KAMAILIO, relay(KAMAILIO_RELAY)),
            half("half-load-psk", NODE, rooms),
            floor("bare-half-load", "half-load"),
            floor("bare-half-load-psk", "half-load-psk"),
        ],
        entries: vec![
            Entry::new("P10-tail", "relay, 200 pairs at half of saturation, p99.9", tail)
                .between("half-load", "kamailio-half-load")
                .judged(quick.clone())
                .shows(
                    "Open loop, from the moment a message was due to its arrival, generator included. \
                     Each at half of what it carried itself: the node's rate is several times \
                     Kamailio's.",
                ),
            Entry::new("P10-bare", "the same beside bare at the same rate", tail)
                .between("half-load", "bare-half-load")
                .shows(
                    "The floor: what generator, kernel and machine make of this load without the \
                     node. What both have is not the node's.",
                ),
            Entry::new(
                "P10-fairness",
                "the same: slowest pair's mean latency by the median's",
                fairness,
            )
            .between("half-load", "kamailio-half-load")
            .judged(even.clone())
            .shows("Nobody is served worse than the others."),
            Entry::new("P10-tail-psk", "rooms of two, TLS-PSK: p99.9", tail)
                .alone("half-load-psk")
                .judged(quick)
                .shows("As P10-tail for rooms that are protected."),
            Entry::new("P10-bare-psk", "the same beside bare at the same rate", tail)
                .between("half-load-psk", "bare-half-load-psk")
                .shows("As P10-bare; bare does not encrypt."),
            Entry::new(
                "P10-fairness-psk",
                "the same: slowest pair's mean latency by the median's",
                fairness,
            )
            .alone("half-load-psk")
            .judged(even)
            .shows("As P10-fairness."),
        ],
    }
}

/// P11: the same from few pairs to many, beside bare at each size.
fn sizes() -> Round {
    // Thousands take a while to have spoken once, which is when the node learns their routes.
    let talk = |pairs: u32| {
        let warmup = if pairs < 1_000 { "@WARMUP@" } else { "1s" };
        format!(
            "--pairs {pairs} --window 1 --duration @TIME@ --warmup {warmup} \
             --source 127.0.1.1-127.0.1.16"
        )
    };
    let goal = ratio_max(1.2, "ratio <= 1.2");
    let mut round = Round { cases: Vec::new(), entries: Vec::new() };
    for (pairs, [ours, bare], [two, bare_two], [one_shard, two_shards], title) in [
        (
            10,
            ["relay-w1-10", "bare-w1-10"],
            ["relay-w1-10-2shards", "bare-w1-10-2threads"],
            ["P11-10", "P11-10-2shards"],
            ["10 pairs, window 1", "10 pairs, two shards"],
        ),
        (
            1_000,
            ["relay-w1-1000", "bare-w1-1000"],
            ["relay-w1-1000-2shards", "bare-w1-1000-2threads"],
            ["P11-1000", "P11-1000-2shards"],
            ["1,000 pairs", "1,000 pairs, two shards"],
        ),
        (
            5_000,
            ["relay-w1-5000", "bare-w1-5000"],
            ["relay-w1-5000-2shards", "bare-w1-5000-2threads"],
            ["P11-5000", "P11-5000-2shards"],
            ["5,000 pairs", "5,000 pairs, two shards"],
        ),
    ] {
        round.cases.extend([
            case(ours, NODE, &format!("{OUR_RELAY} {}", talk(pairs))),
            case(bare, BARE_RELAY, &format!("{BARE} {}", talk(pairs))),
            case(two, Subject::Node { shards: 2 }, &format!("{OUR_RELAY} {}", talk(pairs))),
            case(bare_two, Subject::Bare { threads: 2 }, &format!("{BARE_TWO} {}", talk(pairs))),
        ]);
        round.entries.extend([
            Entry::new(one_shard, title[0], CPU).between(ours, bare).judged(goal.clone()).shows(
                "The relay over TCP; bare does the same socket operations at the same size.",
            ),
            Entry::new(two_shards, title[1], CPU).between(two, bare_two).judged(goal.clone()).shows(
                "Both on two threads, each with a core; with two processors in the machine one of \
                 them shares its core with the generator, for both alike.",
            ),
        ]);
    }
    round
}

/// P11: a thousand new connections that first speak at once.
fn first_words() -> Round {
    let silent = Value::Figure("fairness.silent_pairs", "pairs");
    let talk = "--pairs 500 --burst --window 8 --duration @TIME@ --warmup @WARMUP@";
    Round {
        cases: vec![
            case("burst", NODE, &format!("{OUR_RELAY} {talk}")),
            Case {
                counts_when_failed: true,
                ..case("kamailio-burst", KAMAILIO, &format!("{KAMAILIO_RELAY} {talk}"))
            },
        ],
        entries: vec![
            Entry::new("P11-burst", "1,000 connections first speak at once: silent pairs", silent)
                .between("burst", "kamailio-burst")
                .judged(ours_max(0.0, "none"))
                .shows(
                    "Pairs of 500 in which nothing arrived while it was measured. For the node any lost \
                     message or connection would make the run count as failed; Kamailio's runs count \
                     as they are.",
                ),
        ],
    }
}

/// MIKEY: what a protected call costs before its media, and what the KMS does for it.
fn key_exchange() -> Round {
    let load = |what: &str| format!("--what {what} --seconds @SECONDS@");
    let entry = |identifier, title, ours| {
        Entry::new(identifier, title, Value::Figure("per_second", "1/s"))
            .between(ours, "mikey-primitives")
            .judged(ours_min(50_000.0, ">= 50,000/s"))
            .shows(
                "In a second of one core's time, algorithms of 128 bits, without HTTP: the best tenth of \
                 each run, median of the runs. Beside it: how often that core derives the keys of one \
                 message, makes its MAC (HMAC-SHA-1, 400 bytes) and encrypts a KEMAC (AES-CM-128); each \
                 of these exchanges does that three times or more.",
            )
    };
    Round {
        cases: vec![
            case("mikey-transfer", Subject::KeyExchange, &load("transfer")),
            case("mikey-issue", Subject::KeyExchange, &load("issue")),
            case("mikey-resolve", Subject::KeyExchange, &load("resolve")),
            case("mikey-primitives", Subject::Primitives, &load("primitives")),
        ],
        entries: vec![
            entry("MIKEY-transfer", "TRANSFER_INIT verified and answered", "mikey-transfer"),
            entry("MIKEY-issue", "ticket issued", "mikey-issue"),
            entry("MIKEY-resolve", "ticket resolved", "mikey-resolve"),
        ],
    }
}

/// BFCP: floor control at rest and at work.
fn floors() -> Round {
    let rate = Value::PerSecond("node_cpu_us_per_message", "primitives/core-second");
    let memory = Value::Figure("pss_bytes_per_reserved_session", "B");
    let all = "run bfcp --target tcp://@IN@ --sessions 10000 --room-size 10 --floors 8 \
               --source 127.0.1.1-127.0.1.16";
    let work = format!("{all} --window 8 --duration @TIME@ --warmup @WARMUP@");
    let psk = "--security psk --suite PSK-AES128-GCM-SHA256";
    let [plain, secure] = [false, true].map(|secure| Subject::Floors { secure });
    Round {
        cases: vec![
            case("bfcp", plain, &work),
            case("bfcp-psk", secure, &format!("{work} {psk}")),
            case("bfcp-idle", secure, &format!("{all} {psk} --idle --duration 4s --warmup 500ms")),
        ],
        entries: vec![
            Entry::new("BFCP-plain", "floors, TCP, 1,000 conferences of 10, window 8", rate)
                .alone("bfcp")
                .judged(ours_min(150_000.0, ">= 150,000/s"))
                .shows(
                    "A primitive is a FloorRequest or FloorRelease that was answered. Each conference has \
                     eight floors, each participant asks for all of them and gives each back as soon as it \
                     holds it, so every floor has one holder and nine who wait, and for every two \
                     primitives the server says three times what became of a request.",
                ),
            Entry::new("BFCP-psk", "the same over TLS-PSK", rate)
                .alone("bfcp-psk")
                .shows("Each participant with a key of its own."),
            Entry::new("BFCP-memory", "memory per silent participant, TLS-PSK", memory)
                .alone("bfcp-idle")
                .judged(ours_max(1_500.0, "<= 1.5 kB"))
                .shows(
                    "User memory as in P5, from when one of the conferences was reserved to when all have \
                     said Hello and been silent for four seconds; the conferences with their floors are \
                     included.",
                ),
        ],
    }
}

/// G1: TLS with certificates on one side, TCP on the other.
fn protection_converted() -> Round {
    let load = "run gateway --points @DIRECTORY@/points --sink @OUT@ \
                --certificate @DIRECTORY@/client.pem --key @DIRECTORY@/client-key.pem \
                --suite TLS_AES_128_GCM_SHA256 --pairs 10 --window 8 --duration @TIME@ \
                --warmup @WARMUP@";
    let gateway = Subject::Gateway { profile: Profile::E2ae, contexts: 10 };
    Round {
        cases: vec![
            case("e2ae-w8", gateway, load),
            case("stunnel-haproxy-w8", Subject::StunnelHaproxy, load),
            case("haproxy-tls-w8", Subject::HaproxyTls, load),
        ],
        entries: vec![
            Entry::new("G1", "e2ae: TLS to TCP, 200 B, 10 pairs, window 8", CPU)
                .between("e2ae-w8", "stunnel-haproxy-w8")
                .judged(ratio_max(1.0 / 3.0, "ratio <= 1/3"))
                .shows(
                    "A SEND through the gateway and its 200 back, both ends send. The same TLS 1.3 suite, \
                     certificates on both sides, clients known by their certificate. stunnel takes TLS \
                     off, haproxy has the address and the second connection; what both use counts.",
                ),
            Entry::new("G1-haproxy", "the same beside haproxy alone", CPU)
                .between("e2ae-w8", "haproxy-tls-w8")
                .shows(
                    "haproxy takes TLS off itself, with an authority for clients in place of fingerprints: \
                     one hop, one process, nothing between.",
                ),
        ],
    }
}

/// G2: bytes nobody looks at.
fn bytes_passed_on() -> Round {
    let copy =
        "run bulk --target tcp://@IN@ --sink @OUT@ --pairs 1 --duration @TIME@ --warmup @WARMUP@";
    let gateway = Subject::Gateway { profile: Profile::E2e, contexts: 1 };
    let rate = Value::Figure("gbit_per_second", "Gbit/s");
    let cost = Value::Figure("node_gbit_per_cpu_second", "Gbit/CPU-second");
    Round {
        cases: vec![
            case("e2e-bulk", gateway, copy),
            case("haproxy-splice-e2e-bulk", Subject::Haproxy { splice: true }, copy),
        ],
        entries: vec![
            Entry::new("G2", "e2e: a stream passed on byte by byte", rate)
                .between("e2e-bulk", "haproxy-splice-e2e-bulk")
                .judged(ratio_min(1.0, ">= haproxy with splice"))
                .shows(
                    "TCP in, TCP out, one connection. The generator writes and checks every byte and may \
                     be the bottleneck of both; G2-cpu is not touched by that.",
                ),
            Entry::new("G2-cpu", "the same by processor time", cost)
                .between("e2e-bulk", "haproxy-splice-e2e-bulk")
                .shows("With splice haproxy never sees the bytes: the kernel moves them."),
        ],
    }
}

/// G3: faxes at their real pace, as many as a core is to carry.
fn faxes() -> Round {
    let load = "run fax --points @DIRECTORY@/points --certificate @DIRECTORY@/client.pem \
                --key @DIRECTORY@/client-key.pem --sessions 5000 --packet 40ms --redundancy 2 \
                --duration 8s --warmup 2s";
    let gateway = Subject::Gateway { profile: Profile::T38, contexts: 5_000 };
    let lost = Value::Figure("fax.lost", "packets");
    // Loss is what is looked for.
    let faxes = Case { counts_when_failed: true, ..case("faxes", gateway, load) };
    Round {
        cases: vec![faxes],
        entries: vec![
            Entry::new("G3", "5,000 faxes, DTLS to UDP, 33.6 kbit/s: packets lost", lost)
                .alone("faxes")
                .judged(ours_max(0.0, "none"))
                .shows(
                    "125,000 packets of image a second and 5,000 of those who listen, half of them in \
                     each direction, on one core. Every packet sent is to come, once and unchanged.",
                ),
            Entry::new("G3-cpu", "the same: processor time per packet", CPU)
                .alone("faxes")
                .shows("One datagram in, opened or sealed, one out."),
            Entry::new("G3-jitter", "the same: jitter, p99", Value::Figure("fax.jitter_us.p99", "us"))
                .alone("faxes")
                .shows(
                    "How much more or less than 40 ms lay between two packets; the generator's own \
                     lateness is part of it.",
                ),
        ],
    }
}

const CPU: Value = Value::Figure("node_cpu_us_per_message", "us");
const NODE: Subject = Subject::Node { shards: 1 };
const BARE_RELAY: Subject = Subject::Bare { threads: 1 };
const KAMAILIO: Subject = Subject::Kamailio { tls: false };
const KAMAILIO_TLS: Subject = Subject::Kamailio { tls: true };
const OUR_RELAY: &str = "run relay --target msrp://@RELAY@;tcp --relay-user alice \
                         --relay-password-file @DIRECTORY@/password";
const OUR_RELAY_TLS: &str = "run relay --target msrps://@RELAY@;tcp --relay-user alice \
                             --relay-password-file @DIRECTORY@/password --ca @DIRECTORY@/ca.pem \
                             --suite TLS_AES_128_GCM_SHA256";
const KAMAILIO_RELAY: &str = "run relay --target msrp://@IN@;tcp";
const KAMAILIO_RELAY_TLS: &str = "run relay --target msrps://@IN@;tcp --ca @DIRECTORY@/ca.pem \
                                  --suite TLS_AES_128_GCM_SHA256";
const BARE: &str = "run raw --target tcp://@IN@";
const BARE_TWO: &str = "run raw --target tcp://@IN@,tcp://@IN2@";
const ROOM_PAIRS: &str = "run chat --target sip:pair@@SIP@ --room-size 2 --rate 2000";

fn case(name: &'static str, subject: Subject, load: &str) -> Case {
    Case { name, subject, load: load.to_owned(), rate: None, counts_when_failed: false }
}

fn ratio_max(bound: f64, text: &str) -> Goal {
    Goal { text: text.to_owned(), ratio_max: Some(bound), ..Goal::default() }
}

fn ratio_min(bound: f64, text: &str) -> Goal {
    Goal { text: text.to_owned(), ratio_min: Some(bound), ..Goal::default() }
}

fn ours_min(bound: f64, text: &str) -> Goal {
    Goal { text: text.to_owned(), ours_min: Some(bound), ..Goal::default() }
}

fn ours_max(bound: f64, text: &str) -> Goal {
    Goal { text: text.to_owned(), ours_max: Some(bound), ..Goal::default() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_line_is_made_of_cases_of_its_round() {
        for round in rounds() {
            let names: BTreeSet<_> = round.cases.iter().map(|case| case.name).collect();
            assert_eq!(names.len(), round.cases.len());
            for entry in &round.entries {
                let used = [Some(entry.ours), entry.anchor];
                assert!(used.into_iter().flatten().all(|name| names.contains(name)), "{entry:?}");
            }
            // What nothing is made of need not run.
            assert_eq!(round.only(&[]).unwrap().cases.len(), round.cases.len());
        }
    }

    #[test]
    fn every_goal_is_there_under_one_name() {
        let rounds = rounds();
        let entries: Vec<_> = rounds.iter().flat_map(|round| &round.entries).collect();
        let names: BTreeSet<_> = entries.iter().map(|entry| entry.identifier).collect();
        assert_eq!(names.len(), entries.len());
        let cases: Vec<_> = rounds.iter().flat_map(|round| &round.cases).collect();
        let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases.len());
    }

    #[test]
    fn a_part_needs_only_its_own_cases() {
        let round = window_8().only(&["p2-PSK".to_owned()]).unwrap();
        let names: Vec<_> = round.cases.iter().map(|case| case.name).collect();
        assert_eq!(names, ["room-w8-psk", "kamailio-w8-tls"]);
        assert_eq!(window_8().only(&["P2".to_owned()]).unwrap().entries.len(), 2);
        assert!(window_8().only(&["P3".to_owned()]).is_none());
    }
}
