// SPDX-License-Identifier: GPL-3.0-or-later
// Closes a hook that has lost its program: drops every packet until Felix re-attaches. It bears the
// preamble's name, so Felix takes it for its own and replaces it.
//
//   clang -O2 -g -target bpf -c drop_all.c
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

SEC("tc")
int cali_tc_preamble(struct __sk_buff *skb)
{
	return TC_ACT_SHOT;
}

char _license[] SEC("license") = "GPL";
