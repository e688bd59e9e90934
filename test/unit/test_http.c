/*
 * test_http.c
 *		The HTTP client, driven outside the server against real sockets.
 *
 * Each way in which a receiver misbehaves must come out as its own error class
 * and sentence, and must leave the client fit for the next request.  The test
 * endpoint supplies most of it; what it cannot do (a server that dies on a
 * reused connection, one that never accepts) is a scripted server in a child
 * process, and slow or hostile name servers are played by a getaddrinfo of our
 * own (http_fixture.h).
 *
 * Usage: test_http [path of the endpoint program]
 */
#include "postgres.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "../../src/http.h"
#include "check.h"
#include "http_fixture.h"

#define LOOPBACK "127.0.0.0/8"

static RetryHttp *http;
static RetryHttpOptions options;
static RetryNetguard guard;
static char base[64];			/* "http://127.0.0.1:PORT" of the endpoint */

/* the last result, kept beyond its release */
static RetryHttpResult got;
static char *got_body;

/* ---- requests ---- */

static void
make_client(void)
{
	char		err[200] = "";

	http = retry_http_create(&options, err, sizeof(err));
	if (http == NULL)
	{
		printf("Bail out! %s\n", err);
		exit(1);
	}
}

static void
set_allowed(const char *allowed)
{
	char		err[200];

	if (!retry_netguard_parse(RETRY_NETGUARD_DEFAULT_BLOCKED, &guard.blocked, err, sizeof(err)) ||
		!retry_netguard_parse(allowed, &guard.allowed, err, sizeof(err)) ||
		(http != NULL && !retry_http_configure(http, &options, err, sizeof(err))))
	{
		printf("Bail out! %s\n", err);
		exit(1);
	}
}

static void
wait_and_run(void)
{
	struct pollfd fd = {retry_http_fd(http), POLLIN, 0};

	poll(&fd, 1, (int) retry_http_timeout_ms(http));
	retry_http_run(http);
}

/* Runs until one result is there, and keeps it. */
static void
await_result(void)
{
	const RetryHttpResult *result;

	while ((result = retry_http_next(http)) == NULL)
		wait_and_run();
	got = *result;
	free(got_body);
	got_body = malloc(got.body_len + 1);
	memcpy(got_body, result->body, got.body_len + 1);
	retry_http_release(http, result);
}

static void
start(const RetryHttpRequest *request)
{
	char		err[200];

	if (!retry_http_start(http, request, err, sizeof(err)))
		CHECK(false, "request is taken: %s", err);
}

static void
perform(const RetryHttpRequest *request)
{
	start(request);
	await_result();
}

/* A GET of a path at the endpoint, or of a whole URL. */
static void
get(const char *path, int32 timeout_ms)
{
	RetryHttpRequest request = {0};
	char		url[400];

	snprintf(url, sizeof(url), "%s%s", path[0] == '/' ? base : "", path);
	request.url = url;
	request.timeout_ms = timeout_ms;
	request.connect_timeout_ms = timeout_ms;
	perform(&request);
}

static void
check_result(const char *what, RetryHttpError error, int status, const char *text)
{
	char		expected[RETRY_HTTP_ERROR_TEXT];
	bool		named = error >= RETRY_HTTP_DNS && error <= RETRY_HTTP_MALFORMED;

	CHECK(got.error == error && got.http_status == status,
		  "%s: %s, status %d", what, retry_http_error_name(got.error), got.http_status);
	snprintf(expected, sizeof(expected), "%s%s%s", named ? retry_http_error_name(error) : "",
			 named ? ": " : "", text);
	CHECK_STR(got.error_text, expected, "... says so");
}

static void
check_get(const char *path, int32 timeout_ms, RetryHttpError error, int status, const char *text)
{
	get(path, timeout_ms);
	check_result(path, error, status, text);
}

/* ---- the tests ---- */

static void
test_answers(void)
{
	check_get("/ok", 0, RETRY_HTTP_OK, 200, "");
	CHECK_STR(got_body, "{\"ok\":true}", "the body is kept");
	CHECK_STR(got.content_type, "application/json", "the content type is kept");
	CHECK_STR(got.remote_ip, "127.0.0.1", "the address is known");
	CHECK_INT(got.remote_port, atoi(strrchr(base, ':') + 1), "the port is known");
	CHECK(!got.reused && got.connect_us > 0, "a new connection has a connect time");
	CHECK(got.first_byte_us > 0 && got.total_us >= got.first_byte_us, "times are in order");
	get("/ok", 0);
	CHECK(got.reused && got.connect_us == 0 && got.error == RETRY_HTTP_OK, "the next one reuses it");

	check_get("/status/404", 0, RETRY_HTTP_OK, 404, "");
	check_get("/status/503", 0, RETRY_HTTP_OK, 503, "");
	check_get("/status/204", 0, RETRY_HTTP_OK, 204, "");
	check_get("/redirect/302?to=/ok", 0, RETRY_HTTP_OK, 302, "");
	check_get("/100-continue?n=3", 0, RETRY_HTTP_OK, 200, "");
	check_get("/gzip-lie", 0, RETRY_HTTP_OK, 200, "");
	CHECK_STR(got_body, "{\"ok\":true}", "a body that claims to be gzip is kept as it is");
	check_get("/encoding", 0, RETRY_HTTP_OK, 200, "");
	CHECK(got.body_len > strlen(got_body), "a NUL in the body does not end it");
	check_get("/answer-twice", 0, RETRY_HTTP_OK, 200, "");
	CHECK_STR(got_body, "{\"answer\":1}", "the first of two answers counts");
	check_get("/ok", 0, RETRY_HTTP_OK, 200, "");
	CHECK_STR(got_body, "{\"ok\":true}", "the second is not taken for the next one's");
	check_get("/ok#fragment", 0, RETRY_HTTP_OK, 200, "");
}

static void
test_headers_of_answer(void)
{
	static const char *const trailers[] = {"T", NULL};
	char		url[64];

	check_get("/retry-after/120", 0, RETRY_HTTP_OK, 503, "");
	CHECK(got.retry_after.kind == RETRY_AFTER_SECONDS && got.retry_after.value == 120, "Retry-After in seconds");
	get("/retry-after/Sun%2C%2006%20Nov%201994%2008%3A49%3A37%20GMT", 0);
	CHECK(got.retry_after.kind == RETRY_AFTER_DATE && got.retry_after.value == 784111777, "Retry-After as a date");
	get("/retry-after/soon", 0);
	CHECK_INT(got.retry_after.kind, RETRY_AFTER_NONE, "a malformed Retry-After is absent");
	get("/retry-control/Stop", 0);
	CHECK_STR(got.retry_control, "stop", "Retry-Control");
	get("/header?name=RateLimit&value=%22a%22%3Br%3D0%3Bt%3D30&status=200", 0);
	CHECK_INT(retry_ratelimit_wait_us(&got.rate_limit, 0, RETRY_AFTER_CAP_US), 30000000, "RateLimit");
	get("/ok", 0);
	CHECK(got.retry_after.kind == RETRY_AFTER_NONE && got.retry_control[0] == '\0' &&
		  retry_ratelimit_wait_us(&got.rate_limit, 0, RETRY_AFTER_CAP_US) == 0,
		  "nothing is left over for the next answer");

	snprintf(url, sizeof(url), "http://127.0.0.1:%d/", start_script(trailers));
	check_get(url, 0, RETRY_HTTP_OK, 200, "");
	CHECK(got.retry_after.kind == RETRY_AFTER_NONE && got.retry_control[0] == '\0' &&
		  strcmp(got_body, "x") == 0, "trailers after the body say nothing");
}

static void
test_broken_answers(void)
{
	check_get("/hang", 300, RETRY_HTTP_TIMEOUT, 0, "no answer within 300 ms");
	check_get("/reset", 0, RETRY_HTTP_CLOSED, 0, "connection reset before any answer");
	check_get("/close", 0, RETRY_HTTP_CLOSED, 0, "connection closed before any answer");
	check_get("/reset-mid", 0, RETRY_HTTP_CLOSED, 200,
			  "connection reset after 11 of 1000 bytes of the answer's body (status 200)");
	CHECK_STR(got_body, "{\"partial\":", "what came before is kept");
	check_get("/malformed/length", 0, RETRY_HTTP_CLOSED, 200,
			  "connection closed after 5 of 1000 bytes of the answer's body (status 200)");
	get("/drip?bytes=1000&ms=100&status=500", 250);
	CHECK(got.error == RETRY_HTTP_TIMEOUT && got.http_status == 500 &&
		  strncmp(got.error_text, "timeout: answer not complete within 250 ms: ", 44) == 0 &&
		  strstr(got.error_text, " of 1000 bytes of its body came (status 500)") != NULL,
		  "/drip: %s", got.error_text);
	get("/endless?ms=20", 200);
	CHECK(got.error == RETRY_HTTP_TIMEOUT && got.http_status == 200 && got.body_truncated &&
		  strncmp(got.error_text, "timeout: answer not complete within 200 ms: ", 44) == 0,
		  "/endless, slowly: %s", got.error_text);
	check_get("/malformed/status-line", 0, RETRY_HTTP_MALFORMED, 0,
			  "answer is not valid HTTP: Received HTTP/0.9 when not allowed");
	get("/malformed/chunk", 0);
	CHECK(got.error == RETRY_HTTP_MALFORMED && got.http_status == 200, "/malformed/chunk: %s", got.error_text);
	get("/malformed/header", 0);
	CHECK(got.error == RETRY_HTTP_MALFORMED, "/malformed/header: %s", got.error_text);
	get("/malformed/nul", 0);
	CHECK(got.error == RETRY_HTTP_MALFORMED, "/malformed/nul: %s", got.error_text);
	check_get("/ok", 0, RETRY_HTTP_OK, 200, "");
}

static void
test_sizes(void)
{
	char		err[200];

	check_get("/oversize/5000000", 0, RETRY_HTTP_OK, 200, "");
	CHECK(got.body_len == 65536 && got.body_truncated && got.bytes_received == 5000000,
		  "5 MB are read and the first 64 kB kept");
	check_get("/oversize/65536", 0, RETRY_HTTP_OK, 200, "");
	CHECK(got.body_len == 65536 && !got.body_truncated, "exactly the limit is whole");
	get("/ok", 0);
	CHECK(got.reused, "the connection is still good");
	check_get("/oversize/50000000?status=500", 0, RETRY_HTTP_OK, 500, "");
	CHECK(got.body_len == 65536 && got.body_truncated && got.bytes_received < 1000000,
		  "an announced 50 MB are not read to the end");
	check_get("/endless?ms=0&bytes=1000000", 10000, RETRY_HTTP_OK, 200, "");
	CHECK(got.body_truncated && got.bytes_received > 16 * 1024 * 1024, "an endless body ends at the hard limit");

	options.max_response_bytes = -1;
	retry_http_configure(http, &options, err, sizeof(err));
	check_get("/oversize/3000", 0, RETRY_HTTP_OK, 200, "");
	CHECK(got.body_len == 0 && got.body_truncated, "nothing is kept when nothing is wanted");
	options.max_response_bytes = 0;
	retry_http_configure(http, &options, err, sizeof(err));
}

/* Whether text contains part, in any case. */
static bool
mentions(const char *text, const char *part)
{
	for (; *text != '\0'; text++)
		if (pg_strncasecmp(text, part, strlen(part)) == 0)
			return true;
	return false;
}

/* Performs a request at /echo and compares parts of what the server saw. */
static void
check_echo(const char *what, const char *method, const char *const *headers, int header_count,
		   const char *body, const char *wanted, const char *unwanted)
{
	RetryHttpRequest request = {0};
	char		url[100];

	snprintf(url, sizeof(url), "%s/echo", base);
	request.url = url;
	request.method = method;
	request.headers = headers;
	request.header_count = header_count;
	request.has_body = body != NULL;
	request.body = body;
	request.body_len = body ? strlen(body) : 0;
	perform(&request);
	CHECK(got.error == RETRY_HTTP_OK && strstr(got_body, wanted) != NULL,
		  "%s: has %s (%s%s)", what, wanted, got.error_text, got_body);
	if (unwanted != NULL)
		CHECK(!mentions(got_body, unwanted), "%s: has no %s", what, unwanted);
}

static void
test_requests(void)
{
	static const char *const headers[] = {"X-One: 1", "X-Empty:", "Content-Type: text/x"};
	static const char *const agent[] = {"User-Agent: me"};
	static char large[2000001];

	check_echo("GET", "GET", NULL, 0, NULL, "\"method\":\"GET\"", "content-");
	check_echo("default with a body", NULL, NULL, 0, "x", "\"method\":\"POST\"", "content-type");
	check_echo("default without", NULL, NULL, 0, NULL, "\"method\":\"GET\"", "content-");
	check_echo("POST", "POST", headers, 3, "abc", "\"body\":\"abc\"", "urlencoded");
	check_echo("POST", "POST", headers, 3, "abc", "[\"X-Empty\",\"\"]", "expect");
	check_echo("POST", "POST", headers, 3, "abc", "[\"Content-Type\",\"text/x\"]", NULL);
	check_echo("POST without a body", "POST", headers, 1, NULL, "[\"Content-Length\",\"0\"]", "content-type");
	check_echo("PUT", "PUT", NULL, 0, "abc", "\"method\":\"PUT\"", "expect");
	check_echo("PATCH without a body", "PATCH", NULL, 0, NULL, "[\"Content-Length\",\"0\"]", NULL);
	check_echo("DELETE", "DELETE", NULL, 0, NULL, "\"method\":\"DELETE\"", "content-length");
	check_echo("DELETE with a body", "DELETE", NULL, 0, "abc", "\"body\":\"abc\"", NULL);
	check_echo("GET with a body", "GET", NULL, 0, "abc", "\"method\":\"GET\"", NULL);
	check_echo("PURGE", "PURGE", NULL, 0, NULL, "\"method\":\"PURGE\"", "content-length");
	check_echo("GET after all that", "GET", NULL, 0, NULL, "\"body\":\"\"", "content-");
	check_echo("user agent", "GET", NULL, 0, NULL, "[\"User-Agent\",\"pg-retry/1.0\"]", NULL);
	check_echo("user agent of the task", "GET", agent, 1, NULL, "[\"User-Agent\",\"me\"]", "pg-retry");

	memset(large, 'y', sizeof(large) - 1);
	check_echo("2 MB", "POST", NULL, 0, large, "[\"Content-Length\",\"2000000\"]", NULL);
	get("/ok", 0);
	CHECK(got.error == RETRY_HTTP_OK, "and the next one is fine");
}

static void
test_head(void)
{
	RetryHttpRequest request = {0};
	char		url[100];

	snprintf(url, sizeof(url), "%s/oversize/100000", base);
	request.url = url;
	request.method = "HEAD";
	perform(&request);
	check_result("HEAD", RETRY_HTTP_OK, 200, "");
	CHECK(got.body_len == 0 && !got.body_truncated, "it has no body");
	request.has_body = true;
	request.body = "";
	perform(&request);
	check_result("HEAD with a body", RETRY_HTTP_BAD_REQUEST, 0, "a HEAD request cannot carry a body");
	get("/oversize/100", 0);
	CHECK_INT(got.body_len, 100, "a GET on the same handle has one");
}

static void
test_bad_requests(void)
{
	static const char *const evil[] = {"X: a\r\nEvil: b"};
	RetryHttpRequest request = {0};
	char		url[100];

	snprintf(url, sizeof(url), "%s/ok", base);
	request.url = url;
	request.headers = evil;
	request.header_count = 1;
	perform(&request);
	check_result("a header with a line break", RETRY_HTTP_BAD_REQUEST, 0,
				 "value of header \"X\" contains a line break (byte 0x0D)");
	request.header_count = 0;
	request.method = "GET /evil HTTP/1.1";
	perform(&request);
	check_result("a method with a blank", RETRY_HTTP_BAD_REQUEST, 0,
				 "HTTP method is not 1 to 32 upper-case letters, digits, \"-\" or \"_\"");
	check_get("ftp://127.0.0.1/", 0, RETRY_HTTP_BAD_REQUEST, 0, "scheme \"ftp\" is not http or https");
	check_get("http://u:p@127.0.0.1/", 0, RETRY_HTTP_BAD_REQUEST, 0,
			  "URL contains credentials; send them in a header");
}

static void
test_connecting(void)
{
	struct sockaddr_in address = {0};
	char		url[100];
	int			port;
	int			fd = listen_here(0, &port);
	int			fill[8];
	int			i;

	check_get("http://nothere.invalid/", 0, RETRY_HTTP_DNS, 0, "host name could not be resolved");
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/", port);

	/* a queue that is full: the kernel ignores further attempts */
	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons(port);
	for (i = 0; i < 8; i++)
	{
		fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (connect(fill[i], (struct sockaddr *) &address, sizeof(address)) != 0 && errno != EINPROGRESS)
			CHECK(false, "connect: %s", strerror(errno));
	}
	check_get(url, 300, RETRY_HTTP_CONNECT_TIMEOUT, 0, "no connection within 300 ms");
	for (i = 0; i < 8; i++)
		close(fill[i]);
	close(fd);
	check_get(url, 0, RETRY_HTTP_CONNECT, 0, "connection refused");
}

static void
test_resolver(void)
{
	RetryHttpRequest request = {0};
	char		url[100];
	bool		all_blocked = true;
	int			i;
	static const int signals[] = {SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGCHLD};

	request.url = "http://slow.test/";
	request.connect_timeout_ms = 200;
	request.tag = &request;
	start(&request);
	retry_http_run(http);
	sem_wait(&resolver_entered);
	for (i = 0; i < lengthof(signals); i++)
		all_blocked = all_blocked && sigismember(&resolver_mask, signals[i]);
	CHECK(all_blocked, "the resolver's thread has all signals blocked");
	{
		sigset_t	mine;

		sigprocmask(SIG_SETMASK, NULL, &mine);
		CHECK(!sigismember(&mine, SIGTERM), "and the caller has not");
	}

	/* the thread still hangs: only QUICK_EXIT lets this return */
	await_result();
	check_result("a slow name server", RETRY_HTTP_CONNECT_TIMEOUT, 0, "host name not resolved within 200 ms");
	snprintf(url, sizeof(url), "http://ok.test%s/ok", strrchr(base, ':'));
	check_get(url, 0, RETRY_HTTP_OK, 200, "");

	/* newer libcurl has a thread for each family, and waits for them when its handle goes */
	sem_post(&resolver_release);
	sem_post(&resolver_release);
}

static void
test_netguard(void)
{
	char		url[100];
	int			before;

	set_allowed("");
	before = lookups;
	check_get("/ok", 0, RETRY_HTTP_BLOCKED, 0, "blocked network: 127.0.0.1 is in 127.0.0.0/8");
	check_get("http://[::ffff:127.0.0.1]/", 0, RETRY_HTTP_BLOCKED, 0, "blocked network: ::ffff:127.0.0.1 is in 127.0.0.0/8");
	check_get("http://[::1]/", 0, RETRY_HTTP_BLOCKED, 0, "blocked network: ::1 is in ::1/128");
	CHECK_INT(lookups, before, "no name was looked up for that");
	check_get("http://rebind.test/", 0, RETRY_HTTP_BLOCKED, 0,
			  "blocked network: 169.254.169.254 is in 169.254.0.0/16");

	/* a connection made while it was allowed is judged again */
	set_allowed(LOOPBACK);
	snprintf(url, sizeof(url), "http://ok.test%s/ok", strrchr(base, ':'));
	check_get(url, 0, RETRY_HTTP_OK, 200, "");
	set_allowed("");
	check_get(url, 0, RETRY_HTTP_BLOCKED, 0, "blocked network: 127.0.0.1 is in 127.0.0.0/8");

	/* through a proxy only literal addresses can be judged */
	options.proxy = base;
	set_allowed("");
	check_get("http://169.254.169.254/latest", 0, RETRY_HTTP_BLOCKED, 0,
			  "blocked network: 169.254.169.254 is in 169.254.0.0/16");
	/* the endpoint is no proxy, but its 404 shows that it was asked */
	check_get("http://anything.example/ok", 0, RETRY_HTTP_OK, 404, "");
	options.proxy = NULL;
	set_allowed(LOOPBACK);
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	check_get("/ok", 0, RETRY_HTTP_OK, 200, "");
	unsetenv("http_proxy");
}

static void
test_stale_connections(void)
{
	static const char *const dies_once[] = {"AC", "A", NULL};
	static const char *const dies_twice[] = {"AC", "C", NULL};
	static const char *const dies_fresh[] = {"C", "A", NULL};
	static const char *const dies_answering[] = {"AP", "A", NULL};
	char		url[64];

	snprintf(url, sizeof(url), "http://127.0.0.1:%d/", start_script(dies_once));
	get(url, 0);
	check_get(url, 0, RETRY_HTTP_OK, 200, "");
	CHECK_STR(got_body, "3", "a dead reused connection is replaced by a fresh one");
	CHECK(!got.reused, "... and it says so");

	snprintf(url, sizeof(url), "http://127.0.0.1:%d/", start_script(dies_twice));
	get(url, 0);
	check_get(url, 0, RETRY_HTTP_CLOSED, 0, "connection closed before any answer");

	snprintf(url, sizeof(url), "http://127.0.0.1:%d/", start_script(dies_fresh));
	check_get(url, 0, RETRY_HTTP_CLOSED, 0, "connection closed before any answer");
	get(url, 0);
	CHECK_STR(got_body, "2", "on a fresh connection nothing is sent twice");

	snprintf(url, sizeof(url), "http://127.0.0.1:%d/", start_script(dies_answering));
	get(url, 0);
	check_get(url, 0, RETRY_HTTP_CLOSED, 0, "connection closed in the middle of the answer's headers");
	get(url, 0);
	CHECK_STR(got_body, "3", "once a byte of the answer came nothing is sent twice");

	check_get("/early-close-keepalive", 0, RETRY_HTTP_OK, 200, "");
	check_get("/early-close-keepalive?reset=1", 0, RETRY_HTTP_OK, 200, "");
	check_get("/ok", 0, RETRY_HTTP_OK, 200, "");
}

/* Whether the client wakes its caller a few times at most, then not again. */
static bool
goes_quiet(void)
{
	struct pollfd fd = {retry_http_fd(http), POLLIN, 0};
	int			wakes = 0;

	while (wakes < 10 && poll(&fd, 1, 200) > 0)
	{
		retry_http_run(http);
		wakes++;
	}
	return wakes < 10;
}

static void
test_idle(void)
{
	static const char *const hangs[] = {"H", NULL};
	RetryHttpRequest request = {0};
	char		url[64];
	pid_t		holder;

	get("/early-close-keepalive", 0);
	CHECK(goes_quiet(), "an idle client goes quiet after the peer closed");
	CHECK_INT(retry_http_timeout_ms(http), -1, "and wants no timer");

	/*
	 * Another process has copies of the sockets, so that closing ours does
	 * not take them out of the epoll set by itself.
	 */
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/", start_script(hangs));
	request.url = url;
	request.tag = &holder;
	start(&request);
	while (retry_http_timeout_ms(http) == 0 || !script_has_request())
		retry_http_run(http);
	holder = fork();
	if (holder == 0)
	{
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	CHECK(retry_http_cancel(http, &holder), "a connection is closed while another process holds it");
	stop_last_child();			/* its end of the connection closes */
	CHECK(goes_quiet(), "that does not make the client spin");
	kill(holder, SIGKILL);
	waitpid(holder, NULL, 0);
}

/* One after the other, to fewer origins than there may be connections: all are kept. */
static void
test_origins(void)
{
	char		url[64];
	int			reused = 0;

	for (int i = 0; i < 400; i++)
	{
		snprintf(url, sizeof(url), "http://origin-%d.test:%s/ok", i % 200, strrchr(base, ':') + 1);
		get(url, 0);
		reused += got.error == RETRY_HTTP_OK && got.reused;
	}
	CHECK_INT(reused, 200, "the connections of 200 origins are kept");
}

static void
test_many(void)
{
	enum
	{
		MANY = 300
	};
	static char seen[MANY];
	RetryHttpRequest request = {0};
	const RetryHttpResult *result;
	char		url[200];
	char		err[200] = "";
	int			left = MANY;
	int			good = 0;
	int			i;

	request.url = url;
	for (i = 0; i < MANY; i++)
	{
		request.tag = &seen[i];
		snprintf(url, sizeof(url), "%s/delay/20?status=%d", base, 200 + i % 100);
		start(&request);
	}
	CHECK_INT(retry_http_in_flight(http), MANY, "300 are in flight");
	CHECK(!retry_http_start(http, &request, err, sizeof(err)), "one more is not taken");
	CHECK_STR(err, "300 requests are in flight already", "... and says why");
	while (left > 0)
	{
		wait_and_run();
		while ((result = retry_http_next(http)) != NULL)
		{
			int			n = (int) ((char *) result->tag - seen);

			good += n >= 0 && n < MANY && seen[n]++ == 0 && result->http_status == 200 + n % 100;
			retry_http_release(http, result);
			left--;
		}
	}
	CHECK_INT(good, MANY, "each comes back once, with its own answer");
	CHECK_INT(retry_http_in_flight(http), 0, "none is left");
	get("/ok", 0);
	CHECK(got.reused, "connections are kept");
}

static void
test_cancel(void)
{
	RetryHttpRequest request = {0};
	char		hang[100];
	char		ok[100];
	int			tags[3];

	snprintf(hang, sizeof(hang), "%s/hang", base);
	snprintf(ok, sizeof(ok), "%s/ok", base);
	request.url = hang;
	request.tag = &tags[0];
	start(&request);
	retry_http_run(http);
	request.tag = &tags[1];
	start(&request);			/* stays queued */
	request.url = ok;
	request.tag = &tags[2];
	start(&request);
	CHECK(retry_http_cancel(http, &tags[0]), "a running one can be cancelled");
	CHECK(retry_http_cancel(http, &tags[1]), "so can a queued one");
	CHECK(!retry_http_cancel(http, &tags[1]), "but not twice");
	await_result();
	CHECK(got.tag == &tags[2] && got.http_status == 200, "the others go on");
	CHECK(!retry_http_cancel(http, &tags[2]), "a finished one cannot");
	CHECK_INT(retry_http_in_flight(http), 0, "none is left");
	CHECK(retry_http_next(http) == NULL, "and there is no other result");
}

/* What a second transfer of a request sends is what the first did. */
static void
test_repeat(void)
{
	static const char *const headers[] = {"X-One: 1", "X-Empty:", "Content-Type: text/x", "X-One: 2"};
	static const char *const methods[] = {"PATCH", "POST", "GET", "PUT", NULL};
	RetryHttpRequest request = {.headers = headers,.header_count = lengthof(headers)};
	char		hang[100];
	char		echo[100];
	char		err[200] = "";
	int			first;
	int			second;

	snprintf(hang, sizeof(hang), "%s/hang", base);
	snprintf(echo, sizeof(echo), "%s/echo", base);
	for (int i = 0; i < lengthof(methods); i++)
	{
		char	   *wanted;

		request.method = methods[i];
		request.has_body = i < 2 || methods[i] == NULL;
		request.body = "some \0 body";
		request.body_len = request.has_body ? 12 : 0;
		request.url = echo;
		perform(&request);
		wanted = strdup(got_body);

		request.url = hang;
		request.tag = &first;
		start(&request);
		CHECK(!retry_http_repeat(http, &first, echo, 5000, &second, err, sizeof(err)),
			  "not before it is under way");
		retry_http_run(http);
		CHECK(retry_http_repeat(http, &first, echo, 5000, &second, err, sizeof(err)), "a second transfer: %s", err);
		await_result();
		CHECK(got.tag == &second && got.http_status == 200, "is answered while the first is not");
		CHECK_STR(got_body, wanted, "and was the same request");
		CHECK(retry_http_cancel(http, &first), "the first one is given up");
		free(wanted);
	}
	CHECK_INT(retry_http_in_flight(http), 0, "none is left");

	/* to the same URL, with a limit of its own; and when there is none */
	start(&request);
	retry_http_run(http);
	CHECK(retry_http_repeat(http, &first, NULL, 50, &second, err, sizeof(err)), "the same URL");
	await_result();
	CHECK(got.tag == &second && got.error == RETRY_HTTP_TIMEOUT, "ends at its own time");
	CHECK(retry_http_repeat(http, &first, "http://[bad", 50, &second, err, sizeof(err)), "a bad URL is taken");
	await_result();
	CHECK(got.tag == &second && got.error == RETRY_HTTP_BAD_REQUEST, "and fails by itself");
	CHECK(retry_http_cancel(http, &first), "the first one still is there");
	CHECK(!retry_http_repeat(http, &first, NULL, 50, &second, err, sizeof(err)), "no second without a first");
}

/* GET with settings of TLS of its own. */
static void
get_tls(const char *url, const RetryTls *tls)
{
	RetryHttpRequest request = {.url = url,.timeout_ms = 60000,.tls = tls};

	start(&request);
	await_result();
}

/*
 * Requests with and without settings of their own, one after the other: none has
 * what another was allowed, neither of its handle nor of its connection.
 */
static void
test_tls_settings(const char *url, const char *cert)
{
	char		pem[8192] = "";
	char		authority[8192];
	char		other[100];
	char		command[300];
	FILE	   *f = fopen(cert, "r");
	size_t		len = f != NULL ? fread(pem, 1, sizeof(pem) - 1, f) : 0;
	RetryTls	trusting = {.authorities = authority};
	RetryTls	unverified = {.unverified = true};
	RetryTls	pinned = {.authorities = authority,.pins = "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="};
	RetryTls	broken = {.authorities = authority,.identity = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"};

	if (f != NULL)
		fclose(f);
	pem[len] = '\0';
	strcpy(authority, strstr(pem, "-----BEGIN CERTIFICATE-----"));
	for (int i = 0; i < 3; i++)
	{
		get(url, 60000);
		CHECK(got.error == RETRY_HTTP_TLS, "the usual authorities do not know it: %s", got.error_text);
		get_tls(url, &trusting);
		CHECK(got.error == RETRY_HTTP_OK && got.http_status == 200, "one of the request's own does: %s", got.error_text);
		get_tls(url, &pinned);
		CHECK(got.error == RETRY_HTTP_TLS && strstr(got.error_text, "pinned") != NULL, "another key: %s", got.error_text);
		get_tls(url, &unverified);
		CHECK(got.error == RETRY_HTTP_OK && got.http_status == 200, "not verified: %s", got.error_text);
	}
	get_tls(url, &broken);
	CHECK(got.error == RETRY_HTTP_TLS && strstr(got.error_text, "client certificate cannot be used") != NULL,
		  "a bad client certificate: %s", got.error_text);

	/* by an authority that is not among those, which the system's folder could have */
	snprintf(other, sizeof(other), "%s.other", cert);
	snprintf(command, sizeof(command),
			 "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout /dev/null -out %s 2>/dev/null", other);
	CHECK(system(command) == 0, "another authority is made");
	f = fopen(other, "r");
	len = f != NULL ? fread(authority, 1, sizeof(authority) - 1, f) : 0;
	if (f != NULL)
		fclose(f);
	authority[len] = '\0';
	get_tls(url, &trusting);
	CHECK(got.error == RETRY_HTTP_TLS, "another authority: %s", got.error_text);
	options.ca_bundle = other;
	set_allowed(LOOPBACK);
	get(url, 60000);
	CHECK(got.error == RETRY_HTTP_TLS, "another authority for all: %s", got.error_text);
	options.ca_bundle = NULL;
	set_allowed(LOOPBACK);
	CHECK_INT(system_authorities_asked, 0, "the system's folder of authorities is not looked into");
	unlink(other);
}

static void
test_tls(void)
{
	static char cert[] = "/tmp/test_http_XXXXXX";
	static char *const server[] = {
		"openssl", "s_server", "-accept", "127.0.0.1:0", "-www", "-key", cert, "-cert", cert, NULL
	};
	char		command[400];
	char		url[100];
	char		plain[100];
	int			port;

	if (mkstemp(cert) < 0)
		return;
	snprintf(command, sizeof(command),
			 "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ok.test "
			 "-addext subjectAltName=DNS:ok.test -keyout %s.k -out %s.c 2>/dev/null && "
			 "cat %s.k %s.c >%s; rm -f %s.k %s.c", cert, cert, cert, cert, cert, cert, cert);
	port = system(command) == 0 ? start_program(server, "ACCEPT 127.0.0.1:") : 0;
	if (port == 0)
	{
		CHECK(true, "TLS # SKIP no openssl program");
		unlink(cert);
		return;
	}
	snprintf(url, sizeof(url), "https://ok.test:%d/", port);
	get(url, 60000);
	CHECK(got.error == RETRY_HTTP_TLS && strstr(got.error_text, "self-signed certificate") != NULL,
		  "an unknown issuer: %s", got.error_text);
	test_tls_settings(url, cert);
	options.ca_bundle = cert;
	set_allowed(LOOPBACK);
	check_get(url, 60000, RETRY_HTTP_OK, 200, "");
	CHECK(got.tls_us > 0, "the handshake's time is known");
	snprintf(url, sizeof(url), "https://127.0.0.1:%d/", port);
	get(url, 60000);
	CHECK(got.error == RETRY_HTTP_TLS && strstr(got.error_text, "for another host name") != NULL, "another name: %s", got.error_text);
	options.ca_bundle = NULL;
	set_allowed(LOOPBACK);
	snprintf(plain, sizeof(plain), "https%s/", base + 4);
	check_get(plain, 300, RETRY_HTTP_CONNECT_TIMEOUT, 0, "TLS handshake not complete within 300 ms");
	unlink(cert);
}

/* Destroying a client with work under way frees everything. */
static void
test_destroy(void)
{
	RetryHttpRequest request = {0};
	char		url[100];
	int			i;

	snprintf(url, sizeof(url), "%s/hang", base);
	request.url = url;
	for (i = 0; i < 5; i++)
		start(&request);
	retry_http_run(http);
	request.url = "nonsense";
	start(&request);
	retry_http_next(http);
	request.url = url;
	start(&request);
	retry_http_destroy(http);
	http = NULL;
	CHECK(true, "a client with transfers in every state is destroyed");
}

int
main(int argc, char **argv)
{
	char	   *endpoint[] = {argc > 1 ? argv[1] : "test/endpoint/endpoint", NULL};
	int			port;

	signal(SIGPIPE, SIG_IGN);
	sem_init(&resolver_entered, 0, 0);
	sem_init(&resolver_release, 0, 0);
	if (access(endpoint[0], X_OK) != 0 || (port = start_program(endpoint, "listening ")) == 0)
	{
		printf("Bail out! %s does not run\n", endpoint[0]);
		return 1;
	}
	snprintf(base, sizeof(base), "http://127.0.0.1:%d", port);
	options.max_in_flight = 300;
	options.netguard = &guard;
	set_allowed(LOOPBACK);
	make_client();

	test_answers();
	test_headers_of_answer();
	test_broken_answers();
	test_sizes();
	test_requests();
	test_head();
	test_bad_requests();
	test_connecting();
	test_resolver();
	test_netguard();
	test_stale_connections();
	test_idle();
	test_origins();
	test_many();
	test_cancel();
	test_repeat();
	test_tls();
	test_destroy();

	free(got_body);
	stop_children();
	return check_done();
}
