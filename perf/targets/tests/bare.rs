//! `bare` as a program: what it moves, what it answers, when it gives up.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Long enough that only a lost message reaches it.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bare {
    process: Child,
    /// Of each of its threads.
    addresses: Vec<String>,
}

impl Bare {
    fn start() -> Self {
        Self::with_threads(1)
    }

    fn with_threads(count: usize) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_bare"))
            .args(["--listen", "127.0.0.1:0", "--threads", &count.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let addresses = line.trim().strip_prefix("bare ready ").unwrap().split(' ');
        let addresses: Vec<_> = addresses.map(str::to_owned).collect();
        assert_eq!(addresses.len(), count);
        Self { process, addresses }
    }

    fn pair(&self) -> (TcpStream, TcpStream) {
        self.pair_at(0)
    }

    fn pair_at(&self, thread: usize) -> (TcpStream, TcpStream) {
        let connect = || {
            let stream = TcpStream::connect(&self.addresses[thread]).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        };
        (connect(), connect())
    }

    /// Ends it and returns its errors.
    fn stop(mut self) -> String {
        let kill = Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        assert!(kill.success());
        assert!(!self.process.wait().unwrap().success(), "ended by the signal");
        let mut errors = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        errors
    }
}

fn message(id: &str, body: &str) -> String {
    format!(
        "MSRP {id} SEND\r\nTo-Path: msrp://b.invalid:1/b;tcp\r\nFrom-Path: msrp://a.invalid:1/a;tcp\r\n\
         Message-ID: 1\r\nContent-Type: text/plain\r\n\r\n{body}\r\n-------{id}$\r\n"
    )
}

fn answer(id: &str) -> String {
    format!(
        "MSRP {id} 200 OK\r\nTo-Path: msrp://a.invalid:1/a;tcp\r\nFrom-Path: msrp://b.invalid:1/b;tcp\r\n\
         -------{id}$\r\n"
    )
}

fn expect(stream: &mut TcpStream, expected: &str) {
    let mut received = vec![0; expected.len()];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(String::from_utf8(received).unwrap(), expected);
}

fn expect_end(stream: &mut TcpStream) {
    match stream.read(&mut [0]) {
        Ok(count) => assert_eq!(count, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[test]
fn moves_messages_answers_them_and_swallows_answers() {
    let bare = Bare::start();
    let (mut a, mut b) = bare.pair();
    let (mut c, mut d) = bare.pair();
    let messages: Vec<String> =
        (0..100).map(|i| message(&format!("id{i:05}"), &format!("body {i:03}"))).collect();
    let answers: String = (0..100).map(|i| answer(&format!("id{i:05}"))).collect();
    let all = messages.concat();
    a.write_all(all.as_bytes()).unwrap();
    expect(&mut b, &all);
    expect(&mut a, &answers);
    b.write_all(answers.as_bytes()).unwrap();
    // The answers went nowhere: the next thing that comes is the next message, here and there.
    b.write_all(messages[0].as_bytes()).unwrap();
    expect(&mut a, &messages[0]);
    expect(&mut b, &answer("id00000"));
    c.write_all(messages[1].as_bytes()).unwrap();
    expect(&mut d, &messages[1]);
    assert_eq!(bare.stop(), "");
}

#[test]
fn puts_together_what_arrives_in_bytes() {
    let bare = Bare::start();
    let (mut a, mut b) = bare.pair();
    let all = format!("{}{}{}", message("abcd", "1"), answer("efgh"), message("ijkl", "2"));
    for byte in all.bytes() {
        a.write_all(&[byte]).unwrap();
    }
    expect(&mut b, &[message("abcd", "1"), message("ijkl", "2")].concat());
    expect(&mut a, &[answer("abcd"), answer("ijkl")].concat());
    assert_eq!(bare.stop(), "");
}

#[test]
fn moves_messages_larger_than_its_buffers() {
    let bare = Bare::start();
    let (mut a, mut b) = bare.pair();
    let message = message("abcd", &"x".repeat(50_000));
    for _ in 0..3 {
        a.write_all(message.as_bytes()).unwrap();
        expect(&mut b, &message);
        expect(&mut a, &answer("abcd"));
    }
    assert_eq!(bare.stop(), "");
}

#[test]
fn a_message_that_is_not_like_the_first_ends_the_pair() {
    let others = [
        message("abcd", "12345"),
        message("abcde", "1234"),
        message("abcd", "123").replace('$', "+"),
    ];
    for other in others {
        let bare = Bare::start();
        let (mut a, mut b) = bare.pair();
        let first = message("abcd", "1234");
        a.write_all(first.as_bytes()).unwrap();
        expect(&mut b, &first);
        expect(&mut a, &answer("abcd"));
        a.write_all(other.as_bytes()).unwrap();
        a.write_all(first.as_bytes()).unwrap();
        expect_end(&mut b);
        expect_end(&mut a);
        let errors = bare.stop();
        assert!(errors.contains("not like the first"), "{errors}");
    }
}

#[test]
fn a_pair_ends_together_and_the_next_two_are_a_pair() {
    let bare = Bare::start();
    let (a, mut b) = bare.pair();
    drop(a);
    expect_end(&mut b);
    let (mut c, mut d) = bare.pair();
    let first = message("abcd", "1234");
    c.write_all(first.as_bytes()).unwrap();
    expect(&mut d, &first);
    assert_eq!(bare.stop(), "");
}

#[test]
fn each_thread_joins_its_own_connections() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        eprintln!("SKIPPED: a core for each thread, and there is one");
        return;
    }
    let bare = Bare::with_threads(2);
    let message = message("abcd", "1");
    for thread in [1, 0] {
        let (mut a, mut b) = bare.pair_at(thread);
        a.write_all(message.as_bytes()).unwrap();
        expect(&mut b, &message);
        expect(&mut a, &answer("abcd"));
    }
    assert_eq!(bare.stop(), "");
}
