/*
 * http_mail.c
 *	  Mails, as transfers of the HTTP client: the same sockets, the same guard,
 *	  the same settings of TLS, another protocol.
 *
 * libcurl connects, secures the connection and signs in; then it is done with
 * the socket (CONNECT_ONLY), and the talk goes on here, driven by the client's
 * loop.  libcurl's own way would wait for the server's verdict on the mail, and
 * for its goodbye, with all other transfers standing still.  No connection is
 * kept: mails are rare, and servers do not like to be kept waiting.
 *
 * Only a request that says so is a mail; handles that sent one are reset before
 * they are used for anything else.
 */
#include "postgres.h"

#include "http_private.h"
#include "url.h"

/* bytes of replies read at once */
#define READ_BYTES	2048

bool
retry_http_sends_mail(void)
{
	const curl_version_info_data *version = curl_version_info(CURLVERSION_NOW);
	bool		smtp = false;
	bool		smtps = false;

	for (const char *const *name = version->protocols; *name != NULL; name++)
	{
		smtp |= strcmp(*name, "smtp") == 0;
		smtps |= strcmp(*name, "smtps") == 0;
	}
	return smtp && smtps;
}

/* A line that the server said while libcurl was talking to it. */
static size_t
receive_reply(char *data, size_t size, size_t count, void *arg)
{
	RetryTransfer *t = arg;
	RetryMailTalk *talk = t->talk;
	size_t		len = size * count;

	t->answering = t->connected = true;
	if (talk->fresh)
		talk->said_len = 0;
	retry_mail_keep(talk->said, &talk->said_len, data, len);
	while (talk->said_len > 0 && talk->said[talk->said_len - 1] == ' ')
		talk->said[--talk->said_len] = '\0';
	retry_mail_keep(talk->said, &talk->said_len, " ", len > 3 && data[3] == '-');
	talk->fresh = len < 4 || data[3] != '-';
	return len;
}

bool
retry_mail_check(RetryTransfer *t, const RetryHttpRequest *request, RetryUrl *url)
{
	char		why[RETRY_HTTP_ERROR_TEXT] = "";
	char		rule[RETRY_NETGUARD_RULE_TEXT];
	bool		literal;

	if (!retry_url_check_mail(request->url, url, why, sizeof(why)))
		retry_transfer_fail(t, RETRY_HTTP_BAD_REQUEST, "%s", why);
	else if (request->mail->user != NULL && !url->https)
		retry_transfer_fail(t, RETRY_HTTP_BAD_REQUEST, "a password is not sent without TLS");
	else if (!retry_http_sends_mail())
		retry_transfer_fail(t, RETRY_HTTP_BAD_REQUEST, "this server's libcurl cannot send mail");
	else if (t->http->proxy[0] != '\0' &&
			 !retry_netguard_check_text(&t->http->netguard, url->host, &literal, rule, sizeof(rule)))
		retry_transfer_fail(t, RETRY_HTTP_BLOCKED, "blocked network: %s is in %s", url->host, rule);
	return t->result.error == RETRY_HTTP_OK;
}

bool
retry_mail_apply(RetryTransfer *t, const RetryHttpRequest *request, const RetryUrl *url)
{
	CURL	   *easy = t->easy;
	CURLcode	bad = CURLE_OK;
	long		tls = !url->https ? CURLUSESSL_NONE : CURLUSESSL_ALL;

	t->talk = calloc(1, sizeof(RetryMailTalk));
	if (t->talk == NULL)
		return false;
	t->talk->fresh = true;
	t->script_len = request->mail->script_len;
	t->started_us = retry_evloop_now_us();

	/* the handle is of no use for anything else until it was reset */
	t->settings = 0;
#define SET(option, value) (bad = bad != CURLE_OK ? bad : curl_easy_setopt(easy, option, value))
	SET(CURLOPT_PROTOCOLS_STR, "smtp,smtps");
	SET(CURLOPT_URL, url->origin);
	SET(CURLOPT_CONNECT_ONLY, 1L);
	SET(CURLOPT_FRESH_CONNECT, 1L);
	SET(CURLOPT_USE_SSL, tls);
	SET(CURLOPT_HEADERFUNCTION, receive_reply);
	if (request->mail->user != NULL)
	{
		SET(CURLOPT_USERNAME, request->mail->user);
		SET(CURLOPT_PASSWORD, request->mail->password);
	}
#undef SET
	return bad == CURLE_OK;
}

/* The talk is over: by what it came to, or for this reason. */
static void
end_talk(RetryTransfer *t, CURLcode code)
{
	t->talk_over = true;
	t->talk_code = t->talk->end == RETRY_MAIL_TALKING ? code : CURLE_OK;
}

/* Sends what is to be said; false when the connection is broken. */
static bool
speak(RetryTransfer *t)
{
	RetryMailTalk *talk = t->talk;

	while (talk->out_len > 0)
	{
		size_t		sent = 0;
		CURLcode	code = curl_easy_send(t->easy, talk->out, talk->out_len, &sent);

		if (code == CURLE_AGAIN)
			break;
		if (code != CURLE_OK)
			return false;
		talk->out += sent;
		talk->out_len -= sent;
	}
	return true;
}

/* The socket of a talk is ready. */
static void
go_on(void *arg)
{
	RetryTransfer *t = arg;
	RetryMailTalk *talk = t->talk;
	char		bytes[READ_BYTES];
	CURLcode	code;

	if (t->talk_over)
		return;
	do
	{
		/* when sending fails, the server may have said why */
		bool		broken = !speak(t);
		size_t		len = 0;

		if (talk->end != RETRY_MAIL_TALKING)
		{
			end_talk(t, CURLE_OK);
			return;
		}
		code = curl_easy_recv(t->easy, bytes, sizeof(bytes), &len);
		if (code == CURLE_OK && len > 0)
			retry_mail_talk_hear(talk, bytes, len);
		else if (code != CURLE_AGAIN || broken)
		{
			end_talk(t, CURLE_GOT_NOTHING);
			return;
		}
	} while (code != CURLE_AGAIN);
	if (!retry_evloop_watch(t->http->loop, t->socket, talk->out_len > 0, go_on, t))
		end_talk(t, CURLE_OUT_OF_MEMORY);
}

bool
retry_mail_begin(RetryTransfer *t)
{
	if (curl_easy_getinfo(t->easy, CURLINFO_ACTIVESOCKET, &t->socket) != CURLE_OK ||
		t->socket == CURL_SOCKET_BAD)
		return false;
	retry_mail_talk_begin(t->talk, t->body, t->script_len, t->body + t->script_len,
						  t->body_len - t->script_len);
	t->talking = true;
	t->http->talking++;
	go_on(t);
	return true;
}

int64
retry_mail_deadline_us(const RetryTransfer *t)
{
	return t->started_us + (int64) t->timeout_ms * 1000;
}

static void
conclude_nonsense(RetryTransfer *t)
{
	retry_transfer_fail(t, RETRY_HTTP_MALFORMED, "what the mail server says is no reply: %.150s", t->talk->said);
}

/* The server said no: for good, or for now. */
static void
conclude_refusal(RetryTransfer *t, int code, const char *what)
{
	retry_transfer_fail(t, code >= 500 ? RETRY_HTTP_REFUSED : RETRY_HTTP_DEFERRED, "mail server %s%s: %.150s",
						code >= 500 ? "refuses" : "wants to be asked later", what, t->talk->said);
}

/* The connection ended, or time did, amidst the talk. */
static void
conclude_broken(RetryTransfer *t, CURLcode code)
{
	const char *when = t->talk->begun ? "the mail was handed over, and no reply came" : "before the mail was handed over";

	if (code == CURLE_OPERATION_TIMEDOUT)
		retry_transfer_fail(t, RETRY_HTTP_TIMEOUT, "no reply of the mail server within %d ms, %s", t->timeout_ms, when);
	else if (code == CURLE_OUT_OF_MEMORY)
		retry_transfer_fail(t, RETRY_HTTP_INTERNAL, "out of memory");
	else
		retry_transfer_fail(t, RETRY_HTTP_CLOSED, "connection closed by the mail server, %s", when);
}

bool
retry_mail_conclude(RetryTransfer *t, CURLcode code)
{
	RetryHttpResult *r = &t->result;
	RetryMailTalk *talk = t->talk;
	long		said = 0;

	r->body = talk->said;
	r->body_len = strlen(talk->said);
	r->total_us = retry_evloop_now_us() - t->started_us;
	if (t->talking)
	{
		if (talk->end == RETRY_MAIL_TAKEN)
			r->delivered = true;
		else if (talk->end == RETRY_MAIL_REFUSED)
			conclude_refusal(t, talk->code, "");
		else if (talk->end == RETRY_MAIL_NONSENSE)
			conclude_nonsense(t);
		else
			conclude_broken(t, code);
		return true;
	}

	/* still with libcurl, which knows the code of the last reply */
	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &said);
	if (code == CURLE_OK)
		retry_transfer_fail(t, RETRY_HTTP_INTERNAL, "connection to the mail server could not be used");
	else if (code == CURLE_USE_SSL_FAILED)
		retry_transfer_fail(t, RETRY_HTTP_TLS, "mail server does not offer STARTTLS");
	else if (code == CURLE_LOGIN_DENIED)
		conclude_refusal(t, said >= 400 && said < 500 ? 400 : 500, " user and password");
	else if (said >= 400 && said < 600 && t->talk->said[0] != '\0' &&
			 (code == CURLE_WEIRD_SERVER_REPLY || code == CURLE_REMOTE_ACCESS_DENIED))
		conclude_refusal(t, (int) said, "");
	else if (t->answering && (code == CURLE_GOT_NOTHING || code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR ||
							  code == CURLE_OPERATION_TIMEDOUT))
		conclude_broken(t, code);
	else if (code == CURLE_WEIRD_SERVER_REPLY)
		retry_transfer_fail(t, RETRY_HTTP_MALFORMED, "what the mail server says is no reply: %.150s", talk->said);
	else
		return false;
	return true;
}

void
retry_mail_forget(RetryTransfer *t)
{
	if (t->talk == NULL)
		return;
	if (t->talking)
		t->http->talking--;
	free(t->talk);
	t->talk = NULL;
	t->talking = t->talk_over = false;

	/*
	 * its URL is none that another request may take for checked; its password
	 * goes
	 */
	t->url = NULL;
	curl_easy_reset(t->easy);
}
