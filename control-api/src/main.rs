//! `mrf`: reads the command line, starts the node, watches for signals.
#![forbid(unsafe_code)]

use std::io::{BufRead, IsTerminal, Read, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use control_api::border::sdp::Rules;
use control_api::border::{MediaSecurity, SideRole};
use control_api::cli::{
    Cli, Command, EXIT_FAILURE, EXIT_OK, EXIT_SIGNAL_BASE, EXIT_USAGE, Inspect, InspectBorder,
    InspectMediasec, InspectMikey, InspectSdp, InspectSide,
};
use control_api::config::{Config, KmsMode, Shards};
use control_api::http::Reload;
use control_api::inspect::{self, BfcpOptions, BorderOptions, Keys, MikeyOptions, Purpose};
use control_api::node::{Node, StandaloneKms, Stopped};
use control_api::systemd;
use mrfp_protocol::msrp::auth::{Algorithm, Credentials};
use mrfp_protocol::tls::Fingerprint;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let code = match Cli::parse().command() {
        Command::Serve { config } => start(config, run),
        Command::Kms { config } => start(config, run_kms),
        Command::Check { file } => check(&file),
        Command::Credential { user, realm } => credential(&user, &realm),
        Command::Inspect(what) => inspect(&what),
    };
    ExitCode::from(code)
}

fn check(file: &Path) -> u8 {
    match Config::load(file) {
        Ok(config) => {
            println!("{}: OK\n{}", file.display(), summary(&config));
            if config.is_exposed(file) {
                eprintln!("warning: {}", exposed(file));
            }
            EXIT_OK
        }
        Err(problem) => {
            eprintln!("{problem}");
            EXIT_USAGE
        }
    }
}

/// Prints what the configuration holds of a relay's user; the password comes from stdin, so that it
/// stands in no history and no process list.
fn credential(user: &str, realm: &str) -> u8 {
    let quotable = |text: &str| {
        !text.is_empty() && !text.contains(|c: char| c.is_control() || c == '"' || c == '\\')
    };
    if !quotable(user) || user.contains(':') || !quotable(realm) {
        eprintln!(
            "mrf: neither quotes nor backslashes in user and realm, and no colon in the user"
        );
        return EXIT_USAGE;
    }
    let mut password = Zeroizing::new(String::new());
    if let Err(error) = std::io::stdin().lock().read_line(&mut password) {
        return fail(&error);
    }
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        eprintln!("mrf: no password on stdin");
        return EXIT_USAGE;
    }
    let credentials = Credentials::derive(user.as_bytes(), realm.as_bytes(), password.as_bytes());
    let hash = |algorithm| credentials.ha1(algorithm).unwrap_or_default();
    let (sha256, md5) = (hash(Algorithm::Sha256), hash(Algorithm::Md5));
    println!("[[relay.user]]\nname = \"{user}\"\nsha256 = \"{}\"\nmd5 = \"{}\"", *sha256, *md5);
    EXIT_OK
}

fn inspect(what: &Inspect) -> u8 {
    let told = match what {
        Inspect::Mikey(options) => inspect_mikey(options),
        Inspect::Bfcp { json, files } => read_inputs(files).and_then(|inputs| {
            let how = BfcpOptions { json: *json, colour: wants_colour() };
            written(inspect::bfcp(&inputs, &how, &mut stdout().lock()))
        }),
        Inspect::Msrp { file } => read_input(file.as_deref())
            .and_then(|input| written(inspect::msrp(&input, &mut stdout().lock()))),
        Inspect::Sdp(options) => inspect_sdp(options),
    };
    match told {
        Ok(true) => EXIT_OK,
        Ok(false) => EXIT_FAILURE,
        Err(code) => code,
    }
}

fn inspect_sdp(options: &InspectSdp) -> Result<bool, u8> {
    let input = read_input(options.file.as_deref())?;
    if let Some(border) = options.border {
        let told = border_options(border, options).map_err(usage)?;
        let answer = options.answer.as_deref().map(|file| read_input(Some(file))).transpose()?;
        let mut out = stdout().lock();
        let done = inspect::sdp_through_border(&input, answer.as_deref(), &told, &mut out);
        return written(done);
    }
    let config = options.config.as_deref().map_or_else(|| Ok(Config::default()), Config::load);
    let config = config.map_err(usage)?;
    written(inspect::sdp(&input, &config, &options.room, &mut stdout().lock()))
}

fn border_options(border: InspectBorder, options: &InspectSdp) -> Result<BorderOptions, String> {
    let sides = match border {
        InspectBorder::ImsAlg => [InspectSide::Access, InspectSide::Core],
        InspectBorder::Ibcf => [InspectSide::Own, InspectSide::Foreign],
    };
    let from = options.from.unwrap_or(sides[0]);
    let to = match sides.iter().position(|side| *side == from) {
        Some(0) => sides[1],
        Some(_) => sides[0],
        None => return Err(format!("--from {from:?}: not a side of that border").to_lowercase()),
    };
    let [from, to] = [from, to].map(|side| match side {
        InspectSide::Access => SideRole::Access,
        InspectSide::Core => SideRole::Core,
        InspectSide::Own => SideRole::Own,
        InspectSide::Foreign => SideRole::Foreign,
    });
    let fingerprint = match &options.fingerprint {
        None => inspect::example_fingerprint(),
        Some(text) => Fingerprint::parse(text)
            .map_err(|_| "--fingerprint: not of the form 'sha-256 4A:AD:...'".to_owned())?,
    };
    let has = |mechanism| options.mediasec.contains(&mechanism);
    Ok(BorderOptions {
        rules: Rules { rcs_compat: options.rcs_compat, ..Rules::default() },
        from,
        to,
        security: MediaSecurity {
            msrp_tls: has(InspectMediasec::MsrpTls),
            bfcp_tls: has(InspectMediasec::BfcpTls),
            udptl_dtls: has(InspectMediasec::UdptlDtls),
        },
        nat: !options.no_nat,
        cema: !options.no_cema,
        ends: [
            options.offerer_end.unwrap_or_else(|| inspect::example_end(from)),
            options.answerer_end.unwrap_or_else(|| inspect::example_end(to)),
        ],
        fingerprint,
    })
}

fn inspect_mikey(options: &InspectMikey) -> Result<bool, u8> {
    let mut keys = Keys::default();
    let mut tls = Config::default().mikey.prot_types_accepted;
    if let Some(file) = &options.config {
        let config = Config::load(file).map_err(usage)?;
        keys.add_config(&config);
        tls = config.mikey.prot_types_accepted;
    }
    if let Some(file) = &options.key_file {
        keys.add_file(file).map_err(usage)?;
    }
    let given = [
        (Purpose::User, &options.psk),
        (Purpose::Ticket, &options.ticket_key),
        (Purpose::MessageProtection, &options.mpk),
    ];
    for (purpose, texts) in given {
        texts.iter().try_for_each(|text| keys.add_hex(purpose, text)).map_err(usage)?;
    }
    let inputs = read_inputs(&options.files)?;
    let how = MikeyOptions {
        keys: &keys,
        tls: &tls,
        show_secrets: options.show_secrets,
        json: options.json,
        colour: wants_colour(),
    };
    written(inspect::mikey(&inputs, &how, &mut stdout().lock()))
}

fn wants_colour() -> bool {
    stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// The files with their names, or standard input.
fn read_inputs(files: &[PathBuf]) -> Result<Vec<(String, Vec<u8>)>, u8> {
    if files.is_empty() {
        return Ok(vec![("standard input".to_owned(), read_input(None)?)]);
    }
    let read = |file: &PathBuf| Ok((file.display().to_string(), read_input(Some(file))?));
    files.iter().map(read).collect()
}

fn read_input(file: Option<&Path>) -> Result<Vec<u8>, u8> {
    let mut input = Vec::new();
    let read = match file {
        Some(file) => std::fs::read(file).map(|bytes| input = bytes),
        None => std::io::stdin().lock().read_to_end(&mut input).map(|_| ()),
    };
    read.map_err(|error| {
        let name = file.map_or("standard input".into(), Path::to_string_lossy);
        usage(format!("mrf: {name}: cannot be read: {error}"))
    })?;
    Ok(input)
}

/// Says what is wrong with what was asked.
fn usage(problem: impl std::fmt::Display) -> u8 {
    eprintln!("{problem}");
    EXIT_USAGE
}

fn written(told: std::io::Result<bool>) -> Result<bool, u8> {
    told.map_err(|error| fail(&error))
}

fn exposed(file: &Path) -> String {
    let file = file.display();
    format!("{file} holds credentials and everybody may read it; remedy: chmod o-r {file}")
}

/// Reads the configuration and runs what is wanted with it.
fn start<F, R>(file: Option<PathBuf>, run: F) -> u8
where
    F: FnOnce(Config, Option<PathBuf>) -> R,
    R: Future<Output = u8>,
{
    let config = file.as_deref().map_or_else(|| Ok(Config::default()), Config::load);
    let config = match config {
        Ok(config) => config,
        Err(problem) => {
            eprintln!("{problem}");
            return EXIT_USAGE;
        }
    };
    start_logging();
    if let Some(file) = file.as_ref().filter(|file| config.is_exposed(file)) {
        tracing::warn!("{}", exposed(file));
    }
    if config.has_development_credential() {
        tracing::warn!("development credential in use: fit for loopback only");
    }
    // The usual soft limit of 1024 is made for programs that use select(2); every member of a
    // conference needs a descriptor.
    if let Err(error) = mrfp_io::raise_descriptor_limit() {
        tracing::warn!(%error, "the limit on open descriptors could not be raised");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let code = runtime.block_on(run(config, file));
    // A name server that does not answer must not keep the process.
    runtime.shutdown_background();
    code
}

async fn run(config: Config, file: Option<PathBuf>) -> u8 {
    // Before anything listens, so that no signal ever finds the node without a handler.
    let signals = match Signals::watch() {
        Ok(signals) => signals,
        Err(error) => return fail(&error),
    };
    let node = match Node::start_from(config, file).await {
        Ok(node) => node,
        Err(error) => return fail(&error),
    };
    announce(&node.ready_line());
    tokio::spawn(signals.obey(node.stop_token(), node.reload()));
    match node.wait().await {
        Stopped::Drained => {
            tracing::info!("stopped; every call was ended");
            EXIT_OK
        }
        Stopped::CutOff { calls } => {
            tracing::error!(calls, "stopped before everything had ended");
            EXIT_FAILURE
        }
    }
}

async fn run_kms(config: Config, file: Option<PathBuf>) -> u8 {
    let signals = match Signals::watch() {
        Ok(signals) => signals,
        Err(error) => return fail(&error),
    };
    let kms = match StandaloneKms::start(config, file.as_deref()).await {
        Ok(kms) => kms,
        Err(error) => return fail(&error),
    };
    announce(&kms.ready_line());
    tokio::spawn(signals.obey(kms.stop_token(), Some(kms.reload())));
    kms.wait().await;
    tracing::info!("stopped");
    EXIT_OK
}

/// The signals that mean something to us.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn watch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// SIGHUP reads the configuration again. The first of the others stops what runs, the second
    /// one ends the process.
    async fn obey(mut self, stop: CancellationToken, reload: Option<Reload>) {
        loop {
            let kind = tokio::select! {
                _ = self.terminate.recv() => SignalKind::terminate(),
                _ = self.interrupt.recv() => SignalKind::interrupt(),
                _ = self.hangup.recv() => {
                    match reload.as_ref().map(|reload| reload()) {
                        Some(Ok(_)) => {}
                        Some(Err(problem)) => tracing::error!("not reloaded: {problem}"),
                        None => tracing::warn!("SIGHUP: there is nothing to read again"),
                    }
                    continue;
                }
            };
            if stop.is_cancelled() {
                let number = u8::try_from(kind.as_raw_value()).unwrap_or_default();
                std::process::exit(i32::from(EXIT_SIGNAL_BASE + number));
            }
            systemd::notify(systemd::STOPPING);
            stop.cancel();
        }
    }
}

/// Whoever started us may have closed stdout; the node runs all the same.
fn announce(line: &str) {
    let mut stdout = stdout().lock();
    let written = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    if let Err(error) = written {
        tracing::warn!(%error, "stdout is closed; {line}");
    }
    systemd::notify(systemd::READY);
}

fn fail(error: &dyn std::fmt::Display) -> u8 {
    eprintln!("mrf: {error}");
    EXIT_FAILURE
}

/// What is logged where RUST_LOG says nothing.
const LOG_FILTER_DEFAULT: &str = "info,rsipstack=error";

/// Logs go to stderr. The SIP stack reports every oddity of a peer as a warning; the counters tell
/// those, so only its errors are shown.
fn start_logging() {
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let wanted = if wanted.is_empty() { LOG_FILTER_DEFAULT } else { wanted.as_str() };
    let (filter, problem) = match EnvFilter::try_new(wanted) {
        Ok(filter) => (filter, None),
        Err(problem) => (EnvFilter::new(LOG_FILTER_DEFAULT), Some(problem)),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    if let Some(problem) = problem {
        tracing::warn!(%problem, "RUST_LOG is not understood: logging {LOG_FILTER_DEFAULT}");
    }
}

/// What `mrf check` says of a file it would take.
fn summary(config: &Config) -> String {
    let shards = match config.media.shards {
        Shards::Named(_) => "auto".to_owned(),
        Shards::Count(count) => count.to_string(),
    };
    let credential =
        if config.has_development_credential() { "development (loopback only)" } else { "own" };
    let certificate = match &config.tls.certificate {
        Some(certificate) => certificate.chain.display().to_string(),
        None => "none".to_owned(),
    };
    let relay = match config.relay.users.len() {
        0 => "off (no [[relay.user]])".to_owned(),
        users => {
            let auth = if config.relay.allow_plain_auth { "also in the clear" } else { "TLS only" };
            format!("{} as {}, {users} user(s), {auth}", config.relay.listen, config.relay.host)
        }
    };
    let kms = match config.kms.mode {
        KmsMode::Embedded => format!(
            "{} ({}), {} user(s), {} ticket key(s), credential {credential}, state {}",
            config.kms.listen,
            if config.kms.certificate.is_some() { "TLS" } else { "in the clear" },
            config.kms.users.len(),
            config.kms.ticket_keys.len(),
            config
                .kms
                .state_directory
                .as_ref()
                .map_or("not kept".into(), |it| it.to_string_lossy()),
        ),
        KmsMode::Remote => format!(
            "{}, as {:?}, credential {credential}",
            config
                .kms
                .servers
                .iter()
                .map(|server| server.url.as_str())
                .collect::<Vec<_>>()
                .join(" "),
            config.kms.resolver,
        ),
    };
    format!(
        "  sip      udp {} tcp {}\n  media    {} from port {}, shards {shards}, {:?} ports\n  \
         tls      {} suite(s), TLS 1.3 {}, certificate {certificate}\n  security plain {:?}\n  \
         rooms    {:?}, {} listed, {} members at most, CPIM {:?}\n  realms   {}\n  relay    {relay}\n  kms      {kms}\n  \
         http     {}",
        config.sip.udp,
        config.sip.tcp,
        config.media.listen,
        config.media.port,
        config.media.port_mode,
        config.tls.suites.len(),
        if config.tls.tls13 { "on" } else { "off" },
        config.security.plain,
        config.rooms.creation,
        config.rooms.list.len() + config.room_exceptions.len(),
        config.rooms.members_max,
        config.rooms.cpim,
        config.realms.len() + 1,
        config.http.listen,
    )
}
