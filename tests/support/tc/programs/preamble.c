// SPDX-License-Identifier: GPL-3.0-or-later
// Jumps as Calico's preamble does: to the main program whose index Felix writes into its constants,
// which have the layout of Calico 3.28 to 3.30 (felix/bpf-gpl/globals.h). Without that program it
// drops the packet (felix/bpf-gpl/tc_preamble.c).
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define NONE 0xffffffff

struct constants {
	__u8 unused[76];
	__u8 iface_name[16];
	__u32 log_filter_jmp;
	__u32 jumps[40];
};

const volatile struct {
	struct constants v4, v6;
} __globals;

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 400);
	__type(key, __u32);
	__type(value, __u32);
} cali_progs3 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 240000);
	__type(key, __u32);
	__type(value, __u32);
} cali_jump3 SEC(".maps");

SEC("tc")
int cali_tc_preamble(struct __sk_buff *skb)
{
	__u32 main = __globals.v4.jumps[0];

	if (skb->protocol == bpf_htons(ETH_P_IPV6) && __globals.v6.jumps[0] != NONE)
		main = __globals.v6.jumps[0];
	if (__globals.v4.log_filter_jmp != NONE)
		bpf_tail_call(skb, &cali_jump3, __globals.v4.log_filter_jmp);
	bpf_tail_call(skb, &cali_progs3, main);
	return TC_ACT_SHOT;
}

char _license[] SEC("license") = "GPL";
