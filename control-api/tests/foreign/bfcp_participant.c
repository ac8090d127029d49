/* A participant of floor control on libre (https://github.com/baresip/re): over TCP, for which libre has
 * a codec, and over UDP, for which it has transactions as well.
 *
 *   bfcp_participant tcp ADDRESS PORT    says "connected"
 *   bfcp_participant udp                 says "local PORT", and takes "ADDRESS PORT" as its first line
 *
 * Each line "VERSION PRIMITIVE CONFERENCE USER [TYPE VALUE]" makes a request with one attribute or none. It
 * tells what comes: "answer", or "told" for what the server says of its own accord (and acknowledges
 * that over UDP), version, responder flag, primitive, conference, user and attributes; over TCP the bytes
 * before that. It ends with its input. */
#include <stdlib.h>
#include <unistd.h>
#include "bfcp_print.h"

static struct tcp_conn *tcp;
static struct bfcp_conn *bfcp;
static struct sa server;
static struct mbuf *stream;
static uint16_t transaction;

static void print_message(const char *word, const struct bfcp_msg *msg)
{
	printf("%s %u %u %u %u %u:", word, msg->ver, (unsigned)msg->r,
	       (unsigned)msg->prim, msg->confid, msg->userid);
	print_attributes(&msg->attrl);
	printf("\n");
}

static void fail(const char *what, int err)
{
	printf("failed %s: %s\n", what, strerror(err));
	re_cancel();
}

static void tcp_message(const uint8_t *bytes, size_t length)
{
	struct mbuf *mb = mbuf_alloc(length);
	struct bfcp_msg *msg = NULL;
	size_t i;
	int err;

	printf("bytes ");
	for (i = 0; i < length; i++)
		printf("%02x", bytes[i]);
	printf("\n");
	mbuf_write_mem(mb, bytes, length);
	mb->pos = 0;
	err = bfcp_msg_decode(&msg, mb);
	if (err)
		fail("to decode", err);
	else if (msg->tid == 0)
		print_message("told", msg);
	else if (msg->tid == transaction)
		print_message("answer", msg);
	else
		print_message("stray", msg);
	mem_deref(msg);
	mem_deref(mb);
}

static void tcp_received(struct mbuf *mb, void *arg)
{
	size_t at = 0;
	(void)arg;

	stream->pos = stream->end;
	mbuf_write_mem(stream, mbuf_buf(mb), mbuf_get_left(mb));
	while (stream->end - at >= 12) {
		const uint8_t *bytes = stream->buf + at;
		size_t length = 12 + 4 * (size_t)(bytes[2] << 8 | bytes[3]);

		if (stream->end - at < length)
			break;
		tcp_message(bytes, length);
		at += length;
	}
	memmove(stream->buf, stream->buf + at, stream->end - at);
	stream->end -= at;
}

static void tcp_connected(void *arg)
{
	(void)arg;
	printf("connected\n");
}

static void tcp_closed(int err, void *arg)
{
	(void)arg;
	printf("closed %d\n", err);
	re_cancel();
}

static void udp_answered(int err, const struct bfcp_msg *msg, void *arg)
{
	(void)arg;
	if (err)
		fail("to be answered", err);
	else
		print_message("answer", msg);
}

static void udp_told(const struct bfcp_msg *msg, void *arg)
{
	(void)arg;
	print_message("told", msg);
	bfcp_reply(bfcp, msg,
		   msg->prim == BFCP_FLOOR_STATUS ? BFCP_FLOOR_STATUS_ACK
						  : BFCP_FLOOR_REQ_STATUS_ACK, 0);
}

static void ask(const char *line)
{
	unsigned version, prim, conference, user, type = 0, number = 0;
	int count = sscanf(line, "%u %u %u %u %u %u", &version, &prim, &conference, &user, &type, &number);
	unsigned attributes = count == 6 ? 1 : 0;
	uint16_t value = (uint16_t)number;
	struct mbuf *mb;
	int err;

	if (count < 4)
		return fail("to read the line", EINVAL);
	if (bfcp) {
		err = bfcp_request(bfcp, &server, version, prim, conference, user, udp_answered,
				   NULL, attributes, type, 0, &value);
		if (err)
			fail("to ask", err);
		return;
	}
	mb = mbuf_alloc(64);
	err = bfcp_msg_encode(mb, version, false, prim, conference, ++transaction, user,
			      attributes, type, 0, &value);
	mb->pos = 0;
	if (!err)
		err = tcp_send(tcp, mb);
	if (err)
		fail("to ask", err);
	mem_deref(mb);
}

static void take_line(const char *line)
{
	char address[64];
	unsigned port;

	if (bfcp && !sa_isset(&server, SA_ALL)) {
		if (sscanf(line, "%63s %u", address, &port) != 2 ||
		    sa_set_str(&server, address, (uint16_t)port))
			fail("to read the address", EINVAL);
		return;
	}
	ask(line);
}

static void input(int flags, void *arg)
{
	static char buffer[4096];
	static size_t filled;
	ssize_t count = read(STDIN_FILENO, buffer + filled, sizeof(buffer) - 1 - filled);
	char *end;
	(void)flags;
	(void)arg;

	if (count <= 0)
		return re_cancel();
	filled += (size_t)count;
	buffer[filled] = '\0';
	while ((end = strchr(buffer, '\n'))) {
		*end = '\0';
		take_line(buffer);
		filled -= (size_t)(end + 1 - buffer);
		memmove(buffer, end + 1, filled + 1);
	}
}

static int begin(int argc, char *argv[])
{
	struct sa local;
	int err;

	if (argc == 4 && 0 == strcmp(argv[1], "tcp")) {
		err = sa_set_str(&server, argv[2], (uint16_t)atoi(argv[3]));
		if (err)
			return err;
		return tcp_connect(&tcp, &server, tcp_connected, tcp_received, tcp_closed, NULL);
	}
	if (argc != 2 || 0 != strcmp(argv[1], "udp"))
		return EINVAL;
	sa_init(&server, AF_INET);
	err = sa_set_str(&local, "127.0.0.1", 0);
	if (err)
		return err;
	err = bfcp_listen(&bfcp, BFCP_UDP, &local, NULL, udp_told, NULL);
	if (err)
		return err;
	err = udp_local_get(bfcp_sock(bfcp), &local);
	if (!err)
		printf("local %u\n", sa_port(&local));
	return err;
}

int main(int argc, char *argv[])
{
	int err;

	setvbuf(stdout, NULL, _IOLBF, 0);
	err = libre_init();
	if (err)
		return 1;
	stream = mbuf_alloc(4096);
	err = begin(argc, argv);
	if (!err)
		err = fd_listen(STDIN_FILENO, FD_READ, input, NULL);
	if (err) {
		printf("failed to begin: %s\n", strerror(err));
		return 1;
	}
	err = re_main(NULL);
	fd_close(STDIN_FILENO);
	mem_deref(tcp);
	mem_deref(bfcp);
	mem_deref(stream);
	libre_close();
	return err ? 1 : 0;
}
