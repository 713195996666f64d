// SPDX-License-Identifier: GPL-3.0-or-later
// For BCC, which brings its own headers.
int classify(struct __sk_buff *skb)
{
	return skb->len > 1500 ? 2 : 0;
}
