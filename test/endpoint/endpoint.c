/*
 * endpoint.c
 *		An HTTP endpoint that behaves, or misbehaves, as its callers ask.
 *
 * Tests of a delivery system need a receiver that fails in known ways and
 * remembers exactly what it got; benches need one that costs less than the
 * sender. This is both: one process, one thread, epoll. See README.md here
 * for the paths. This file is the command line and the loop.
 */
#define _GNU_SOURCE
#include "endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stats.h"

#define MAX_EVENTS			512
#define LEDGER_FLUSH_US		100000

Settings settings = {.bind = "127.0.0.1"};

static volatile sig_atomic_t want_flush;

static void
on_signal(int sig)
{
	if (sig == SIGUSR1)
		want_flush = 1;
	else
		settings.quit = true;
}

static void
fail(const char *what)
{
	fprintf(stderr, "endpoint: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void
usage(int code)
{
	fputs("usage: endpoint [--port N] [--port-file FILE] [--bind ADDRESS] [--ledger FILE] [--count-only]\n"
		  "                [--delay-ms N] [--fail-percent P] [--seed N]\n"
		  "                [--tls CERT KEY [--clients-of CERT]]\n",
		  code ? stderr : stdout);
	exit(code);
}

static void
parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{"port", required_argument, NULL, 'p'},
		{"port-file", required_argument, NULL, 'P'},
		{"bind", required_argument, NULL, 'b'},
		{"ledger", required_argument, NULL, 'l'},
		{"count-only", no_argument, NULL, 'c'},
		{"delay-ms", required_argument, NULL, 'd'},
		{"fail-percent", required_argument, NULL, 'f'},
		{"seed", required_argument, NULL, 's'},
		{"tls", required_argument, NULL, 't'},
		{"clients-of", required_argument, NULL, 'C'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}
	};
	int			opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
	{
		switch (opt)
		{
			case 'p':
				settings.port = atoi(optarg);
				break;
			case 'P':
				settings.port_file = optarg;
				break;
			case 'b':
				settings.bind = optarg;
				break;
			case 'l':
				settings.ledger = optarg;
				break;
			case 'c':
				settings.count_only = true;
				break;
			case 'd':
				settings.delay_us = atoll(optarg) * 1000;
				break;
			case 'f':
				settings.fail_percent = atof(optarg);
				break;
			case 's':
				settings.random = strtoull(optarg, NULL, 10);
				break;
			case 't':
				settings.tls_cert = optarg;
				settings.tls_key = optind < argc ? argv[optind++] : NULL;
				break;
			case 'C':
				settings.tls_clients = optarg;
				break;
			default:
				usage(opt == 'h' ? 0 : 2);
		}
	}
	if (optind < argc || (settings.tls_cert && !settings.tls_key))
		usage(2);
}

/* Returns the listening socket; settings.port becomes the real port. */
static int
listen_on(void)
{
	bool		v6 = strchr(settings.bind, ':') != NULL;
	struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(settings.port)};
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(settings.port)};
	struct sockaddr *addr = v6 ? (struct sockaddr *) &a6 : (struct sockaddr *) &a4;
	socklen_t	len = v6 ? sizeof(a6) : sizeof(a4);
	int			on = 1;
	int			fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	/* inherited by what is accepted: saves a system call a connection */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (inet_pton(addr->sa_family, settings.bind, v6 ? (void *) &a6.sin6_addr : (void *) &a4.sin_addr) != 1)
	{
		errno = EINVAL;
		fail(settings.bind);
	}
	if (bind(fd, addr, len) != 0)
		fail("bind");
	if (listen(fd, 8192) != 0)
		fail("listen");
	if (getsockname(fd, addr, &len) != 0)
		fail("getsockname");
	settings.port = ntohs(v6 ? a6.sin6_port : a4.sin_port);
	return fd;
}

/* Tell the port: on stdout, and in a file that is never seen half written. */
static void
announce(void)
{
	char		temp[4096];
	FILE	   *f;

	if (settings.port_file)
	{
		snprintf(temp, sizeof(temp), "%s.%d", settings.port_file, (int) getpid());
		f = fopen(temp, "w");
		if (f == NULL || fprintf(f, "%d\n", settings.port) < 0 || fclose(f) != 0 ||
			rename(temp, settings.port_file) != 0)
			fail(settings.port_file);
	}
	printf("listening %d\n", settings.port);
	fflush(stdout);
}

static void
accept_all(int listener)
{
	int			fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
		conn_open(fd);
	if (errno == EMFILE || errno == ENFILE)
		usleep(1000);			/* the client waits in the backlog meanwhile */
}

/* ms until the next timer or ledger flush, -1 = neither. */
static int
wait_ms(int64_t now, int64_t flush_at)
{
	int64_t		next = timer_next();

	if (ledger_dirty() && (next < 0 || flush_at < next))
		next = flush_at;
	if (next < 0)
		return -1;
	if (next <= now)
		return 0;
	return (int) ((next - now + 999) / 1000);
}

static void
run(int epoll_fd, int listener)
{
	struct epoll_event events[MAX_EVENTS];
	int64_t		flush_at = 0;

	while (!settings.quit)
	{
		int64_t		now = now_mono_us();
		int			n = epoll_wait(epoll_fd, events, MAX_EVENTS, wait_ms(now, flush_at));
		Conn	   *c;
		int			i;

		for (i = 0; i < n; i++)
		{
			if (events[i].data.ptr == NULL)
				accept_all(listener);
			else
				conn_event(events[i].data.ptr, events[i].events);
		}
		now = now_mono_us();
		while ((c = timer_pop_due(now)) != NULL)
			conn_timer(c);
		conn_reap();
		if (want_flush || now >= flush_at)
		{
			want_flush = 0;
			ledger_flush();
			flush_at = now + LEDGER_FLUSH_US;
		}
	}
}

int
main(int argc, char **argv)
{
	struct sigaction sa;
	struct rlimit files;
	struct epoll_event ev;
	int			epoll_fd;
	int			listener;

	parse_options(argc, argv);
	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = on_signal;
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0)
	{
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
#ifdef ENDPOINT_TLS
	if (settings.tls_cert && !tls_init(settings.tls_cert, settings.tls_key, settings.tls_clients))
		return 1;
#else
	if (settings.tls_cert)
	{
		fputs("endpoint: built without TLS\n", stderr);
		return 1;
	}
#endif
	ledger_open(settings.ledger);
	listener = listen_on();
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		fail("epoll_create1");
	conn_init(epoll_fd);
	ev.events = EPOLLIN;
	ev.data.ptr = NULL;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &ev) != 0)
		fail("epoll_ctl");
	announce();
	run(epoll_fd, listener);
	ledger_flush();
	return 0;
}
