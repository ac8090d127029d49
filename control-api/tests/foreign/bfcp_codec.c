/* Reads and writes BFCP with libre (https://github.com/baresip/re): `decode` takes a message in hex from each
 * line and says what is in it, `encode` writes one of each kind. Of a line that cannot be
 * read it says so. */
#include "bfcp_print.h"

static void decode(const char *line)
{
	struct mbuf *mb = mbuf_alloc(4096);
	struct bfcp_msg *msg = NULL;
	unsigned byte;
	int err;

	for (; sscanf(line, "%2x", &byte) == 1; line += 2)
		mbuf_write_u8(mb, (uint8_t)byte);
	mb->pos = 0;

	err = bfcp_msg_decode(&msg, mb);
	if (err) {
		printf("error %d\n", err);
	}
	else {
		printf("%u %u %u %u %u %u:", msg->ver, (unsigned)msg->r,
		       (unsigned)msg->prim, msg->confid, msg->tid,
		       msg->userid);
		print_attributes(&msg->attrl);
		printf(" left %zu\n", mbuf_get_left(mb));
	}
	mem_deref(msg);
	mem_deref(mb);
}

static void print_encoded(struct mbuf *mb, int err)
{
	size_t i;

	if (err)
		printf("error %d", err);
	for (i = 0; i < mb->end; i++)
		printf("%02x", mb->buf[i]);
	printf("\n");
	mbuf_reset(mb);
}

static void encode(uint8_t version)
{
	struct mbuf *mb = mbuf_alloc(4096);
	uint16_t user = 1234, other = 99, floor = 543, second = 544;
	uint16_t request = 789;
	enum bfcp_priority priority = BFCP_PRIO_HIGH;
	struct bfcp_reqstatus status = { BFCP_ACCEPTED, 3 };
	uint8_t details[] = { 40 << 1, 41 << 1 };
	struct bfcp_errcode error = { BFCP_UNKNOWN_MAND_ATTR, details, 2 };
	enum bfcp_attrib types[] = { BFCP_FLOOR_ID, BFCP_PRIORITY };
	struct bfcp_supattr attributes = { types, 2 };
	enum bfcp_prim codes[] = { BFCP_HELLO, BFCP_ERROR, BFCP_GOODBYE };
	struct bfcp_supprim primitives = { codes, 3 };
	bool r = version == BFCP_VER2;
	int prim;

	for (prim = BFCP_FLOOR_REQUEST; prim <= BFCP_GOODBYE_ACK; prim++) {
		int err = bfcp_msg_encode(mb, version, r, prim, 4321, 7, user,
			12,
			BFCP_FLOOR_ID, 0, &floor,
			BFCP_FLOOR_ID | BFCP_MANDATORY, 0, &second,
			BFCP_BENEFICIARY_ID, 0, &other,
			BFCP_FLOOR_REQUEST_ID, 0, &request,
			BFCP_PRIORITY, 0, &priority,
			BFCP_PART_PROV_INFO, 0, "a reason",
			BFCP_ERROR_CODE, 0, &error,
			BFCP_ERROR_INFO, 0, "in words",
			BFCP_SUPPORTED_PRIMS, 0, &primitives,
			BFCP_SUPPORTED_ATTRS, 0, &attributes,
			BFCP_BENEFICIARY_INFO, 2, &other,
				BFCP_USER_DISP_NAME, 0, "Bob",
				BFCP_USER_URI, 0, "sip:bob@example.com",
			BFCP_FLOOR_REQ_INFO, 3, &request,
				BFCP_OVERALL_REQ_STATUS, 2, &request,
					BFCP_REQUEST_STATUS, 0, &status,
					BFCP_STATUS_INFO, 0, "soon",
				BFCP_FLOOR_REQ_STATUS, 1, &floor,
					BFCP_REQUEST_STATUS, 0, &status,
				BFCP_REQUESTED_BY_INFO, 1, &user,
					BFCP_USER_DISP_NAME, 0, "Al");

		print_encoded(mb, err);
	}
	mem_deref(mb);
}

int main(int argc, char *argv[])
{
	char line[8192];

	if (argc == 2 && 0 == strcmp(argv[1], "encode")) {
		encode(BFCP_VER1);
		encode(BFCP_VER2);
		return 0;
	}
	while (fgets(line, sizeof(line), stdin))
		decode(line);
	return 0;
}
