/*
 * wire.c
 *		A network that loses, delays, doubles and turns round packets, for a
 *		machine whose kernel cannot (netem) and a user who may not ask it to.
 *
 * usage: wire DEVICE PEER PORT
 *
 * The two are the ends of a veth pair in a network namespace of ours.  DEVICE has
 * an address and the route to another one, which nobody has.  What is sent there
 * comes out at PEER; this program swaps the two addresses and puts it back in, so
 * that who calls the one talks to who listens on the other, over a wire whose
 * every packet passes here.  Addresses can be swapped without another checksum.
 * Packets to PORT are requests, others answers.
 *
 * Commands are lines on standard input, at whose end the program ends:
 *		set LOSS-REQUESTS LOSS-ANSWERS DOUBLES DELAY JITTER
 * The first three in percent of packets, the others in ms; each packet takes DELAY
 * give or take up to JITTER, so that later ones may be faster.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define FRAME_MAX	2048
#define BLOCK_SIZE	131072
#define BLOCKS		256
#define FRAMES		(BLOCK_SIZE / FRAME_MAX * BLOCKS)
#define QUEUE_MAX	16384		/* packets under way; more are lost, as in a router */
#define IP_AT		14			/* in an Ethernet frame */

typedef struct Packet
{
	int64_t		due;			/* ms, of the monotonic clock */
	size_t		len;
	unsigned char bytes[FRAME_MAX];
} Packet;

static struct
{
	int			loss_requests;
	int			loss_answers;
	int			doubles;
	int			delay;
	int			jitter;
}			how;

/* Where the kernel puts packets: more than a busy machine lets us take at once. */
static unsigned char *ring;
static unsigned int next_frame;

static Packet *queue[QUEUE_MAX];
static int	queued;
static int	port;

static void
fail(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * (int64_t) 1000 + t.tv_nsec / 1000000;
}

/* The kernel would leave checksums and the cutting into packets to the device. */
static void
do_all_work_before(int fd, const char *device)
{
	static const unsigned int off[] = {ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO};
	size_t		i;

	for (i = 0; i < sizeof(off) / sizeof(off[0]); i++)
	{
		struct ethtool_value value = {.cmd = off[i],.data = 0};
		struct ifreq request = {.ifr_data = (char *) &value};

		snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", device);
		if (ioctl(fd, SIOCETHTOOL, &request) != 0 && off[i] == ETHTOOL_STXCSUM)
			fail("ethtool");
	}
}

static bool
is_request(const unsigned char *frame, size_t len)
{
	size_t		tcp = IP_AT + (frame[IP_AT] & 15) * 4u;

	return len >= tcp + 4 && (frame[tcp + 2] << 8 | frame[tcp + 3]) == port;
}

static bool
happens(int percent)
{
	return rand() % 100 < percent;
}

/* Puts a packet into the queue, which is in the order of the times. */
static void
put(const unsigned char *frame, size_t len)
{
	Packet	   *packet = queued < QUEUE_MAX ? malloc(sizeof(Packet)) : NULL;
	int			i;

	if (packet == NULL)
		return;
	packet->due = now_ms() + how.delay + (how.jitter > 0 ? rand() % (2 * how.jitter + 1) - how.jitter : 0);
	packet->len = len;
	memcpy(packet->bytes, frame, len);
	memcpy(packet->bytes + IP_AT + 12, frame + IP_AT + 16, 4);
	memcpy(packet->bytes + IP_AT + 16, frame + IP_AT + 12, 4);
	for (i = queued++; i > 0 && queue[i - 1]->due > packet->due; i--)
		queue[i] = queue[i - 1];
	queue[i] = packet;
}

static void
take(const unsigned char *frame, size_t len)
{
	if (len < IP_AT + 20 || len > FRAME_MAX || frame[IP_AT] >> 4 != 4)
		return;
	if (happens(is_request(frame, len) ? how.loss_requests : how.loss_answers))
		return;
	put(frame, len);
	if (happens(how.doubles))
		put(frame, len);
}

static void
make_ring(int fd)
{
	struct tpacket_req size = {.tp_block_size = BLOCK_SIZE,.tp_block_nr = BLOCKS,.tp_frame_size = FRAME_MAX,.tp_frame_nr = FRAMES};

	if (setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &size, sizeof(size)) != 0)
		fail("ring");
	ring = mmap(NULL, (size_t) BLOCK_SIZE * BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ring == MAP_FAILED)
		fail("mmap");
}

/* All that the kernel has put there; our own packets are there as well. */
static void
take_in(void)
{
	for (;;)
	{
		struct tpacket_hdr *head = (struct tpacket_hdr *) (ring + (size_t) next_frame * FRAME_MAX);
		struct sockaddr_ll *from = (struct sockaddr_ll *) ((unsigned char *) head + TPACKET_ALIGN(sizeof(*head)));

		if ((__atomic_load_n(&head->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER) == 0)
			return;
		if (from->sll_pkttype != PACKET_OUTGOING)
			take((unsigned char *) head + head->tp_mac, head->tp_snaplen);
		__atomic_store_n(&head->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
		next_frame = (next_frame + 1) % FRAMES;
	}
}

/* Lets through what is due; returns how long to wait for the next, in ms. */
static int
let_out(int fd)
{
	int64_t		now = now_ms();
	int			n = 0;

	for (; n < queued && queue[n]->due <= now; n++)
	{
		/* what is refused is lost, as on any wire: the device may be down */
		(void) send(fd, queue[n]->bytes, queue[n]->len, 0);
		free(queue[n]);
	}
	queued -= n;
	memmove(queue, queue + n, (size_t) queued * sizeof(Packet *));
	return queued > 0 ? (int) (queue[0]->due - now) : -1;
}

static void
obey(void)
{
	char		lines[4096];
	ssize_t		len = read(STDIN_FILENO, lines, sizeof(lines) - 1);

	if (len <= 0)
		exit(0);
	lines[len] = '\0';
	/* several may have come while we were busy; the last one holds */
	for (const char *line = strtok(lines, "\n"); line != NULL; line = strtok(NULL, "\n"))
	{
		if (sscanf(line, "set %d %d %d %d %d", &how.loss_requests, &how.loss_answers, &how.doubles, &how.delay, &how.jitter) != 5)
		{
			fprintf(stderr, "wire: what is \"%s\"?\n", line);
			exit(1);
		}
	}
}

int
main(int argc, char **argv)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET,.sll_protocol = htons(ETH_P_IP)};
	int			fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_IP));
	struct pollfd fds[2] = {{.fd = fd,.events = POLLIN}, {.fd = STDIN_FILENO,.events = POLLIN}};

	if (argc != 4 || fd < 0)
		fail("wire");
	do_all_work_before(fd, argv[1]);
	at.sll_ifindex = (int) if_nametoindex(argv[2]);
	if (at.sll_ifindex == 0 || bind(fd, (struct sockaddr *) &at, sizeof(at)) != 0)
		fail(argv[2]);
	make_ring(fd);
	port = atoi(argv[3]);
	printf("ready\n");
	fflush(stdout);
	while (poll(fds, 2, let_out(fd)) >= 0)
	{
		if (fds[0].revents & POLLIN)
			take_in();
		if (fds[1].revents != 0)
			obey();
	}
	fail("poll");
}
