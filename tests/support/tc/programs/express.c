// SPDX-License-Identifier: GPL-3.0-or-later
// A program that no TC hook takes.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int express(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
