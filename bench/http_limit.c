/*
 * http_limit.c
 *		How many requests a second the extension's own HTTP client makes, without
 *		PostgreSQL around it: what is lost between this and curl_limit is the
 *		client's own cost, what is lost between this and a dispatcher is the
 *		database's.
 *
 * Same request, options and output as curl_limit. Also measures what the
 * URL reader costs (--urls N), since every enqueued row pays it.
 */
#include "postgres.h"

#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "http.h"
#include "url.h"

#define BODY_LEN	200

static struct
{
	const char *url;
	long		requests;
	int			in_flight;
	long		urls;
	unsigned	pid;
} opt = {NULL, 100000, 256, 0, 0};

static int64
clock_us(clockid_t which)
{
	struct timespec now;

	clock_gettime(which, &now);
	return (int64) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int64
cpu_us(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return (int64) (ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000000 +
		ru.ru_utime.tv_usec + ru.ru_stime.tv_usec;
}

static void
die(const char *what)
{
	fprintf(stderr, "http_limit: %s\n", what);
	exit(1);
}

/* One request with a key, an id and a body of its own; false when full. */
static bool
start_one(RetryHttp *http, long n)
{
	char		key[80];
	char		id[80];
	char		body[BODY_LEN + 1];
	char		err[200];
	const char *headers[5] = {
		"Content-Type: application/json", "Retry-Attempt: 1",
		"webhook-timestamp: 1700000000", key, id
	};
	RetryHttpRequest request = {0};
	unsigned	pid = opt.pid;
	int			len;

	sprintf(key, "Idempotency-Key: \"%08x-0000-7000-8000-%012lx\"", pid, n);
	sprintf(id, "webhook-id: %08x-0000-7000-8000-%012lx", pid, n);
	len = sprintf(body, "{\"t\":%lld,\"id\":\"%08x-0000-7000-8000-%012lx\",\"pad\":\"",
				  (long long) clock_us(CLOCK_REALTIME), pid, n);
	memset(body + len, 'x', BODY_LEN - 2 - len);
	memcpy(body + BODY_LEN - 2, "\"}", 3);

	request.url = opt.url;
	request.method = "POST";
	request.headers = headers;
	request.header_count = 5;
	request.body = body;
	request.body_len = BODY_LEN;
	request.has_body = true;
	return retry_http_start(http, &request, err, sizeof(err));
}

static void
bench_requests(void)
{
	RetryHttpOptions options = {0};
	RetryNetguard guard;
	char		err[200];
	RetryHttp  *http;
	const RetryHttpResult *result;
	long		started = 0;
	long		done = 0;
	long		failed = 0;
	long		wakes = 0;
	int64		begin;
	int64		cpu;
	double		seconds;

	memset(&guard, 0, sizeof(guard));
	if (!retry_netguard_parse(RETRY_NETGUARD_DEFAULT_BLOCKED, &guard.blocked, err, sizeof(err)) ||
		!retry_netguard_parse("127.0.0.0/8, ::1", &guard.allowed, err, sizeof(err)))
		die(err);
	options.max_in_flight = opt.in_flight;
	options.netguard = &guard;
	http = retry_http_create(&options, err, sizeof(err));
	if (http == NULL)
		die(err);

	begin = clock_us(CLOCK_MONOTONIC);
	cpu = cpu_us();
	while (done < opt.requests)
	{
		struct pollfd fd = {retry_http_fd(http), POLLIN, 0};
		long		wait;

		while (started < opt.requests && start_one(http, started))
			started++;
		wait = retry_http_timeout_ms(http);
		if (wait != 0)
		{
			wakes++;
			poll(&fd, 1, (int) wait);
		}
		retry_http_run(http);
		while ((result = retry_http_next(http)) != NULL)
		{
			if (result->error != RETRY_HTTP_OK || result->http_status / 100 != 2)
				if (failed++ == 0)
					fprintf(stderr, "http_limit: first failure: status %d %s\n",
							result->http_status, result->error_text);
			retry_http_release(http, result);
			done++;
		}
	}
	seconds = (clock_us(CLOCK_MONOTONIC) - begin) / 1e6;
	cpu = cpu_us() - cpu;
	printf("loop=retry_http\nrequests=%ld\nfailed=%ld\nin_flight=%d\nseconds=%.3f\n",
		   done, failed, opt.in_flight, seconds);
	printf("requests_per_s=%.0f\ncpu_us_per_request=%.2f\nwakes=%ld\n",
		   done / seconds, (double) cpu / done, wakes);
	retry_http_destroy(http);
	if (failed > 0)
		exit(1);
}

static void
bench_urls(void)
{
	RetryUrl	url;
	char		err[200];
	int64		begin = clock_us(CLOCK_MONOTONIC);
	long		i;

	for (i = 0; i < opt.urls; i++)
		if (!retry_url_check(opt.url, &url, err, sizeof(err)))
			die(err);
	printf("ns_per_url=%.0f\n", (clock_us(CLOCK_MONOTONIC) - begin) * 1000.0 / opt.urls);
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{"requests", required_argument, NULL, 'n'},
		{"in-flight", required_argument, NULL, 'c'},
		{"urls", required_argument, NULL, 'u'},
		{NULL, 0, NULL, 0}
	};
	int			o;

	while ((o = getopt_long(argc, argv, "n:c:u:", options, NULL)) != -1)
	{
		if (o == 'n')
			opt.requests = atol(optarg);
		else if (o == 'c')
			opt.in_flight = atoi(optarg);
		else if (o == 'u')
			opt.urls = atol(optarg);
		else
			die("usage: http_limit [--requests N] [--in-flight C] [--urls N] URL");
	}
	if (optind != argc - 1 || opt.requests < 1 || opt.in_flight < 1 || opt.urls < 0)
		die("usage: http_limit [--requests N] [--in-flight C] [--urls N] URL");
	opt.url = argv[optind];
	opt.pid = (unsigned) getpid();
	signal(SIGPIPE, SIG_IGN);
	if (opt.urls > 0)
		bench_urls();
	else
		bench_requests();
	return 0;
}
