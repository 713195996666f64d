// SPDX-License-Identifier: GPL-3.0-or-later
// One end of a stream of numbered UDP packets. Both ends keep their figures in a shared file, the
// board, so that they can be read at any moment, and the sender takes its orders from there.
//
//   udp send BOARD ADDRESS PORT | udp receive BOARD ADDRESS PORT
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

enum order { RUN, PAUSE, QUIT };

#define NUMBERS (1 << 26)
#define BURST 4

struct board {
	uint64_t order, ready, paused, sent, received, duplicates;
	uint8_t seen[NUMBERS / 8];
};

#define get(field) __atomic_load_n(&board->field, __ATOMIC_SEQ_CST)
#define set(field, value) __atomic_store_n(&board->field, value, __ATOMIC_SEQ_CST)

static void require(int good, const char *what)
{
	if (!good) {
		perror(what);
		exit(1);
	}
}

// 50 us, to which the kernel adds about as much again.
static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 50000 }, NULL);
}

static void send_all(int s, struct board *board)
{
	enum order order;

	while ((order = get(order)) != QUIT) {
		set(paused, order == PAUSE);
		for (int i = 0; order == RUN && i < BURST; i++) {
			uint64_t number = board->sent;

			require(number < NUMBERS, "too many packets");
			require(send(s, &number, sizeof number, 0) == sizeof number, "send");
			set(sent, number + 1);
		}
		nap();
	}
}

static void receive_all(int s, struct board *board)
{
	uint64_t number;

	while (get(order) != QUIT) {
		if (recv(s, &number, sizeof number, 0) != sizeof number) {
			require(errno == EAGAIN, "recv");
			continue;
		}
		uint8_t *byte = &board->seen[number / 8], bit = 1 << number % 8;

		set(duplicates, board->duplicates + !!(*byte & bit));
		*byte |= bit;
		set(received, board->received + 1);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in where = { .sin_family = AF_INET };
	struct timeval patience = { .tv_usec = 20000 };
	int s = socket(AF_INET, SOCK_DGRAM, 0), enough = 64 << 20;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (argc != 5 || !inet_pton(AF_INET, argv[3], &where.sin_addr))
		return 2;
	where.sin_port = htons(atoi(argv[4]));
	int file = open(argv[2], O_RDWR);
	struct board *board =
		mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	require(file >= 0 && board != MAP_FAILED, argv[2]);
	if (!strcmp(argv[1], "send")) {
		require(!connect(s, (struct sockaddr *)&where, sizeof where), "connect");
		set(ready, 1);
		send_all(s, board);
		return 0;
	}
	require(!setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &enough, sizeof enough), "SO_RCVBUF");
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	require(!bind(s, (struct sockaddr *)&where, sizeof where), "bind");
	set(ready, 1);
	receive_all(s, board);
	return 0;
}
