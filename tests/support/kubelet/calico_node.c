// SPDX-License-Identifier: GPL-3.0-or-later
// What the lab's image runs as calico-node: it is ready at once and waits for a signal. With
// IGNORE_TERM in its environment it ends by SIGKILL only, as a Felix that is stuck does.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
	sigset_t term;
	int received;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	close(open("/tmp/ready", O_CREAT | O_WRONLY, 0644));
	puts("calico-node started");
	fflush(stdout);
	if (getenv("IGNORE_TERM"))
		for (;;)
			pause();
	sigwait(&term, &received);
	puts("calico-node ends");
	return 0;
}
