// SPDX-License-Identifier: GPL-3.0-or-later
// The floor under every reader of filters: the system calls that list both hooks of each interface,
// with nothing done between them. The kernel has no dump of more than one hook.
//
//   floor < IFINDEXES
//
// Prints the nanoseconds that it took, and how many filters it met.
#include <linux/netlink.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

static char buffer[1 << 18];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

// Whether more follows; counts what has a handle, which a priority's head line has not.
static int counts(const struct nlmsghdr *message, int left, long *filters)
{
	for (; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
		const struct tcmsg *body = NLMSG_DATA(message);

		if (message->nlmsg_type == NLMSG_ERROR)
			die("RTM_GETTFILTER");
		if (message->nlmsg_type == NLMSG_DONE)
			return 0;
		*filters += body->tcm_handle != 0;
	}
	return 1;
}

static void list(int s, int ifindex, unsigned int parent, long *filters)
{
	struct {
		struct nlmsghdr header;
		struct tcmsg body;
	} request = {
		{ sizeof request, RTM_GETTFILTER, NLM_F_REQUEST | NLM_F_DUMP, 0, 0 },
		{ .tcm_ifindex = ifindex, .tcm_parent = parent },
	};
	ssize_t length;

	if (send(s, &request, sizeof request, 0) < 0)
		die("send");
	do {
		length = recv(s, buffer, sizeof buffer, 0);
		if (length < 0)
			die("recv");
	} while (counts((struct nlmsghdr *)buffer, length, filters));
}

int main(void)
{
	int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	static int ifindexes[1 << 16];
	struct timespec start, end;
	long count = 0, filters = 0;

	if (s < 0)
		die("socket");
	while (count < 1 << 16 && scanf("%d", &ifindexes[count]) == 1)
		count++;
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (int i = 0; i < count; i++) {
		list(s, ifindexes[i], TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS), &filters);
		list(s, ifindexes[i], TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS), &filters);
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%lld %ld\n",
	       (end.tv_sec - start.tv_sec) * 1000000000LL + end.tv_nsec - start.tv_nsec, filters);
	return 0;
}
