/*
 * test_http_mail.c
 *		Mails among the transfers of the HTTP client, against mail servers that do
 *		exactly what a test says.
 *
 * What needs TLS and passwords is tested against a real server, by t/096_mail.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../src/http.h"
#include "check.h"

#define SCRIPT "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
#define MAIL SCRIPT "Subject: x\r\n\r\nx\r\n.\r\n"

static RetryHttp *http;
static RetryHttpOptions options;
static RetryNetguard guard;
static bool sends_mail = true;

/* ---- what stands in ---- */

/* libcurl's own, as far as the client asks it. */
curl_version_info_data *
curl_version_info(CURLversion stamp)
{
	static const char *const with[] = {"http", "https", "smtp", "smtps", NULL};
	static const char *const without[] = {"http", "https", NULL};
	static curl_version_info_data data;

	data.protocols = sends_mail ? with : without;
	return &data;
}

/* Up to this end of what comes; false at the end of the connection. */
static bool
read_to(int fd, const char *end)
{
	char		buf[4096];
	size_t		len = 0;

	while (len < sizeof(buf) - 1 && read(fd, buf + len, 1) == 1)
	{
		buf[++len] = '\0';
		if (len >= strlen(end) && strcmp(buf + len - strlen(end), end) == 0)
			return true;
	}
	return false;
}

/*
 * A server that plays one script for each connection: replies with | between,
 * the greeting first.  "hang" says no more, "close" hangs up.
 */
static pid_t
play(int listener, const char *const *scripts)
{
	pid_t		pid = fork();

	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	for (; *scripts != NULL; scripts++)
	{
		int			fd = accept(listener, NULL, NULL);
		char	   *script = strdup(*scripts);
		char	   *rest = script;
		char	   *reply;

		while ((reply = strsep(&rest, "|")) != NULL && strcmp(reply, "close") != 0)
		{
			bool		data = strncmp(reply, "354", 3) == 0;

			if (strcmp(reply, "hang") == 0)
				while (read_to(fd, "\n"))
					;
			else if (write(fd, reply, strlen(reply)) < 0 || write(fd, "\r\n", 2) < 0 ||
					 !read_to(fd, data ? "\r\n.\r\n" : "\n"))
				break;
		}
		close(fd);
		free(script);
	}
	_exit(0);
}

static void
make_client(const char *allowed)
{
	char		err[200] = "";

	if (!retry_netguard_parse(RETRY_NETGUARD_DEFAULT_BLOCKED, &guard.blocked, err, sizeof(err)) ||
		!retry_netguard_parse(allowed, &guard.allowed, err, sizeof(err)))
		exit(1);
	options.netguard = &guard;
	options.max_in_flight = 10;
	retry_http_destroy(http);
	http = retry_http_create(&options, err, sizeof(err));
}

static void
start(const char *url, const char *user, bool is_mail, int timeout_ms)
{
	static char tag;
	char		err[200];
	RetryHttpMail mail = {.user = user,.password = "secret",.script_len = strlen(SCRIPT)};
	RetryHttpRequest request = {
		.tag = &tag,.url = url,.body = MAIL,.body_len = strlen(MAIL),.has_body = true,
		.timeout_ms = timeout_ms,.mail = is_mail ? &mail : NULL
	};

	CHECK(retry_http_start(http, &request, err, sizeof(err)), "it is taken");
}

/* Runs the client for a while: until there is a result, or the time is over. */
static const RetryHttpResult *
run(int ms)
{
	const RetryHttpResult *result;

	for (int i = 0; i < ms / 10; i++)
	{
		struct pollfd fd = {.fd = retry_http_fd(http),.events = POLLIN};
		long		timeout = retry_http_timeout_ms(http);

		retry_http_run(http);
		if ((result = retry_http_next(http)) != NULL)
			return result;
		poll(&fd, 1, timeout < 0 || timeout > 10 ? 10 : (int) timeout);
	}
	return NULL;
}

static void
ends(const char *url, RetryHttpError error, const char *text, const char *said)
{
	const RetryHttpResult *result = run(60000);

	if (!CHECK(result != NULL && result->error == error && result->delivered == (error == RETRY_HTTP_OK) &&
			   strcmp(result->error_text, text) == 0 && (said == NULL || strcmp(result->body, said) == 0) &&
			   result->http_status == 0, "%s", text[0] != '\0' ? text : "delivered"))
		printf("#   error %d, \"%s\", said \"%s\"\n", result ? (int) result->error : -1,
			   result ? result->error_text : "", result ? result->body : "");
	if (result != NULL)
		retry_http_release(http, result);
	CHECK(retry_http_in_flight(http) == 0, "nothing is left");
}

/* ---- tests ---- */

static void
test_talks(int listener, const char *url)
{
	static const struct
	{
		const char *script;
		RetryHttpError error;
		const char *text;
		const char *said;
	}			cases[] = {
		{"220 hi|250 ok|250 ok|250 ok|354 go|250 taken|221 bye", RETRY_HTTP_OK, "", "250 taken"},
		{"220-hi\r\n220 there|250-me\r\n250-SIZE 1000\r\n250 HELP|250 ok|251-ok\r\n251 so|354 go|250 2.0.0 taken", RETRY_HTTP_OK, "", "250 2.0.0 taken"},
		{"554 no", RETRY_HTTP_REFUSED, "mail server refuses: 554 no", "554 no"},
		{"421 busy", RETRY_HTTP_DEFERRED, "mail server wants to be asked later: 421 busy", "421 busy"},
		{"220 hi|250 ok|550 who", RETRY_HTTP_REFUSED, "mail server refuses: 550 who", "550 who"},
		{"220 hi|250 ok|250 ok|450-not\r\n450 now", RETRY_HTTP_DEFERRED, "mail server wants to be asked later: 450-not 450 now", NULL},
		{"220 hi|250 ok|250 ok|250 ok|354 go|552 too large", RETRY_HTTP_REFUSED, "mail server refuses: 552 too large", NULL},
		{"220 hi|250 ok|250 ok|250 ok|250 what", RETRY_HTTP_MALFORMED, "malformed: what the mail server says is no reply: 250 what", NULL},
		{"220 hi|250 ok|250 ok|close", RETRY_HTTP_CLOSED, "closed: connection closed by the mail server, before the mail was handed over", NULL},
		{"220 hi|250 ok|250 ok|250 ok|354 go|close", RETRY_HTTP_CLOSED, "closed: connection closed by the mail server, the mail was handed over, and no reply came", NULL},
	};
	const char *scripts[lengthof(cases) + 1] = {NULL};
	pid_t		child;

	for (int i = 0; i < lengthof(cases); i++)
		scripts[i] = cases[i].script;
	child = play(listener, scripts);
	for (int i = 0; i < lengthof(cases); i++)
	{
		start(url, NULL, true, 30000);
		ends(url, cases[i].error, cases[i].text, cases[i].said);
	}
	waitpid(child, NULL, 0);
}

/* Given up at each stage of the talk: by the time, by the client's end, by the server's. */
static void
test_given_up(int listener, const char *url)
{
	static const char *const stages[] = {"hang", "220 hi|hang", "220 hi|250 ok|hang", "220 hi|250 ok|250 ok|250 ok|354 go|hang"};

	for (int i = 0; i < lengthof(stages); i++)
	{
		const char *scripts[] = {stages[i], stages[i], stages[i], NULL};
		pid_t		child = play(listener, scripts);
		const RetryHttpResult *result;

		start(url, NULL, true, 200);
		result = run(60000);
		CHECK(result != NULL && (result->error == RETRY_HTTP_TIMEOUT || result->error == RETRY_HTTP_CONNECT_TIMEOUT),
			  "stage %d: the time is over: %s", i + 1, result != NULL ? result->error_text : "");
		if (result != NULL)
			retry_http_release(http, result);
		start(url, NULL, true, 30000);
		CHECK(run(100) == NULL, "it hangs");
		make_client("127.0.0.0/8");
		CHECK(http != NULL, "the client goes, with it under way");
		start(url, NULL, true, 30000);
		(void) run(100);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		result = run(60000);
		CHECK(result != NULL && result->error != RETRY_HTTP_OK, "or the server does");
		if (result != NULL)
			retry_http_release(http, result);
	}
}

static void
test_refused(int listener, const char *url)
{
	const char *scripts[] = {"220 hi|250 ok|250 ok|250 ok|354 go|250 taken", NULL};
	pid_t		child = play(listener, scripts);
	const RetryHttpResult *result;

	start(url, NULL, true, 30000);
	ends(url, RETRY_HTTP_OK, "", NULL);
	waitpid(child, NULL, 0);

	/* the same handle has the same URL in it, which was checked as that of a mail */
	start(url, NULL, false, 30000);
	result = run(60000);
	CHECK(result != NULL && result->error == RETRY_HTTP_BAD_REQUEST, "a request that is no mail reaches no mail server");
	if (result != NULL)
		retry_http_release(http, result);
	start("http://127.0.0.1:9/", NULL, true, 30000);
	ends(url, RETRY_HTTP_BAD_REQUEST, "URL does not begin with smtps://, smtp:// or smtp+plaintext://", NULL);
	start(url, "ada", true, 30000);
	ends(url, RETRY_HTTP_BAD_REQUEST, "a password is not sent without TLS", NULL);
	sends_mail = false;
	start(url, NULL, true, 30000);
	ends(url, RETRY_HTTP_BAD_REQUEST, "this server's libcurl cannot send mail", NULL);
	sends_mail = true;
	make_client("10.0.0.0/8");
	start(url, NULL, true, 30000);
	ends(url, RETRY_HTTP_BLOCKED, "blocked network: 127.0.0.1 is in 127.0.0.0/8", NULL);
}

int
main(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET,.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	len = sizeof(address);
	int			listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char		url[64];

	signal(SIGPIPE, SIG_IGN);
	if (bind(listener, (struct sockaddr *) &address, len) != 0 || listen(listener, 10) != 0 ||
		getsockname(listener, (struct sockaddr *) &address, &len) != 0)
	{
		printf("Bail out! no socket\n");
		return 1;
	}
	snprintf(url, sizeof(url), "smtp+plaintext://127.0.0.1:%d", ntohs(address.sin_port));
	make_client("127.0.0.0/8");
	test_talks(listener, url);
	test_given_up(listener, url);
	test_refused(listener, url);
	retry_http_destroy(http);
	return check_done();
}
