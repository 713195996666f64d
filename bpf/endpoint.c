// SPDX-License-Identifier: GPL-3.0-or-later
// What stands at a lab endpoint's hook in place of Calico's preamble: it counts the packets that it
// meets and gives each the same verdict.
//
//   clang -O2 -g -target bpf -DVERDICT=TC_ACT_SHOT -DNAME=cali_tc_preamble -c endpoint.c
//
// VERDICT: TC_ACT_OK (default), TC_ACT_SHOT, TC_ACT_UNSPEC, ... NAME: the program's name, of which the
// kernel keeps 15 characters. SALT: gives otherwise equal programs another tag.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#ifndef VERDICT
#define VERDICT TC_ACT_OK
#endif
#ifndef NAME
#define NAME cali_tc_preamble
#endif
#ifndef SALT
#define SALT 0
#endif

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} packets SEC(".maps");

SEC("tc")
int NAME(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 *count = bpf_map_lookup_elem(&packets, &key);

	if (count)
		*count += 1;
	skb->tc_classid = SALT;
	return VERDICT;
}

char _license[] SEC("license") = "GPL";
