/*
 * http_transfer.c
 *	  One request on its way out and its answer on its way in.
 *
 * Easy handles are kept and reused without curl_easy_reset: what never changes
 * is set once per generation of settings, and per request only what differs.
 * curl copies neither bodies nor header lists, so both live in the transfer's
 * arena, one block that is reused too; the list nodes are built in it, which
 * saves an allocation per header.
 *
 * The callbacks run inside curl.  They must not raise errors, allocate with
 * palloc, or leave other than by returning: they note what happened in the
 * transfer and return the code that makes curl stop.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "http_private.h"

/* How the easy handle was last told to send a body. */
enum
{
	BODY_UNSET,
	BODY_NONE,					/* GET-like */
	BODY_HEAD,
	BODY_SENT					/* POSTFIELDS, maybe of length 0 */
};

/* first allocation for an answer's body */
#define FIRST_RESPONSE_SIZE 1024

static size_t
receive_body(char *data, size_t size, size_t count, void *arg)
{
	RetryTransfer *t = arg;
	RetryHttpResult *r = &t->result;
	size_t		len = size * count;
	size_t		keep = Min(len, t->response_limit - r->body_len);

	if (r->body_len + keep > t->response_size)
	{
		size_t		wanted = Max(t->response_size * 2, FIRST_RESPONSE_SIZE);
		char	   *grown;

		wanted = Min(Max(wanted, r->body_len + keep), t->response_limit);
		grown = realloc(t->response, wanted + 1);
		if (grown == NULL)
		{
			t->out_of_memory = true;
			return 0;
		}
		t->response = grown;
		t->response_size = wanted;
	}
	if (keep > 0)
		memcpy(t->response + r->body_len, data, keep);
	r->body_len += keep;
	r->bytes_received += len;

	/*
	 * Beyond what is kept we only read on to keep the connection usable,
	 * which is not worth it if it would be dropped at the limit anyway.
	 */
	if (r->bytes_received > t->hard_limit ||
		(r->bytes_received > t->response_limit && t->announced > 0 &&
		 (uint64) t->announced > t->hard_limit))
	{
		t->oversize = true;
		return 0;
	}
	return len;
}

/* Copies a header's value, trimmed; control bytes become '?'. */
static void
copy_value(char *to, size_t size, const char *value, size_t len)
{
	size_t		i;

	len = Min(len, size - 1);
	for (i = 0; i < len; i++)
		to[i] = ((unsigned char) value[i] < ' ' || value[i] == 0x7f) ? '?' : value[i];
	to[len] = '\0';
}

static bool
header_is(const char *line, size_t name_len, const char *name)
{
	return strlen(name) == name_len && pg_strncasecmp(line, name, name_len) == 0;
}

/* One header field of the answer, without its line end. */
static void
receive_field(RetryTransfer *t, const char *line, size_t len)
{
	RetryHttpResult *r = &t->result;
	const char *colon = memchr(line, ':', len);
	const char *value;
	size_t		name_len;
	size_t		i;

	/* the shortest name we know has 9 letters, the longest 24 */
	if (colon == NULL || (name_len = colon - line) < 9 || name_len > 24)
		return;
	value = colon + 1;
	len -= name_len + 1;
	while (len > 0 && (*value == ' ' || *value == '\t'))
		value++, len--;
	while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t'))
		len--;

	if (header_is(line, name_len, "content-type"))
		copy_value(r->content_type, sizeof(r->content_type), value, len);
	else if (header_is(line, name_len, "retry-after"))
	{
		/* of several the first readable one counts */
		if (r->retry_after.kind == RETRY_AFTER_NONE)
			r->retry_after = retry_after_parse(value, len, (int64) time(NULL));
	}
	else if (header_is(line, name_len, "retry-control"))
	{
		copy_value(r->retry_control, sizeof(r->retry_control), value, len);
		for (i = 0; r->retry_control[i] != '\0'; i++)
			r->retry_control[i] = pg_tolower((unsigned char) r->retry_control[i]);
	}
	else if (header_is(line, name_len, "content-length") && len < 19)
	{
		int64		length = 0;

		for (i = 0; i < len && value[i] >= '0' && value[i] <= '9'; i++)
			length = length * 10 + (value[i] - '0');
		t->two_lengths |= t->announced >= 0 && t->announced != length;
		t->announced = length;
	}
	else
		(void) retry_ratelimit_field(&r->rate_limit, line, name_len, value, len, (int64) time(NULL));
}

/* "HTTP/1.1 204 No Content": a header block begins, perhaps after a 1xx one. */
static void
receive_status_line(RetryTransfer *t, const char *line, size_t len)
{
	RetryHttpResult *r = &t->result;
	const char *at = memchr(line, ' ', len);
	const char *end = line + len;

	t->status = 0;
	t->announced = -1;
	r->retry_after.kind = RETRY_AFTER_NONE;
	memset(&r->rate_limit, 0, sizeof(r->rate_limit));
	r->retry_control[0] = '\0';
	r->content_type[0] = '\0';
	if (at != NULL)
		for (at++; at < end && *at >= '0' && *at <= '9' && t->status < 1000; at++)
			t->status = t->status * 10 + (*at - '0');
}

static size_t
receive_header(char *data, size_t size, size_t count, void *arg)
{
	RetryTransfer *t = arg;
	size_t		all = size * count;
	size_t		len = all;

	t->answering = true;
	t->header_bytes += all;
	if (t->header_bytes > RETRY_HTTP_MAX_HEADER_BYTES)
	{
		t->headers_too_long = true;
		return 0;
	}
	/* a chunked body may be followed by trailers, which say nothing to us */
	if (t->headers_complete)
		return all;

	while (len > 0 && (data[len - 1] == '\n' || data[len - 1] == '\r'))
		len--;
	if (len == 0)
		t->headers_complete = t->status >= 200;
	else if (len > 5 && memcmp(data, "HTTP/", 5) == 0)
		receive_status_line(t, data, len);
	else
		receive_field(t, data, len);

	/* whoever sees the other of them takes what follows for another answer */
	return t->two_lengths ? 0 : all;
}

/*
 * The address is known and a socket for it is wanted: the one place that a
 * name server cannot trick.  A proxy was configured by the administrator and
 * is not judged.
 */
static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	RetryTransfer *t = arg;
	curl_socket_t fd;

	if (t->http->proxy[0] == '\0' &&
		!retry_netguard_check(&t->http->netguard, &address->addr,
							  t->blocked_rule, sizeof(t->blocked_rule)))
	{
		const void *raw = address->family == AF_INET6
		? (const void *) &((struct sockaddr_in6 *) &address->addr)->sin6_addr
		: (const void *) &((struct sockaddr_in *) &address->addr)->sin_addr;

		t->sockets_blocked++;
		inet_ntop(address->family, raw, t->blocked_address, sizeof(t->blocked_address));
		return CURL_SOCKET_BAD;
	}
	fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	if (fd < 0)
	{
		/* no IPv6 on this machine is no fault: another address may follow */
		if (errno != EAFNOSUPPORT)
			t->open_errno = errno;
		return CURL_SOCKET_BAD;
	}
	if (!retry_evloop_socket_opened(t->http->loop, fd))
	{
		t->out_of_memory = true;
		close(fd);
		return CURL_SOCKET_BAD;
	}
	t->sockets_opened++;
	t->opened = fd;
	t->connected = false;
	return fd;
}

/*
 * Connected, the request is about to leave.  A kept-alive connection was made
 * under the settings of its time: it is judged again by those of today.
 */
static int
before_request(void *arg, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
	RetryTransfer *t = arg;
	bool		literal;

	strlcpy(t->result.remote_ip, remote_ip, sizeof(t->result.remote_ip));
	t->result.remote_port = remote_port;
	if (t->http->proxy[0] == '\0' &&
		!retry_netguard_check_text(&t->http->netguard, remote_ip, &literal,
								   t->blocked_rule, sizeof(t->blocked_rule)))
	{
		t->sockets_blocked++;
		t->sockets_opened = 0;
		strlcpy(t->blocked_address, remote_ip, sizeof(t->blocked_address));
		return CURL_PREREQFUNC_ABORT;
	}
	t->connected = true;
	return CURL_PREREQFUNC_OK;
}

/*
 * Everything about the easy handle that few requests change.  A transfer that
 * asks of TLS what this libcurl cannot do is failed, and true.
 */
static bool
apply_settings(RetryTransfer *t, const RetryTls *tls)
{
	RetryHttp  *http = t->http;
	CURL	   *easy = t->easy;
	CURLcode	bad = CURLE_OK;
	RetryTlsKept *kept = NULL;

	if (t->settings == http->settings && retry_tls_is(t->tls, tls))
		return true;
	if (tls != NULL && (kept = retry_tls_keep(http, tls)) == NULL)
		return false;
	curl_easy_reset(easy);
	retry_tls_let_go(http, t->tls);
	t->tls = kept;
	t->settings = 0;
	t->body_mode = BODY_UNSET;
	t->method[0] = '\0';
	t->timeout_ms = t->connect_timeout_ms = -1;

#define SET(option, value) (bad = bad != CURLE_OK ? bad : curl_easy_setopt(easy, option, value))
	SET(CURLOPT_PRIVATE, t);
	SET(CURLOPT_ERRORBUFFER, t->curl_error);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_QUICK_EXIT, 1L);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_2TLS);
	SET(CURLOPT_HTTP09_ALLOWED, 0L);
	SET(CURLOPT_PATH_AS_IS, 1L);
	SET(CURLOPT_TCP_NODELAY, 1L);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_MAXLIFETIME_CONN, 300L);
	SET(CURLOPT_MAXAGE_CONN, 90L);
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	SET(CURLOPT_USERAGENT, http->user_agent);
	/* "" also keeps the environment's proxies out */
	SET(CURLOPT_PROXY, http->proxy);
	SET(CURLOPT_NOPROXY, "");
	SET(CURLOPT_WRITEFUNCTION, receive_body);
	SET(CURLOPT_WRITEDATA, t);
	SET(CURLOPT_HEADERFUNCTION, receive_header);
	SET(CURLOPT_HEADERDATA, t);
	SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
	SET(CURLOPT_OPENSOCKETDATA, t);
	SET(CURLOPT_CLOSESOCKETFUNCTION, retry_evloop_close_socket);
	SET(CURLOPT_CLOSESOCKETDATA, http->loop);
	SET(CURLOPT_PREREQFUNCTION, before_request);
	SET(CURLOPT_PREREQDATA, t);
#undef SET

	if (bad == CURLE_OK)
		bad = retry_tls_apply(http, easy, kept);
	if (bad == CURLE_NOT_BUILT_IN || bad == CURLE_UNKNOWN_OPTION)
		retry_transfer_fail(t, RETRY_HTTP_TLS, "this server's libcurl cannot do what its scene asks");
	else if (bad != CURLE_OK)
		return false;
	else
		t->settings = http->settings;
	return true;
}

/* Sets the method and the way of the body, if they differ from last time. */
static bool
apply_method(RetryTransfer *t, const char *method, int body_mode)
{
	CURL	   *easy = t->easy;
	const char *implied = body_mode == BODY_NONE ? "GET" :
	body_mode == BODY_HEAD ? "HEAD" : "POST";

	if (t->body_mode == body_mode && strcmp(t->method, method) == 0)
		return true;
	t->body_mode = BODY_UNSET;
	if (curl_easy_setopt(easy, CURLOPT_NOBODY, 0L) != CURLE_OK ||
		curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L) != CURLE_OK ||
		(body_mode == BODY_HEAD && curl_easy_setopt(easy, CURLOPT_NOBODY, 1L) != CURLE_OK) ||
		(body_mode == BODY_SENT && curl_easy_setopt(easy, CURLOPT_POST, 1L) != CURLE_OK) ||
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST,
						 strcmp(method, implied) == 0 ? NULL : method) != CURLE_OK)
		return false;
	t->body_mode = body_mode;
	strlcpy(t->method, method, sizeof(t->method));
	return true;
}

static bool
apply_timeouts(RetryTransfer *t, const RetryHttpRequest *request)
{
	int32		timeout = request->timeout_ms > 0 ? request->timeout_ms : RETRY_HTTP_DEFAULT_TIMEOUT_MS;
	int32		connect = request->connect_timeout_ms > 0 ? request->connect_timeout_ms : RETRY_HTTP_DEFAULT_CONNECT_MS;

	if (t->timeout_ms != timeout &&
		curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, (long) timeout) != CURLE_OK)
		return false;
	if (t->connect_timeout_ms != connect &&
		curl_easy_setopt(t->easy, CURLOPT_CONNECTTIMEOUT_MS, (long) connect) != CURLE_OK)
		return false;
	t->timeout_ms = timeout;
	t->connect_timeout_ms = connect;
	return true;
}

/* Copies a header line in the form that curl_slist wants; returns its size. */
static size_t
copy_header_line(char *to, const char *line)
{
	size_t		len = strlen(line);
	size_t		name = strcspn(line, ":");

	memcpy(to, line, len + 1);
	/* "Name:" would mean "do not send it"; an empty value is written "Name;" */
	if (line[name] == ':' && line[name + 1 + strspn(line + name + 1, " \t")] == '\0')
	{
		to[name] = ';';
		to[name + 1] = '\0';
	}
	return len + 1;
}

/*
 * Lays out the request in the arena: list nodes first, for their alignment,
 * then the body and the texts.  Returns the URL's place, NULL when memory is
 * short.
 */
static char *
fill_arena(RetryTransfer *t, const RetryHttpRequest *request, int url_len,
		   int body_mode, struct curl_slist **headers, char **body)
{
	/*
	 * What curl would add to a body unasked.  It heeds the first line of a
	 * name, so a type given by the caller stands.  Static: curl only reads.
	 */
	static struct curl_slist no_expect = {"Expect:", NULL};
	static struct curl_slist no_type = {"Content-Type:", &no_expect};
	struct curl_slist *nodes;
	struct curl_slist *tail = body_mode == BODY_SENT ? &no_type : NULL;
	size_t		body_len = request->has_body ? request->body_len : 0;
	size_t		size = sizeof(struct curl_slist) * request->header_count + body_len + url_len + 1;
	size_t		parameters_len = request->parameters != NULL ? strlen(request->parameters) + 1 : 0;
	char	   *at;
	int			i;

	size += parameters_len;
	for (i = 0; i < request->header_count; i++)
		size += strlen(request->headers[i]) + 1;
	if (size > t->arena_size)
	{
		free(t->arena);
		size += size / 4 + 256;
		t->arena = malloc(size);
		t->arena_size = t->arena != NULL ? size : 0;
		if (t->arena == NULL)
			return NULL;
	}

	nodes = (struct curl_slist *) t->arena;
	at = t->arena + sizeof(struct curl_slist) * request->header_count;
	for (i = 0; i < request->header_count; i++)
	{
		nodes[i].data = at;
		nodes[i].next = &nodes[i + 1];
		at += copy_header_line(at, request->headers[i]);
	}
	if (i > 0)
		nodes[i - 1].next = tail;
	*headers = i > 0 ? nodes : tail;

	t->header_count = i;
	t->body_len = body_len;
	t->body = *body = at;
	if (body_len > 0)
		memcpy(at, request->body, body_len);
	at += body_len;
	memcpy(at, request->url, url_len);
	at[url_len] = '\0';
	t->url = at;
	t->parameters = parameters_len > 0 ? memcpy(at + url_len + 1, request->parameters, parameters_len) : NULL;
	return at;
}

/* Forgets the previous exchange. */
static void
reset_answer(RetryTransfer *t, void *tag)
{
	RetryHttpResult *r = &t->result;

	r->tag = tag;
	r->error = RETRY_HTTP_OK;
	r->error_text[0] = r->retry_control[0] = r->content_type[0] = r->remote_ip[0] = '\0';
	r->http_status = r->remote_port = 0;
	r->retry_after.kind = RETRY_AFTER_NONE;
	r->retry_after.value = 0;
	memset(&r->rate_limit, 0, sizeof(r->rate_limit));
	r->url = "";
	r->body = "";
	r->body_len = 0;
	r->body_truncated = r->reused = r->delivered = false;
	r->bytes_received = 0;
	r->dns_us = r->connect_us = r->tls_us = r->first_byte_us = r->total_us = 0;

	t->response_limit = t->http->max_response_bytes;
	t->hard_limit = t->http->hard_response_limit;
	t->announced = -1;
	t->header_bytes = 0;
	t->status = t->open_errno = t->sockets_opened = t->sockets_blocked = 0;
	t->answering = t->headers_complete = t->connected = false;
	t->oversize = t->headers_too_long = t->two_lengths = t->out_of_memory = false;
	t->blocked_address[0] = t->blocked_rule[0] = t->curl_error[0] = '\0';
}

/* FNV-1a: only to spread origins evenly. */
static uint32
hash_origin(const char *origin)
{
	uint32		hash = 2166136261U;

	for (; *origin != '\0'; origin++)
		hash = (hash ^ (unsigned char) *origin) * 16777619U;
	return hash;
}

/*
 * The URL of a request: false, with the transfer failed, when it cannot be sent;
 * else its length, without the fragment.  Most requests of a handle go where its
 * last one went, and are not read again.
 */
static bool
check_url(RetryTransfer *t, const char *text, int *length)
{
	char		why[RETRY_HTTP_ERROR_TEXT] = "";
	char		rule[RETRY_NETGUARD_RULE_TEXT];
	RetryUrl	url;
	bool		literal;

	if (t->url != NULL && t->http->proxy[0] == '\0' && strcmp(t->url, text) == 0)
	{
		*length = strlen(text);
		return true;
	}
	if (!retry_url_check(text, &url, why, sizeof(why)))
	{
		retry_transfer_fail(t, RETRY_HTTP_BAD_REQUEST, "%s", why);
		return false;
	}

	/* through a proxy the address is never seen: judge at least literal ones */
	if (t->http->proxy[0] != '\0' &&
		!retry_netguard_check_text(&t->http->netguard, url.host, &literal, rule, sizeof(rule)))
	{
		retry_transfer_fail(t, RETRY_HTTP_BLOCKED, "blocked network: %s is in %s", url.host, rule);
		return false;
	}
	t->origin_hash = hash_origin(url.origin);
	*length = url.length;
	return true;
}

/* Everything that can be wrong with a request before it is sent. */
static void
check_request(RetryTransfer *t, const RetryHttpRequest *request, const char *method, int *url_len)
{
	char		why[RETRY_HTTP_ERROR_TEXT] = "";
	int			i;

	if (!check_url(t, request->url, url_len))
		return;
	if (!retry_method_check(method, why, sizeof(why)))
	{
		retry_transfer_fail(t, RETRY_HTTP_BAD_REQUEST, "%s", why);
		return;
	}
	for (i = 0; i < request->header_count; i++)
		if (!retry_header_line_check(request->headers[i], why, sizeof(why)))
		{
			retry_transfer_fail(t, RETRY_HTTP_BAD_REQUEST, "%s", why);
			return;
		}
	if (request->has_body && strcmp(method, "HEAD") == 0)
		retry_transfer_fail(t, RETRY_HTTP_BAD_REQUEST, "a HEAD request cannot carry a body");
}

/* Does a server expect Content-Length: 0 when this method has no body? */
static bool
method_implies_body(const char *method)
{
	return strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0 ||
		strcmp(method, "PATCH") == 0;
}

/* Gives the handle its URL, which curl copies, with the parameters; false when memory is short. */
static bool
apply_url(RetryTransfer *t)
{
	char	   *whole;
	bool		done;

	if (t->parameters == NULL)
		return curl_easy_setopt(t->easy, CURLOPT_URL, t->url) == CURLE_OK;
	whole = malloc(strlen(t->url) + strlen(t->parameters) + 2);
	if (whole == NULL)
		return false;
	sprintf(whole, "%s%c%s", t->url, strchr(t->url, '?') != NULL ? '&' : '?', t->parameters);
	done = curl_easy_setopt(t->easy, CURLOPT_URL, whole) == CURLE_OK;
	free(whole);
	return done;
}

/* Sets the easy handle for a request that has been checked; false when memory is short. */
static bool
apply_request(RetryTransfer *t, const RetryHttpRequest *request, const char *method,
			  int body_mode, int url_len)
{
	struct curl_slist *headers;
	char	   *body;
	char	   *url = fill_arena(t, request, url_len, body_mode, &headers, &body);

	if (url == NULL || !apply_settings(t, request->tls) ||
		!apply_method(t, method, body_mode) || !apply_timeouts(t, request))
		return false;
	if (body_mode == BODY_SENT &&
		(curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, body) != CURLE_OK ||
		 curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE,
						  (curl_off_t) (request->has_body ? request->body_len : 0)) != CURLE_OK))
		return false;
	t->result.url = url;
	return curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, headers) == CURLE_OK && apply_url(t);
}

/* The same for a mail; its handle begins anew, for it was set for something else. */
static bool
prepare_mail(RetryTransfer *t, const RetryHttpRequest *request)
{
	struct curl_slist *headers;
	char	   *body;
	RetryUrl	url;

	if (!retry_mail_check(t, request, &url))
		return true;
	t->origin_hash = hash_origin(url.origin);
	t->settings = 0;
	t->result.url = fill_arena(t, request, url.length, BODY_NONE, &headers, &body);
	return t->result.url != NULL && apply_settings(t, request->tls) && apply_timeouts(t, request) &&
		retry_mail_apply(t, request, &url);
}

bool
retry_transfer_prepare(RetryTransfer *t, const RetryHttpRequest *request)
{
	const char *method = request->method;
	int			url_len = 0;
	int			body_mode;

	if (method == NULL)
		method = request->has_body ? "POST" : "GET";
	reset_answer(t, request->tag);
	if (request->mail != NULL)
		return prepare_mail(t, request);
	check_request(t, request, method, &url_len);
	if (t->result.error != RETRY_HTTP_OK)
		return true;

	if (request->has_body || method_implies_body(method))
		body_mode = BODY_SENT;
	else
		body_mode = strcmp(method, "HEAD") == 0 ? BODY_HEAD : BODY_NONE;
	return apply_request(t, request, method, body_mode, url_len);
}

bool
retry_transfer_repeat(RetryTransfer *t, const RetryTransfer *source, const char *url,
					  int32 timeout_ms, void *tag)
{
	const struct curl_slist *nodes = (const struct curl_slist *) source->arena;
	RetryHttpRequest request = {
		.tag = tag,
		.url = url != NULL ? url : source->url,
		.parameters = source->parameters,
		.header_count = source->header_count,
		.body = source->body,
		.body_len = source->body_len,
		.has_body = source->body_mode == BODY_SENT,
		.timeout_ms = timeout_ms,
		.connect_timeout_ms = Min(source->connect_timeout_ms, timeout_ms),
		.tls = retry_tls_of(source->tls)
	};
	RetryHttpRequest only_url = {.url = request.url};
	const char **headers = malloc(sizeof(char *) * (source->header_count + 1));
	int			url_len = 0;
	bool		done = true;

	if (headers == NULL)
		return false;
	for (int i = 0; i < source->header_count; i++)
		headers[i] = nodes[i].data;
	request.headers = headers;

	/* all but the URL was checked the first time */
	reset_answer(t, tag);
	check_request(t, &only_url, source->method, &url_len);
	if (t->result.error == RETRY_HTTP_OK)
		done = apply_request(t, &request, source->method, source->body_mode, url_len);
	free(headers);
	return done;
}
