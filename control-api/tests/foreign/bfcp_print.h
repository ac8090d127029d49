/* What is in a BFCP message, as libre has read it, in a line. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <re/re.h>

static void print_attributes(const struct list *list);

static bool is_group(const struct bfcp_attr *attr)
{
	return attr->type >= BFCP_BENEFICIARY_INFO;
}

static void print_attribute(const struct bfcp_attr *attr)
{
	size_t i;

	printf(" %d=", (int)attr->type);
	switch (attr->type) {

	case BFCP_BENEFICIARY_ID:
	case BFCP_FLOOR_ID:
	case BFCP_FLOOR_REQUEST_ID:
		printf("%u", attr->v.u16);
		break;
	case BFCP_PRIORITY:
		printf("%u", (unsigned)attr->v.priority);
		break;
	case BFCP_REQUEST_STATUS:
		printf("%u/%u", (unsigned)attr->v.reqstatus.status,
		       attr->v.reqstatus.qpos);
		break;
	case BFCP_ERROR_CODE:
		printf("%u", (unsigned)attr->v.errcode.code);
		for (i = 0; i < attr->v.errcode.len; i++)
			printf("/%u", attr->v.errcode.details[i]);
		break;
	case BFCP_SUPPORTED_ATTRS:
		for (i = 0; i < attr->v.supattr.attrc; i++)
			printf("/%u", (unsigned)attr->v.supattr.attrv[i]);
		break;
	case BFCP_SUPPORTED_PRIMS:
		for (i = 0; i < attr->v.supprim.primc; i++)
			printf("/%u", (unsigned)attr->v.supprim.primv[i]);
		break;
	default:
		if (is_group(attr)) {
			printf("%u(", attr->v.u16);
			print_attributes(&attr->attrl);
			printf(")");
		}
		else {
			printf("%s", attr->v.str);
		}
		break;
	}
}

static void print_attributes(const struct list *list)
{
	struct le *le;

	for (le = list->head; le; le = le->next)
		print_attribute(le->data);
}
