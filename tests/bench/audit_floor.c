// SPDX-License-Identifier: GPL-3.0-or-later
// The floor under the audit: its system calls in its order, with nothing done between them but what
// the next call needs. The links are dumped and matched by name, the qdiscs dumped; then, of each
// interface's hooks, the TCX programs are queried and the filters dumped.
//
//   audit_floor PREFIX [arrays]
//
// "arrays" looks into the programs' program arrays too, as the module does. Prints the nanoseconds
// that it took, and how many filters it met. tests/bench/calls.py compares the calls with strace.
// What only repairs or sick endpoints need is not here: nothing has pins, and no two programs share
// a map.
#include <dirent.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MOST (1 << 16)
#define MOST_IDS 64
// Newer than some headers that this is compiled with.
#define TCX_INGRESS 46
#define TCX_EGRESS 47

struct reply {
	void (*take)(const struct nlmsghdr *message);
	unsigned short type;
};

static char buffer[1 << 18];
static int s, wanted[MOST];
static unsigned int sequence, filters, links, program, qdiscs;
static const char *prefix;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static const struct rtattr *attribute(const struct rtattr *a, int left, unsigned short type)
{
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left))
		if ((a->rta_type & NLA_TYPE_MASK) == type)
			return a;
	return NULL;
}

// --- netlink -----------------------------------------------------------------

static void open_socket(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK };
	socklen_t length = sizeof address;
	int on = 1, room = 8 << 20;

	s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (s < 0 || bind(s, (struct sockaddr *)&address, length) < 0 ||
	    setsockopt(s, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on) < 0 ||
	    setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) < 0 ||
	    getsockname(s, (struct sockaddr *)&address, &length) < 0)
		die("socket");
}

static void dump(struct nlmsghdr *request, struct reply reply)
{
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	request->nlmsg_seq = ++sequence;
	if (send(s, request, request->nlmsg_len, 0) < 0)
		die("send");
	for (;;) {
		const struct nlmsghdr *message = (struct nlmsghdr *)buffer;
		int left = recv(s, buffer, sizeof buffer, 0);

		if (left < 0)
			die("recv");
		for (; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
			if (message->nlmsg_type == NLMSG_ERROR)
				die("dump");
			if (message->nlmsg_type == NLMSG_DONE)
				return;
			if (message->nlmsg_type == reply.type)
				reply.take(message);
		}
	}
}

static void take_link(const struct nlmsghdr *message)
{
	const struct ifinfomsg *body = NLMSG_DATA(message);
	const struct rtattr *name = attribute(IFLA_RTA(body), IFLA_PAYLOAD(message), IFLA_IFNAME);

	if (name && links < MOST && !strncmp(RTA_DATA(name), prefix, strlen(prefix)))
		wanted[links++] = body->ifi_index;
}

static void take_qdisc(const struct nlmsghdr *message)
{
	const struct tcmsg *body = NLMSG_DATA(message);

	qdiscs += body->tcm_parent == TC_H_CLSACT;
}

static void take_filter(const struct nlmsghdr *message)
{
	const struct tcmsg *body = NLMSG_DATA(message);
	const struct rtattr *options = attribute(TCA_RTA(body), TCA_PAYLOAD(message), TCA_OPTIONS);
	const struct rtattr *id;

	if (!body->tcm_handle)
		return;
	filters++;
	if (options && (id = attribute(RTA_DATA(options), RTA_PAYLOAD(options), TCA_BPF_ID)))
		program = *(unsigned int *)RTA_DATA(id);
}

static void list_links(void)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg body;
		struct rtattr attribute;
		unsigned int mask;
	} request = {
		.header = { .nlmsg_len = sizeof request, .nlmsg_type = RTM_GETLINK },
		.attribute = { 8, IFLA_EXT_MASK },
		.mask = RTEXT_FILTER_SKIP_STATS,
	};

	dump(&request.header, (struct reply){ take_link, RTM_NEWLINK });
}

static void list_tc(int type, struct tcmsg body, struct reply reply)
{
	struct {
		struct nlmsghdr header;
		struct tcmsg body;
	} request = { { .nlmsg_len = sizeof request, .nlmsg_type = type }, body };

	dump(&request.header, reply);
}

// --- bpf(2) ------------------------------------------------------------------

static long bpf(int command, union bpf_attr *attr, unsigned int size)
{
	return syscall(__NR_bpf, command, attr, size);
}

static void query_tcx(int ifindex, int hook)
{
	static unsigned int ids[MOST_IDS], link_ids[MOST_IDS];
	union bpf_attr attr = { .query = {
		.target_fd = ifindex,
		.attach_type = hook,
		.prog_ids = (unsigned long)ids,
		.prog_cnt = MOST_IDS,
	} };

	// link_ids, by its place: it is newer than some headers.
	((unsigned long long *)&attr)[5] = (unsigned long)link_ids;
	if (bpf(BPF_PROG_QUERY, &attr, 64) < 0)
		die("BPF_PROG_QUERY");
}

static int open_by_id(int command, unsigned int id)
{
	union bpf_attr attr = { .prog_id = id };
	int fd = bpf(command, &attr, 12);

	if (fd < 0)
		die("open by id");
	return fd;
}

static void read_info(int fd, void *info)
{
	union bpf_attr attr = { .info = { fd, 256, (unsigned long)info } };

	if (bpf(BPF_OBJ_GET_INFO_BY_FD, &attr, 16) < 0)
		die("BPF_OBJ_GET_INFO_BY_FD");
}

static void look_into_map(unsigned int id)
{
	union {
		struct bpf_map_info map;
		char room[256];
	} info = { 0 };
	unsigned int key = 0, value;
	int fd = open_by_id(BPF_MAP_GET_FD_BY_ID, id);
	union bpf_attr attr = {
		.map_fd = fd, .key = (unsigned long)&key, .value = (unsigned long)&value,
	};

	read_info(fd, &info);
	if (info.map.type == BPF_MAP_TYPE_PROG_ARRAY)
		while (key < info.map.max_entries && bpf(BPF_MAP_LOOKUP_ELEM, &attr, 32) < 0)
			key++;
	close(fd);
}

static void look_into_program(unsigned int id)
{
	static unsigned int maps[MOST_IDS];
	union {
		struct bpf_prog_info program;
		char room[256];
	} info = { .program = { .nr_map_ids = MOST_IDS, .map_ids = (unsigned long)maps } };
	int fd = open_by_id(BPF_PROG_GET_FD_BY_ID, id);

	read_info(fd, &info);
	close(fd);
	for (unsigned int i = 0; i < info.program.nr_map_ids && i < MOST_IDS; i++)
		look_into_map(maps[i]);
}

// --- the audit ---------------------------------------------------------------

static unsigned int read_hook(int ifindex, int tcx, unsigned int minor)
{
	struct tcmsg body = { .tcm_ifindex = ifindex, .tcm_parent = TC_H_MAKE(TC_H_CLSACT, minor) };

	program = 0;
	query_tcx(ifindex, tcx);
	list_tc(RTM_GETTFILTER, body, (struct reply){ take_filter, RTM_NEWTFILTER });
	return program;
}

static void audit(int look_into_programs)
{
	DIR *pins;

	open_socket();
	list_links();
	list_tc(RTM_GETQDISC, (struct tcmsg){ 0 }, (struct reply){ take_qdisc, RTM_NEWQDISC });
	pins = opendir("/sys/fs/bpf/tcx");
	if (pins)
		closedir(pins);
	for (unsigned int i = 0; i < links; i++) {
		unsigned int ingress = read_hook(wanted[i], TCX_INGRESS, TC_H_MIN_INGRESS);
		unsigned int egress = read_hook(wanted[i], TCX_EGRESS, TC_H_MIN_EGRESS);

		if (look_into_programs) {
			look_into_program(ingress);
			look_into_program(egress);
		}
	}
	close(s);
}

int main(int argc, char **argv)
{
	struct timespec start, end;

	if (argc < 2)
		return 2;
	prefix = argv[1];
	clock_gettime(CLOCK_MONOTONIC, &start);
	audit(argc > 2 && !strcmp(argv[2], "arrays"));
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%lld %u\n",
	       (end.tv_sec - start.tv_sec) * 1000000000LL + end.tv_nsec - start.tv_nsec, filters);
	return 0;
}
