// SPDX-License-Identifier: GPL-3.0-or-later
// One object with several programs: two good ones with different tags, one that the verifier
// refuses, and one of another type. Only the one that is asked for may be loaded.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} verdicts SEC(".maps");

SEC("tc")
int first(struct __sk_buff *skb)
{
	return TC_ACT_UNSPEC;
}

SEC("tc")
int second(struct __sk_buff *skb)
{
	return TC_ACT_OK;
}

SEC("tc")
int unchecked(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u32 *verdict = bpf_map_lookup_elem(&verdicts, &key);

	return *verdict; // may be NULL
}

SEC("xdp")
int express(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
