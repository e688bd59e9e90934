/*
 * curl_limit.c
 *		The bare limit: how many requests a second one process makes with
 *		curl multi when it does nothing else.
 *
 * A delivery system on libcurl cannot be faster than this, so its figures are
 * given against it, measured in the same run on the same machine. The request
 * looks like the extension's: a JSON body of 200 bytes, unless told, and the headers that
 * it sends. Two loops: curl_multi_poll, and curl's sockets in a private epoll
 * set, there also spread over several multi handles (curl walks all connections
 * of a multi handle at every request). Requests a second are counted after
 * --warm-up of them: new connections with larger bodies wait for the kernel's
 * receive windows to grow, up to a second, and a dispatcher keeps its
 * connections. Prints key=value lines.
 *
 * Build: gcc -O2 -o curl_limit curl_limit.c -lcurl
 */
#define _GNU_SOURCE
#include <curl/curl.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MAX_EVENTS	1024
#define KEY_LEN		36
#define MIN_BYTES	150			/* the body's own fields */
#define USAGE \
	"usage: curl_limit [--requests N] [--in-flight C] [--loop=poll|epoll] [--multis M]\n" \
	"                  [--bytes B] [--ca FILE] [--warm-up N] URL"

/* A transfer slot: its handle and what curl does not copy. */
typedef struct Slot
{
	CURL	   *easy;
	struct curl_slist *headers;
	char	   *key_line;		/* inside headers: rewritten in place */
	char	   *id_line;
	char	   *body;
	struct Loop *loop;
	struct Slot *next;
} Slot;

/* A multi handle with its share of the slots. */
typedef struct Loop
{
	CURLM	   *multi;
	Slot	   *idle;
	int64_t		timer_due;		/* monotonic us, 0 = at once, -1 = none */
	int			running;
} Loop;

static struct
{
	const char *url;
	long		requests;
	int			in_flight;
	int			multis;
	bool		use_epoll;
	int			bytes;
	const char *ca;
	long		warm_up;
} opt = {NULL, 100000, 256, 1, true, 200, NULL, 0};

static Loop *loops;
static Slot *slots;
static unsigned run_id;
static long started;
static long done;
static int64_t begin;			/* of what is counted, monotonic us */
static long failed;
static long wakes;
static long events_seen;
static size_t answer_bytes;
static char ignored_error[CURL_ERROR_SIZE];

/* the epoll loop's */
static int	epoll_fd = -1;
static unsigned char watched[65536];	/* by descriptor: events in the set */
static bool wanted[65536];		/* by descriptor: curl waits for it now */

static int64_t
mono_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static int64_t
wall_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static int64_t
cpu_us(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return (int64_t) (ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000000 +
		ru.ru_utime.tv_usec + ru.ru_stime.tv_usec;
}

static void
die(const char *what)
{
	fprintf(stderr, "curl_limit: %s\n", what);
	exit(1);
}

static size_t
on_body(char *data, size_t size, size_t n, void *arg)
{
	answer_bytes += size * n;
	return size * n;
}

/* Closing takes a descriptor out of the set. */
static int
on_close(void *arg, curl_socket_t fd)
{
	if (fd >= 0 && (size_t) fd < sizeof(watched))
		watched[fd] = 0;
	return close(fd);
}

static struct curl_slist *
add_header(struct curl_slist *list, const char *line)
{
	list = curl_slist_append(list, line);
	if (list == NULL)
		die("out of memory");
	return list;
}

static void
make_slot(Slot *s, Loop *loop)
{
	CURL	   *e = curl_easy_init();
	struct curl_slist *last;

	if (e == NULL)
		die("curl_easy_init failed");
	s->easy = e;
	s->body = malloc(opt.bytes + 1);
	if (s->body == NULL)
		die("out of memory");
	memset(s->body, 'x', opt.bytes);
	s->headers = add_header(NULL, "Content-Type: application/json");
	s->headers = add_header(s->headers, "User-Agent: pg-retry/1.0");
	s->headers = add_header(s->headers, "Retry-Attempt: 1");
	s->headers = add_header(s->headers, "webhook-timestamp: 1700000000");
	s->headers = add_header(s->headers, "Expect:");
	s->headers = add_header(s->headers, "Accept: */*");
	s->headers = add_header(s->headers, "Idempotency-Key: \"00000000-0000-7000-8000-000000000000\"");
	for (last = s->headers; last->next; last = last->next)
		;
	s->key_line = last->data;
	s->headers = add_header(s->headers, "webhook-id: 00000000-0000-7000-8000-000000000000");
	s->id_line = last->next->data;
	curl_easy_setopt(e, CURLOPT_URL, opt.url);
	curl_easy_setopt(e, CURLOPT_PRIVATE, s);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(e, CURLOPT_PROXY, "");
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, 15000L);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, 5000L);
	curl_easy_setopt(e, CURLOPT_MAXLIFETIME_CONN, 300L);
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_CLOSESOCKETFUNCTION, on_close);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, ignored_error);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, s->headers);
	curl_easy_setopt(e, CURLOPT_POST, 1L);
	curl_easy_setopt(e, CURLOPT_POSTFIELDS, s->body);
	curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE, (long) opt.bytes);
	if (opt.ca)
		curl_easy_setopt(e, CURLOPT_CAINFO, opt.ca);
	s->loop = loop;
	s->next = loop->idle;
	loop->idle = s;
}

/* A fresh key, a fresh body that carries its time, and off. */
static void
start_one(Loop *loop)
{
	Slot	   *s = loop->idle;
	char		id[KEY_LEN + 1];
	int			n;

	loop->idle = s->next;
	snprintf(id, sizeof(id), "%08x-0000-7000-8000-%012lx", run_id, started);
	memcpy(s->key_line + strlen("Idempotency-Key: \""), id, KEY_LEN);
	memcpy(s->id_line + strlen("webhook-id: "), id, KEY_LEN);
	n = snprintf(s->body, opt.bytes, "{\"t\":%lld,\"id\":\"%s\",\"pad\":\"", (long long) wall_us(), id);
	s->body[n] = 'x';
	memcpy(s->body + opt.bytes - 2, "\"}", 3);
	started++;
	if (curl_multi_add_handle(loop->multi, s->easy) != CURLM_OK)
		die("curl_multi_add_handle failed");
}

static void
fill(Loop *loop)
{
	while (loop->idle && started < opt.requests)
		start_one(loop);
}

/* Take what has finished; its handle goes back to the idle ones. */
static void
reap(Loop *loop)
{
	CURLMsg    *msg;
	int			left;

	while ((msg = curl_multi_info_read(loop->multi, &left)) != NULL)
	{
		CURL	   *easy = msg->easy_handle;
		CURLcode	result = msg->data.result;
		char	   *private;
		long		status = 0;

		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		if (result != CURLE_OK || status < 200 || status > 299)
		{
			if (failed++ == 0)
				fprintf(stderr, "curl_limit: first failure: %s, status %ld %s\n",
						curl_easy_strerror(result), status, ignored_error);
		}
		curl_multi_remove_handle(loop->multi, easy);
		((Slot *) private)->next = loop->idle;
		loop->idle = (Slot *) private;
		if (++done == opt.warm_up)
			begin = mono_us();
	}
}

/* One multi handle; waits only when nothing new could be started. */
static void
loop_poll(Loop *loop)
{
	while (done < opt.requests)
	{
		long		before = started;

		fill(loop);
		curl_multi_perform(loop->multi, &loop->running);
		reap(loop);
		if (started > before || loop->running == 0)
			continue;
		wakes++;
		curl_multi_poll(loop->multi, NULL, 0, 1000, NULL);
	}
}

/*
 * curl forgets a socket after each answer and asks for it again with the next
 * request. The set keeps it meanwhile: that saves two system calls a request.
 * Our own close callback tells when a descriptor is really gone, and one that
 * becomes ready while curl does not want it (the peer closed it) is taken out.
 */
static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct epoll_event ev;

	if (fd < 0 || (size_t) fd >= sizeof(watched))
		die("too many descriptors");
	wanted[fd] = what != CURL_POLL_REMOVE;
	if (what == CURL_POLL_REMOVE)
		return 0;
	ev.events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	ev.data.u64 = (uint64_t) ((Loop *) arg - loops) << 32 | (uint32_t) fd;
	if (watched[fd] == ev.events)
		return 0;
	if (epoll_ctl(epoll_fd, watched[fd] ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev) != 0)
		die(strerror(errno));
	watched[fd] = ev.events;
	return 0;
}

static int
on_timer(CURLM *m, long timeout_ms, void *arg)
{
	Loop	   *loop = arg;

	loop->timer_due = timeout_ms < 0 ? -1 : timeout_ms == 0 ? 0 : mono_us() + timeout_ms * 1000;
	return 0;
}

/* Milliseconds until this multi's timer, a second at most. */
static int
until_timer(Loop *loop)
{
	int64_t		left;

	if (loop->timer_due < 0)
		return 1000;
	left = loop->timer_due == 0 ? 0 : loop->timer_due - mono_us();
	return left <= 0 ? 0 : left < 1000000 ? (int) ((left + 999) / 1000) : 1000;
}

/*
 * Start what can be started; returns how many ms may be waited.  The timer's
 * action may set the timer again: that counts too.
 */
static int
start_and_expire(Loop *loop)
{
	fill(loop);
	if (until_timer(loop) > 0)
		return until_timer(loop);
	loop->timer_due = -1;
	curl_multi_socket_action(loop->multi, CURL_SOCKET_TIMEOUT, 0, &loop->running);
	reap(loop);
	return loop->idle && started < opt.requests ? 0 : until_timer(loop);
}

static void
loop_epoll(void)
{
	struct epoll_event events[MAX_EVENTS];
	int			i;

	while (done < opt.requests)
	{
		int			wait = 1000;
		int			n;

		for (i = 0; i < opt.multis; i++)
		{
			int			ms = start_and_expire(&loops[i]);

			if (ms < wait)
				wait = ms;
		}
		if (done >= opt.requests)
			break;				/* nothing would wake us */
		n = epoll_wait(epoll_fd, events, MAX_EVENTS, wait);
		wakes++;
		events_seen += n > 0 ? n : 0;
		for (i = 0; i < n; i++)
		{
			Loop	   *loop = &loops[events[i].data.u64 >> 32];
			int			fd = (int) (uint32_t) events[i].data.u64;
			uint32_t	got = events[i].events;
			int			bits = (got & EPOLLIN ? CURL_CSELECT_IN : 0) |
				(got & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
				(got & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);

			if (wanted[fd])
				curl_multi_socket_action(loop->multi, fd, bits, &loop->running);
			else if (watched[fd])
			{
				epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
				watched[fd] = 0;
			}
		}
		for (i = 0; i < opt.multis; i++)
			reap(&loops[i]);
	}
}

static void
make_loop(Loop *loop)
{
	loop->multi = curl_multi_init();
	if (loop->multi == NULL)
		die("out of memory");
	loop->timer_due = -1;
	curl_multi_setopt(loop->multi, CURLMOPT_MAXCONNECTS, (long) (opt.in_flight / opt.multis + 1));
	if (opt.use_epoll)
	{
		curl_multi_setopt(loop->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
		curl_multi_setopt(loop->multi, CURLMOPT_SOCKETDATA, loop);
		curl_multi_setopt(loop->multi, CURLMOPT_TIMERFUNCTION, on_timer);
		curl_multi_setopt(loop->multi, CURLMOPT_TIMERDATA, loop);
	}
}

static void
parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{"requests", required_argument, NULL, 'n'},
		{"in-flight", required_argument, NULL, 'c'},
		{"loop", required_argument, NULL, 'l'},
		{"multis", required_argument, NULL, 'm'},
		{"bytes", required_argument, NULL, 'b'},
		{"ca", required_argument, NULL, 'a'},
		{"warm-up", required_argument, NULL, 'w'},
		{NULL, 0, NULL, 0}
	};
	int			o;

	while ((o = getopt_long(argc, argv, "n:c:", options, NULL)) != -1)
	{
		if (o == 'n')
			opt.requests = atol(optarg);
		else if (o == 'c')
			opt.in_flight = atoi(optarg);
		else if (o == 'm')
			opt.multis = atoi(optarg);
		else if (o == 'b')
			opt.bytes = atoi(optarg);
		else if (o == 'a')
			opt.ca = optarg;
		else if (o == 'w')
			opt.warm_up = atol(optarg);
		else if (o == 'l' && (strcmp(optarg, "poll") == 0 || strcmp(optarg, "epoll") == 0))
			opt.use_epoll = strcmp(optarg, "epoll") == 0;
		else
			die(USAGE);
	}
	if (!opt.use_epoll)
		opt.multis = 1;
	if (optind != argc - 1 || opt.requests < 1 || opt.multis < 1 || opt.in_flight < opt.multis ||
		opt.bytes < MIN_BYTES || opt.warm_up >= opt.requests)
		die(USAGE);
	opt.url = argv[optind];
}

int
main(int argc, char **argv)
{
	int64_t		cpu;
	double		seconds;
	int			i;

	parse_options(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
		die("curl_global_init failed");
	loops = calloc(opt.multis, sizeof(Loop));
	slots = calloc(opt.in_flight, sizeof(Slot));
	if (loops == NULL || slots == NULL)
		die("out of memory");
	if (opt.use_epoll)
		epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	for (i = 0; i < opt.multis; i++)
		make_loop(&loops[i]);
	for (i = 0; i < opt.in_flight; i++)
		make_slot(&slots[i], &loops[i % opt.multis]);
	run_id = (unsigned) getpid();
	begin = mono_us();
	cpu = cpu_us();
	if (opt.use_epoll)
		loop_epoll();
	else
		loop_poll(&loops[0]);
	seconds = (mono_us() - begin) / 1e6;
	cpu = cpu_us() - cpu;
	printf("loop=%s\nmultis=%d\nrequests=%ld\nfailed=%ld\nin_flight=%d\nseconds=%.3f\n",
		   opt.use_epoll ? "epoll" : "poll", opt.multis, done, failed, opt.in_flight, seconds);
	printf("requests_per_s=%.0f\ncpu_us_per_request=%.2f\nwakes=%ld\nevents_per_wake=%.1f\n",
		   (done - opt.warm_up) / seconds, (double) cpu / done, wakes, wakes ? (double) events_seen / wakes : 0);
	for (i = 0; i < opt.in_flight; i++)
	{
		curl_easy_cleanup(slots[i].easy);
		curl_slist_free_all(slots[i].headers);
		free(slots[i].body);
	}
	for (i = 0; i < opt.multis; i++)
		curl_multi_cleanup(loops[i].multi);
	curl_global_cleanup();
	free(slots);
	free(loops);
	return failed > 0 ? 1 : 0;
}
