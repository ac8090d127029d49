"""AG Projects' msrplib as an MSRP client, driven over stdin and stdout.

Arguments: `--probe` to say whether the library is there; else nothing, for a client that reaches its
peer directly, or `HOST PORT tcp|tls DOMAIN USER PASSWORD [CA]` of a relay it is to authorise with, and a
file with the authority it is to trust.

What it says and takes is told in foreign/mod.rs.
"""
import base64
import os
import sys
import threading

from gnutls.crypto import X509Certificate
from gnutls.interfaces.twisted import X509Credentials
from msrplib import protocol
from msrplib.connect import DirectConnector, MSRPRelaySettings, RelayConnection
from msrplib.session import MSRPSession
from msrplib.transport import MSRPTransactionError

from eventlib import coros, proc
from eventlib.twistedutil import join_reactor  # noqa: F401, eventlib is to run in Twisted's loop
from twisted.internet import reactor


def say(*words):
    sys.stdout.write(' '.join(words) + '\n')
    sys.stdout.flush()


class Chat:
    """Puts chunks together: the library hands them up as they come."""

    def __init__(self):
        self.bodies = {}

    def __call__(self, chunk=None, error=None):
        if error is not None:
            say('closed')
        elif chunk.method == 'REPORT':
            say('report', chunk.message_id, str(chunk.status.code))
        elif chunk.contflag == '#':
            self.bodies.pop(chunk.message_id, None)
            say('aborted', chunk.message_id)
        elif chunk.data or chunk.message_id in self.bodies:
            body = self.bodies.setdefault(chunk.message_id, bytearray())
            start = chunk.byte_range.start - 1
            body[start:start + len(chunk.data)] = chunk.data
            if chunk.contflag == '$':
                del self.bodies[chunk.message_id]
                content = base64.b64encode(bytes(body)).decode()
                say('message', chunk.message_id, chunk.content_type, content)


def send(session, content_type, body, success_report):
    """One message in chunks of the size other clients of this library use."""
    message_id = os.urandom(8).hex()

    def answered(response):
        say('response', message_id, str(response.code))

    size = 64 * 1024
    for start in range(0, len(body), size) or [0]:
        part = body[start:start + size]
        end = start + len(part)
        chunk = session.msrp.make_send_request(message_id=message_id, data=part, start=start + 1,
                                               end=end, length=len(body))
        chunk.contflag = '$' if end == len(body) else '+'
        chunk.add_header(protocol.ContentTypeHeader(content_type))
        if success_report:
            chunk.add_header(protocol.SuccessReportHeader('yes'))
        session.send_chunk(chunk, response_cb=answered if end == len(body) else None)
    say('sent', message_id)


def nickname(session, name):
    chunk = session.msrp.make_request('NICKNAME')
    chunk.add_header(protocol.UseNicknameHeader('"%s"' % name))
    session.send_chunk(chunk, response_cb=lambda response: say('response', 'nickname', str(response.code)))


def main(arguments):
    if arguments:
        host, port, transport, domain, user, password, *authority = arguments
        relay = MSRPRelaySettings(domain, user, password, host=host, port=int(port),
                                  use_tls=transport == 'tls')
        connector = RelayConnection(relay, 'active')
        trusted = [X509Certificate(open(file).read()) for file in authority]
        credentials = X509Credentials(None, None, trusted) if trusted else None
        local = protocol.URI(host='127.0.0.1', port=0, use_tls=transport == 'tls',
                             credentials=credentials)
    else:
        connector = DirectConnector()
        local = protocol.URI(host='127.0.0.1', port=9, use_tls=False)
    try:
        path = connector.prepare(local)
    except MSRPTransactionError as error:
        return say('refused', str(error.code))
    say('path', *(str(uri) for uri in path))

    # Standard input is read by a thread; the hub is woken for every line.
    commands = coros.queue()

    def read():
        for line in sys.stdin:
            reactor.callFromThread(commands.send, line.split())
        reactor.callFromThread(commands.send, ['quit'])

    threading.Thread(target=read, daemon=True).start()
    session = None
    while True:
        command, *words = commands.wait()
        if command in ('connect', 'accept'):
            connector.mode = 'active' if command == 'connect' else 'passive'
            transport = connector.complete([protocol.URI.parse(uri) for uri in words])
            session = MSRPSession(transport, accept_types=['*'], on_incoming_cb=Chat())
            say('connected')
        elif command == 'send':
            send(session, words[0], base64.b64decode(words[1]), 'report' in words[2:])
        elif command == 'nickname':
            nickname(session, words[0])
        elif command == 'quit':
            if session:
                session.shutdown()
            return None


def run():
    try:
        main(sys.argv[1:])
    finally:
        reactor.callLater(0, reactor.stop)


if sys.argv[1:] == ['--probe']:
    say('ready')
else:
    reactor.callWhenRunning(proc.spawn, run)
    reactor.run()
